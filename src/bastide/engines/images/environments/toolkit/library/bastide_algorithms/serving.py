"""Requests to a built-in algorithm's model, and its answers, in the documented formats."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from bastide_algorithms import Unfit, module_of, recordio
from bastide_algorithms.tables import CSV, JSON, LINES, RECORDIO, Rules, parse, told

_NAMES = {"pca": "projections", "randomcutforest": "scores"}
_XGBOOST = "xgboost"


class Refused(Exception):  # noqa: N818
    """status: HTTP's."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Served:
    """A model that answers."""

    def __init__(self, algorithm: str, folder: Path) -> None:
        self._algorithm = algorithm
        module = module_of(algorithm)
        self._formats = getattr(module, "REQUESTS", (CSV, JSON, LINES, RECORDIO))
        self._usual = CSV if algorithm == _XGBOOST else JSON
        self._model = module.load(folder)

    def invoke(self, body: bytes, content_type: str, accept: str) -> tuple[bytes, str]:
        """The answer and its content type. Raises Refused."""
        kind, options = told(content_type)
        if kind not in self._formats:
            raise Refused(
                415, f"Content type {kind or '(none)'} is not supported; there are {', '.join(self._formats)}."
            )
        wanted, more = told(accept.partition(",")[0])
        wanted = self._usual if wanted in ("", "*/*") else wanted
        if wanted not in (CSV, JSON, LINES, RECORDIO):
            raise Refused(
                406, f"Accept {wanted} is not supported; there are {', '.join((CSV, JSON, LINES, RECORDIO))}."
            )
        rules = Rules(labels=options.get("label_size") == "1", default=kind, formats=self._formats)
        try:
            answers = self._model.answer(parse(body, content_type, rules), more.get("verbose") == "true")
        except Unfit as unfit:
            raise Refused(400, str(unfit)) from None
        return self._encoded(answers, wanted), wanted

    def _encoded(self, answers: list[dict[str, Any]], wanted: str) -> bytes:
        if wanted == JSON:
            return json.dumps({_NAMES.get(self._algorithm, "predictions"): answers}).encode()
        if wanted == LINES:
            return "".join(json.dumps(one) + "\n" for one in answers).encode()
        if wanted == RECORDIO:
            return b"".join(recordio.write({}, one) for one in answers)
        if self._algorithm == _XGBOOST:
            # AWS's image separates real-time answers by commas, and those of transform jobs by lines.
            batch = os.environ.get("SAGEMAKER_BATCH", "").lower() == "true"
            scores = [str(one["score"]) for one in answers]
            return ("".join(f"{one}\n" for one in scores) if batch else ",".join(scores)).encode()
        return "".join(",".join(_flat(one)) + "\n" for one in answers).encode()


def _flat(answer: dict[str, Any]) -> list[str]:
    found = []
    for value in answer.values():
        found += [repr(one) for one in value] if isinstance(value, list) else [repr(value)]
    return found
