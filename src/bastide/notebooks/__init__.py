"""Browsers at notebook instances: each has a host of its own, where nothing of the platform's is."""

from bastide.notebooks.application import NotebookPages

__all__ = ["NotebookPages"]
