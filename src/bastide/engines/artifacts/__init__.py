"""Bytes at rest. The port, and local files behind it."""

from bastide.engines.artifacts.files import Artifacts, Damaged, Written, deletions_held

__all__ = ["Artifacts", "Damaged", "Written", "deletions_held"]
