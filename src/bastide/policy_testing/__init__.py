"""Tests of policies, written as cases in YAML: `bastide policy test`, and a pytest plugin that collects them.

`read` reads and checks a file, `run` decides its cases by the engine that guards calls. The format is in
docs/policy-tools.md.
"""

from __future__ import annotations

from bastide.policy_testing.cases import Case, CaseFile, Expected, Faulty, Skipped, read
from bastide.policy_testing.running import Answer, Coverage, Outcome, Report, Simulator, run

__all__ = [
    "Answer",
    "Case",
    "CaseFile",
    "Coverage",
    "Expected",
    "Faulty",
    "Outcome",
    "Report",
    "Simulator",
    "Skipped",
    "read",
    "run",
]
