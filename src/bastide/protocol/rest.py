"""Members that travel in the head: labels, query string, headers, the status; and the payload beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from bastide.protocol import texts, times
from bastide.protocol.head import Head, Malformed
from bastide.protocol.routing import Template
from bastide.protocol.values import from_base64, to_base64

HeaderReader = Callable[[str], Any]
HeaderWriter = Callable[[Any], str]


def streams(shape: Any) -> bool:
    """Whether the model says that a payload is to be streamed (a botocore Shape keeps that among its raw traits)."""
    return bool(shape.serialization.get("streaming") or shape._shape_model.get("streaming"))


def _split(text: str) -> list[str]:
    """The items of a header list; quotes hold commas together, and a backslash a quote."""
    if '"' not in text:
        return [one.strip() for one in text.split(",")]
    found: list[str] = []
    current: list[str] = []
    quoted = False
    at = 0
    while at < len(text):
        char = text[at]
        if quoted and char == "\\" and at + 1 < len(text):
            current.append(text[at + 1])
            at += 1
        elif char == '"':
            quoted = not quoted
        elif char == "," and not quoted:
            found.append("".join(current).strip())
            current = []
        else:
            current.append(char)
        at += 1
    if quoted:
        raise Malformed("Unbalanced quotes in a header", "header")
    found.append("".join(current).strip())
    return found


def _quoted(text: str) -> str:
    if '"' in text or "," in text:
        escaped = text.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return text


def _json_text(text: str) -> str:
    try:
        return from_base64(text).decode()
    except UnicodeDecodeError:
        raise Malformed("A JSON value in a header is not UTF-8", "header") from None


def header_reader(shape: Any) -> HeaderReader:
    """Reads a member from its header; raises Malformed."""
    if shape.serialization.get("jsonvalue") or shape._shape_model.get("jsonvalue"):
        return _json_text
    if shape.type_name != "list":
        return texts.reader(shape, "rfc822")
    each = header_reader(shape.member)
    if shape.member.type_name == "timestamp" and times.form(shape.member, "rfc822") == "rfc822":

        def dates(text: str) -> list[Any]:
            parts = [one.strip() for one in text.split(",")]
            if len(parts) % 2:
                raise Malformed("A list of dates is broken", "header")
            return [each(f"{parts[at]}, {parts[at + 1]}") for at in range(0, len(parts), 2)]

        return dates
    return lambda text: [each(one) for one in _split(text)] if text else []


def header_writer(shape: Any) -> HeaderWriter:
    """Writes a member as the value of its header."""
    if shape.serialization.get("jsonvalue") or shape._shape_model.get("jsonvalue"):
        return to_base64
    if shape.type_name != "list":
        write = texts.writer(shape, "rfc822")
        return str if write is None else write
    each = header_writer(shape.member)
    if shape.member.type_name == "string":
        return lambda value: ", ".join(_quoted(one) for one in value)
    return lambda value: ", ".join(each(one) for one in value)


def _one_line(text: str) -> str:
    """A header value cannot hold line ends or NUL: what would split the answer becomes a space."""
    if "\r" in text or "\n" in text or "\0" in text:
        return text.replace("\r", " ").replace("\n", " ").replace("\0", " ")
    return text


_ANY_CASE: Final = frozenset({"x-amz-checksum-mode"})
"""Headers of S3 whose values AWS's own clients write in other letters than the model: the C++ SDK says `enabled`."""


