"""Stories of the environments that `make setup` does not build: collected by `make environments-test` only, which does."""

from __future__ import annotations

import os

from tests.stories.sagemaker.conftest import workshop

__all__ = ["workshop"]

collect_ignore_glob = [] if os.environ.get("BASTIDE_ENVIRONMENTS") == "all" else ["test_*.py"]
