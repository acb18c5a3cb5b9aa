"""The stories of objects, told again to a platform whose objects lie in an S3-compatible store: in another Bastide."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.object_stores import in_bastide, on_store
from tests.platform import Running
from tests.stories.s3 import test_objects as stories
from tests.stories.s3.test_objects import *  # noqa: F403

_OF_LOCAL_FILES = ("test_no_bytes_are_left",)
globals().update({name: None for name in _OF_LOCAL_FILES if hasattr(stories, name)})


@pytest.fixture(scope="module")
def platform(platform: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A platform upon that of the other tests."""
    folder = tmp_path_factory.mktemp("upon")
    running = on_store(folder, in_bastide(platform.account(), folder).url())
    running.launch()
    running.found()
    yield running
    running.stop()
