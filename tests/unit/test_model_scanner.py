"""The scanner of models: harmless models are clean, and each way to hide code in one is found without running it."""

from __future__ import annotations

import base64
import io
import json
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


def test_what_nobody_knows_or_can_read_is_not_clean() -> None:
    unknown = pickle.dumps([1]).replace(b"K\x01", b"cmystery.thing\nMade\n")
    assert _report(("a.pkl", unknown))["verdict"] == "Suspicious"
    assert _report(("a.pkl", EVIL[:3]))["verdict"] == "Suspicious"
    assert _scan(b"nothing packed")["verdict"] == "NotScanned"
    assert _report(("a.pt", _zip(inner__zip=_zip(a__pkl=EVIL))))["verdict"] == "NotScanned"


def test_a_harmless_archive_is_clean() -> None:
    plain = pickle.dumps({"a": [1, 2.5, {"x"}], "b": (b"y", None)})
    assert _report(("model.pkl", plain), ("code/inference.py", b"import os"), ("config.json", b"{}")) == {
        "verdict": "Clean", "findings": [], "files": 3,
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
