"""Datasets: files of records in each of the documented formats, a piece at a time.

Developer guide, "model-monitor-byoc-contract-inputs", "model-monitor-data-capture-endpoint" and
"model-monitor-pre-and-post-processing".
"""

from __future__ import annotations

import base64
import binascii
import csv
import inspect
import itertools
import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from bastide_monitor import Unfit
from bastide_monitor.captured import CapturedData

MOST_LINE = 16 << 20
MOST_DOCUMENT = 64 << 20
"""Bytes of a JSON document that is not lines."""
MOST_FILES = 100_000
PIECE = 20_000
"""Records that are looked at together."""
FORMATS = ("csv", "json", "parquet", "sagemakerCaptureJson", "sagemakerMergeJson")

Record = dict[str, Any]
Handler = Callable[[Any], Any]


def files(folder: Path) -> list[Path]:
    """The files of a dataset, in order: plain ones, but the hidden and those that Hadoop leaves. Raises Unfit."""
    if folder.is_file():
        return [folder]
    found = sorted(
        one
        for one in folder.rglob("*")
        if one.is_file() and not one.is_symlink() and not one.name.startswith((".", "_"))
    )
    if len(found) > MOST_FILES:
        raise Unfit(f"The dataset has more than {MOST_FILES} files.")
    return found


def lines(path: Path) -> Iterator[str]:
    """The lines of a file. Raises Unfit for endless ones, and for what is not UTF-8."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        number = 0
        while True:
            number += 1
            try:
                line = file.readline(MOST_LINE)
            except UnicodeDecodeError:
                raise Unfit(f"{path.name} is not UTF-8 text.") from None
            if not line:
                return
            if len(line) == MOST_LINE:
                raise Unfit(f"Line {number} of {path.name} is longer than {MOST_LINE >> 20} MiB.")
            yield line


def parsed(text: str, where: str) -> Any:
    """JSON. Raises Unfit."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Unfit(f"{where} is not JSON.") from None


def cells(source: Iterable[str], where: str) -> Iterator[list[str]]:
    """Rows of CSV; empty lines are none. Raises Unfit."""
    csv.field_size_limit(MOST_LINE)
    try:
        yield from (row for row in csv.reader(source) if row)
    except csv.Error as error:
        raise Unfit(f"{where} is not CSV: {error}.") from None


def handler(path: Path, name: str) -> Handler:
    """A function of a script of the owner's. Raises Unfit."""
    try:
        code = compile(path.read_text(), str(path), "exec")
    except FileNotFoundError:
        raise Unfit(f"There is no script at {path}.") from None
    except (SyntaxError, ValueError) as error:
        raise Unfit(f"{path.name} is not a Python script: {error}") from None
    sys.path.insert(0, str(path.parent))
    scope: dict[str, Any] = {"__name__": path.stem, "__file__": str(path)}
    try:
        exec(code, scope)  # noqa: S102 it is the job's own code
    except Exception as error:
        raise Unfit(f"{path.name} failed: {type(error).__name__}: {error}") from error
    found = scope.get(name)
    if not callable(found):
        raise Unfit(f"{path.name} has no function {name}.")
    if name == "preprocess_handler" and len(inspect.signature(found).parameters) > 1:
        logger = logging.getLogger(path.stem)
        return lambda record: found(record, logger)
    return found


