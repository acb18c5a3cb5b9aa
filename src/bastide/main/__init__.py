"""Wires, and only wires: configuration, the catalogue of services, and the one place where drivers meet ports."""

from bastide.main.program import main

__all__ = ["main"]
