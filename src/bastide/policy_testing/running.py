"""Deciding the cases of a file, and which statements they reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bastide.policy import Document, Statement, decide
from bastide.policy.explain import concerns, covers, in_order, meets, names
from bastide.policy_testing.cases import Case, CaseFile, Expected


@dataclass(frozen=True, slots=True)
class Answer:
    """What was decided. policy: the deciding policy's name; statement, sid: its deciding statement, if one decided.

    layer: "" where a running platform does not tell."""

    decision: str
    layer: str = ""
    policy: str = ""
    statement: int | None = None
    sid: str = ""


Simulator = Callable[[Case], Answer]
"""Asks a running platform."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A case and how it ended. why: "" if it passed."""

    case: Case
    answer: Answer
    why: str


@dataclass(frozen=True, slots=True)
class Coverage:
    """A statement of a named policy. reached: a case to which it applies; passed: one with its policy in force to which
    it does not apply."""

    policy: str
    statement: int
    sid: str
    reached: bool
    passed: bool


@dataclass(frozen=True, slots=True)
class Report:
    """How the cases of a file ended, and what they reach."""

    file: CaseFile
    outcomes: tuple[Outcome, ...]
    coverage: tuple[Coverage, ...]

    @property
    def failures(self) -> list[Outcome]:
        """The cases whose answer is not the one expected."""
        return [one for one in self.outcomes if one.why]

    @property
    def gaps(self) -> list[str]:
        """What the file's own `coverage` asks for and no case gives, a sentence each."""
        wanted = self.file.coverage
        if wanted == "off":
            return []
        found = [f"no case has the policy `{name}` in force" for name in self.file.unused]
        for one in self.coverage:
            told = f"statement {one.statement}{f' ({one.sid})' if one.sid else ''} of `{one.policy}`"
            if not one.reached:
                found.append(f"no case reaches {told}")
            elif not one.passed and wanted == "both-ways":
                found.append(f"no case shows what {told} does not apply to")
        return found

    @property
    def failed(self) -> bool:
        """Whether a case failed or the coverage has a gap."""
        return bool(self.failures or self.gaps)


_WORDS = {"Allowed": "allow", "ExplicitlyDenied": "explicit-deny", "ImplicitlyDenied": "implicit-deny"}


def run(file: CaseFile, simulate: Simulator | None = None) -> Report:
    """Decides every case. simulate: for live ones; without it they fail."""
    reached: dict[tuple[str, int], set[bool]] = {}
    outcomes = []
    for case in file.cases:
        if case.live:
            answer = simulate(case) if simulate is not None else None
            why = "a live case needs a running platform" if answer is None else _why(case.expected, answer)
            outcomes.append(Outcome(case, answer or Answer("not asked"), why))
            continue
        found = decide(case.request, case.layers)
        answer = Answer(_WORDS[found.verdict], found.layer, found.source or "", found.statement, found.sid or "")
        outcomes.append(Outcome(case, answer, _why(case.expected, answer)))
        _reach(case, reached)
    coverage = []
    for name, forms in file.documents.items():
        for statement in forms[0].document.statements:
            seen = reached.get((name, statement.index), set())
            coverage.append(Coverage(name, statement.index, statement.sid or "", True in seen, False in seen))
    return Report(file, tuple(outcomes), tuple(coverage))


def _why(expected: Expected, answer: Answer) -> str:
    """Why an answer is not the one expected; "" if it is."""
    decision = expected.decision
    if not (answer.decision == decision or (decision == "deny" and answer.decision.endswith("-deny"))):
        return f"expected {decision}, got {told(answer)}"
    for wanted, got, what in (
        (expected.layer, answer.layer, "layer"),
        (expected.policy, answer.policy, "policy"),
    ):
        if wanted and wanted != got:
            return f"expected the {what} {wanted} to decide, got {told(answer)}"
    number = "" if answer.statement is None else str(answer.statement)
    if expected.statement and expected.statement not in (answer.sid or None, number or None):
        return f"expected the statement {expected.statement} to decide, got {told(answer)}"
    return ""


def told(answer: Answer) -> str:
    """An answer in words: ``explicit-deny by scp `guardrail` statement 0 (Sid)``."""
    text = answer.decision
    if answer.layer:
        text += f" by {answer.layer}"
    if answer.policy:
        text += f" `{answer.policy}`"
    if answer.statement is not None:
        text += f" statement {answer.statement}"
    return f"{text} ({answer.sid})" if answer.sid else text


def _reach(case: Case, reached: dict[tuple[str, int], set[bool]]) -> None:
    bounded = case.layers.boundary is not None
    for _, _, attached in in_order(case.layers):
        for statement in attached.document.statements:
            held = _applies(attached.document, statement, case, bounded)
            reached.setdefault((attached.source, statement.index), set()).add(held)


def _applies(document: Document, statement: Statement, case: Case, bounded: bool) -> bool:
    request = case.request
    return (
        concerns(statement, request.action)
        and names(document, statement, request, bounded)
        and covers(document, statement, request)
        and all(meets(document, statement, request))
    )
