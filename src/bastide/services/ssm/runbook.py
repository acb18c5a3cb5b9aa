"""Runbooks: what a document of the type Automation says, checked, and what stands in it filled in.

Source: Systems Manager User Guide, "Systems Manager Automation actions reference", "Data elements and parameters".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import orjson

from bastide.domain import Refused
from bastide.engines import templates
from bastide.engines.templates import text
from bastide.protocol.patterns import strangers

SCHEMA: Final = "0.3"
ACTIONS: Final = (
    "aws:assertAwsResourceProperty", "aws:branch", "aws:executeAwsApi", "aws:invokeLambdaFunction", "aws:sleep",
    "aws:waitForAwsResourceProperty",
)  # fmt: skip
MOST_STEPS: Final = 100
_DOCUMENT: Final = frozenset(
    {"description", "schemaVersion", "assumeRole", "parameters", "mainSteps", "outputs", "files"}
)
_STEP: Final = frozenset(
    {
        "name", "action", "inputs", "onFailure", "onCancel", "isEnd", "isCritical", "nextStep", "timeoutSeconds",
        "maxAttempts", "outputs", "description",
    }
)  # fmt: skip
_PARAMETER: Final = frozenset(
    {
        "type", "description", "default", "allowedValues", "allowedPattern", "minItems", "maxItems", "minChars", "maxChars",
        "displayType",
    }
)  # fmt: skip
_NEEDS: Final = {
    "aws:executeAwsApi": ("Service", "Api"),
    "aws:waitForAwsResourceProperty": ("Service", "Api", "PropertySelector", "DesiredValues"),
    "aws:assertAwsResourceProperty": ("Service", "Api", "PropertySelector", "DesiredValues"),
    "aws:branch": ("Choices",),
    "aws:invokeLambdaFunction": ("FunctionName",),
}
_NAME: Final = re.compile(r"[a-zA-Z0-9_]{1,128}")
_FILLED: Final = re.compile(r"\{\{\s*([A-Za-z0-9_.:-]{1,256})\s*\}\}")
_PART: Final = re.compile(r"\.([A-Za-z0-9_-]+)|\[(\d{1,6}|\*)\]|\['([^']{1,128})'\]")
_DURATION: Final = re.compile(r"P(?:(\d{1,3})D)?(?:T(?:(\d{1,4})H)?(?:(\d{1,6})M)?(?:(\d{1,7})S)?)?")
Lookup = Callable[[str], Any]


def wrong(message: str) -> Refused:
    """InvalidDocumentContent."""
    return Refused("InvalidDocumentContent", message)


def read(content: str) -> dict[str, Any]:
    """A runbook of a document's content; raises Refused for what is none, and for actions that are not there."""
    try:
        raw = templates.parse(content)
    except Refused as refused:
        raise wrong(refused.message.replace("Template format error: ", "")) from None
    if not isinstance(raw, dict):
        raise wrong("The content is a mapping.")
    if text(raw.get("schemaVersion", "")) != SCHEMA:
        raise Refused("InvalidDocumentSchemaVersion", f"Runbooks have the schemaVersion {SCHEMA}.")
    _only(raw, _DOCUMENT, "The document")
    if raw.get("files"):
        raise wrong("files (attachments) are not supported by Bastide yet.")
    for name, one in (raw.get("parameters") or {}).items():
        if not isinstance(one, dict) or not isinstance(one.get("type"), str) or not _NAME.fullmatch(name):
            raise wrong(f"The parameter {name[:128]} is a mapping with a type.")
        _only(one, _PARAMETER, f"The parameter {name}")
    steps = raw.get("mainSteps")
    if not isinstance(steps, list) or not 1 <= len(steps) <= MOST_STEPS:
        raise wrong(f"mainSteps are a list of 1 to {MOST_STEPS} steps.")
    names: set[str] = set()
    for one in steps:
        _check_step(one, names)
    for one in steps:
        for other in _followed(one):
            if other not in names:
                raise wrong(f"The step {one['name']} goes on with {other[:128]}, which is no step.")
    return raw


def _only(given: Mapping[str, Any], known: frozenset[str], what: str) -> None:
    more = sorted(set(given) - known)
    if more:
        raise wrong(f"{what} has {more[0][:64]}, which is not supported here.")


