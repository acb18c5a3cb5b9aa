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
import importlib.util
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
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar, Final

from picklescan.scanner import scan_pickle_bytes

MEMORY: Final = 2 << 30
CPU_SECONDS: Final = 120
MOST_FILE: Final = 512 << 20
MOST_TOTAL: Final = 8 << 30
MOST_MEMBERS: Final = 100_000
MOST_FINDINGS: Final = 20
MOST_PICKLES: Final = 1000
ORDER: Final = ("Clean", "Suspicious", "NotScanned", "Dangerous", "Refused")

_PICKLES: Final = (".pkl", ".pickle", ".p", ".joblib", ".pt", ".pth", ".bin", ".ckpt", ".dill", ".sav", ".model")
_PACKERS: Final = (
    (b"\x1f\x8b", "gzip"), (b"BZh", "bz2"), (b"\xfd7zXZ", "xz"), (b"\x5d\x00\x00", "xz"), (b"\x78", "zlib"),
    (b"\x04\x22\x4d\x18", "lz4"), (b"\x28\xb5\x2f\xfd", "zstd"),
)  # fmt: skip
_DEEPEST: Final = 4
"""Archives in each other that are looked into."""

if TYPE_CHECKING:
    from bastide.services.sagemaker.model_imports import level
else:  # by its place: the package it lies in would load the platform
    _spec = importlib.util.spec_from_file_location("model_imports", Path(__file__).with_name("model_imports.py"))
    _module = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(_module)
    level = _module.level


class Unreadable(Exception):  # noqa: N818
    """It cannot be read to its end."""


# -- pickles -----------------------------------------------------------------------------------------------------------


class Seen:
    """What a reading of a pickle met. imports: (module, name). called: those of them that were. nested: what would be
    loaded in turn. faults: what no honest pickle does."""

    def __init__(self) -> None:
        self.imports: set[tuple[str, str]] = set()
        self.called: set[tuple[str, str]] = set()
        self.nested: list[bytes] = []
        self.faults: set[str] = set()

    def calls(self, where: tuple[str, str], given: tuple[Any, ...]) -> None:
        """Notes a call."""
        self.called.add(where)
        for one in given:
            if isinstance(one, type) and issubclass(one, Inert) and one.where[1] in _WRAPPERS:
                self.faults.add("makes one of joblib's wrappers in a roundabout way")
        if where[1] == "_load_from_bytes":
            if given and isinstance(given[0], bytes | bytearray):
                self.nested.append(bytes(given[0]))
            else:
                self.faults.add("loads what it computes")


_WRAPPERS: Final = ("NumpyArrayWrapper", "NDArrayWrapper", "ZNDArrayWrapper")


class Inert:
    """Stands for every object that a pickle would make; it does nothing. where: what it stands for; seen: of its walker."""

    where = ("", "")
    seen: ClassVar[Seen | None] = None

    def __new__(cls, *given: Any, **_: Any) -> Inert:
        made = object.__new__(cls)
        made.__dict__["given"] = given
        if cls.seen is not None:
            cls.seen.calls(cls.where, given)
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


def _may_be_text(value: Any) -> bool:
    """Whether a reader that does what the pickle says might hold a text there: not an instance of a model's class."""
    if not isinstance(value, Inert):
        return type(value) is str
    module, name = value.where
    return not name.rpartition(".")[2].lstrip("_")[:1].isupper() or level(module, name) != "Clean"


