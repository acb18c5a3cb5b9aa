"""Where the platform is reached from outside."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Door:
    """Where people and functions reach the platform: its URL, and the names that it answers to."""

    url: str
    hosts: tuple[str, ...]