def _check_step(one: Any, names: set[str]) -> None:
    name = one.get("name") if isinstance(one, dict) else None
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name in names:
        raise wrong("Each step has a name of its own, of letters, digits and _.")
    names.add(name)
    _only(one, _STEP, f"The step {name}")
    if one.get("action") not in ACTIONS:
        raise wrong(
            f"The step {name} has the action {text(one.get('action') or '')[:64]}. Bastide has {', '.join(ACTIONS)}."
        )
    inputs = one.get("inputs")
    if not isinstance(inputs, dict):
        raise wrong(f"The step {name} has inputs.")
    missing = [need for need in _NEEDS.get(one["action"], ()) if need not in inputs]
    if missing:
        raise wrong(f"The step {name} lacks the input {missing[0]}.")
    if one["action"] == "aws:sleep" and len({"Duration", "Timestamp"} & set(inputs)) != 1:
        raise wrong(f"The step {name} has a Duration or a Timestamp.")
    failure = str(one.get("onFailure") or "Abort")
    if failure not in ("Abort", "Continue") and not failure.startswith("step:"):
        raise wrong(f"onFailure of the step {name} is Abort, Continue or step:NAME.")
    if str(one.get("onCancel") or "Abort") != "Abort":
        raise wrong(f"onCancel of the step {name} is not supported by Bastide yet; please leave it out.")
    for output in one.get("outputs") or ():
        selector = output.get("Selector") if isinstance(output, dict) else None
        if not isinstance(selector, str) or not isinstance(output.get("Name"), str) or not _selector(selector):
            raise wrong(f"Outputs of the step {name} have a Name and a Selector such as $.Name[0].")


def _followed(one: Mapping[str, Any]) -> Iterator[str]:
    if one.get("nextStep"):
        yield str(one["nextStep"])
    failure = str(one.get("onFailure") or "")
    if failure.startswith("step:"):
        yield failure.removeprefix("step:")
    if one["action"] == "aws:branch":
        inputs = one["inputs"]
        choices = inputs["Choices"] if isinstance(inputs["Choices"], list) else []
        yield from (str(choice.get("NextStep")) for choice in choices if isinstance(choice, dict))
        if inputs.get("Default"):
            yield str(inputs["Default"])


# -- parameters --------------------------------------------------------------------------------------------------------


def given(raw: Mapping[str, Any], told: Mapping[str, list[str]]) -> dict[str, Any]:
    """The parameters' values of an execution; raises InvalidAutomationExecutionParametersException."""
    declared = raw.get("parameters") or {}

    def bad(message: str) -> Refused:
        return Refused("InvalidAutomationExecutionParametersException", message)

    unknown = sorted(set(told) - set(declared))
    if unknown:
        raise bad(f"The document has no parameter {unknown[0][:128]}.")
    found: dict[str, Any] = {}
    for name, one in declared.items():
        if name not in told:
            if "default" not in one:
                raise bad(f"The parameter {name} must be given.")
            found[name] = one["default"]
            continue
        try:
            found[name] = _typed(one["type"], told[name])
        except (ValueError, IndexError):
            raise bad(f"The parameter {name} is of the type {one['type']}.") from None
        allowed, pattern = one.get("allowedValues"), one.get("allowedPattern")
        parts = found[name] if isinstance(found[name], list) else [found[name]]
        if allowed and any(part not in allowed for part in parts):
            raise bad(f"The parameter {name} may be: {', '.join(text(value) for value in allowed[:50])}.")
        matches = strangers(pattern) if isinstance(pattern, str) else None
        if matches is not None and not all(matches(text(part)) for part in parts):
            raise bad(f"The parameter {name} does not match {pattern}.")
    return found


def _typed(type: str, values: list[str]) -> Any:
    if type.startswith("List<") or type == "StringList":
        if len(values) == 1 and values[0].startswith("["):
            held = orjson.loads(values[0])
            return held if isinstance(held, list) else values
        return list(values)
    if len(values) != 1:
        raise ValueError
    if type == "Boolean":
        if values[0].lower() not in ("true", "false"):
            raise ValueError
        return values[0].lower() == "true"
    if type == "Integer":
        return int(values[0])
    if type in ("StringMap", "MapList"):
        return orjson.loads(values[0])
    return values[0]