class Dataset:
    """A folder of records.

    told: as `dataset_format` has it. start, end: of captured data what was answered from the one until before the other;
    None for all. preprocess: a script's function that each record goes through.
    """

    def __init__(
        self,
        folder: Path,
        told: Any,
        start: str | None = None,
        end: str | None = None,
        preprocess: Handler | None = None,
    ) -> None:
        names = [one for one in FORMATS if isinstance(told, dict) and one in told]
        if len(names) != 1 or len(told) != 1:
            raise Unfit(f"dataset_format is a JSON object with one of the members {', '.join(FORMATS)}.")
        self.format = names[0]
        self._options: dict[str, Any] = told[self.format] or {}
        if not isinstance(self._options, dict):
            raise Unfit(f"{self.format} of dataset_format is not an object.")
        if str(self._options.get("output_columns_position", "START")).upper() != "START":
            raise Unfit("output_columns_position is START here: output columns are the first ones.")
        self.folder = folder
        self._between = (start or "", end or "\x7f")
        self._preprocess = preprocess

    def _flag(self, *names: str) -> bool:
        return any(str(self._options.get(name, "")).lower() == "true" for name in names)

    @property
    def captured(self) -> bool:
        """Whether it is of requests and answers."""
        return self.format in ("sagemakerCaptureJson", "sagemakerMergeJson")

    @property
    def header(self) -> bool:
        """Whether files of CSV begin with the columns' names."""
        return self._flag("header")

    @property
    def indexes(self) -> list[str]:
        """Which parts of captured data are looked at."""
        found = self._options.get("captureIndexNames") or ["endpointInput", "endpointOutput"]
        return [str(one) for one in found]

    def pieces(self) -> Iterator[tuple[dict[str, list[Any]], int]]:
        """Columns of some records at a time, and how many records they are. Raises Unfit."""
        paths = files(self.folder)
        if not paths:
            raise Unfit("There is no data: the dataset has no files.")
        for path in paths:
            if self.format == "parquet":
                yield from _parquet(path)
            elif self.captured:
                yield from _dicts(self._flattened(path))
            elif self._preprocess is not None:
                yield from _dicts(self._prepared(lines(path)))
            elif self.format == "csv":
                yield from self._csv(path)
            else:
                yield from _dicts(self._json(path))

    # -- formats -------------------------------------------------------------------------------------------------------

    def _csv(self, path: Path) -> Iterator[tuple[dict[str, list[Any]], int]]:
        rows = cells(lines(path), path.name)
        header: list[str] | None = None
        if self.header:
            header = [one.strip() for one in next(rows, [])]
            if len(set(header)) < len(header):
                raise Unfit(f"{path.name} has two columns of the same name.")
        while piece := list(itertools.islice(rows, PIECE)):
            columns = list(itertools.zip_longest(*piece))
            names = [*(header or ()), *(f"_c{number}" for number in range(len(header or ()), len(columns)))]
            columns += [(None,) * len(piece)] * (len(names) - len(columns))
            yield dict(zip(names, map(list, columns), strict=True)), len(piece)

    def _json(self, path: Path) -> Iterator[Record]:
        if ("lines" in self._options and not self._flag("lines")) or (
            "line" in self._options and not self._flag("line")
        ):
            if path.stat().st_size > MOST_DOCUMENT:
                raise Unfit(f"{path.name} is larger than {MOST_DOCUMENT >> 20} MiB: write a record a line.")
            told = parsed("".join(lines(path)), path.name)
            for one in told if isinstance(told, list) else [told]:
                yield _flat(one, path.name)
            return
        for number, line in enumerate(lines(path), 1):
            if line.strip():
                where = f"Line {number} of {path.name}"
                yield _flat(parsed(line, where), where)

    def events(self, path: Path) -> Iterator[Record]:
        """The records of captured data in a file that are of the time that is looked at. Raises Unfit."""
        start, end = self._between
        for number, line in enumerate(lines(path), 1):
            if not line.strip():
                continue
            one = parsed(line, where := f"Line {number} of {path.name}")
            if not isinstance(one, dict) or not isinstance(one.get("captureData"), dict):
                raise Unfit(f"{where} is not captured data.")
            at = (one.get("eventMetadata") or {}).get("inferenceTime")
            if not isinstance(at, str) or start <= at < end:
                yield one

    def _flattened(self, path: Path) -> Iterator[Record]:
        for event in self.events(path):
            if self._preprocess is not None:
                yield from _made(self._preprocess, CapturedData(event))
            else:
                yield from flattened(event, self.indexes, path.name)

    def _prepared(self, source: Iterable[str]) -> Iterator[Record]:
        assert self._preprocess is not None
        for line in source:
            if plain := line.rstrip("\r\n"):
                yield from _made(self._preprocess, plain)


def _flat(told: Any, where: str) -> Record:
    if not isinstance(told, dict):
        raise Unfit(f"{where} is not a JSON object.")
    return {str(name): value for name, value in told.items()}


