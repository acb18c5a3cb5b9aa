"""One real platform for a test run, started as a person would, and fresh accounts for every test."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests import order
from tests.controls import Controls
from tests.platform import Account, Running, forget

settings.register_profile("default", max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("long", max_examples=5000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--controls", action="store_true", help="print every control, the tests that cite it, how they ended"
    )


def pytest_configure(config: pytest.Config) -> None:
    gc.disable()  # fourteen thousand tests are made, and none of them goes
    config.pluginmanager.register(Controls(config), "bastide-controls")


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A platform with an organisation, over TLS and over plain HTTP on loopback."""
    running = Running(tmp_path_factory.mktemp("platform") / "data")
    running.start()
    running.found()
    yield running
    running.stop()


@pytest.fixture
def account(platform: Running) -> Account:
    """A fresh account of the organisation."""
    return platform.account()


@pytest.fixture
def neighbour(platform: Running) -> Account:
    """Another fresh account."""
    return platform.account()


@pytest.fixture(scope="session")
def conformance() -> Path:
    """The folder of independent cases; tests that need it say so where it is missing."""
    folder = Path(os.environ.get("BASTIDE_CONFORMANCE", Path(__file__).parents[2] / "shared" / "conformance"))
    if not folder.is_dir():
        pytest.skip(f"no conformance cases below {folder}")
    return folder


@pytest.fixture(scope="session")
def mission() -> Path:
    """The folder of controls and sample policies."""
    folder = Path(os.environ.get("BASTIDE_MISSION", Path(__file__).parents[2] / "shared" / "mission"))
    if not folder.is_dir():
        pytest.skip(f"no mission below {folder}")
    return folder


def pytest_sessionfinish(session: Any) -> None:
    os.environ.pop("AWS_PROFILE", None)
    forget()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = order.arranged(items, order.processes())