class Walker(pickle._Unpickler):
    """Reads a pickle, and notes what it would import. joblib: as joblib would, which passes over the arrays in it, and not
    as ``pickle.load`` would, to which the arrays' bytes are more of the pickle."""

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    stack: list[Any]

    def __init__(self, file: IO[bytes], seen: Seen, *, joblib: bool) -> None:
        super().__init__(file)
        self._file = file
        self._seen = seen
        self._joblib = joblib

    def find_class(self, module: str, name: str) -> Any:
        where = (str(module), str(name))
        self._seen.imports.add(where)
        return type("Made", (Inert,), {"where": where, "seen": self._seen})

    def load_stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if type(name) is str and type(module) is str:
            self.stack.append(self.find_class(module, name))
        elif _may_be_text(name) and _may_be_text(module):
            self._seen.faults.add("computes the name of what it imports")
            self.stack.append(Inert())
        else:  # where it ends for every reader: bytes of an array that are read as more of the pickle come to this, too
            raise Unreadable("it imports what has no name")

    dispatch[pickle.STACK_GLOBAL[0]] = load_stack_global

    def persistent_load(self, pid: Any) -> Any:
        return Inert()

    def get_extension(self, code: int) -> None:
        raise Unreadable("it names a registered extension")

    def load_build(self) -> None:
        state = self.stack.pop()
        made = self.stack[-1]
        if isinstance(made, Inert):
            made.__setstate__(state)
            if self._joblib and made.where == ("joblib.numpy_pickle", "NumpyArrayWrapper"):
                self._array(state)
        elif isinstance(made, type) and issubclass(made, Inert):
            self._seen.faults.add(f"changes {made.where[0]}.{made.where[1]} itself")
        else:
            raise Unreadable("it sets the state of something that has none")

    dispatch[pickle.BUILD[0]] = load_build

    def _array(self, state: dict[str, Any]) -> None:
        """Passes over the array that joblib writes behind its wrapper."""
        made = state.get("dtype")
        plain = isinstance(made, Inert) and made.where == ("numpy", "dtype") and made.__dict__["given"]
        kind = str(made.__dict__["given"][0]) if plain else ""
        if kind.startswith("O"):
            Walker(self._file, self._seen, joblib=False).load()
            return
        told = re.fullmatch(r"[<>|=]?([?bBiufcmMSUaV])(\d+)", kind)
        if told is None or not isinstance(state["shape"], tuple):
            raise Unreadable(f"it has an array of an unknown type ({kind[:40]})")
        size = int(told[2]) * (4 if told[1] == "U" else 1)
        # The type's own state may say that it holds objects, or another size: then what follows is something else.
        own = made.__dict__.get("state") if made is not None else None
        if own is not None and not (len(own) >= 8 and own[0] in (3, 4) and own[7] & 1 == 0 and own[5] in (-1, size)):
            raise Unreadable("it has an array of a type that is not what it says")
        for length in state["shape"]:
            if type(length) is not int or length < 0:
                raise Unreadable("it has an array of an impossible shape")
            size *= length
        if state.get("numpy_array_alignment_bytes") is not None:
            self._skip(int.from_bytes(self._file.read(1), "little"))
        self._skip(size)

    def _skip(self, size: int) -> None:
        while size > 0:
            piece = self._file.read(min(size, 1 << 20))
            if not piece:
                raise Unreadable("an array in it ends too early")
            size -= len(piece)


def reading(data: bytes, *, joblib: bool) -> tuple[Seen, str]:
    """What the pickles in `data` would do, and why they could not be read to their end (empty if they could)."""
    seen = Seen()
    file = io.BytesIO(data)
    for number in range(MOST_PICKLES):
        if file.tell() >= len(data):
            return seen, ""
        try:
            Walker(file, seen, joblib=joblib).load()
        except Exception as error:
            # Behind the first pickle a loader reads on only in formats of its own (PyTorch's storages).
            return seen, "" if number else f"{type(error).__name__}: {error}"[:200]
    return seen, f"it holds more than {MOST_PICKLES} pickles"


_GLOBAL: Final = re.compile(rb"[ci]([A-Za-z_][\w.]{0,80})\r?\n([A-Za-z_][\w.]{0,80})\r?\n")
_MEMO: Final = rb"(?:\x94|q.|r.{4}|p\d{1,9}\n)?"
_STRING: Final = rb"(?:\x8c.|X.\0\0\0|V)([A-Za-z_][\w.]{0,80})\n?"
_ON_STACK: Final = re.compile(_STRING + _MEMO + _STRING + _MEMO + rb"\x93", re.DOTALL)


def anywhere(data: bytes) -> Iterator[tuple[str, str]]:
    """Imports that stand somewhere in `data`, whatever a reader takes those bytes for: two loaders may not agree."""
    for pattern in (_GLOBAL, _ON_STACK):
        for found in pattern.finditer(data):
            yield found[1].decode(), found[2].decode()


