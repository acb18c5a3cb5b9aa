"""Predictions of a model: of an endpoint that is there, or of one that is made of it for as long as the job needs it.

Developer guide, "clarify-processing-job-configure-analysis", `predictor`.
"""

from __future__ import annotations

import csv
import io
import json
import re
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from bastide_monitor import Unfit
from bastide_monitor.columns import text_of
from bastide_monitor.job import say
from bastide_monitor.paths import Attribute
from bastide_monitor.records import cells, parsed

from bastide_clarify.aws import Denied, Session
from bastide_clarify.table import CSV, JSON_LINES

JSON = "application/json"
MOST_BYTES = 4 << 20
"""Of a request; InvokeEndpoint takes up to 6 MB."""
PAUSE = 0.25
LONGEST = 1800
PATIENCE = 100
_PREFIX = re.compile(r"[a-zA-Z0-9](?:-*[a-zA-Z0-9]){0,22}")
_LEFT_OUT = ("accelerator_type", "record_template", "time_series_predictor_config")


class Predictor:
    """What answers. told: `predictor` of the analysis configuration."""

    def __init__(self, told: dict[str, Any], dataset_type: str) -> None:
        for name in _LEFT_OUT:
            if told.get(name):
                raise Unfit(f"predictor.{name} is not there.")
        self.told = told
        self.content = told.get("content_type") or dataset_type
        self.accept = told.get("accept_type") or self.content
        if self.content not in (CSV, JSON_LINES):
            raise Unfit(f"predictor.content_type is {CSV} or {JSON_LINES}.")
        if self.accept not in (CSV, JSON_LINES, JSON):
            raise Unfit(f"predictor.accept_type is {CSV}, {JSON_LINES} or {JSON}.")
        self._template = str(told.get("content_template") or "")
        if self.content == JSON_LINES and self._template.count("$features") != 1:
            raise Unfit("predictor.content_template is needed, with one $features in it.")
        self._places = {
            name: Attribute(f"predictor.{name}", str(told[name])) if told.get(name) is not None else None
            for name in ("label", "probability")
        }
        headers = told.get("label_headers")
        self.headers = [str(one) for one in headers] if isinstance(headers, list) else None
        self._session = Session()
        self._endpoint = ""
        self.asked = 0

    # -- the endpoint --------------------------------------------------------------------------------------------------

    @contextmanager
    def open(self) -> Iterator[Predictor]:
        """The endpoint is there meanwhile. Raises Unfit."""
        if self.told.get("endpoint_name"):
            self._endpoint = str(self.told["endpoint_name"])
            yield self
            return
        model = self.told.get("model_name")
        if not model:
            raise Unfit("predictor names neither a model_name nor an endpoint_name.")
        prefix = str(self.told.get("endpoint_name_prefix") or "sm-clarify")
        if not _PREFIX.fullmatch(prefix):
            raise Unfit("predictor.endpoint_name_prefix is at most 23 letters, digits and hyphens.")
        name = f"{prefix}-{uuid.uuid4().hex[:20]}"
        variant = {
            "VariantName": "AllTraffic",
            "ModelName": str(model),
            "InstanceType": self.told.get("instance_type"),
            "InitialInstanceCount": self.told.get("initial_instance_count") or 1,
        }
        if not variant["InstanceType"]:
            raise Unfit("predictor.instance_type is needed with model_name.")

        def stopped(*_: Any) -> None:
            raise SystemExit(143)  # the endpoint goes before the job does

        before = signal.signal(signal.SIGTERM, stopped)
        try:
            self._session.api("CreateEndpointConfig", EndpointConfigName=name, ProductionVariants=[variant])
            self._session.api("CreateEndpoint", EndpointName=name, EndpointConfigName=name)
            say(f"Endpoint {name} of the model {model} is made")
            self._wait(name)
            self._endpoint = name
            yield self
        finally:
            self._remove(name)
            signal.signal(signal.SIGTERM, before)

    def _remove(self, name: str) -> None:
        """The endpoint and its configuration, as far as they were made.

        One that is still being made cannot be deleted: it is waited for, as long as a job that is stopped may take.
        """
        until = time.monotonic() + PATIENCE
        for operation, about in (("DeleteEndpoint", "EndpointName"), ("DeleteEndpointConfig", "EndpointConfigName")):
            while True:
                try:
                    self._session.api(operation, **{about: name})
                except Denied as denied:
                    if "in-progress" in str(denied) and time.monotonic() < until:
                        time.sleep(PAUSE)
                        continue
                    if "Could not find" not in str(denied):
                        say(f"Warning: {denied}")
                except Unfit as unfit:
                    say(f"Warning: {unfit}")
                break

    def _wait(self, name: str) -> None:
        until = time.monotonic() + LONGEST
        while True:
            found = self._session.api("DescribeEndpoint", EndpointName=name)
            if found["EndpointStatus"] == "InService":
                return
            if found["EndpointStatus"] == "Failed" or time.monotonic() > until:
                raise Unfit(f"The endpoint of the model is {found['EndpointStatus']}: {found.get('FailureReason', '')}")
            time.sleep(PAUSE)

    # -- what it says --------------------------------------------------------------------------------------------------

    def scores(self, rows: list[list[Any]]) -> Any:
        """Scores (records by labels). Raises Unfit."""
        found = [
            self._score(answer)
            for body, count in self._requests(rows)
            for answer in self._answers(self._ask(body), count)
        ]
        if len({len(one) for one in found}) > 1:
            raise Unfit("The model's answers have different numbers of scores.")
        return np.array(found)

    def fetch(self, uri: str) -> str:
        """An object of S3, as text. Raises Unfit."""
        return self._session.object(uri).decode("utf-8", "replace")

    def labels(self, rows: list[list[Any]], threshold: float | None) -> list[str | None]:
        """Predicted labels: as the model says them, the one of the highest score, or 1 above the threshold. Without a
        threshold a score stays one. Raises Unfit."""
        found: list[str | None] = []
        for body, count in self._requests(rows):
            found += [self._label(answer, threshold) for answer in self._answers(self._ask(body), count)]
        return found

    def _requests(self, rows: list[list[Any]]) -> Iterator[tuple[bytes, int]]:
        held: list[bytes] = []
        size = 0
        for row in rows:
            line = self._line(row)
            if held and size + len(line) > MOST_BYTES:
                yield b"".join(held), len(held)
                held, size = [], 0
            held.append(line)
            size += len(line)
        if held:
            yield b"".join(held), len(held)

    def _line(self, row: list[Any]) -> bytes:
        if self.content == CSV:
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerow(["" if one is None else one for one in row])
            return text.getvalue().encode()
        return f"{self._template.replace('$features', json.dumps([value_of(one) for one in row]))}\n".encode()

    def _ask(self, body: bytes) -> str:
        more = {}
        if self.told.get("target_model"):
            more["x-amzn-sagemaker-target-model"] = str(self.told["target_model"])
        if self.told.get("custom_attributes"):
            more["x-amzn-sagemaker-custom-attributes"] = str(self.told["custom_attributes"])
        self.asked += 1
        answer = self._session.invoke(self._endpoint, body, self.content, self.accept, more)
        try:
            return answer.decode()
        except UnicodeDecodeError:
            raise Unfit("The model's answer is not UTF-8 text.") from None

    def _answers(self, text: str, count: int) -> list[Any]:
        """One of each record. Raises Unfit."""
        if self.accept == CSV:
            rows: list[Any] = list(cells(text.splitlines(), "The model's answer"))
            if len(rows) == 1 and count > 1 and len(rows[0]) == count:
                rows = [[one] for one in rows[0]]
        elif self.accept == JSON_LINES:
            rows = [parsed(one, "The model's answer") for one in text.splitlines() if one.strip()]
        else:
            told = parsed(text, "The model's answer")
            if isinstance(told, dict) and len(told) == 1 and isinstance(next(iter(told.values())), list):
                told = next(iter(told.values()))  # {"predictions": [...]}
            rows = told if isinstance(told, list) and (len(told) == count or count > 1) else [told]
        if len(rows) != count:
            raise Unfit(f"The model was asked about {count} records and answered {len(rows)}.")
        return rows

    def _part(self, answer: Any, name: str) -> Any:
        place = self._places[name]
        if place is None:
            return None
        if self.accept == CSV:
            if not place.told.isdigit() or int(place.told) >= len(answer):
                raise Unfit(f"predictor.{name}: the model's answer has no column {place.told!r}.")
            found = answer[int(place.told)]
            return parsed(found, f"predictor.{name}") if found.lstrip().startswith("[") else found
        return place.within(answer)

    def _score(self, answer: Any) -> list[float]:
        found = self._part(answer, "probability")
        found = answer if found is None else found
        try:
            return [float(one) for one in (found if isinstance(found, list) else [found])]
        except (TypeError, ValueError):
            raise Unfit(
                f"The model's answer is no score: {str(found)[:200]}. Does predictor.probability say where it is?"
            ) from None

    def _label(self, answer: Any, threshold: float | None) -> str | None:
        found = self._part(answer, "label")
        if isinstance(found, list) or (found is None and self.headers):
            names = found if isinstance(found, list) else self.headers
            scores = self._score(answer)
            if not names or len(names) != len(scores):
                raise Unfit("The model's answer has not as many scores as labels.")
            return text_of(names[int(np.argmax(scores))])
        if found is not None:
            return text_of(found)
        score = self._score(answer)
        if len(score) != 1:
            raise Unfit("The model's answer has several scores: predictor.label or label_headers says of which labels.")
        return repr(score[0]) if threshold is None else "1" if score[0] > threshold else "0"


def value_of(text: Any) -> Any:
    """A value of JSON: a number where text is one."""
    if not isinstance(text, str):
        return text
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if number.is_integer() and "." not in text and "e" not in text.lower() else number
