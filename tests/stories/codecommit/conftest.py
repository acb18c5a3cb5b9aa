"""An account with a repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.platform import Account
from tests.stories.codecommit.remote import Remote


@pytest.fixture
def remote(account: Account, tmp_path: Path) -> Remote:
    found = Remote(account, tmp_path)
    found.client.create_repository(repositoryName=found.name)
    return found
