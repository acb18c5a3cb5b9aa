"""Proofs about policies: what holds for every request, or a concrete request for which it does not.

The request (action, resource, context) is symbolic, the principal concrete. Policies are encoded into the theory of
strings and regular expressions of the z3 solver; a request that it finds is put to `policy.decide`, and only what the
evaluator confirms is shown. A construct that has no exact encoding is left open to the solver: what is proved in spite
of it is proved, and everything else is "not proved", with the construct named.

z3 is an optional dependency (`bastide[prove]`), loaded by the first proof.
"""

from __future__ import annotations

from bastide.policy.prove.questions import (
    Guardrail,
    guardrail_holds,
    guardrail_of,
    may,
    no_more_permissive,
    not_granted,
    not_public,
)
from bastide.policy.prove.search import Proof, Scope, Situation, search
from bastide.policy.prove.solver import Unavailable

__all__ = [
    "Guardrail",
    "Proof",
    "Scope",
    "Situation",
    "Unavailable",
    "guardrail_holds",
    "guardrail_of",
    "may",
    "no_more_permissive",
    "not_granted",
    "not_public",
    "search",
]
