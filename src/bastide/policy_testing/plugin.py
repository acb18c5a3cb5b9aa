"""The pytest plugin: every ``*.policytest.yaml`` is a module of tests, a case a test, its coverage one more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from bastide.policy_testing.running import Outcome, Report

SUFFIX = ".policytest.yaml"


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collects files of cases."""
    if not file_path.name.endswith(SUFFIX):
        return None
    return _File.from_parent(parent, path=file_path)


class _File(pytest.File):
    def collect(self) -> Iterator[pytest.Item]:
        # Loaded when a file is found: pytest starts everywhere, files of cases are rare.
        from bastide.policy_testing.cases import Faulty, Skipped, read  # noqa: PLC0415
        from bastide.policy_testing.running import run  # noqa: PLC0415

        try:
            report = run(read(self.path))
        except Faulty as faulty:
            raise self.CollectError(str(faulty)) from None
        except Skipped as skipped:
            pytest.skip(str(skipped), allow_module_level=True)
        for outcome in report.outcomes:
            yield _Case.from_parent(self, name=outcome.case.name, outcome=outcome)
        if report.file.coverage != "off":
            yield _Coverage.from_parent(self, name="coverage", report=report)


class _Failed(Exception):  # noqa: N818
    """What a case says when it fails."""


class _Item(pytest.Item):
    line: int | None = None

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, _Failed):
            return str(excinfo.value)
        return super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, self.line, self.name


class _Case(_Item):
    def __init__(self, *, outcome: Outcome, **more: Any) -> None:
        super().__init__(**more)
        self.outcome = outcome
        self.line = outcome.case.line - 1

    def runtest(self) -> None:
        if self.outcome.why:
            request = self.outcome.case.request
            raise _Failed(
                f"{self.path}:{self.outcome.case.line}: {request.action} on {request.resource} "
                f"by {request.principal.arn or 'anonymous'}: {self.outcome.why}"
            )


class _Coverage(_Item):
    def __init__(self, *, report: Report, **more: Any) -> None:
        super().__init__(**more)
        self.report = report

    def runtest(self) -> None:
        if self.report.gaps:
            raise _Failed("\n".join(f"{self.path}: {gap}" for gap in self.report.gaps))
