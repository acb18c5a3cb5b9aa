"""The scanner of models: harmless models are clean, and each way to hide code in one is found without running it."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import subprocess
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest

from bastide.services.sagemaker import model_scanner

PROGRAM = str(Path(model_scanner.__file__))
MARK = "/tmp/bastide-was-executed"


def _report(*members: tuple[str, bytes], infos: tuple[tarfile.TarInfo, ...] = ()) -> dict[str, Any]:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for info in infos:
            tar.addfile(info)
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return _scan(packed.getvalue())


def _scan(data: bytes) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-I", PROGRAM], input=data, capture_output=True, timeout=60, check=False)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


class Evil:
    def __reduce__(self) -> Any:
        return os.system, (f"touch {MARK}",)


EVIL = pickle.dumps(Evil())


def _zip(**members: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as held:
        for name, content in members.items():
            held.writestr(name.replace("__", "."), content)
    return packed.getvalue()


def _numpy(payload: bytes) -> bytes:
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + payload


HIDDEN = {
    "in a pickle": ("model.pkl", EVIL),
    "under another name": ("weights.dat", EVIL),
    "behind a harmless pickle": ("model.pkl", pickle.dumps([1]) + EVIL),
    "compressed": ("model.joblib", zlib.compress(EVIL)),
    "in PyTorch's archive": ("model.pt", _zip(**{"archive/data__pkl": EVIL})),
    "in an array of objects": ("a.npy", _numpy(EVIL)),
    "in an archive of arrays": ("a.npz", _zip(a__npy=_numpy(EVIL))),
    "in a layer of Keras": ("model.keras", _zip(config__json=b'{"layers": [{"class_name": "Lambda"}]}')),
    "by a name on the stack": ("model.pkl", b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x8c\x02id\x85R."),
    "with eval": ("model.pkl", b"cbuiltins\neval\n(V1\ntR."),
}


CALL = b"cos\nsystem\n(V1\ntR."
_WRAPPER = (
    b"\x80\x02cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81}(X\x05\0\0\0dtype%sX\x05\0\0\0shapeK%c\x85"
    b"X\x1b\0\0\0numpy_array_alignment_bytesNub"
)
_BYTES = b"cnumpy\ndtype\nX\x02\0\0\0S1\x85R"


def _tar(name: str, content: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def _described(descr: bytes) -> bytes:
    header = (b"{%s, 'fortran_order': False, 'shape': (1,), }" % descr).ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + EVIL


# Where two readers disagree about what a byte is, the scanner has to be both.
HIDDEN |= {
    "in an oldest pickle under any name": ("model.dat", CALL),
    "as an instance, under any name": ("weights", b"(V1\nios\nsystem\n."),
    "compressed, under any name": ("model.weights", gzip.compress(EVIL)),
    "compressed twice": ("a.z", zlib.compress(bz2.compress(EVIL))),
    "compressed as lzma has it alone": ("m.joblib", lzma.compress(EVIL, lzma.FORMAT_ALONE)),
    "in two streams": ("m.joblib", zlib.compress(EVIL[:9]) + zlib.compress(EVIL[9:])),
    "in bytes that joblib takes for an array": ("m.pkl", _WRAPPER % (_BYTES, len(CALL)) + CALL),
    "behind an array of another class": (
        "m.pkl",
        (_WRAPPER % (_BYTES, len(CALL))).replace(b"joblib.n", b"foo.n") + CALL,
    ),
    "behind a void type that holds objects": (
        "m.joblib",
        _WRAPPER % (b"cnumpy\ndtype\nX\x02\0\0\0V8\x85R(K\x03U\x01|NNNK\x08K\x01K?tb", 3) + EVIL + b".",
    ),
    "behind a type that is computed": (
        "m.joblib",
        _WRAPPER % (b"cnumpy\npromote_types\nX\x02\0\0\0S1X\x01\0\0\0O\x86R", len(CALL)) + CALL + b".",
    ),
    "behind a wrapper made by somebody else": (
        "m.joblib",
        b"\x80\x02ccopyreg\n_reconstructor\n(cjoblib.numpy_pickle\nNumpyArrayWrapper\ncbuiltins\nobject\nNtR}b"
        b"\x8e\x40\0\0\0\0\0\0\0" + bytes(64) + b".",
    ),
    "in a string that another reader does not see": ("m.pkl", b"\x80\x02C\x13" + CALL + b"."),
    "through a module that imported it": ("m.pkl", b"\x80\x04\x8c\x04uuid\x8c\x09os.system\x93\x8c\x02id\x85R."),
    "through a package that is known": ("m.pkl", b"\x80\x02cnumpy\nos\n."),
    "by numpy's own import": ("m.pkl", b"cnumpy.core\n_ufunc_reconstruct\n(Vos\nVsystem\ntR."),
    "by a name that is computed": (
        "m.pkl",
        b"\x80\x04cbuiltins\nstr\n\x8c\x02os\x85R\x8c\x06system\x93\x8c\x02id\x85R.",
    ),
    "by changing a class": ("m.pkl", b"\x80\x02csklearn.svm\nSVC\n}X\x07\0\0\0predictcnumpy\nload\nsb."),
    "in bytes that torch loads": (
        "m.pt",
        _zip(**{"a/data__pkl": b"\x80\x02ctorch.storage\n_load_from_bytes\nC%c%s\x85R." % (len(EVIL), EVIL)}),
    ),
    "behind a thousand pickles": ("m.pkl", b"N." * 999 + EVIL),
    "in a header in other quotes": ("a.npy", _described(b'"descr": "O"')),
    "in a header with an escape": ("a.npy", _described(b"'descr': '\\x4f'")),
    "in a header that says it twice": ("a.npy", _described(b"'descr': '<f8', 'descr': 'O'")),
    "in a header of fields": ("a.npy", _described(b"'descr': [('a', 'O')]")),
    "in an archive behind something else": ("m.keras", b"GIF89a" + _zip(config__json=b'{"class_name" : "Lambda"}')),
    "in an archive in an archive": ("m.zip", _zip(inner__zip=_zip(a__pkl=EVIL))),
    "in PyTorch's oldest archive": ("m.tar", _tar("pickle", EVIL)),
    "in a layer spelt otherwise": ("m.keras", _zip(config__json=b'{"cl\\u0061ss_name": "L\\u0061mbda"}')),
    "in a layer of any module": ("m.keras", _zip(config__json=b'{"module": "os", "class_name": "system"}')),
    "as a table of values": ("m.safetensors", EVIL),
}


@pytest.mark.parametrize("way", HIDDEN)
def test_code_is_found_and_does_not_run(way: str) -> None:
    report = _report(("m.txt", b"x"), HIDDEN[way])
    assert report["verdict"] == "Dangerous", report
    assert HIDDEN[way][0] in report["findings"][0]
    assert not Path(MARK).exists()


def _joblib(tail: bytes) -> bytes:
    """What joblib writes: a wrapper, then the array's raw bytes within the pickle, then more of the pickle."""
    wrapper = (
        b"\x80\x02]q\x00(cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81}("
        b"X\x05\x00\x00\x00dtypecnumpy\ndtype\nX\x02\x00\x00\x00f8\x85R"
        b"X\x05\x00\x00\x00shapeK\x02\x85X\x1b\x00\x00\x00numpy_array_alignment_bytesK\x10ub"
    )
    return wrapper + b"\x03\xff\xff\xff" + b"c.os\nsystem\n0000" + tail


