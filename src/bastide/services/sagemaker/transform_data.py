"""What batch transform does to records on their way into a model, and to answers on their way out: filters, joins, ids.

Source: SageMaker developer guide, "Associate Prediction Results with Input Records" and "Capture data from batch transform
job"; API reference, DataProcessing.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from bastide.domain import Refused
from bastide.services.sagemaker.json_path import NoMatch, Path, Unreadable
from bastide.services.sagemaker.transform_fault import Fault

CSV, JSON, JSONLINES = "text/csv", "application/json", "application/jsonlines"
_FORMATS: Final = {CSV: CSV, JSON: JSON, JSONLINES: JSON, "application/x-jsonlines": JSON}
_INPUT, _OUTPUT = "SageMakerInput", "SageMakerOutput"
_ID, _TIME = "SageMakerInferenceId", "SageMakerInferenceTime"

# A cell may be as long as a payload; the module's own limit is 128 KiB, and there is one for the whole process.
csv.field_size_limit(1 << 28)


def _format(kind: str | None) -> str:
    """CSV, JSON, or empty for what is neither."""
    return _FORMATS.get((kind or "").partition(";")[0].strip().lower(), "")


def _path(given: dict[str, Any], member: str) -> Path:
    text = given.get(member) or "$"
    try:
        return Path(text)
    except Unreadable as error:
        raise Refused("ValidationException", f"DataProcessing.{member} {text!r} {error}.") from None


@dataclass(frozen=True, slots=True)
class Payload:
    """body: what the model gets. records: what it was made of, where that is needed later."""

    body: bytes
    records: Sequence[bytes] = ()


class Processing:
    """One job's DataProcessing and GenerateInferenceId. source: the formats of what goes in, target: of what comes out."""

    def __init__(self, doc: dict[str, Any]) -> None:
        """doc: a CreateTransformJob request. Raises Refused where its members do not go together."""
        given = doc.get("DataProcessing") or {}
        self._pick_in = _path(given, "InputFilter")
        self._pick_out = _path(given, "OutputFilter")
        self._join = given.get("JoinSource") == "Input"
        self._number = bool((doc.get("DataCaptureConfig") or {}).get("GenerateInferenceId"))
        self._source = _format(doc["TransformInput"].get("ContentType"))
        # Where answers are looked into and no Accept is given, servers are asked for the format of what they get.
        self._target = _format(doc["TransformOutput"].get("Accept") or doc["TransformInput"].get("ContentType"))
        self._lines = doc["TransformOutput"].get("AssembleWith") == "Line"
        self._split = doc["TransformInput"].get("SplitType") or "None"
        self._check()

    @property
    def reads(self) -> bool:
        """Whether records are looked into on their way in."""
        return self._join or not self._pick_in.whole

    @property
    def writes(self) -> bool:
        """Whether answers are looked into on their way out."""
        return self._join or self._number or not self._pick_out.whole

    def _check(self) -> None:
        known = "text/csv, application/json or application/jsonlines"
        if self.reads and not self._source:
            raise _unfit(f"TransformInput.ContentType has to be {known} where DataProcessing looks into records")
        if self.writes and not self._target:
            raise _unfit(
                f"TransformOutput.Accept has to be {known} where DataProcessing or GenerateInferenceId looks into answers"
            )
        if self._join and self._source != self._target:
            raise _unfit("ContentType and Accept have to be of one format, CSV or JSON, where JoinSource is Input")
        for member, path, kind in (
            ("InputFilter", self._pick_in, self._source),
            ("OutputFilter", self._pick_out, self._target),
        ):
            if kind == CSV and not path.of_rows:
                raise _unfit(
                    f"DataProcessing.{member} {path.text!r}: rows of CSV have places, as in $[0], and no names"
                )
        split, together = self._split == "Line", self._lines
        if self.reads and self._split not in ("None", "Line"):
            raise _unfit("SplitType has to be Line or None where DataProcessing looks into records")
        if self.reads and self._source == CSV and not split:
            raise _unfit("SplitType has to be Line where DataProcessing looks into CSV")
        if self.writes and self._target == CSV and not together:
            raise _unfit("AssembleWith has to be Line where DataProcessing or GenerateInferenceId looks into CSV")
        if self._join and split != together:
            raise _unfit("SplitType and AssembleWith have to be both Line, or both None, where JoinSource is Input")

    # -- on the way in -----------------------------------------------------------------------------------------------------

    def prepare(self, body: bytes) -> Payload:
        """A payload as the model gets it; raises Fault."""
        if not self.reads:
            return Payload(body)
        records = _lines(body) if self._split == "Line" else [body]
        if self._pick_in.whole:
            return Payload(body, records)
        if self._source == CSV:
            rows = [self._cells(self._pick_in, row, "input") for row in _rows(records, "ClientError", "input")]
            sent = _written(rows)
        else:
            picked = [self._value(self._pick_in, one, "input") for one in _values(records, "ClientError", "input")]
            sent = b"\n".join(_dumped(one) for one in picked)
        return Payload(sent, records if self._join else ())

    # -- on the way out ----------------------------------------------------------------------------------------------------

    def finish(self, payload: Payload, answer: bytes, seed: bytes, first: int, at: str) -> tuple[bytes, int]:
        """A model's answer as it is stored, and how many records that are. seed: of the object's ids; first: how many
        records of the object came before; at: the job's start. Raises Fault."""
        if not self.writes:
            return (answer + b"\n" if self._lines and answer and not answer.endswith(b"\n") else answer), 0
        answers = _lines(answer) if self._lines else [answer]
        if self._join and len(answers) != len(payload.records):
            raise Fault(
                "ClientError",
                "Fail to join data: mismatched line count between the input and the output: "
                f"{len(payload.records)} records went in, {len(answers)} came out",
            )
        ids = [(_uuid(seed, first + at_), at) for at_ in range(len(answers))] if self._number else []
        make = self._csv if self._target == CSV else self._json
        return make(payload.records, answers, ids), len(answers)

    def _csv(self, records: Sequence[bytes], answers: list[bytes], ids: list[tuple[str, str]]) -> bytes:
        joined = [a + b"," + b for a, b in zip(records, answers, strict=True)] if self._join else answers
        if not self._pick_out.whole:
            rows = _rows(joined, "AlgorithmError", "answer")
            joined = _written([self._cells(self._pick_out, row, "output") for row in rows]).split(b"\n")[:-1]
        if ids:
            joined = [one + f",{id_},{at}".encode() for one, (id_, at) in zip(joined, ids, strict=True)]
        return b"".join(one + b"\n" for one in joined)

    def _json(self, records: Sequence[bytes], answers: list[bytes], ids: list[tuple[str, str]]) -> bytes:
        values = _values(answers, "AlgorithmError", "answer")
        if self._join:
            values = [
                {**one, _OUTPUT: value} if isinstance(one, dict) else {_INPUT: one, _OUTPUT: value}
                for one, value in zip(_values(records, "ClientError", "input"), values, strict=True)
            ]
        values = [self._value(self._pick_out, one, "output") for one in values]
        for number, (id_, at) in enumerate(ids):
            value = values[number]
            values[number] = {**(value if isinstance(value, dict) else {_OUTPUT: value}), _ID: id_, _TIME: at}
        return b"".join(_dumped(one) + (b"\n" if self._lines else b"") for one in values)

    @staticmethod
    def _cells(path: Path, row: list[str], what: str) -> list[str]:
        try:
            return path.pick_cells(row)
        except NoMatch as error:
            raise Fault("ClientError", f"The {what} filter does not fit a record: {error}") from None

    @staticmethod
    def _value(path: Path, value: Any, what: str) -> Any:
        try:
            return path.pick(value)
        except NoMatch as error:
            raise Fault("ClientError", f"The {what} filter does not fit a record: {error}") from None


