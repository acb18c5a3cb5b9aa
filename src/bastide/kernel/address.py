"""Where clients reach the platform."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Address:
    """``https://HOST:PORT``, composed with the engines: what URLs that the platform hands out begin with."""

    url: str
