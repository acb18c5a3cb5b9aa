"""Which operation of a rest-json or rest-xml service a request line means.

Templates come from the models' ``requestUri``: literal segments, labels ``{Name}``, one greedy label ``{Key+}``, and query
parameters that must be there (``?uploads``, ``?list-type=2``). Operations that share all of it are told apart by their
required query and header members, as S3 tells UploadPartCopy from PutObject.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from bastide.protocol.head import Head, Malformed


@dataclass(slots=True)
class Template:
    """One operation's request line, compiled.

    literals: query parameters that must be there, with the value they must have, or "". wanted_query, wanted_headers: wire
    names of the required members there. known: every query parameter that the operation's model names.
    """

    name: str
    method: str
    segments: list[str]
    greedy: bool
    literals: list[tuple[str, str]]
    wanted_query: list[str]
    wanted_headers: list[str]
    known: frozenset[str]
    deprecated: bool
    labels: re.Pattern[bytes]
    names: list[str]

    def read_labels(self, raw_path: bytes) -> dict[str, str]:
        """The decoded labels of a path that was routed here; raises Malformed for bytes that are no UTF-8."""
        found = self.labels.fullmatch(raw_path)
        if found is None:
            raise Malformed("The path does not fit the operation", "uri")
        out = {}
        for name, raw in zip(self.names, found.groups(), strict=True):
            try:
                out[name] = (unquote_to_bytes(raw) if b"%" in raw else raw).decode()
            except UnicodeDecodeError:
                raise Malformed("The path is not UTF-8", "uri") from None
        return out


def template(operation: Any) -> Template:
    """Compiles the ``http`` trait of a botocore OperationModel."""
    path, _, query = str(operation.http.get("requestUri", "/")).partition("?")
    segments = path.split("/")[1:]
    names: list[str] = []
    pattern = b""
    for segment in segments:
        pattern += b"/"
        at = 0
        for found in re.finditer(r"\{([^}]+)\}", segment):
            pattern += re.escape(segment[at : found.start()].encode())
            pattern += b"(.+)" if found[1].endswith("+") else b"([^/]+)"
            names.append(found[1].rstrip("+"))
            at = found.end()
        pattern += re.escape(segment[at:].encode())
    literals = []
    for part in query.split("&") if query else ():
        key, _, value = part.partition("=")
        if key != "x-id":
            literals.append((key, value))
    wanted_query, wanted_headers, known = [], [], {key for key, _ in literals}
    shape = operation.input_shape
    for name, member in shape.members.items() if shape is not None else ():
        wire = str(member.serialization.get("name", name))
        where = member.serialization.get("location")
        if where == "querystring":
            known.add(wire)
        if name in shape.required_members:
            if where == "querystring":
                wanted_query.append(wire)
            elif where == "header":
                wanted_headers.append(wire.lower())
    return Template(
        operation.name,
        str(operation.http.get("method", "POST")),
        segments,
        any(one.endswith("+}") for one in segments),
        literals,
        wanted_query,
        wanted_headers,
        frozenset(known),
        bool(operation.deprecated),
        re.compile(pattern + b"/?", re.DOTALL)
        if segments[-1:] != [""] and not path.endswith("+}")
        else re.compile(pattern, re.DOTALL),
        names,
    )


class _Node:
    __slots__ = ("greedy", "here", "label", "literals", "mixed")

    def __init__(self) -> None:
        self.literals: dict[bytes, _Node] = {}
        self.mixed: list[tuple[re.Pattern[bytes], _Node]] = []
        self.label: _Node | None = None
        self.greedy: list[tuple[list[bytes], list[Template]]] = []
        self.here: list[Template] = []


class Routes:
    """The templates of one service, by method and path."""

    def __init__(self, templates: list[Template]) -> None:
        self._roots: dict[str, _Node] = {}
        for one in templates:
            self._add(one)

    def _add(self, one: Template) -> None:
        node = self._roots.setdefault(one.method, _Node())
        for at, segment in enumerate(one.segments):
            if segment.endswith("+}"):
                tail = [rest.encode() for rest in one.segments[at + 1 :]]
                for held, many in node.greedy:
                    if held == tail:
                        many.append(one)
                        return
                node.greedy.append((tail, [one]))
                node.greedy.sort(key=lambda entry: -len(entry[0]))
                return
            if re.fullmatch(r"\{[^}]+\}", segment):
                if node.label is None:
                    node.label = _Node()
                node = node.label
            elif "{" in segment:
                pattern = b""
                start = 0
                for found in re.finditer(r"\{([^}]+)\}", segment):
                    pattern += re.escape(segment[start : found.start()].encode()) + b"[^/]+"
                    start = found.end()
                compiled = re.compile(pattern + re.escape(segment[start:].encode()))
                for held_pattern, below in node.mixed:
                    if held_pattern.pattern == compiled.pattern:
                        node = below
                        break
                else:
                    below = _Node()
                    node.mixed.append((compiled, below))
                    node = below
            else:
                node = node.literals.setdefault(segment.encode(), _Node())
        node.here.append(one)

    def find(self, head: Head) -> Template | None:
        """The operation that fits best, or None."""
        root = self._roots.get(head.method)
        if root is None:
            return None
        parts = head.raw_path.split(b"/")[1:] or [b""]
        # A trailing slash says nothing, unless a template has it or a greedy label takes it.
        found = self._walk(root, parts, 0, head)
        if found is None and len(parts) > 1 and parts[-1] == b"":
            found = self._walk(root, parts[:-1], 0, head)
        if found is None and parts[-1] != b"":
            found = self._walk(root, [*parts, b""], 0, head)
        return found

    def _walk(self, node: _Node, parts: list[bytes], at: int, head: Head) -> Template | None:
        if at == len(parts):
            return _best(node.here, head) if node.here else None
        part = parts[at]
        below = node.literals.get(part)
        if below is None and b"%" in part:
            below = node.literals.get(unquote_to_bytes(part))
        if below is not None:
            found = self._walk(below, parts, at + 1, head)
            if found is not None:
                return found
        for pattern, mixed in node.mixed:
            if pattern.fullmatch(part):
                found = self._walk(mixed, parts, at + 1, head)
                if found is not None:
                    return found
        if node.label is not None and part:
            found = self._walk(node.label, parts, at + 1, head)
            if found is not None:
                return found
        for tail, many in node.greedy:
            rest = parts[at:]
            if tail:
                if len(rest) <= len(tail) or rest[-len(tail) :] != tail:
                    continue
                rest = rest[: -len(tail)]
            if rest != [b""]:
                found = _best(many, head)
                if found is not None:
                    return found
        return None


def _best(templates: list[Template], head: Head) -> Template | None:
    """The template whose query and header wishes are met best; its literal parameters must all be there."""
    if len(templates) == 1 and not templates[0].literals:
        return templates[0]
    given = dict(head.query)
    best: Template | None = None
    best_rank: tuple[int, int, int, bool, bool] | None = None
    for one in templates:
        if any(key not in given or (value and given[key] != value) for key, value in one.literals):
            continue
        present = sum(key in given for key in one.wanted_query) + sum(key in head.headers for key in one.wanted_headers)
        missing = len(one.wanted_query) + len(one.wanted_headers) - present
        rank = (len(one.literals), present, -missing, not one.deprecated, given.get("x-id") == one.name)
        if best_rank is None or rank > best_rank:
            best, best_rank = one, rank
    return best