def _made(preprocess: Handler, record: Any) -> Iterator[Record]:
    """What a script made of a record: one, several, or none."""
    try:
        made = preprocess(record)
    except Exception as error:
        raise Unfit(f"preprocess_handler failed: {type(error).__name__}: {error}") from error
    for one in made if isinstance(made, list) else [made] if made else []:
        if not isinstance(one, dict):
            raise Unfit("preprocess_handler returns a dict, a list of dicts, or an empty list.")
        yield {str(name): value for name, value in one.items()}


def _dicts(records: Iterable[Record]) -> Iterator[tuple[dict[str, list[Any]], int]]:
    source = iter(records)
    while piece := list(itertools.islice(source, PIECE)):
        names = dict.fromkeys(itertools.chain.from_iterable(piece))
        yield {name: [one.get(name) for one in piece] for name in names}, len(piece)


def _parquet(path: Path) -> Iterator[tuple[dict[str, list[Any]], int]]:
    import pyarrow  # noqa: PLC0415 only who brings Parquet waits for it
    from pyarrow import parquet  # noqa: PLC0415

    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(PIECE):
                columns = zip(batch.schema.names, batch.columns, strict=True)
                yield {name: _plain(column.to_pylist()) for name, column in columns}, batch.num_rows
    except (pyarrow.ArrowException, OSError) as error:
        raise Unfit(f"{path.name} is not a Parquet file that can be read: {error}") from None


def _plain(values: list[Any]) -> list[Any]:
    plain = (str, int, float, bool, type(None), list, dict)
    return [one if isinstance(one, plain) else str(one) for one in values]


# -- captured data -----------------------------------------------------------------------------------------------------


def payload(part: Any, where: str) -> tuple[str, str]:
    """What a request or answer holds, and whether it is CSV or JSON. Raises Unfit."""
    try:
        encoding, data, kind = str(part["encoding"]).upper(), str(part["data"]), str(part.get("observedContentType"))
    except (TypeError, KeyError, AttributeError):
        raise Unfit(f"{where} has a part that is not captured data.") from None
    if encoding == "BASE64":
        plain = kind.partition(";")[0].strip().lower()
        encoding = "CSV" if plain == "text/csv" else "JSON" if plain.startswith("application/json") else ""
        try:
            data = base64.b64decode(data, validate=True).decode()
        except (binascii.Error, ValueError):
            encoding = ""
    if encoding not in ("CSV", "JSON"):
        raise Unfit(
            f"{where} holds data of the type {kind[:100]!r}, which is neither CSV nor JSON: bring a "
            "record_preprocessor_script that reads it."
        )
    return data, encoding


def flattened(event: Record, indexes: list[str], where: str) -> Iterator[Record]:
    """Captured data as records: columns `_c0`, `_c1`, ... of CSV, answers before requests; members of JSON. Raises Unfit.

    A call with several lines is as many records.
    """
    parts = []
    for name in ("endpointOutput", "batchTransformOutput", "endpointInput"):
        if name in indexes and name in event["captureData"]:
            parts.append(payload(event["captureData"][name], where))
    kinds = {encoding for _, encoding in parts}
    if len(kinds) > 1:
        raise Unfit(
            "Encoding mismatch: the encoding of requests and answers has to be the same, both CSV or both JSON. "
            "A record_preprocessor_script can make it so."
        )
    read = [_rows(data, encoding, where) for data, encoding in parts]
    longest = max(map(len, read), default=0)
    if any(len(one) != longest for one in read):
        raise Unfit(f"{where}: a request has {len(read[-1])} records and its answer has {len(read[0])}.")
    for row in zip(*read, strict=True):
        if kinds == {"CSV"}:
            yield {f"_c{number}": value for number, value in enumerate(itertools.chain.from_iterable(row))}
        else:
            merged: Record = {}
            for name, value in itertools.chain.from_iterable(one.items() for one in row):
                merged.setdefault(name, value)
            yield merged


def _rows(data: str, encoding: str, where: str) -> list[Any]:
    if encoding == "CSV":
        return list(cells(data.splitlines(), where))
    try:
        told = [json.loads(data)]
    except (ValueError, RecursionError):
        told = [parsed(line, where) for line in data.splitlines() if line.strip()]
    return [_flat(one, where) for one in told]
