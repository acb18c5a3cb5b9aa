"""XML of rest-xml, query and ec2, both ways.

Reading refuses every document type declaration, so entities, external or laughing, never exist. Writing is by string
pieces appended to a list: `put`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

from bastide.protocol import texts
from bastide.protocol.head import Malformed

Element = ElementTree.Element
ElementReader = Callable[[Element], Any]
Put = Callable[[str], None]
ElementWriter = Callable[[Any, Put], None]

IN_HEAD = ("header", "headers", "statusCode")
"""Where an answer's members may be besides its body; what a request has in its path or query counts as body there."""

_SPECIAL = re.compile('[&<>\r"\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]')
_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\r": "&#xD;"}


def escape(text: str) -> str:
    """Text as XML holds it; characters that XML 1.0 cannot hold become U+FFFD."""
    if _SPECIAL.search(text) is None:
        return text
    return _SPECIAL.sub(lambda found: _ESCAPES.get(found[0], "\ufffd"), text)


def parse(body: bytes) -> Element:
    """The root element of UTF-8 bytes; raises Malformed for anything else, and for any DTD."""
    # Expat goes by a byte order mark whatever encoding it is told, and would read a DTD in UTF-16 that we did not see.
    try:
        body.decode()
    except UnicodeDecodeError:
        raise Malformed("The XML is not UTF-8") from None
    if b"\0" in body or b"<!DOCTYPE" in body or b"<!ENTITY" in body:
        raise Malformed("A document type declaration is not allowed")
    parser = ElementTree.XMLParser(encoding="utf-8")  # noqa: S314
    try:
        parser.feed(body)
        return parser.close()
    except (ElementTree.ParseError, ValueError):
        raise Malformed("The XML is not well-formed") from None


def local(tag: Any) -> str:
    """A tag or attribute name without its namespace."""
    return str(tag).rpartition("}")[2]


def _scalar(read: texts.TextReader) -> ElementReader:
    def scalar(element: Element) -> Any:
        if len(element):
            raise Malformed("Start of structure or map found where not expected.")
        return read(element.text or "")

    return scalar


def _stripped(read: texts.TextReader) -> texts.TextReader:
    return lambda text: read(text.strip())


class XmlReaders:
    """Makes and keeps the element readers of one service."""

    def __init__(self) -> None:
        self._structures: dict[str, ElementReader] = {}

    def of(self, shape: Any) -> ElementReader:
        """A reader of `shape` from its element; it raises Malformed."""
        kind = shape.type_name
        if kind == "structure":
            return self.structure(shape)
        if kind == "list":
            return self._list(shape)
        if kind == "map":
            return self._map(shape)
        read = texts.reader(shape, "iso8601")
        return _scalar(read if kind == "string" else _stripped(read))

    def structure(self, shape: Any) -> ElementReader:
        """A reader of a structure's content."""
        found = self._structures.get(shape.name)
        if found is not None:
            return found
        table: dict[str, tuple[str, ElementReader, str]] = {}
        attributes: dict[str, tuple[str, texts.TextReader]] = {}
        built = False

        def build() -> None:
            nonlocal built
            for name, below in shape.members.items():
                given = below.serialization
                if given.get("location") is not None:
                    continue
                wire = member_name(shape, name, below)
                if given.get("xmlAttribute"):
                    attributes[wire.rpartition(":")[2]] = (name, texts.reader(below, "iso8601"))
                elif given.get("flattened") and below.type_name == "list":
                    table[wire] = (name, self.of(below.member), "list")
                elif given.get("flattened") and below.type_name == "map":
                    table[wire] = (name, self._entry(below), "map")
                else:
                    table[wire] = (name, self.of(below), "")
            built = True

        def read(element: Element) -> dict[str, Any]:
            if not built:
                build()
            out: dict[str, Any] = {}
            for child in element:
                tag = str(child.tag)
                if tag[0] == "{":
                    tag = local(tag)
                entry = table.get(tag)
                if entry is None:
                    continue
                name, below, many = entry
                if many == "list":
                    out.setdefault(name, []).append(below(child))
                elif many == "map":
                    out.setdefault(name, {}).update((below(child),))
                else:
                    out[name] = below(child)
            if attributes:
                for tag, text in element.attrib.items():
                    held = attributes.get(local(tag))
                    if held is not None:
                        out[held[0]] = held[1](text)
            return out

        self._structures[shape.name] = read
        return read

    def _list(self, shape: Any) -> ElementReader:
        step = str(shape.member.serialization.get("name", "member"))
        held: list[ElementReader] = []

        def read(element: Element) -> list[Any]:
            if not held:
                held.append(self.of(shape.member))
            below = held[0]
            return [below(child) for child in element if local(child.tag) == step]

        return read

    def _entry(self, shape: Any) -> ElementReader:
        key_name = str(shape.key.serialization.get("name", "key"))
        value_name = str(shape.value.serialization.get("name", "value"))
        held: list[ElementReader] = []

        def read(element: Element) -> tuple[Any, Any]:
            if not held:
                held.extend((self.of(shape.key), self.of(shape.value)))
            key = value = None
            for child in element:
                tag = local(child.tag)
                if tag == key_name:
                    key = held[0](child)
                elif tag == value_name:
                    value = held[1](child)
            if key is None:
                raise Malformed("A map entry has no key")
            return key, value

        return read

    def _map(self, shape: Any) -> ElementReader:
        entry = self._entry(shape)

        def read(element: Element) -> dict[str, Any]:
            return dict(entry(child) for child in element if local(child.tag) == "entry")

        return read


