"""A platform whose people sign in at the development provider."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.platform import Account, Running
from tests.stories.identity_center.browser import Centre

_CENTRES: list[Centre] = []


@pytest.fixture
def centre(tmp_path_factory: pytest.TempPathFactory) -> Centre:
    """Started by its own commands, with `ana` and `ben` at the development provider; one for all tests of this folder."""
    if not _CENTRES:
        running = Running(tmp_path_factory.mktemp("centre") / "data", arguments=("--development-identity-provider",))
        running.start()
        running.found()
        found = Centre(running)
        found.invent("ana", "--group", "scientists", "--claim", "department=Risk")
        found.invent("ben")
        _CENTRES.append(found)
    return _CENTRES[0]


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    """Stops it behind the folder's tests: it asks the provider about every session that is open, every two seconds."""
    if nextitem is None or Path(__file__).parent not in nextitem.path.parents:
        pytest_sessionfinish()


def pytest_sessionfinish() -> None:
    while _CENTRES:
        _CENTRES.pop().platform.stop()


@pytest.fixture
def account(centre: Centre) -> Account:
    """A fresh account of that organisation."""
    return centre.platform.account()


@pytest.fixture
def neighbour(centre: Centre) -> Account:
    """Another fresh account."""
    return centre.platform.account()
