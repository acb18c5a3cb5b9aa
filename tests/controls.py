"""`make controls`: every control, the tests that cite it, and how they ended.

``@pytest.mark.control("PRM-07", lacking="notebooks")`` cites a control of which a test shows a part, and says what is
lacking. Such a control counts as proved in part, never as proved.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml


class Controls:
    """Collects citations and outcomes, and refuses a citation of a control that does not exist."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.cited: dict[str, list[str]] = {}
        self.lacking: dict[str, str] = {}
        self.outcome: dict[str, str] = {}
        path = (
            Path(os.environ.get("BASTIDE_MISSION", Path(__file__).parents[2] / "shared" / "mission")) / "controls.yaml"
        )
        self.controls = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)["controls"] if path.exists() else []

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        known = {control["id"] for control in self.controls}
        for item in items:
            for mark in item.iter_markers("control"):
                for name in mark.args:
                    if known and name not in known:
                        raise pytest.UsageError(f"{item.nodeid} cites the control {name}, which does not exist")
                    self.cited.setdefault(name, []).append(item.nodeid)
                    if mark.kwargs:
                        self.lacking[name] = mark.kwargs["lacking"]
        if hasattr(self.config, "workeroutput"):  # one of several test processes: the one that reports collects nothing
            self.config.workeroutput["controls"] = (self.cited, self.lacking)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """What a test process has collected; each collects the whole suite."""
        self.cited, self.lacking = getattr(node, "workeroutput", {}).get("controls", (self.cited, self.lacking))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed or (report.when == "call" and report.nodeid not in self.outcome):
            self.outcome[report.nodeid] = report.outcome

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.config.getoption("--controls"):
            return
        write = terminalreporter.write_line
        held = 0
        for control in self.controls:
            tests = self.cited.get(control["id"], [])
            ended = [self.outcome.get(test, "not run") for test in tests]
            lacking = self.lacking.get(control["id"], "")
            whole = "in part" if lacking else "proved"
            state = "not cited" if not tests else whole if set(ended) == {"passed"} else "BROKEN"
            held += state == "proved"
            write(f"{control['id']}  {state:9}  {control['carried_by']:14} {control['title']}")
            if lacking:
                write(f"        lacking  {lacking}")
            for test, ends in _by_function(tests, ended).items():
                count = f" ({len(ends)} cases)" if len(ends) > 1 else ""
                write(f"        {'passed' if set(ends) == {'passed'} else 'FAILED':8} {test}{count}")
        write(f"{held} of {len(self.controls)} controls are proved by tests")


def _by_function(tests: list[str], ended: list[str]) -> dict[str, list[str]]:
    """How the cases of each test function ended."""
    found: dict[str, list[str]] = {}
    for test, end in zip(tests, ended, strict=True):
        found.setdefault(test.partition("[")[0], []).append(end)
    return found
