"""What attacks on jobs and models work with."""

from __future__ import annotations

from tests.stories.sagemaker.conftest import workshop

__all__ = ["workshop"]
