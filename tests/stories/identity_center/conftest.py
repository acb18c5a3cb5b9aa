"""A platform whose people sign in at the development provider."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.platform import Account, Running
from tests.stories.identity_center.browser import Centre


@pytest.fixture(scope="session")
def centre(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Centre]:
    """Started by its own commands, with `ana` and `ben` at the development provider."""
    folder = tmp_path_factory.mktemp("centre") / "data"
    running = Running(folder, arguments=("--development-identity-provider",))
    running.start()
    running.found()
    found = Centre(running)
    found.invent("ana", "--group", "scientists", "--claim", "department=Risk")
    found.invent("ben")
    yield found
    running.stop()


@pytest.fixture
def account(centre: Centre) -> Account:
    """A fresh account of that organisation."""
    return centre.platform.account()


@pytest.fixture
def neighbour(centre: Centre) -> Account:
    """Another fresh account."""
    return centre.platform.account()