def declared(shape: Any) -> dict[str, Any]:
    """A shape's traits where it is declared, without those of the member that refers to it."""
    found: dict[str, Any] = shape._shape_resolver._shape_map[shape.name]
    return found


def member_name(parent: Any, name: str, member: Any) -> str:
    """The element name of a structure's member.

    A name declared on a structure is that of a document's root, so members do not take it. A flattened list whose
    flattening is its own, as in SimpleDB, is named by its items.
    """
    if member.type_name == "structure":
        return str(parent._shape_model["members"][name].get("locationName", name))
    own = member.serialization.get("name")
    if own is None and member.type_name == "list" and declared(member).get("flattened"):
        own = member.member.serialization.get("name")
    return str(own or name)


def namespace(shape: Any) -> str:
    """The xmlns attribute a shape asks for, with a space before it, or nothing."""
    given = shape.serialization.get("xmlNamespace")
    if not given:
        return ""
    if isinstance(given, str):
        return f' xmlns="{escape(given)}"'
    prefix = f":{given['prefix']}" if given.get("prefix") else ""
    return f' xmlns{prefix}="{escape(given["uri"])}"'


class XmlWriters:
    """Makes and keeps the writers of one service."""

    def __init__(self) -> None:
        self._structures: dict[str, ElementWriter] = {}
        self._attributes: dict[str, dict[str, tuple[str, texts.TextWriter | None]]] = {}

    def element(self, shape: Any, name: str, xmlns: str | None = None) -> ElementWriter:
        """A writer of `shape` as element `name`; `xmlns` replaces the attribute that the shape asks for."""
        kind = shape.type_name
        start = f"<{name}{namespace(shape) if xmlns is None else xmlns}"
        opened, closed = start + ">", f"</{name}>"
        if kind == "structure":
            content = self.content(shape)
            attributes = self._attributes_of(shape)

            def structure(value: Any, put: Put) -> None:
                if attributes:
                    put(start)
                    for member, (wire, below) in attributes.items():
                        one = value.get(member)
                        if one is not None:
                            put(f' {wire}="{escape(one if below is None else below(one))}"')
                    put(">")
                else:
                    put(opened)
                content(value, put)
                put(closed)

            return structure
        if kind == "list":
            if shape.serialization.get("flattened"):
                return self._items(shape, name)
            items = self._items(shape, str(shape.member.serialization.get("name", "member")))
            return _wrapped(opened, items, closed)
        if kind == "map":
            if shape.serialization.get("flattened"):
                return self._entries(shape, f"<{name}>", closed)
            return _wrapped(opened, self._entries(shape, "<entry>", "</entry>"), closed)
        write = texts.writer(shape, "iso8601")
        if write is None:

            def string(value: Any, put: Put) -> None:
                put(f"{opened}{escape(value)}{closed}")

            return string

        def scalar(value: Any, put: Put) -> None:
            put(f"{opened}{write(value)}{closed}")

        return scalar

    def _attributes_of(self, shape: Any) -> dict[str, tuple[str, texts.TextWriter | None]]:
        found = self._attributes.get(shape.name)
        if found is None:
            found = {
                name: (str(below.serialization.get("name", name)), texts.writer(below, "iso8601"))
                for name, below in shape.members.items()
                if below.serialization.get("xmlAttribute")
            }
            self._attributes[shape.name] = found
        return found

    def _items(self, shape: Any, name: str) -> ElementWriter:
        held: list[ElementWriter] = []

        def items(value: Any, put: Put) -> None:
            if not held:
                held.append(self.element(shape.member, name))
            below = held[0]
            for one in value:
                if one is not None:
                    below(one, put)

        return items

    def _entries(self, shape: Any, opened: str, closed: str) -> ElementWriter:
        held: list[ElementWriter] = []

        def entries(value: Any, put: Put) -> None:
            if not held:
                held.append(self.element(shape.key, str(shape.key.serialization.get("name", "key"))))
                held.append(self.element(shape.value, str(shape.value.serialization.get("name", "value"))))
            write_key, write_value = held
            for key, one in value.items():
                put(opened)
                write_key(key, put)
                if one is not None:
                    write_value(one, put)
                put(closed)

        return entries

    def content(self, shape: Any) -> ElementWriter:
        """A writer of what stands inside a structure's element; ValueError for members the model does not know."""
        found = self._structures.get(shape.name)
        if found is not None:
            return found
        table: dict[str, ElementWriter | None] = {}
        built = False

        def build() -> None:
            nonlocal built
            for name, below in shape.members.items():
                given = below.serialization
                if given.get("location") in IN_HEAD or given.get("xmlAttribute"):
                    table[name] = None
                else:
                    table[name] = self.element(below, member_name(shape, name, below))
            built = True

        def write(value: Any, put: Put) -> None:
            if not built:
                build()
            for name, one in value.items():
                if one is None:
                    continue
                try:
                    below = table[name]
                except KeyError:
                    raise ValueError(f"{shape.name} has no member {name}") from None
                if below is not None:
                    below(one, put)

        self._structures[shape.name] = write
        return write


def _wrapped(opened: str, content: ElementWriter, closed: str) -> ElementWriter:
    def wrapped(value: Any, put: Put) -> None:
        put(opened)
        content(value, put)
        put(closed)

    return wrapped
