"""What the codecs take and give: the head of a request, and an answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(slots=True)
class Head:
    """A request without its body.

    raw_path: as it came, still percent-encoded, without the query, a virtual-host bucket folded in as first segment.
    query: decoded pairs in order. headers: by lower-case name, several values joined with ",". host: the Host header.
    """

    method: str
    raw_path: bytes
    query: list[tuple[str, str]]
    headers: Mapping[str, str]
    host: str = ""


@dataclass(slots=True)
class Answer:
    """A response: HTTP status, headers in order (lower-case names), and the whole body."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class Malformed(Exception):  # noqa: N818 - not a fault of ours
    """The bytes of a request do not say what the model's shape can hold. Never leaves this package.

    text: what is wrong, without the value. place: "body", or the part of the head ("header", "querystring", "uri").
    """

    def __init__(self, text: str, place: str = "body") -> None:
        super().__init__(text)
        self.text = text
        self.place = place
