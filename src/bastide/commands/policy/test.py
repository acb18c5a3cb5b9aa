"""`bastide policy test`: cases in YAML, decided by the engine that guards calls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import click
from rich.console import Console
from rich.table import Table

from bastide.commands.client import Credentials, Platform, from_environment
from bastide.commands.options import DATA_OPTION
from bastide.policy_testing.cases import Case, Faulty, Skipped, read
from bastide.policy_testing.running import Answer, Report, Simulator, run, told


@click.command()
@DATA_OPTION
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--format", "shape", type=click.Choice(["table", "json", "junit"]), default="table", show_default=True)
@click.option("--coverage", type=click.Choice(["reached", "both-ways"]), help="Fail where statements are not covered.")
def test(data: Path, files: tuple[Path, ...], shape: str, coverage: str | None) -> None:
    """Decide the cases of FILES and compare with what they expect; folders are searched for *.policytest.yaml.

    Ends with 1 if a case fails or a statement that the file wants covered is not, and with 2 if a file cannot be read.
    Live cases are asked of the running platform (iam:SimulatePrincipalPolicy), with the AWS_* credentials of the
    environment, or as administrator of the principal's account.
    """
    reports = []
    simulate = _simulator(data)
    for path in _found(files):
        try:
            file = read(path)
        except Faulty as faulty:
            click.echo(str(faulty), err=True)
            raise SystemExit(2) from None
        except Skipped as skipped:
            click.echo(f"skipped: {skipped}", err=True)
            continue
        if coverage is not None:
            file.coverage = coverage
        reports.append(run(file, simulate))
    if shape == "json":
        click.echo(json.dumps([_json(report) for report in reports], indent=2))
    elif shape == "junit":
        click.echo(_junit(reports))
    else:
        for report in reports:
            _table(report)
    if any(report.failed for report in reports):
        raise SystemExit(1)


def _found(files: tuple[Path, ...]) -> list[Path]:
    found: list[Path] = []
    for path in files:
        below = sorted(path.rglob("*.policytest.yaml")) if path.is_dir() else [path]
        if not below:
            raise click.ClickException(f"{path} holds no *.policytest.yaml")
        found += below
    return found


# Live cases

_DECISIONS = {"allowed": "allow", "explicitDeny": "explicit-deny", "implicitDeny": "implicit-deny"}


def _simulator(data: Path) -> Simulator:
    held: dict[str, Credentials] = {}

    def simulate(case: Case) -> Answer:
        request = case.request
        platform = Platform(data)
        account = request.principal.account or ""
        mine = from_environment()
        if mine is None and account not in held:
            held[account] = platform.inside(account)
        entries = [
            {
                "ContextKeyName": key,
                "ContextKeyType": "string" if isinstance(value, str) else "stringList",
                "ContextKeyValues": [value] if isinstance(value, str) else list(value),
            }
            for key, value in request.context.items()
            if key not in ("aws:principalarn", "aws:principalaccount", "aws:principaltype", "aws:username") and value
        ]
        [found] = platform.client("iam", mine or held[account]).simulate_principal_policy(
            PolicySourceArn=request.principal.principal_arn or request.principal.arn,
            ActionNames=[request.action],
            ResourceArns=[request.resource],
            ContextEntries=entries,
        )["EvaluationResults"]
        layer = ""
        if not found.get("OrganizationsDecisionDetail", {}).get("AllowedByOrganizations", True):
            layer = "scp"
        elif not found.get("PermissionsBoundaryDecisionDetail", {}).get("AllowedByPermissionsBoundary", True):
            layer = "boundary"
        elif found["EvalDecision"] != "explicitDeny" or found["MatchedStatements"]:
            layer = "identity"
        return Answer(_DECISIONS[found["EvalDecision"]], layer)

    return simulate


# Output


def _json(report: Report) -> dict[str, Any]:
    return {
        "file": str(report.file.path),
        "passed": len(report.outcomes) - len(report.failures),
        "failed": len(report.failures),
        "cases": [
            {
                "name": one.case.name,
                "line": one.case.line,
                "principal": one.case.request.principal.arn,
                "action": one.case.request.action,
                "resource": one.case.request.resource,
                "decision": one.answer.decision,
                "layer": one.answer.layer,
                "policy": one.answer.policy,
                "statement": one.answer.statement,
                "sid": one.answer.sid,
                "failure": one.why or None,
            }
            for one in report.outcomes
        ],
        "coverage": [
            {
                "policy": one.policy,
                "statement": one.statement,
                "sid": one.sid,
                "reached": one.reached,
                "passed": one.passed,
            }
            for one in report.coverage
        ],
        "unused": list(report.file.unused),
        "gaps": report.gaps,
    }


def _junit(reports: list[Report]) -> str:
    suites = ElementTree.Element("testsuites")
    for report in reports:
        gaps = report.gaps
        suite = ElementTree.SubElement(
            suites,
            "testsuite",
            name=str(report.file.path),
            tests=str(len(report.outcomes) + (report.file.coverage != "off")),
            failures=str(len(report.failures) + bool(gaps)),
        )
        for one in report.outcomes:
            case = ElementTree.SubElement(suite, "testcase", classname=str(report.file.path), name=one.case.name)
            if one.why:
                failure = ElementTree.SubElement(case, "failure", message=one.why)
                failure.text = f"{report.file.path}:{one.case.line}: {one.why}"
        if report.file.coverage != "off":
            case = ElementTree.SubElement(suite, "testcase", classname=str(report.file.path), name="coverage")
            if gaps:
                failure = ElementTree.SubElement(case, "failure", message=f"{len(gaps)} gaps")
                failure.text = "\n".join(gaps)
    return ElementTree.tostring(suites, encoding="unicode")


def _table(report: Report) -> None:
    console = Console(emoji=False, highlight=False)
    table = Table(box=None, pad_edge=False)
    for column in ("", "case", "decided"):
        table.add_column(column)
    for one in report.outcomes:
        table.add_row(
            "[red]failed[/]" if one.why else "[green]ok[/]", _plain(one.case.name), _plain(one.why or told(one.answer))
        )
    console.print(f"[bold]{_plain(str(report.file.path))}[/]")
    console.print(table)
    reached = sum(each.reached for each in report.coverage)
    console.print(
        f"{len(report.outcomes) - len(report.failures)} of {len(report.outcomes)} cases as expected; "
        f"{reached} of {len(report.coverage)} statements reached"
    )
    for each in report.coverage:
        if not each.reached:
            sid = f" ({each.sid})" if each.sid else ""
            console.print(f"  no case reaches statement {each.statement}{sid} of `{each.policy}`", markup=False)
    for name in report.file.unused:
        console.print(f"  no case has the policy `{name}` in force", markup=False)
    for gap in report.gaps:
        console.print(f"  gap: {gap}", markup=False)


def _plain(text: str) -> str:
    return text.replace("[", "\\[")
