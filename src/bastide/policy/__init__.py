"""The policy engine: documents in, decisions out. Knows no socket, clock, database or SDK.

`Document.parse` reads and checks a policy, `decide` answers a `Request` under the `Layers` in force, `message` says a
refusal in AWS's words and `explain` shows what every policy said.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bastide.policy.conditions import OPERATORS, Condition
from bastide.policy.decide import Attached, Decision, Layers, Policies, Request, Verdict, decide
from bastide.policy.documents import Document, Form, Statement
from bastide.policy.explain import Considered, Finding, Seen, explain, message
from bastide.policy.grants import GRANT_ID, Grant
from bastide.policy.principals import Kind, Named, Principal, canonical_id
from bastide.policy.variables import Context, Value

__all__ = [
    "GRANT_ID",
    "OPERATORS",
    "Attached",
    "Condition",
    "Considered",
    "Context",
    "Decision",
    "Document",
    "Finding",
    "Form",
    "Grant",
    "Kind",
    "Layers",
    "Named",
    "Policies",
    "Principal",
    "Request",
    "Seen",
    "Statement",
    "Value",
    "Verdict",
    "canonical_id",
    "context",
    "decide",
    "explain",
    "message",
]


def context(keys: Mapping[str, str | Iterable[str]]) -> dict[str, Value]:
    """A request context: keys in lower case, several values as tuples."""
    return {key.lower(): value if isinstance(value, str) else tuple(value) for key, value in keys.items()}