def test_arrays_of_joblib_are_passed_over_and_what_is_behind_them_is_read() -> None:
    assert _report(("model.joblib", _joblib(b"e.")))["verdict"] == "Clean"
    report = _report(("model.joblib", _joblib(b"cos\nsystem\n(V1\ntRe.")))
    assert report["verdict"] == "Dangerous" and "os.system" in report["findings"][0]


@pytest.mark.parametrize("byte", range(256))
def test_no_array_makes_a_model_suspicious_whatever_its_bytes_would_mean(byte: int) -> None:
    """``pickle.load`` would take them for more of the pickle, as far as it comes; here they follow an instance."""
    found = list(model_scanner.of_pickle("m.joblib", _WRAPPER % (_BYTES, 64) + bytes([byte]) * 64 + b"."))
    assert found == []


def test_what_nobody_knows_or_can_read_is_not_clean() -> None:
    unknown = pickle.dumps([1]).replace(b"K\x01", b"cmystery.thing\nMade\n")
    assert _report(("a.pkl", unknown))["verdict"] == "Suspicious"
    assert _report(("a.pkl", EVIL[:3]))["verdict"] == "Suspicious"
    assert _scan(b"nothing packed")["verdict"] == "NotScanned"
    deep = EVIL
    for _ in range(6):
        deep = _zip(a__pkl=deep)
    assert _report(("a.pt", deep))["verdict"] == "NotScanned"


