"""Inputs of the query and ec2 protocols: ``Member.list.member.1.Name=value`` pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import unquote_plus

from bastide.protocol import texts
from bastide.protocol.head import Malformed

Node = Any
"""A str, or a dict of nodes by key part; a value beside children stands under the empty key."""

_MOST_PAIRS = 20_000
_MOST_PARTS = 64
_MOST_NODES = 200_000
"""Of the parts of all names together: what a tree of them costs, whoever sends it."""


def pairs(body: bytes) -> list[tuple[str, str]]:
    """The decoded pairs of a form body; raises Malformed for bytes that are no UTF-8, or too many pairs."""
    if body.count(b"&") >= _MOST_PAIRS:  # before a list is made of them: who sends it is not known yet
        raise Malformed("The form has too many fields")
    try:
        text = body.decode()
        found = []
        for part in text.split("&"):
            if not part:
                continue
            key, _, value = part.partition("=")
            if "%" in key or "+" in key:
                key = unquote_plus(key, errors="strict")
            if "%" in value or "+" in value:
                value = unquote_plus(value, errors="strict")
            found.append((key, value))
    except UnicodeDecodeError:
        raise Malformed("The form is not UTF-8") from None
    return found


def tree(fields: Iterable[tuple[str, str]]) -> dict[str, Node]:
    """The fields as a tree by the dots of their names."""
    root: dict[str, Node] = {}
    nodes = 0
    for key, value in fields:
        parts = key.split(".") if "." in key else [key]
        nodes += len(parts)
        if len(parts) > _MOST_PARTS or nodes > _MOST_NODES:
            raise Malformed("A field is nested too deeply")
        node = root
        for part in parts[:-1]:
            below = node.get(part)
            if type(below) is not dict:
                below = {} if below is None else {"": below}
                node[part] = below
            node = below
        last = parts[-1]
        if type(node.get(last)) is dict:
            node[last][""] = value
        else:
            node[last] = value
    return root


NodeReader = Callable[[Node], Any]


def _scalar(read: texts.TextReader) -> NodeReader:
    def scalar(node: Node) -> Any:
        if type(node) is dict:
            node = node.get("")
            if node is None:
                raise Malformed("Start of structure or map found where not expected.")
        return read(node)

    return scalar


def _numbered(node: Node) -> list[Node]:
    """The children of a list or map node in the order of their numbers."""
    found = []
    for key, below in node.items():
        if key == "":
            continue
        if not (key.isascii() and key.isdigit() and len(key) <= 6):
            raise Malformed(f"{key[:32]} is not a valid index")
        found.append((int(key), below))
    found.sort(key=lambda one: one[0])
    return [below for _, below in found]


class FormReaders:
    """Makes and keeps the readers of one service. `ec2`: names and lists as the ec2 protocol has them."""

    def __init__(self, *, ec2: bool) -> None:
        self._ec2 = ec2
        self._structures: dict[str, NodeReader] = {}

    def of(self, shape: Any) -> NodeReader:
        """A reader of `shape` from a node; it raises Malformed."""
        kind = shape.type_name
        if kind == "structure":
            return self._structure(shape)
        if kind == "list":
            return self._list(shape)
        if kind == "map":
            return self._map(shape)
        return _scalar(texts.reader(shape, "iso8601"))

    def _name(self, name: str, shape: Any) -> str:
        given = shape.serialization
        if self._ec2:
            if "queryName" in given:
                return str(given["queryName"])
            wire = str(given.get("name", name))
            return wire[:1].upper() + wire[1:]
        return str(given.get("name", name))

    def _structure(self, shape: Any) -> NodeReader:
        found = self._structures.get(shape.name)
        if found is not None:
            return found
        table: dict[str, tuple[str, NodeReader]] = {}
        built = False

        def build() -> None:
            nonlocal built
            for name, below in shape.members.items():
                entry = (name, self.of(below))
                table[self._name(name, below)] = entry
                if below.type_name == "list" and below.serialization.get("flattened") and not self._ec2:
                    # Older models, and clients that go by them, name a flattened list by its items.
                    inner = below.member.serialization.get("name")
                    if inner:
                        table.setdefault(inner, entry)
            built = True

        def read(node: Node) -> dict[str, Any]:
            if not built:
                build()
            if type(node) is not dict:
                if node == "":
                    return {}
                raise Malformed("Start of structure expected")
            out: dict[str, Any] = {}
            for wire, one in node.items():
                entry = table.get(wire)
                if entry is not None:
                    name, below = entry
                    out[name] = below(one)
            return out

        self._structures[shape.name] = read
        return read

    def _list(self, shape: Any) -> NodeReader:
        step = None
        if not self._ec2 and not shape.serialization.get("flattened"):
            step = str(shape.member.serialization.get("name", "member"))
        held: list[NodeReader] = []

        def read(node: Node) -> list[Any]:
            if node == "":
                return []
            if type(node) is dict and step is not None:
                node = node.get(step, "")
                if node == "":
                    return []
            if type(node) is not dict:
                raise Malformed("Expected list or null")
            if not held:
                held.append(self.of(shape.member))
            below = held[0]
            return [below(one) for one in _numbered(node)]

        return read

    def _map(self, shape: Any) -> NodeReader:
        flattened = bool(shape.serialization.get("flattened"))
        key_name = str(shape.key.serialization.get("name", "key"))
        value_name = str(shape.value.serialization.get("name", "value"))
        held: list[NodeReader] = []

        def read(node: Node) -> dict[str, Any]:
            if node == "":
                return {}
            if type(node) is dict and not flattened:
                node = node.get("entry", "")
                if node == "":
                    return {}
            if type(node) is not dict:
                raise Malformed("Expected map or null")
            if not held:
                held.extend((self.of(shape.key), self.of(shape.value)))
            read_key, read_value = held
            out: dict[str, Any] = {}
            for entry in _numbered(node):
                if type(entry) is not dict or key_name not in entry:
                    raise Malformed("A map entry has no key")
                value = entry.get(value_name)
                out[read_key(entry[key_name])] = None if value is None else read_value(value)
            return out

        return read
