"""Where clients reach the platform."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Address:
    """Composed with the engines. url: ``https://HOST:PORT``, what URLs that the platform hands out begin with. hosts: the
    names that it answers to."""

    url: str
    hosts: tuple[str, ...] = ()

    @property
    def host(self) -> str:
        """``HOST:PORT``, what the URIs of images begin with."""
        return self.url.partition("://")[2]
