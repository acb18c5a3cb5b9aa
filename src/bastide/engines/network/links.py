"""What the operator says stands behind a link to elsewhere: a file that the platform reads and never writes.

Nothing is found out: a link leads into a network namespace of this machine, by name or path, or into the machine's own
network (``machine``), and there only to the ranges that are declared. What happens beyond, that namespace's routes and
rules say. docs/network.md shows the file.
"""

from __future__ import annotations

import ipaddress
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bastide.engines.network import Far

_MACHINE: Final = "machine"
_NAMED: Final = Path("/run/netns")
_log = logging.getLogger("bastide.network")


@dataclass(frozen=True, slots=True)
class Declared:
    """A link. end: the address of a customer gateway, that a VPN reaches there, or the id of a Direct Connect connection
    whose circuit it is."""

    end: str
    far: Far


class Links:
    """The declared links, as the file says now."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._held: dict[str, Declared] = {}

    def find(self, end: str) -> Declared | None:
        """The link of a gateway's address, or of a connection's id; None if none is declared. A file that cannot be
        understood declares nothing, and the log says why."""
        try:
            told = self._path.stat()
            if self._seen != (told.st_mtime_ns, told.st_size):
                self._seen, self._held = (told.st_mtime_ns, told.st_size), {}
                self._held = {one.end: one for one in declared(json.loads(self._path.read_text()))}
        except FileNotFoundError:
            self._seen, self._held = None, {}
        except (OSError, ValueError) as error:
            _log.error("%s declares no links: %s", self._path, error)
        return self._held.get(end)


def declared(told: Any) -> list[Declared]:
    """Links as JSON has them; raises ValueError that says what is wrong."""
    if not isinstance(told, list):
        raise ValueError("it has to be a list of links")
    found: list[Declared] = []
    for number, one in enumerate(told):
        try:
            if ("gateway" in one) == ("connection" in one):
                raise ValueError("either gateway or connection")
            end = str(ipaddress.IPv4Address(one["gateway"])) if "gateway" in one else str(one["connection"])
            ranges = tuple(str(ipaddress.IPv4Network(each)) for each in one["ranges"])
            where = str(one["namespace"])
            name = str(one["name"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"link {number + 1} needs name, gateway or connection, namespace and ranges: {error}"
            ) from None
        if not ranges:
            raise ValueError(f"link {number + 1} has no ranges")
        path = "/proc/self/ns/net" if where == _MACHINE else where if where.startswith("/") else str(_NAMED / where)
        found.append(Declared(end, Far(name, path, ranges)))
    return found
