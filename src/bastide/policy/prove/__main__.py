"""One proof in a process of its own: `python -m bastide.policy.prove`, a JSON question in, a JSON answer out.

Whoever asks for others (Access Analyzer) asks here: a proof can take more time and memory than a server has to give, and
ends with the process. The memory limit is set before anything is read.
"""

from __future__ import annotations

import json
import resource
import sys
from typing import Any

from bastide.domain import Refused
from bastide.policy.decide import Request
from bastide.policy.documents import Document, Form
from bastide.policy.explain import explain
from bastide.policy.prove.questions import no_more_permissive, not_granted, not_public
from bastide.policy.prove.search import Proof
from bastide.policy.prove.solver import Unavailable


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """The answer to a question: its outcome, and of a refuted one the request and the statements that allow it."""
    form = Form(asked["form"])
    seconds = float(asked["seconds"])
    try:
        document = Document.parse(asked["document"], form)
        if asked["ask"] == "no-new-access":
            proof = no_more_permissive(document, Document.parse(asked["existing"], form), seconds=seconds)
        elif asked["ask"] == "not-granted":
            proof = not_granted(document, asked["actions"], asked["resources"], seconds=seconds)
        else:
            proof = not_public(document, seconds=seconds)
    except Unavailable as missing:
        return {"outcome": "unavailable", "why": str(missing)}
    except Refused as refused:
        return {"outcome": "malformed", "why": refused.message}
    return {"outcome": proof.outcome, "why": proof.why, "statements": _granting(proof), "request": told(proof.request)}


def _granting(proof: Proof) -> list[dict[str, Any]]:
    """The statements of the asked policy that allow a counterexample."""
    if proof.request is None or proof.situation is None:
        return []
    return [
        {"index": one.statement, "sid": one.sid}
        for finding in explain(proof.request, proof.situation.layers)
        if finding.source == "the new policy"
        for one in finding.statements
        if one.applied and one.effect == "Allow"
    ]


def told(request: Request | None) -> dict[str, Any] | None:
    """A request as JSON."""
    if request is None:
        return None
    return {
        "principal": request.principal.arn or "anonymous",
        "action": request.action,
        "resource": request.resource,
        "context": {key: value if isinstance(value, str) else list(value) for key, value in request.context.items()},
    }


def main() -> int:
    """Reads one question from standard input and writes one answer."""
    asked = json.loads(sys.stdin.buffer.read())
    memory = int(asked["memory"])
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (int(asked["seconds"]) + 5, int(asked["seconds"]) + 5))
    try:
        told_answer = answer(asked)
    except MemoryError:
        told_answer = {"outcome": "not proved", "why": "the memory for one proof is used up"}
    sys.stdout.write(json.dumps(told_answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