def _unfit(text: str) -> Refused:
    return Refused("ValidationException", f"{text}.")


def _uuid(seed: bytes, number: int) -> str:
    """An id that looks as if it were random, and is the same when a job is taken up again."""
    found = hashlib.blake2b(number.to_bytes(8, "big"), key=seed[:64], digest_size=16).digest()
    return str(uuid.UUID(bytes=found, version=4))


def _lines(body: bytes) -> list[bytes]:
    """Records of a text; lines with nothing in them are none."""
    return [line for one in body.split(b"\n") if (line := one.removesuffix(b"\r"))]


def _rows(records: Sequence[bytes], code: str, what: str) -> list[list[str]]:
    try:
        rows = list(csv.reader([one.decode() for one in records], strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise Fault(code, f"The {what} is not CSV in UTF-8: {error}") from None
    if len(rows) != len(records):
        raise Fault(code, f"The {what} is not CSV with a record a line: a cell must not have a line break")
    return rows


def _written(rows: list[list[str]]) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue().encode()


def _values(records: Sequence[bytes], code: str, what: str) -> list[Any]:
    # The standard library's: integers of any length stay what they are.
    try:
        return [json.loads(one) for one in records]
    except (ValueError, RecursionError) as error:
        raise Fault(code, f"The {what} is not JSON: {str(error)[:200]}") from None


def _dumped(value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half of a pair, which only an escape can stand for
        return json.dumps(value, separators=(",", ":")).encode()
