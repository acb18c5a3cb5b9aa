"""An account with a registry."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.platform import Account
from tests.stories.ecr.registry import Registry


@pytest.fixture
def registry(account: Account, tmp_path: Path) -> Registry:
    return Registry(account, tmp_path)
