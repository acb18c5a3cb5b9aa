"""How a policy document is refused: with AWS's code, AWS's words where it has some, and the place of the fault."""

from __future__ import annotations

from bastide.domain import Refused

_SHOWN = 200


def malformed(place: str, why: str) -> Refused:
    """The refusal of a policy document; `place` is a path such as ``Statement[0].Condition.Bool``, "" for the whole."""
    return Refused("MalformedPolicyDocument", f"{why} (at {place})" if place else why)


def shown(value: object) -> str:
    """A value from a document as it may stand in a message: printable and short."""
    try:
        text = str(value)
    except RecursionError:
        return "a deeply nested value"
    if len(text) > _SHOWN:
        text = f"{text[:_SHOWN]}..."
    return ascii(text)[1:-1]
