"""Looks into the archive of a model for what would run code when it is loaded; a program of its own, because the archive
is a stranger's. Nothing in it is ever loaded: pickles are walked by an unpickler that knows no real object.

Reads a ``.tar.gz`` from its input, writes one JSON line: {"verdict", "findings", "files"}. verdict: Clean; Suspicious (it
imports what nobody knows to be harmless, or could not be read to its end); Dangerous; NotScanned; Refused (the archive
has links, devices or names that lead outside). It gives up all privileges and opens no file, no socket and no process.

Source: pickle's opcodes as of PEP 3154 and 574; joblib's numpy_pickle for the arrays that stand between them; picklescan
for which imports run code.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import re
import resource
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Any, ClassVar, Final

from picklescan.scanner import SafetyLevel, scan_pickle_bytes

MEMORY: Final = 2 << 30
CPU_SECONDS: Final = 120
MOST_FILE: Final = 512 << 20
MOST_TOTAL: Final = 8 << 30
MOST_MEMBERS: Final = 100_000
MOST_FINDINGS: Final = 20
ORDER: Final = ("Clean", "Suspicious", "NotScanned", "Dangerous", "Refused")

_KNOWN: Final = frozenset(
    {"sklearn", "numpy", "scipy", "pandas", "joblib", "xgboost", "lightgbm", "catboost", "collections", "copyreg"}
    | {"_codecs", "datetime", "decimal", "fractions", "uuid", "torch"}
)
"""Packages whose objects models are made of; what of them runs code, picklescan names."""
_BUILTINS: Final = frozenset(
    {
        "set",
        "frozenset",
        "list",
        "dict",
        "tuple",
        "bytearray",
        "bytes",
        "int",
        "float",
        "bool",
        "str",
        "complex",
        "slice",
    }
    | {"range", "object", "Ellipsis", "NotImplemented"}
)
_PICKLES: Final = (".pkl", ".pickle", ".p", ".joblib", ".pt", ".pth", ".bin", ".ckpt", ".dill", ".sav", ".model")
_PACKERS: Final = ((b"\x1f\x8b", "gzip"), (b"BZh", "bz2"), (b"\xfd7zXZ", "xz"), (b"\x78", "zlib"))


class Unreadable(Exception):  # noqa: N818
    """It cannot be read to its end."""


# -- pickles -----------------------------------------------------------------------------------------------------------


class Inert:
    """Stands for every object that a pickle would make; it does nothing."""

    where = ""

    def __new__(cls, *given: Any, **_: Any) -> Inert:
        made = object.__new__(cls)
        made.__dict__["given"] = given
        return made

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, *_: Any, **__: Any) -> Inert:
        return Inert()

    def __setstate__(self, state: Any) -> None:
        self.__dict__["state"] = state

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        pass

    extend = add = update = append


class Walker(pickle._Unpickler):
    """Reads a pickle as joblib would, and notes what it would import."""

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    stack: list[Any]

    def __init__(self, file: IO[bytes], found: set[tuple[str, str]]) -> None:
        super().__init__(file)
        self._file = file
        self._found = found

    def find_class(self, module: str, name: str) -> Any:
        self._found.add((str(module), str(name)))
        return type("Made", (Inert,), {"where": f"{module}.{name}"})

    def persistent_load(self, pid: Any) -> Any:
        return Inert()

    def get_extension(self, code: int) -> None:
        raise Unreadable("it names a registered extension")

    def load_build(self) -> None:
        state = self.stack.pop()
        made = self.stack[-1]
        if isinstance(made, Inert):
            made.__setstate__(state)
            if made.where.endswith(".NumpyArrayWrapper"):
                self._array(state)
        elif isinstance(made, type) and issubclass(made, Inert):
            pass
        else:
            raise Unreadable("it sets the state of something that has none")

    dispatch[pickle.BUILD[0]] = load_build

    def _array(self, state: dict[str, Any]) -> None:
        """Passes over the array that joblib writes behind its wrapper."""
        kind = str(state["dtype"].given[0]) if isinstance(state.get("dtype"), Inert) else ""
        if kind.startswith("O"):
            Walker(self._file, self._found).load()
            return
        told = re.fullmatch(r"[<>|=]?([a-zA-Z])(\d+)", kind)
        if told is None:
            raise Unreadable(f"it has an array of an unknown type ({kind[:40]})")
        size = int(told[2]) * (4 if told[1] == "U" else 1)
        for length in state["shape"]:
            size *= int(length)
        if state.get("numpy_array_alignment_bytes") is not None:
            self._skip(int.from_bytes(self._file.read(1), "little"))
        self._skip(size)

    def _skip(self, size: int) -> None:
        while size > 0:
            piece = self._file.read(min(size, 1 << 20))
            if not piece:
                raise Unreadable("an array in it ends too early")
            size -= len(piece)


def imports(data: bytes) -> tuple[set[tuple[str, str]], str]:
    """What the pickles in `data` would import, and why they could not be read to their end (empty if they could)."""
    found: set[tuple[str, str]] = set()
    file = io.BytesIO(data)
    read = 0
    while file.tell() < len(data):
        try:
            Walker(file, found).load()
        except Exception as error:
            # Behind the first pickle a loader reads on only in formats of its own (PyTorch's storages).
            return found, "" if read else f"{type(error).__name__}: {error}"[:200]
        read += 1
        if read > 1000:
            break
    return found, ""


def level(module: str, name: str) -> str:
    """Clean, Suspicious or Dangerous, of one import."""
    plain = pickle.PROTO + b"\x02c" + f"{module}\n{name}\n".encode("utf-8", "replace") + b"."
    judged = scan_pickle_bytes(io.BytesIO(plain), "import")
    if judged.issues_count or any(one.safety is SafetyLevel.Dangerous for one in judged.globals):
        return "Dangerous"
    top = module.partition(".")[0]
    if top in ("builtins", "__builtin__"):
        return "Clean" if name in _BUILTINS else "Dangerous"
    return "Clean" if top in _KNOWN else "Suspicious"


def of_pickle(where: str, data: bytes) -> Iterator[tuple[str, str]]:
    """(verdict, finding) of a pickle."""
    for magic, packer in _PACKERS:
        if data.startswith(magic):
            try:
                data = unpacked(packer, data)
            except (OSError, zlib.error, lzma.LZMAError, EOFError) as error:
                yield "Suspicious", f"{where} cannot be unpacked ({type(error).__name__})"
                return
            break
    names, why = imports(data)
    if why:
        # Where our own reader stopped, what picklescan sees behind that counts, too.
        names |= {(str(one.module), str(one.name)) for one in scan_pickle_bytes(io.BytesIO(data), where).globals}
    for module, name in sorted(names):
        found = level(module, name)
        if found != "Clean":
            yield found, f"{where} imports {module}.{name}"[:200]
    if why:
        yield "Suspicious", f"{where} cannot be read to its end ({why})"


def unpacked(packer: str, data: bytes) -> bytes:
    """What a packed file holds; raises OSError for more than a file may."""
    made: IO[bytes]
    if packer == "zlib":
        reader = zlib.decompressobj()
        found = reader.decompress(data, MOST_FILE)
        if reader.unconsumed_tail:
            raise OSError("too large")
        return found
    opener = {"gzip": gzip.open, "bz2": bz2.open, "xz": lzma.open}[packer]
    with opener(io.BytesIO(data)) as made:  # type: ignore[operator]
        found = made.read(MOST_FILE + 1)
    if len(found) > MOST_FILE:
        raise OSError("too large")
    return found


# -- files -------------------------------------------------------------------------------------------------------------


def of_numpy(where: str, data: bytes) -> Iterator[tuple[str, str]]:
    """An array of objects is a pickle behind its header."""
    length = int.from_bytes(data[8:10], "little") if data[6] == 1 else int.from_bytes(data[8:12], "little")
    start = (10 if data[6] == 1 else 12) + length
    if b"'O'" in data[:start] or b"|O" in data[:start]:
        yield from of_pickle(where, data[start:])


def of_zip(where: str, data: bytes) -> Iterator[tuple[str, str]]:
    """PyTorch's, NumPy's and Keras' archives."""
    total = 0
    with zipfile.ZipFile(io.BytesIO(data)) as held:
        for info in held.infolist()[:MOST_MEMBERS]:
            total += info.file_size
            if info.file_size > MOST_FILE or total > MEMORY:
                yield "NotScanned", f"{where}:{info.filename[:80]} is too large to be looked into"
                continue
            with held.open(info) as file:
                inner = file.read(MOST_FILE + 1)
            yield from of_file(f"{where}:{info.filename}"[:160], inner, nested=True)


