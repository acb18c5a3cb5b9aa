"""What keeps batch transform from an object."""

from __future__ import annotations


class Fault(Exception):  # noqa: N818 - an outcome
    """Why an object could not be transformed. code: ClientError (the data's or the request's fault) or AlgorithmError (the
    model's). detail: what the model said, for the log."""

    def __init__(self, code: str, text: str, detail: str = "") -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text
        self.detail = detail