def of_pickle(where: str, data: bytes, *, sure: bool = True, depth: int = 0) -> Iterator[tuple[str, str]]:
    """(verdict, finding) of a pickle. sure: it is one; otherwise it counts only what no other file would say."""
    plain, why = reading(data, joblib=False)
    every = {one for one in plain.called if all(map(_is_name, one))}
    faults, nested = set(plain.faults), list(plain.nested)
    if sure:
        seen, why_not = reading(data, joblib=True)
        why = why_not
        every |= seen.imports
        # Where our own reader stopped, what picklescan sees behind that counts, too.
        if why:
            every |= {(str(one.module), str(one.name)) for one in scan_pickle_bytes(io.BytesIO(data), where).globals}
        faults |= seen.faults
        nested += seen.nested
    judged = {one: level(*one) for one in every}
    if sure:
        judged |= {one: found for one in set(anywhere(data)) - every if (found := level(*one)) == "Dangerous"}
    elif why:
        judged = {one: found for one, found in judged.items() if found == "Dangerous"}
        faults = set()
    for (module, name), found in sorted(judged.items()):
        if found != "Clean":
            yield found, f"{where} imports {module}.{name}"[:200]
    for fault in sorted(faults):
        yield "Dangerous", f"{where} {fault}"[:200]
    for number, inner in enumerate(nested):
        yield from of_file(f"{where}:{number}", inner, depth=depth + 1)
    if why and sure:
        yield "Suspicious", f"{where} cannot be read to its end ({why})"


def _is_name(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))


def unpacked(packer: str, data: bytes) -> bytes:
    """What a packed file holds; raises OSError for more than a file may."""
    made: IO[bytes]
    if packer == "zlib":
        whole = b""
        while data.startswith(b"\x78"):
            reader = zlib.decompressobj()
            whole += reader.decompress(data, MOST_FILE + 1 - len(whole))
            if reader.unconsumed_tail or len(whole) > MOST_FILE:
                raise OSError("too large")
            if not reader.eof:
                raise EOFError
            data = reader.unused_data
        return whole
    opener = {"gzip": gzip.open, "bz2": bz2.open, "xz": lzma.open}[packer]
    with opener(io.BytesIO(data)) as made:  # type: ignore[operator]
        found = made.read(MOST_FILE + 1)
    if len(found) > MOST_FILE:
        raise OSError("too large")
    return found


# -- files -------------------------------------------------------------------------------------------------------------


def of_numpy(where: str, data: bytes, depth: int) -> Iterator[tuple[str, str]]:
    """An array of objects is a pickle behind its header."""
    length = int.from_bytes(data[8:10], "little") if data[6] == 1 else int.from_bytes(data[8:12], "little")
    start = (10 if data[6] == 1 else 12) + length
    head = data[:start]
    # The header is a Python literal: an object's type can be written in many ways, a number's is told apart here.
    numbers = re.search(rb"""['"]descr['"]\s*:\s*(['"])[<>|=]?[?bBiufcmMSUa]\d*\1""", head)
    if numbers is None or head.count(b"descr") > 1 or b"\\" in head:
        fields = re.search(rb"""['"]descr['"]\s*:\s*\[[^\]]*\]""", head)
        harmless = fields is not None and not re.search(rb"[OV\\]|object|void", fields[0]) and head.count(b"descr") == 1
        if not harmless:
            yield from of_pickle(where, data[start:], depth=depth)


def of_zip(where: str, data: bytes, depth: int) -> Iterator[tuple[str, str]]:
    """PyTorch's, NumPy's and Keras' archives."""
    total = 0
    with zipfile.ZipFile(io.BytesIO(data)) as held:
        infos = held.infolist()
        if len(infos) > MOST_MEMBERS:
            yield "NotScanned", f"{where} holds more than {MOST_MEMBERS} files"
            return
        for info in infos:
            total += info.file_size
            if info.file_size > MOST_FILE or total > MEMORY:
                yield "NotScanned", f"{where}:{info.filename[:80]} is too large to be looked into"
                continue
            try:
                with held.open(info) as file:
                    inner = file.read(MOST_FILE + 1)
            except Exception as error:  # another reader may take what this one does not
                yield "Suspicious", f"{where}:{info.filename[:80]} cannot be read ({type(error).__name__})"
                continue
            yield from of_file(f"{where}:{info.filename}"[:160], inner, depth=depth + 1)


def of_tar(where: str, data: bytes, depth: int) -> Iterator[tuple[str, str]]:
    """An archive in the archive."""
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        for number, info in enumerate(tar):
            if number >= MOST_MEMBERS:
                yield "NotScanned", f"{where} holds more than {MOST_MEMBERS} files"
                return
            file = tar.extractfile(info) if info.isreg() and 0 <= info.size <= MOST_FILE else None
            if file is not None:
                yield from of_file(f"{where}:{info.name}"[:160], file.read(), depth=depth + 1)
            elif not info.isdir():
                yield "NotScanned", f"{where}:{info.name[:80]} is not looked into"