class HeadReaders:
    """Reads the members of one operation's input that are in the head of a rest request."""

    def __init__(self, shape: Any, template: Template, *, s3: bool) -> None:
        self._template = template
        self._s3 = s3
        self._labels: dict[str, tuple[str, texts.TextReader]] = {}
        self._query: dict[str, tuple[str, bool, texts.TextReader]] = {}
        self._all_query: tuple[str, bool] | None = None
        self._headers: dict[str, list[tuple[str, HeaderReader, bool]]] = {}
        self._prefixes: list[tuple[str, str]] = []
        for name, member in shape.members.items() if shape is not None else ():
            where = member.serialization.get("location")
            wire = str(member.serialization.get("name", name))
            if where == "uri":
                self._labels[wire] = (name, texts.reader(member, "iso8601"))
            elif where == "querystring":
                if member.type_name == "map":
                    self._all_query = (name, member.value.type_name == "list")
                elif member.type_name == "list":
                    self._query[wire] = (name, True, texts.reader(member.member, "iso8601"))
                else:
                    self._query[wire] = (name, False, texts.reader(member, "iso8601"))
            elif where == "header":
                # S3 takes dates that are none for absent, as RFC 9110 13.1.3 wants it.
                lenient = s3 and member.type_name == "timestamp"
                read = str.upper if s3 and wire.lower() in _ANY_CASE else header_reader(member)
                self._headers.setdefault(wire.lower(), []).append((name, read, lenient))
            elif where == "headers":
                self._prefixes.append((wire.lower(), name))

    def read(self, head: Head, out: dict[str, Any]) -> None:
        """Adds what the head holds to `out`; raises Malformed with its place."""
        place = "uri"
        try:
            if self._labels:
                for label, text in self._template.read_labels(head.raw_path).items():
                    entry = self._labels.get(label)
                    if entry is not None:
                        out[entry[0]] = entry[1](text)
            place = "querystring"
            if head.query and (self._query or self._all_query):
                self._read_query(head.query, out)
            place = "header"
            self._read_headers(head.headers, out)
        except Malformed as malformed:
            malformed.place = place
            raise

    def _read_query(self, query: list[tuple[str, str]], out: dict[str, Any]) -> None:
        wanted = self._query
        for key, value in query:
            entry = wanted.get(key)
            if entry is not None:
                name, many, read = entry
                if many:
                    out.setdefault(name, []).append(read(value))
                elif name not in out:
                    out[name] = read(value)
        if self._all_query is not None:
            name, many = self._all_query
            found: dict[str, Any] = {}
            for key, value in query:
                if many:
                    found.setdefault(key, []).append(value)
                else:
                    found.setdefault(key, value)
            out[name] = found

    def _read_headers(self, headers: Mapping[str, str], out: dict[str, Any]) -> None:
        # Requests have few headers, and operations of S3 some forty members that may come in one.
        for wire, text in headers.items():
            for name, read, lenient in self._headers.get(wire, ()):
                try:
                    out[name] = read(text)
                except Malformed:
                    if not lenient:
                        raise
        for prefix, name in self._prefixes:
            found = {key[len(prefix) :]: value for key, value in headers.items() if key.startswith(prefix)}
            if found:
                out[name] = found
        if self._s3 and "aws-chunked" in out.get("ContentEncoding", ""):
            # The transfer's own coding is not the object's.
            kept = [one for one in _split(out["ContentEncoding"]) if one and one != "aws-chunked"]
            if kept:
                out["ContentEncoding"] = ", ".join(kept)
            else:
                del out["ContentEncoding"]


class HeadWriters:
    """Writes the members of an output or error that travel in the head."""

    def __init__(self, shape: Any) -> None:
        self._headers: dict[str, tuple[str, HeaderWriter]] = {}
        self._prefixes: dict[str, str] = {}
        self.status: str | None = None
        for name, member in shape.members.items() if shape is not None else ():
            where = member.serialization.get("location")
            wire = str(member.serialization.get("name", name))
            if where == "header":
                self._headers[name] = (wire.lower(), header_writer(member))
            elif where == "headers":
                self._prefixes[name] = wire.lower()
            elif where == "statusCode":
                self.status = name

    def write(self, output: Mapping[str, Any], put: Callable[[tuple[str, str]], None]) -> dict[str, Any]:
        """Puts the headers, and returns the members that belong into the body."""
        if not self._headers and not self._prefixes and self.status is None:
            return dict(output)
        rest: dict[str, Any] = {}
        for name, value in output.items():
            if value is None:
                continue
            entry = self._headers.get(name)
            if entry is not None:
                put((entry[0], _one_line(entry[1](value))))
            elif name in self._prefixes:
                prefix = self._prefixes[name]
                for key, text in value.items():
                    put((prefix + key.lower(), _one_line(text)))
            elif name != self.status:
                rest[name] = value
        return rest


def document(value: Any) -> bytes:
    """A document (free JSON) as a payload."""
    return orjson.dumps(value)
