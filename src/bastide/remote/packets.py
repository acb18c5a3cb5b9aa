"""Lines of packets. Source: gitprotocol-common(5), gitprotocol-pack(5)."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Final

from bastide.domain import Refused
from bastide.engines.git import ID, NOTHING
from bastide.frontdoor.receive import Received
from bastide.services.codecommit import Command

FLUSH: Final = b"0000"
_MOST_COMMANDS: Final = 1000
_LONGEST: Final = 1000
_BAND: Final = 65_515


def line(data: bytes) -> bytes:
    """A packet."""
    return b"%04x" % (len(data) + 4) + data


def malformed(why: str) -> Refused:
    """400."""
    return Refused("MalformedRequest", f"That is no request of git: {why}", 400)


async def body(received: Received, most: int) -> AsyncIterator[bytes]:
    """The body, unpacked if it came packed; raises Refused for more than `most` bytes."""
    packing = received.named.get("content-encoding", "")
    unpack = None
    if packing in ("gzip", "x-gzip"):
        unpack = zlib.decompressobj(31)
    elif packing not in ("", "identity"):
        raise Refused("UnsupportedMediaType", "A body may be packed with gzip.", 415)
    size = 0
    while piece := await received.more():
        if unpack is None:
            parts = [piece]
        else:
            parts = []
            try:
                while piece:
                    parts.append(unpack.decompress(piece, 1 << 20))
                    piece = unpack.unconsumed_tail
                    size += len(parts[-1])
                    if size > most:
                        break
            except zlib.error:
                raise malformed("its gzip is damaged.") from None
            size -= sum(map(len, parts))
        for part in parts:
            size += len(part)
            if size > most:
                raise Refused("RequestEntityTooLarge", f"The request has more than {most} bytes.", 413)
            if part:
                yield part


class Reading:
    """Reads packets from a body, and then what follows them."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces
        self._held = bytearray()

    async def _take(self, count: int) -> bytes:
        while len(self._held) < count:
            piece = await anext(self._pieces, b"")
            if not piece:
                raise malformed("it ends within a packet.")
            self._held += piece
        found = bytes(self._held[:count])
        del self._held[:count]
        return found

    async def packet(self) -> bytes | None:
        """The next packet's content, None at a flush."""
        head = await self._take(4)
        try:
            size = int(head, 16)
        except ValueError:
            raise malformed("a packet has no length.") from None
        if size == 0:
            return None
        if not 4 < size <= 65_520:
            raise malformed("a packet has a wrong length.")
        return await self._take(size - 4)

    async def rest(self) -> AsyncIterator[bytes]:
        """What follows."""
        if self._held:
            held = bytes(self._held)
            self._held.clear()
            yield held
        async for piece in self._pieces:
            yield piece


async def commands(reading: Reading) -> tuple[list[Command], frozenset[str]]:
    """The commands of a push, and what the client can do; raises Refused."""
    found: list[Command] = []
    able: frozenset[str] = frozenset()
    names = set()
    while (packet := await reading.packet()) is not None:
        text, _, more = packet.partition(b"\0")
        if more and not found:
            able = frozenset(more.decode("utf-8", "replace").split())
        if text.startswith((b"shallow ", b"push-cert")):
            raise malformed("shallow pushes and signed pushes are not taken.")
        if len(found) >= _MOST_COMMANDS:
            raise malformed(f"it changes more than {_MOST_COMMANDS} references.")
        try:
            before, after, name = text.rstrip(b"\n").decode().split(" ", 2)
        except ValueError:
            raise malformed("a command is not understood.") from None
        if not ID.fullmatch(before) or not ID.fullmatch(after) or len(name) > _LONGEST or name in names:
            raise malformed("a command is not understood.")
        if before == after == NOTHING:
            raise malformed("a command changes nothing.")
        names.add(name)
        found.append(Command(name, before, after))
    return found, able


def advertisement(held: Mapping[str, str], agent: str) -> bytes:
    """The references, for whoever wants to push."""
    able = f"report-status delete-refs side-band-64k ofs-delta atomic object-format=sha1 agent={agent}"
    lines = [(id, name) for name, id in sorted(held.items(), key=lambda one: one[0].encode())]
    if not lines:
        lines = [(NOTHING, "capabilities^{}")]
    (first, name), *others = lines
    told = [line(f"{first} {name}\0{able}\n".encode())] + [line(f"{id} {one}\n".encode()) for id, one in others]
    return line(b"# service=git-receive-pack\n") + FLUSH + b"".join(told) + FLUSH


def report(unpacked: str, results: Mapping[str, str], able: frozenset[str], words: Iterable[str] = ()) -> bytes:
    """What became of a push. unpacked: why its pack was not taken; results: why a reference did not move; both empty if
    all is well. words: shown to whoever pushed."""
    if "report-status" not in able:
        return FLUSH
    told = line(f"unpack {_plain(unpacked) or 'ok'}\n".encode())
    for name, fault in results.items():
        told += line(f"ng {name} {_plain(fault)}\n".encode() if fault else f"ok {name}\n".encode())
    told += FLUSH
    if "side-band-64k" not in able:
        return told
    said = b"".join(line(b"\x02" + _plain(one).encode() + b"\n") for one in words)
    bands = [line(b"\x01" + told[at : at + _BAND]) for at in range(0, len(told), _BAND)]
    return said + b"".join(bands) + FLUSH


def _plain(text: str) -> str:
    return " ".join(text.split())[:800]
