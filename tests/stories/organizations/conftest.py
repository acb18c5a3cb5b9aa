"""What the stories of the organisation have in common."""

from __future__ import annotations

import pytest

from tests.platform import Running
from tests.stories.organizations.tree import RCP, SCP, TAG, Tree


@pytest.fixture
def tree(platform: Running) -> Tree:
    """The organisation, with every policy type enabled."""
    found = Tree(platform)
    found.enable(SCP, RCP, TAG)
    return found
