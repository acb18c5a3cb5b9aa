"""What stories of pipelines work with."""

from __future__ import annotations

import pytest

from tests.platform import Account
from tests.stories.codepipeline.releases import Releases, releases_of


@pytest.fixture
def releases(account: Account) -> Releases:
    """An account with a role for pipelines, a bucket of artifacts under a key, and a source."""
    return releases_of(account)
