"""What strongSwan's daemon is told and asked: its versatile IKE control interface, over a Unix socket.

Source: strongSwan, src/libcharon/plugins/vici/README.md.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bastide.engines.network import NetworkError

Message = Mapping[str, Any]
"""Texts, lists of texts, and messages, by name."""

_REQUEST, _RESPONSE, _REGISTER, _CONFIRM, _EVENT = 0, 1, 3, 5, 7
_SECTION, _SECTION_END, _VALUE, _LIST, _ITEM, _LIST_END = range(1, 7)
_LONGEST: Final = 512 * 1024
"""Bytes of a packet; the daemon takes and sends no more."""


def encoded(message: Message) -> bytes:
    """A message as the daemon reads it. Pure; raises ValueError for a name or value that is too long."""
    said = bytearray()
    for name, value in message.items():
        if isinstance(value, Mapping):
            said += _named(_SECTION, name) + encoded(value) + bytes((_SECTION_END,))
        elif isinstance(value, str):
            said += _named(_VALUE, name) + _text(value)
        elif isinstance(value, Sequence):
            said += _named(_LIST, name)
            for one in value:
                said += bytes((_ITEM,)) + _text(str(one))
            said.append(_LIST_END)
        else:
            raise ValueError(f"{name} is no text, list or message")
    return bytes(said)


def _named(kind: int, name: str) -> bytes:
    held = name.encode()
    if len(held) > 255:
        raise ValueError("a name is too long")
    return bytes((kind, len(held))) + held


def _text(value: str) -> bytes:
    held = value.encode()
    if len(held) > 65535:
        raise ValueError("a value is too long")
    return struct.pack("!H", len(held)) + held


def decoded(said: bytes) -> dict[str, Any]:
    """A message that the daemon wrote. Pure; raises ValueError for anything else."""
    try:
        found, at = _section(said, 0, whole=True)
    except (IndexError, struct.error) as error:
        raise ValueError("a message ends too early") from error
    if at != len(said):
        raise ValueError("a message goes on after its end")
    return found


def _section(said: bytes, at: int, *, whole: bool = False) -> tuple[dict[str, Any], int]:
    found: dict[str, Any] = {}
    while at < len(said) or not whole:
        kind = said[at]
        if kind == _SECTION_END and not whole:
            return found, at + 1
        size = said[at + 1]
        name, at = said[at + 2 : at + 2 + size].decode(errors="replace"), at + 2 + size
        if kind == _SECTION:
            found[name], at = _section(said, at)
        elif kind == _VALUE:
            found[name], at = _read(said, at)
        elif kind == _LIST:
            held: list[str] = []
            while said[at] == _ITEM:
                one, at = _read(said, at + 1)
                held.append(one)
            if said[at] != _LIST_END:
                raise ValueError("a list does not end")
            found[name], at = held, at + 1
        else:
            raise ValueError(f"there is no element {kind}")
    return found, at


def _read(said: bytes, at: int) -> tuple[str, int]:
    (size,) = struct.unpack_from("!H", said, at)
    end = at + 2 + size
    if end > len(said):
        raise ValueError("a message ends too early")
    return said[at + 2 : end].decode(errors="replace"), end


class Vici:
    """A connection to the daemon, for one user at a time. Raises NetworkError for what the daemon refuses, OSError and
    asyncio.IncompleteReadError when it is gone."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._registered: set[str] = set()

    async def ask(self, command: str, message: Message | None = None) -> dict[str, Any]:
        """What a command answers."""
        self._send(_named(_REQUEST, command) + encoded(message or {}))
        answer = (await self._receive(_RESPONSE))[1]
        if answer.get("success") == "no":
            raise NetworkError(f"{command}: {answer.get('errmsg', 'refused')}")
        return answer

    async def listed(self, command: str, event: str) -> list[dict[str, Any]]:
        """What a command tells one by one, as events."""
        await self.register(event)
        self._send(_named(_REQUEST, command))
        found: list[dict[str, Any]] = []
        while True:
            kind, message = await self._receive(_RESPONSE, _EVENT)
            if kind == _RESPONSE:
                return found
            found.append(message)

    async def register(self, event: str) -> None:
        """Has `wait` return at that event."""
        if event in self._registered:
            return
        self._registered.add(event)
        self._send(_named(_REGISTER, event))
        await self._receive(_CONFIRM)

    async def wait(self) -> None:
        """Until something happens that was registered for."""
        await self._receive(_EVENT)

    def close(self) -> None:
        """Ends the connection."""
        self._writer.close()

    def _send(self, packet: bytes) -> None:
        self._writer.write(struct.pack("!I", len(packet)) + packet)

    async def _receive(self, *kinds: int) -> tuple[int, dict[str, Any]]:
        while True:
            (size,) = struct.unpack("!I", await self._reader.readexactly(4))
            if not 0 < size <= _LONGEST:
                raise NetworkError("the daemon's answer is no packet")
            packet = await self._reader.readexactly(size)
            kind = packet[0]
            start = 2 + packet[1] if kind == _EVENT and size > 1 else 1
            if kind in kinds:
                try:
                    return kind, decoded(packet[start:])
                except ValueError as error:
                    raise NetworkError(f"the daemon's answer cannot be read: {error}") from None
            if kind != _EVENT:  # an event that was registered for may come in between
                raise NetworkError(f"the daemon answers {kind}")