def filled(value: Any, lookup: Lookup) -> Any:
    """A tree with what stands in double braces filled in: alone it keeps its type, in a text it is a text. Raises Refused
    for what is not there."""
    if isinstance(value, dict):
        return {key: filled(one, lookup) for key, one in value.items()}
    if isinstance(value, list):
        return [filled(one, lookup) for one in value]
    if not isinstance(value, str):
        return value
    alone = _FILLED.fullmatch(value.strip())
    if alone:
        return lookup(alone[1])
    return _FILLED.sub(lambda match: _text(lookup(match[1])), value)


def _text(value: Any) -> str:
    return orjson.dumps(value).decode() if isinstance(value, dict | list) else text(value)


# -- looking into answers ----------------------------------------------------------------------------------------------


def _selector(given: str) -> bool:
    return given.startswith("$") and "".join(match[0] for match in _PART.finditer(given[1:])) == given[1:]


def selected(answer: Any, selector: str) -> Any:
    """What lies at a selector such as ``$.Endpoints[0].Name``; None if nothing does."""
    if not _selector(selector):
        raise Refused("InvalidSelector", f"{selector[:128]} is no selector such as $.Name[0].")
    here = [answer]
    several = False
    for match in _PART.finditer(selector[1:]):
        name, index = match[1] or match[3], match[2]
        below: list[Any] = []
        for one in here:
            if name is not None:
                below += [one[name]] if isinstance(one, Mapping) and name in one else []
            elif isinstance(one, list) and index == "*":
                below += one
            elif isinstance(one, list) and int(index) < len(one):
                below.append(one[int(index)])
        several = several or index == "*"
        here = below
    return here if several else here[0] if here else None


def seconds(given: Any) -> int:
    """Of an ISO 8601 duration; raises Refused."""
    match = _DURATION.fullmatch(text(given))
    if not match or not any(match.groups()):
        raise Refused("InvalidInput", f"{text(given)[:64]} is no duration such as PT10M.")
    days, hours, minutes, rest = (int(one or 0) for one in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest


# -- choices -----------------------------------------------------------------------------------------------------------


def chosen(inputs: Mapping[str, Any]) -> str:
    """The step that a branch, filled in, goes on with; empty for the one that follows. Raises Refused."""
    for choice in inputs["Choices"]:
        if _holds(choice):
            return str(choice["NextStep"])
    if inputs.get("Default"):
        return str(inputs["Default"])
    if "Default" in inputs:
        return ""
    raise Refused("BranchFailed", "None of the Choices holds, and there is no Default.")


_TESTS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "StringEquals": lambda a, b: text(a) == text(b),
    "EqualsIgnoreCase": lambda a, b: text(a).lower() == text(b).lower(),
    "StartsWith": lambda a, b: text(a).startswith(text(b)),
    "EndsWith": lambda a, b: text(a).endswith(text(b)),
    "Contains": lambda a, b: text(b) in text(a),
    "NumericEquals": lambda a, b: float(a) == float(b),
    "NumericGreater": lambda a, b: float(a) > float(b),
    "NumericLesser": lambda a, b: float(a) < float(b),
    "NumericGreaterOrEquals": lambda a, b: float(a) >= float(b),
    "NumericLesserOrEquals": lambda a, b: float(a) <= float(b),
    "BooleanEquals": lambda a, b: text(a).lower() == text(b).lower(),
}


def _holds(choice: Mapping[str, Any]) -> bool:
    if "And" in choice:
        return all(_holds(one) for one in choice["And"])
    if "Or" in choice:
        return any(_holds(one) for one in choice["Or"])
    if "Not" in choice:
        return not _holds(choice["Not"])
    tests = [name for name in choice if name in _TESTS]
    if len(tests) != 1 or "Variable" not in choice:
        raise Refused("BranchFailed", f"A choice has a Variable and one of {', '.join(_TESTS)}.")
    try:
        return _TESTS[tests[0]](choice["Variable"], choice[tests[0]])
    except (TypeError, ValueError):
        return False