_LAMBDA: Final = re.compile(rb'"class_name":\s*"(Lambda|TFOpLambda)"')


def of_file(where: str, data: bytes, *, nested: bool = False) -> Iterator[tuple[str, str]]:
    """(verdict, finding) of one file, by its content and by its name."""
    lower = where.lower()
    if data.startswith(b"\x93NUMPY"):
        yield from of_numpy(where, data)
    elif data.startswith(b"PK\x03\x04"):
        if nested:
            yield "NotScanned", f"{where} is an archive in an archive"
        else:
            yield from of_zip(where, data)
    elif data.startswith(b"\x89HDF") or lower.endswith("config.json"):
        if _LAMBDA.search(data):
            yield "Dangerous", f"{where} has a Keras Lambda layer, which carries code"
    elif (data[:1] == b"\x80" and len(data) > 1 and data[1] <= pickle.HIGHEST_PROTOCOL) or lower.endswith(_PICKLES):
        if data[:1] in (b"{", b"[") and lower.endswith(".model"):
            return  # XGBoost's JSON
        yield from of_pickle(where, data)


def scan(source: IO[bytes]) -> dict[str, Any]:
    """The report of an archive."""
    worst, files, total = "Clean", 0, 0
    findings: list[str] = []
    try:
        with tarfile.open(fileobj=source, mode="r|gz") as tar:
            for info in tar:
                parts = info.name.split("/")
                if info.name.startswith("/") or ".." in parts:
                    return _refused(f"`{info.name[:200]}` leads outside of the model's folder")
                if info.isdir():
                    continue
                if not info.isreg():
                    return _refused(f"`{info.name[:200]}` is a link or a device; only plain files may be in it")
                files += 1
                total += info.size
                if files > MOST_MEMBERS or total > MOST_TOTAL:
                    return _told("NotScanned", ["the archive is too large to be looked into"], files)
                if info.size > MOST_FILE:
                    judged = [("NotScanned", f"{info.name[:160]} is too large to be looked into")]
                else:
                    file = tar.extractfile(info)
                    assert file is not None
                    judged = _judged(info.name[:160], file.read())
                for verdict, finding in judged:
                    worst = max(worst, verdict, key=ORDER.index)
                    if len(findings) < MOST_FINDINGS:
                        findings.append(finding)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        return _told("NotScanned", [f"it is not a tar.gz archive ({type(error).__name__})"], files)
    return _told(worst, findings, files)


def _judged(where: str, data: bytes) -> list[tuple[str, str]]:
    try:
        return list(of_file(where, data))
    except Exception as error:
        return [("Suspicious", f"{where} cannot be read ({type(error).__name__})")]


def _refused(why: str) -> dict[str, Any]:
    return _told("Refused", [why], 0)


def _told(verdict: str, findings: list[str], files: int) -> dict[str, Any]:
    return {"verdict": verdict, "findings": findings, "files": files}


def confine() -> None:
    """Gives up what a reader of bytes does not need."""
    for codec in ("cp437", "ascii", "latin-1", "utf-8"):
        "".encode(codec)  # loaded now: no file can be opened later
    json.dumps({"verdict": ""})
    scan_pickle_bytes(io.BytesIO(b"\x80\x02N."), "first")
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    for what, most in (
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, 3),
    ):
        resource.setrlimit(what, (most, most))


def main() -> None:
    """One archive."""
    confine()
    report = scan(sys.stdin.buffer)
    sys.stdout.write(json.dumps(report) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