def test_what_another_reader_may_see_is_not_clean() -> None:
    one = _zip(a=b"")
    start = int.from_bytes(one[-6:-2], "little")
    listed = one[start:-22] * 100_001
    many = one[:start] + listed + one[-22:-10] + len(listed).to_bytes(4, "little") + one[-6:]
    assert _report(("a.npz", many))["verdict"] == "NotScanned"
    assert _report(("a.pkl", b"N." * 1001))["verdict"] == "Suspicious"
    assert _report(("a.bin", b"\x04\x22\x4d\x18" + EVIL))["verdict"] == "Suspicious"
    assert _report(("lib.so", b"\x7fELF" + bytes(60)))["verdict"] == "Suspicious"
    packed = gzip.compress(_tar("a.txt", b"x") + _tar("a.pkl", EVIL))
    assert _scan(packed)["verdict"] == "Suspicious"
    assert "behind its end" in _scan(packed)["findings"][0]
    for module, name in (
        ("pandas", "read_csv"),
        ("sklearn.datasets", "fetch_openml"),
        ("torch.package", "X"),
        ("gc", "Y"),
    ):
        assert _report(("a.pkl", f"c{module}\n{name}\n(V1\ntR.".encode()))["verdict"] == "Suspicious", name


def test_a_harmless_archive_is_clean() -> None:
    plain = pickle.dumps({"a": [1, 2.5, {"x"}], "b": (b"y", None)})
    assert _report(("model.pkl", plain), ("code/inference.py", b"import os"), ("config.json", b"{}"),
        ("LICENSE", b"import os\ncat\n"), ("t.safetensors", b"\x08\0\0\0\0\0\0\0{}      ")) == {
        "verdict": "Clean", "findings": [], "files": 5,
    }  # fmt: skip


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(kind: bytes) -> None:
    info = tarfile.TarInfo("model")
    info.type, info.linkname = kind, "/etc/shadow"
    assert _report(infos=(info,))["verdict"] == "Refused"


def test_a_name_that_leads_outside_is_refused() -> None:
    for name in ("../x", "/etc/x", "a/../../x"):
        assert _report((name, b""))["verdict"] == "Refused"


def test_a_bomb_ends_at_the_scanners_limits() -> None:
    # Doubles itself at every step: 2**60 entries if somebody built it.
    bomb = b"(lp0\n" + b"".join(b"(g%d\ng%d\nlp%d\n" % (n, n, n + 1) for n in range(60)) + b"."
    assert _report(("a.pkl", bomb))["verdict"] in ("Clean", "Suspicious")
    large = zlib.compress(bytes(513 << 20), 1)
    assert _report(("a.pkl", large))["verdict"] == "Suspicious"


def test_base64_is_no_pickle() -> None:
    assert _report(("a.txt", base64.b64encode(EVIL)))["verdict"] == "Clean"


def test_a_size_below_nothing_is_refused_and_not_followed_back() -> None:
    back = tarfile.TarInfo("back")
    back.size = -1024
    packed = back.tobuf(tarfile.GNU_FORMAT) + bytes(1024)
    found = _scan(gzip.compress(packed))
    assert found["verdict"] != "Clean" and "less than no bytes" in found["findings"][0]
