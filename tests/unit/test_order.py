"""The order of tests: every one once, and modules with much to set up whole, at the beginning of what a process gets."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.order import LONG, arranged


@pytest.mark.parametrize("processes", [1, 2, 4, 7])
@pytest.mark.parametrize("each", [1, 40])
def test_long_modules_stay_whole_and_come_first(processes: int, each: int) -> None:
    long = [one if one.endswith(".py") else f"{one}test_some.py" for one in LONG]
    modules = [*long, *(f"tests/stories/x/test_{number}.py" for number in range(40)), "tests/unit/x/test_many.py"]
    count = {module: 4000 if module.endswith("many.py") else each for module in modules}
    items: list[Any] = [
        SimpleNamespace(nodeid=f"{module}::test_{number}") for module in modules for number in range(count[module])
    ]
    made = [one.nodeid for one in arranged(items, processes)]
    assert sorted(made) == sorted(one.nodeid for one in items)
    left, at, first = len(made), 0, []
    for number in range(processes):
        size = left // (processes - number)  # as xdist deals them out
        run = [nodeid.partition("::")[0] for nodeid in made[at : at + size]]
        first.append({module for module in run if module in long})
        behind = next((place for place, module in enumerate(run) if module not in long), size)
        assert first[-1] == set(run[:behind]), "they come first"
        left, at = left - size, at + size
    assert sum(map(len, first)) == len(long), "none is split"
