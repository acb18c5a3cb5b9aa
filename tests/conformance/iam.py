"""The IAM authorization cases: a request, the policies in force, the expected decision."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bastide.domain import Refused
from bastide.policy import Attached, Document, Form, Layers, Principal, Request, context, decide

HERE = Path(__file__).parent


def principal(name: str | None, keys: dict[str, Any]) -> Principal:
    """Who asks, of a case's ``principal`` and its context."""
    if name is None:
        return Principal("Anonymous", None, "", "")
    if not name.startswith("arn:"):
        return Principal("Service", None, name, name)
    account, resource = name.split(":")[4:6]
    if resource.startswith("assumed-role/"):
        return Principal("AssumedRole", account, name, keys["aws:principalarn"])
    return Principal("Role" if resource.startswith("role/") else "User", account, name, name)


def resource_kind(case: dict[str, Any]) -> str:
    """Whether the resource policy is a role's trust policy or a key policy."""
    return {"sts": "trust", "kms": "key"}.get(case["action"].split(":")[0].lower(), "")


def layers(case: dict[str, Any]) -> Layers:
    """The policies in force."""
    kind = resource_kind(case)
    form = {"trust": Form.TRUST, "key": Form.KEY}.get(kind, Form.RESOURCE)

    def attached(policy: Any, form: Form, name: str) -> Attached:
        return Attached(Document.parse(json.dumps(policy), form), name)

    def one(field: str, form: Form) -> Attached | None:
        return attached(case[field], form, field) if case.get(field) else None

    def levels(field: str, form: Form) -> list[list[Attached]]:
        return [[attached(policy, form, field) for policy in level] for level in case.get(field) or []]

    session = one("session", Form.SESSION)
    return Layers(
        identity=[attached(policy, Form.IDENTITY, "identity") for policy in case.get("identity") or []],
        boundary=one("boundary", Form.BOUNDARY),
        session=None if session is None else [session],
        resource=one("resource_policy", form),
        scps=levels("scps", Form.SCP),
        rcps=levels("rcps", Form.RCP),
        resource_kind=kind,
    )


def cases(folder: Path) -> Iterator[dict[str, Any]]:
    """The cases of ``cases.jsonl``."""
    with (folder / "cases.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            if line.strip():
                yield json.loads(line)


def request(case: dict[str, Any]) -> Request:
    """What is asked."""
    keys = context(case["context"])
    return Request(principal(case["principal"], keys), case["action"], case["resource"], case["account"], keys)


def disagreements() -> dict[str, str]:
    """Cases that contradict AWS's documentation: id to outcome, read off the table in ``iam_disagreements.md``."""
    found = {}
    page = HERE / "iam_disagreements.md"
    for line in page.read_text(encoding="utf-8").splitlines() if page.is_file() else ():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("| c0") and len(cells) >= 3:
            found[cells[0]] = cells[1]
    return found


def outcome(case: dict[str, Any]) -> str:
    """Our verdict, or the refusal of a document."""
    try:
        return decide(request(case), layers(case)).verdict
    except Refused as refused:
        return f"Refused: {refused.message}"


def run(folder: Path, verbose: bool = False) -> tuple[int, int]:
    """Decides every case of a folder; returns how many passed and failed. Disagreements count as neither."""
    passed = failed = 0
    settled = disagreements()
    for case in cases(folder):
        verdict = outcome(case)
        if verdict == case["expect"]:
            passed += 1
        elif settled.get(case["id"]) == verdict.split(":")[0]:
            print(f"{case['id']}: {verdict} by AWS's documentation, the case says {case['expect']}")
        else:
            failed += 1
            if verbose:
                print(f"{case['id']}: {verdict}, expected {case['expect']}")
    return passed, failed