_LAMBDA: Final = re.compile(rb'class_name\\*"\s*:\s*\\*"(Lambda|TFOpLambda)\\*"')
_CALLS_OUT: Final = re.compile(rb"(EagerPyFunc|PyFuncStateless|PyFunc|WriteFile|ReadFile)")


def of_keras(where: str, data: bytes) -> Iterator[tuple[str, str]]:
    """A layer's class is named in the configuration, and so is its module: any that can be imported."""
    waiting: list[Any] = []
    try:
        waiting = [json.loads(data)]
    except (ValueError, RecursionError):
        if _LAMBDA.search(data):
            yield "Dangerous", f"{where} has a Keras Lambda layer, which carries code"
        elif b'"class_name' not in data and re.search(rb"\\u00[4-7]", data):
            yield "Suspicious", f"{where} writes plain letters as escapes"
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += one.values()
            if one.get("class_name") in ("Lambda", "TFOpLambda", "__lambda__"):
                yield "Dangerous", f"{where} has a Keras Lambda layer, which carries code"
            module = one.get("module") if "class_name" in one else None
            if isinstance(module, str) and module.partition(".")[0] not in (
                "keras",
                "tensorflow",
                "builtins",
                "tf_keras",
            ):
                yield "Dangerous", f"{where} takes a layer from the module {module[:80]}"
        elif isinstance(one, list):
            waiting += one


def of_file(where: str, data: bytes, *, depth: int = 0) -> Iterator[tuple[str, str]]:
    """(verdict, finding) of one file, by its content and by its name."""
    lower = where.lower()
    if depth > _DEEPEST:
        yield "NotScanned", f"{where} is an archive in an archive, too deep to be looked into"
        return
    for magic, packer in _PACKERS:
        if data.startswith(magic):
            try:
                inner = unpacked(packer, data)
            except (OSError, zlib.error, lzma.LZMAError, EOFError, KeyError) as error:
                if packer == "zlib" and not lower.endswith(_PICKLES):
                    break  # it only begins like one
                yield "Suspicious", f"{where} cannot be unpacked ({packer}: {type(error).__name__})"
                return
            yield from of_file(where, inner, depth=depth + 1)
            return
    zipped = data.startswith(b"PK\x03\x04") or zipfile.is_zipfile(io.BytesIO(data))
    if zipped:  # also behind something else, where most readers find it
        yield from of_zip(where, data, depth)
    if data.startswith(b"PK"):
        return
    if data.startswith(b"\x93NUMPY"):
        yield from of_numpy(where, data, depth)
    elif data[257:262] == b"ustar":
        yield from of_tar(where, data, depth)
    elif data.startswith(b"\x89HDF") or lower.endswith("config.json"):
        yield from of_keras(where, data)
    elif data.startswith(b"\x7fELF"):
        yield "Suspicious", f"{where} is a program or a library of the machine's"
    elif lower.endswith(".pb") and (found := _CALLS_OUT.search(data)):
        yield "Suspicious", f"{where} has the operation {found[1].decode()}"
    elif data[:1] in (b"{", b"[") and lower.endswith((".model", ".json")):
        return  # XGBoost's JSON
    else:
        protocol = data[:1] == b"\x80" and len(data) > 1 and data[1] <= pickle.HIGHEST_PROTOCOL
        yield from of_pickle(where, data, sure=protocol or lower.endswith(_PICKLES), depth=depth)


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
                if info.size < 0:  # readers go back by as much: what they then read was not looked at
                    return _refused(f"`{info.name[:200]}` has less than no bytes")
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
            behind = tar.fileobj
            while behind is not None and (piece := behind.read(1 << 20)):
                if piece.strip(b"\0"):
                    worst = max(worst, "Suspicious", key=ORDER.index)
                    findings.append("the archive goes on behind its end")
                    break
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
    for codec in ("cp437", "ascii", "latin-1", "utf-8", "raw-unicode-escape", "unicode-escape"):
        "".encode(codec)  # loaded now: no file can be opened later
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        reading(pickle.dumps([1 << 70, 1.5, "x", b"y", {2}, Unreadable], protocol), joblib=True)
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
