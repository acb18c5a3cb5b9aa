"""What is wrong with a definition, found before anything runs: diagnostics with codes and locations.

Source: Amazon States Language; Step Functions API Reference, ValidateStateMachineDefinition.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson

from bastide.engines.asl import expression_core as core
from bastide.engines.asl import intrinsics, paths
from bastide.engines.asl.choice import COMPARISONS
from bastide.engines.asl.scope import is_expression
from bastide.engines.asl.values import instant, number, shallow

LARGEST: Final = 1 << 20
_SCHEMA: Final = "SCHEMA_VALIDATION_FAILED"
_TARGET: Final = "MISSING_TRANSITION_TARGET"
_MOST: Final = 100
_MOST_STATES: Final = 10_000
_LONGEST_NAME: Final = 80
_LONGEST: Final = 99_999_999
_ALL: Final = frozenset({"Type", "Comment", "QueryLanguage"})
_FLOW: Final = frozenset({"Next", "End"})
_PATHS: Final = frozenset({"InputPath", "OutputPath"})
_WORKERS: Final = frozenset({"Retry", "Catch", "Assign"})
_EITHER: Final[dict[str, frozenset[str]]] = {
    "Pass": _ALL | _FLOW | {"Assign"},
    "Task": _ALL | _FLOW | _WORKERS | {"Resource", "TimeoutSeconds", "HeartbeatSeconds", "Credentials"},
    "Choice": _ALL | {"Choices", "Default", "Assign"},
    "Wait": _ALL | _FLOW | {"Seconds", "Timestamp", "Assign"},
    "Succeed": _ALL,
    "Fail": _ALL | {"Error", "Cause"},
    "Parallel": _ALL | _FLOW | _WORKERS | {"Branches"},
    "Map": _ALL
    | _FLOW
    | _WORKERS
    | {
        "ItemProcessor", "Iterator", "ItemReader", "ItemSelector", "ItemBatcher", "ResultWriter", "MaxConcurrency",
        "ToleratedFailurePercentage", "ToleratedFailureCount", "Label",
    },
}  # fmt: skip
_RESULTS: Final = frozenset({"Parameters", "ResultSelector", "ResultPath"})
_JSONPATH: Final[dict[str, frozenset[str]]] = {
    "Pass": _PATHS | {"Parameters", "ResultPath", "Result"},
    "Task": _PATHS | _RESULTS | {"TimeoutSecondsPath", "HeartbeatSecondsPath"},
    "Choice": _PATHS,
    "Wait": _PATHS | {"SecondsPath", "TimestampPath"},
    "Succeed": _PATHS,
    "Fail": frozenset({"ErrorPath", "CausePath"}),
    "Parallel": _PATHS | _RESULTS,
    "Map": _PATHS
    | _RESULTS
    | {"ItemsPath", "MaxConcurrencyPath", "ToleratedFailurePercentagePath", "ToleratedFailureCountPath"},
}
_JSONATA: Final[dict[str, frozenset[str]]] = {
    "Pass": frozenset({"Output"}),
    "Task": frozenset({"Arguments", "Output"}),
    "Choice": frozenset({"Output"}),
    "Wait": frozenset({"Output"}),
    "Succeed": frozenset({"Output"}),
    "Fail": frozenset(),
    "Parallel": frozenset({"Arguments", "Output"}),
    "Map": frozenset({"Items", "Output"}),
}
_REQUIRED: Final = {"Task": ("Resource",), "Choice": ("Choices",), "Parallel": ("Branches",)}
_READ_PATHS: Final = ("InputPath", "OutputPath", "ItemsPath", "SecondsPath", "TimestampPath", "TimeoutSecondsPath")
_NUMBERS: Final = {
    "TimeoutSeconds": 1,
    "HeartbeatSeconds": 1,
    "Seconds": 0,
    "MaxConcurrency": 0,
    "ToleratedFailureCount": 0,
}
_RETRY: Final = frozenset(
    {"ErrorEquals", "IntervalSeconds", "MaxAttempts", "BackoffRate", "MaxDelaySeconds", "JitterStrategy", "Comment"}
)
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,79}\Z")
Lacking = Callable[[str], str]
"""Why a task's resource cannot be called; empty if it can."""


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One thing that is wrong (ERROR) or odd (WARNING). location: a JSON pointer; empty for the text itself."""

    code: str
    message: str
    location: str = ""
    severity: str = "ERROR"

    def line(self) -> str:
        """As CreateStateMachine tells it."""
        return f"{self.code}: {self.message.rstrip()}" + (f" at {self.location}" if self.location else "")


def check(text: str, *, express: bool = False, lacking: Lacking | None = None) -> list[Diagnostic]:
    """Everything that is wrong with a definition; none if it can run."""
    not_json = Diagnostic(_SCHEMA, "Definition must be a valid JSON object")
    if len(text) > LARGEST or len(text.encode("utf-8", "surrogatepass")) > LARGEST:
        return [Diagnostic(_SCHEMA, f"Definition must not have more than {LARGEST} bytes")]
    try:
        found = orjson.loads(text)
    except (orjson.JSONDecodeError, ValueError):
        return [not_json]
    if not isinstance(found, dict):
        return [not_json]
    if not shallow(found):
        return [Diagnostic(_SCHEMA, "Definition is nested too deeply")]
    checker = _Checker(found, express, lacking)
    checker.machine(found, "", top=True)
    return checker.found


def check_state(state: Any, *, lacking: Lacking | None = None) -> list[Diagnostic]:
    """Everything that is wrong with one state by itself: where it leads is not looked at."""
    if not isinstance(state, dict):
        return [Diagnostic(_SCHEMA, "Definition must be a valid JSON object")]
    checker = _Checker({}, False, lacking)
    checker.state(state, "", None, "JSONPath")
    return checker.found


class _Checker:
    def __init__(self, definition: dict[str, Any], express: bool, lacking: Lacking | None) -> None:
        self.definition = definition
        self.express = express
        self.lacking = lacking
        self.found: list[Diagnostic] = []
        self.names: set[str] = set()

    def add(self, where: str, message: str, code: str = _SCHEMA) -> None:
        if len(self.found) < _MOST:
            self.found.append(Diagnostic(code, message, where or "/"))

    def of_type(self, value: Any, wanted: type | tuple[type, ...], where: str, word: str) -> bool:
        good = isinstance(value, wanted) and not (isinstance(value, bool) and wanted is not bool)
        if not good:
            self.add(where, f"Expected value of type {word}")
        return good

    # -- machines --------------------------------------------------------------------------------------------------------

    def machine(self, machine: dict[str, Any], where: str, *, top: bool = False, language: str = "JSONPath") -> None:
        missing = [name for name in ("States", "StartAt") if name not in machine]
        if missing:
            self.add(where, f"These fields are required: [{', '.join(missing)}]")
        allowed = {"Comment", "StartAt", "States", "QueryLanguage"}
        allowed |= {"Version", "TimeoutSeconds"} if top else {"ProcessorConfig"}
        self.fields(machine, allowed, where)
        if "QueryLanguage" in machine:
            if machine["QueryLanguage"] not in ("JSONPath", "JSONata"):
                self.add(f"{where}/QueryLanguage", "Value is not valid, expected one of: [JSONPath, JSONata]")
            elif top:
                language = machine["QueryLanguage"]
        if top and "TimeoutSeconds" in machine:
            self.whole(machine["TimeoutSeconds"], f"{where}/TimeoutSeconds", 1, _LONGEST)
        if "Version" in machine and machine["Version"] != "1.0":
            self.add(f"{where}/Version", "Value is not valid, expected one of: [1.0]")
        states = machine.get("States")
        if "States" not in machine or not self.of_type(states, dict, f"{where}/States", "Object"):
            return
        assert isinstance(states, dict)
        if not states:
            self.add(f"{where}/States", "There must be at least one state")
        start = machine.get("StartAt")
        if "StartAt" in machine and (not isinstance(start, str) or start not in states):
            self.add(f"{where}/StartAt", f"Missing 'StartAt' target: {start}", _TARGET)
        for name, state in states.items():
            here = f"{where}/States/{name}"
            if len(name) > _LONGEST_NAME or not name:
                self.add(here, f"A state's name has 1 to {_LONGEST_NAME} characters")
            if name in self.names:
                self.add(here, f"Duplicate state name: {name}", "DUPLICATE_STATE_NAME")
            self.names.add(name)
            if len(self.names) > _MOST_STATES:
                self.add(where, f"A definition has at most {_MOST_STATES} states")
                return
            if self.of_type(state, dict, here, "Object"):
                self.state(state, here, states, language)
        if isinstance(start, str) and start in states and not self.found:
            self.reached(start, states, where)

    def reached(self, start: str, states: dict[str, Any], where: str) -> None:
        seen, waiting = {start}, [start]
        while waiting:
            state = states[waiting.pop()]
            for target in _targets(state):
                if target in states and target not in seen:
                    seen.add(target)
                    waiting.append(target)
        for name in states:
            if name not in seen:
                self.add(f"{where}/States/{name}", f'State "{name}" is not reachable.', "MISSING_TRANSITION_TARGET")

    def fields(self, value: dict[str, Any], allowed: set[str] | frozenset[str], where: str) -> None:
        for name in value:
            if name not in allowed:
                self.add(f"{where}/{name}", "Field is not supported")

    def whole(self, value: Any, where: str, least: int, most: int) -> None:
        if not number(value) or value != int(value) or not least <= value <= most:
            self.add(where, f"Expected value of type Integer from {least} to {most}")

    # -- states ----------------------------------------------------------------------------------------------------------

    def state(self, state: dict[str, Any], where: str, states: dict[str, Any] | None, language: str) -> None:
        kind = state.get("Type")
        if "Type" not in state:
            self.add(where, "These fields are required: [Type]")
            return
        if kind not in _EITHER:
            self.add(f"{where}/Type", f"Value is not valid, expected one of: [{', '.join(_EITHER)}]")
            return
        own = state.get("QueryLanguage", language)
        if own not in ("JSONPath", "JSONata"):
            self.add(f"{where}/QueryLanguage", "Value is not valid, expected one of: [JSONPath, JSONata]")
            return
        if own == "JSONPath" and language == "JSONata":
            self.add(where, "'QueryLanguage' can not be 'JSONPath' if set to 'JSONata' for whole state machine")
            return
        query = own == "JSONata"
        self.fields(state, _EITHER[kind] | (_JSONATA if query else _JSONPATH)[kind], where)
        missing = [name for name in _REQUIRED.get(kind, ()) if name not in state]
        if missing:
            self.add(where, f"These fields are required: [{', '.join(missing)}]")
        if kind not in ("Choice", "Succeed", "Fail"):
            self.flow(state, where, states)
        self.numbers(state, where, query)
        if query:
            self.expressions({name: state[name] for name in state if name not in _NESTED}, where)
        else:
            self.templates(state, where)
        self.assign(state, where)
        check = getattr(self, f"_{kind.lower()}", None)
        if check is not None:
            check(state, where, states, own)
        self.retries(state, where)
        self.catches(state, where, states, query)

    def flow(self, state: dict[str, Any], where: str, states: dict[str, Any] | None) -> None:
        following, ends = "Next" in state, state.get("End") is True
        if "End" in state and not isinstance(state["End"], bool):
            self.add(f"{where}/End", "Expected value of type Boolean")
        if following and ends:
            self.add(where, "Only one of these fields is allowed: [Next, End]")
        elif not following and not ends:
            self.add(where, "One of these fields is required: [Next, End]")
        if following:
            self.target(state["Next"], f"{where}/Next", states)

    def target(self, name: Any, where: str, states: dict[str, Any] | None, word: str = "Next") -> None:
        if states is not None and (not isinstance(name, str) or name not in states):
            self.add(where, f"Missing '{word}' target: {name}", _TARGET)

    def numbers(self, state: dict[str, Any], where: str, query: bool) -> None:
        for name, least in _NUMBERS.items():
            if name in state and not (query and is_expression(state[name])):
                self.whole(state[name], f"{where}/{name}", least, _LONGEST)
        share = state.get("ToleratedFailurePercentage")
        if share is not None and not (query and is_expression(share)) and (not number(share) or not 0 <= share <= 100):
            self.add(f"{where}/ToleratedFailurePercentage", "Expected value of type Float from 0 to 100")
        timeout, beat = state.get("TimeoutSeconds"), state.get("HeartbeatSeconds")
        if number(timeout) and number(beat) and beat >= timeout:  # type: ignore[operator]
            self.add(f"{where}/HeartbeatSeconds", "HeartbeatSeconds must be smaller than TimeoutSeconds")
        for name in ("TimeoutSeconds", "HeartbeatSeconds", "MaxConcurrency", "ToleratedFailureCount"):
            if name in state and f"{name}Path" in state:
                self.add(where, f"Only one of these fields is allowed: [{name}, {name}Path]")
        credentials = state.get("Credentials")
        if isinstance(credentials, dict) and not credentials.keys() & {"RoleArn", "RoleArn.$"}:
            self.add(f"{where}/Credentials", "The field 'RoleArn' is required but was missing")

    # -- expressions -----------------------------------------------------------------------------------------------------

    def expressions(self, value: Any, where: str) -> None:
        if isinstance(value, dict):
            for name, one in value.items():
                self.expressions(one, f"{where}/{name}")
        elif isinstance(value, list):
            for place, one in enumerate(value):
                self.expressions(one, f"{where}[{place}]")
        elif is_expression(value) and (told := core.wrong(value[2:-2].strip())):
            self.add(where, f"Invalid JSONata expression: {told}")

    def path(self, text: Any, where: str, *, reference: bool = False, calls: bool = False) -> None:
        if text is None:
            return
        if not isinstance(text, str):
            self.add(where, "Expected value of type String")
            return
        try:
            if calls and text.startswith("States."):
                intrinsics.parse(text)
            elif reference:
                paths.reference(text)
            else:
                paths.parse(text)
        except intrinsics.BadCall as error:
            self.add(where, f"The value for the field is not a valid intrinsic function: {error}")
        except paths.BadPath as error:
            self.add(where, f"Value is not a {'Reference Path' if reference else 'JSONPath'}: {error}")

    def templates(self, state: dict[str, Any], where: str) -> None:
        for name, value in state.items():
            here = f"{where}/{name}"
            if name == "ResultPath":
                self.path(value, here, reference=True)
            elif name in ("ErrorPath", "CausePath"):
                self.path(value, here, calls=True)
            elif name.endswith("Path"):
                self.path(value, here, calls=name in ("ItemsPath",))
            elif name in ("Parameters", "ResultSelector", "ItemSelector", "Assign", "Credentials"):
                self.template(value, here)

    def template(self, value: Any, where: str) -> None:
        if isinstance(value, dict):
            for name, one in value.items():
                here = f"{where}/{name}"
                if name.endswith(".$"):
                    if not isinstance(one, str) or (not one.startswith("$") and not one.startswith("States.")):
                        self.add(
                            here,
                            f"The value for the field '{name}' must be a valid JSONPath or a valid intrinsic function call",
                        )
                    else:
                        self.path(one, here, calls=True)
                else:
                    self.template(one, here)
        elif isinstance(value, list):
            for place, one in enumerate(value):
                self.template(one, f"{where}[{place}]")

    def assign(self, state: dict[str, Any], where: str) -> None:
        if "Assign" not in state:
            return
        if not self.of_type(state["Assign"], dict, f"{where}/Assign", "Object"):
            return
        for name in state["Assign"]:
            plain = name.removesuffix(".$")
            if not _VARIABLE.match(plain) or plain == "states":
                self.add(f"{where}/Assign/{name}", f"'{plain}' is not the name of a variable")

    # -- kinds -----------------------------------------------------------------------------------------------------------

    def _task(self, state: dict[str, Any], where: str, _: Any, __: str) -> None:
        resource = state.get("Resource")
        here = f"{where}/Resource"
        if resource is None or not self.of_type(resource, str, here, "String"):
            return
        assert isinstance(resource, str)
        if not resource.startswith("arn:"):
            self.add(here, "Value is not a valid resource ARN")
            return
        if self.express:
            for form in (".sync", ".waitForTaskToken"):
                if resource.endswith((form, f"{form}:2")):
                    self.add(here, f"Express state machine does not support '{form}' service integration ")
                    return
            if ":activity:" in resource:
                self.add(here, "Express state machine does not support activities")
                return
        if self.lacking is not None and (told := self.lacking(resource)):
            self.add(here, told)

    def _wait(self, state: dict[str, Any], where: str, _: Any, language: str) -> None:
        given = [name for name in ("Seconds", "SecondsPath", "Timestamp", "TimestampPath") if name in state]
        if len(given) != 1:
            self.add(where, "Exactly one of these fields is required: [Seconds, SecondsPath, Timestamp, TimestampPath]")
        at = state.get("Timestamp")
        if at is not None and not (language == "JSONata" and is_expression(at)) and instant(at) is None:
            self.add(f"{where}/Timestamp", "String does not match RFC3339 timestamp")

    def _fail(self, state: dict[str, Any], where: str, _: Any, __: str) -> None:
        for name in ("Error", "Cause"):
            if name in state and f"{name}Path" in state:
                self.add(where, f"Only one of these fields is allowed: [{name}, {name}Path]")
            if name in state and not isinstance(state[name], str):
                self.add(f"{where}/{name}", "Expected value of type String")

    def _choice(self, state: dict[str, Any], where: str, states: Any, language: str) -> None:
        if "Default" in state:
            self.target(state["Default"], f"{where}/Default", states, "Default")
        rules = state.get("Choices")
        if rules is None or not self.of_type(rules, list, f"{where}/Choices", "Array"):
            return
        assert isinstance(rules, list)
        if not rules:
            self.add(f"{where}/Choices", "There must be at least one choice")
        for place, rule in enumerate(rules):
            here = f"{where}/Choices[{place}]"
            if not self.of_type(rule, dict, here, "Object"):
                continue
            if "Next" not in rule:
                self.add(here, "These fields are required: [Next]")
            else:
                self.target(rule["Next"], f"{here}/Next", states)
            if language == "JSONata":
                self.fields(rule, {"Condition", "Next", "Assign", "Output", "Comment"}, here)
                if "Condition" not in rule:
                    self.add(here, "These fields are required: [Condition]")
                elif not isinstance(rule["Condition"], bool) and not is_expression(rule["Condition"]):
                    self.add(f"{here}/Condition", "Expected a JSONata expression or a boolean")
                self.expressions(rule, here)
            else:
                plain = {name: one for name, one in rule.items() if name not in ("Next", "Assign", "Comment")}
                self.rule(plain, here)
                self.template(rule.get("Assign"), f"{here}/Assign")
            self.assign(rule, here)

    def rule(self, rule: Any, where: str) -> None:
        if not self.of_type(rule, dict, where, "Object"):
            return
        kinds = [name for name in rule if name in ("And", "Or", "Not") or name in COMPARISONS]
        if len(kinds) != 1:
            self.add(where, "Exactly one comparison, And, Or or Not is required")
            return
        [kind] = kinds
        here = f"{where}/{kind}"
        if kind == "Not":
            self.fields(rule, {"Not", "Comment"}, where)
            self.rule(rule["Not"], here)
            return
        if kind in ("And", "Or"):
            self.fields(rule, {kind, "Comment"}, where)
            if self.of_type(rule[kind], list, here, "Array"):
                if not rule[kind]:
                    self.add(here, "There must be at least one rule")
                for place, one in enumerate(rule[kind]):
                    self.rule(one, f"{here}[{place}]")
            return
        self.fields(rule, {kind, "Variable", "Comment"}, where)
        if "Variable" not in rule:
            self.add(where, "These fields are required: [Variable]")
        else:
            self.path(rule["Variable"], f"{where}/Variable")
        wanted = rule[kind]
        if kind.endswith("Path"):
            self.path(wanted, here)
        elif kind.startswith("Is") or kind == "BooleanEquals":
            self.of_type(wanted, bool, here, "Boolean")
        elif kind.startswith("Numeric"):
            self.of_type(wanted, (int, float), here, "Number")
        elif kind.startswith("Timestamp"):
            if instant(wanted) is None:
                self.add(here, "Value is not a valid ISO-8601 extended offset date-time format string")
        else:
            self.of_type(wanted, str, here, "String")

    def _parallel(self, state: dict[str, Any], where: str, _: Any, language: str) -> None:
        branches = state.get("Branches")
        if branches is None or not self.of_type(branches, list, f"{where}/Branches", "Array"):
            return
        assert isinstance(branches, list)
        if not branches:
            self.add(f"{where}/Branches", "There must be at least one branch")
        for place, branch in enumerate(branches):
            if self.of_type(branch, dict, f"{where}/Branches[{place}]", "Object"):
                self.machine(branch, f"{where}/Branches[{place}]", language=self.inherited())

    def inherited(self) -> str:
        return str(self.definition.get("QueryLanguage") or "JSONPath")

    def _map(self, state: dict[str, Any], where: str, _: Any, language: str) -> None:
        given = [name for name in ("ItemProcessor", "Iterator") if name in state]
        if len(given) != 1:
            self.add(where, "Exactly one of these fields is required: [ItemProcessor, Iterator]")
            return
        processor = state[given[0]]
        here = f"{where}/{given[0]}"
        if not self.of_type(processor, dict, here, "Object"):
            return
        config = processor.get("ProcessorConfig") or {}
        mode = config.get("Mode", "INLINE") if isinstance(config, dict) else None
        if mode not in ("INLINE", "DISTRIBUTED"):
            self.add(f"{here}/ProcessorConfig/Mode", "Value is not valid, expected one of: [INLINE, DISTRIBUTED]")
        if mode == "DISTRIBUTED":
            if config.get("ExecutionType") not in ("STANDARD", "EXPRESS"):
                self.add(f"{here}/ProcessorConfig", "These fields are required: [ExecutionType]")
            if self.express:
                self.add(here, "Express state machine does not support a Map state in DISTRIBUTED mode")
            self.reader(state, where)
        else:
            for name in ("ItemReader", "ItemBatcher", "ResultWriter", "Label"):
                if name in state:
                    self.add(f"{where}/{name}", "Field is not supported for a Map state in INLINE mode")
        self.machine(processor, here, language=self.inherited())

    def reader(self, state: dict[str, Any], where: str) -> None:
        for name in ("ItemReader", "ResultWriter"):
            given = state.get(name)
            if given is None or not self.of_type(given, dict, f"{where}/{name}", "Object"):
                continue
            resource = given.get("Resource")
            known = ("s3:getObject", "s3:listObjectsV2") if name == "ItemReader" else ("s3:putObject",)
            if resource is not None and resource not in [f"arn:aws:states:::{one}" for one in known]:
                self.add(f"{where}/{name}/Resource", f"Value is not valid, expected one of: [{', '.join(known)}]")
            kind = (given.get("ReaderConfig") or {}).get("InputType")
            if kind not in (None, "JSON", "JSONL", "CSV", "MANIFEST", "PARQUET"):
                self.add(f"{where}/{name}/ReaderConfig/InputType", f"Value is not valid: {kind}")
            if kind == "PARQUET":
                self.add(f"{where}/{name}/ReaderConfig/InputType", "PARQUET is not supported by Bastide yet")
        label = state.get("Label")
        if label is not None and (not isinstance(label, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,40}", label)):
            self.add(f"{where}/Label", "A label has 1 to 40 letters, digits, - and _")

    # -- errors ----------------------------------------------------------------------------------------------------------

    def names_of(self, one: dict[str, Any], here: str, last: bool) -> None:
        names = one.get("ErrorEquals")
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            self.add(f"{here}/ErrorEquals", "Expected a list of error names")
        elif "States.ALL" in names and (len(names) > 1 or not last):
            self.add(f"{here}/ErrorEquals", "States.ALL must appear alone and in the last entry")

    def retries(self, state: dict[str, Any], where: str) -> None:
        entries = state.get("Retry")
        if entries is None or not self.of_type(entries, list, f"{where}/Retry", "Array"):
            return
        assert isinstance(entries, list)
        for place, one in enumerate(entries):
            here = f"{where}/Retry[{place}]"
            if not self.of_type(one, dict, here, "Object"):
                continue
            self.fields(one, _RETRY, here)
            self.names_of(one, here, place == len(entries) - 1)
            for name, least in (("IntervalSeconds", 1), ("MaxAttempts", 0), ("MaxDelaySeconds", 1)):
                if name in one:
                    self.whole(one[name], f"{here}/{name}", least, _LONGEST)
            rate = one.get("BackoffRate", 2.0)
            if not number(rate) or rate < 1.0:
                self.add(f"{here}/BackoffRate", "Expected value of type Float of 1.0 or more")
            if one.get("JitterStrategy", "NONE") not in ("NONE", "FULL"):
                self.add(f"{here}/JitterStrategy", "Value is not valid, expected one of: [FULL, NONE]")

    def catches(self, state: dict[str, Any], where: str, states: Any, query: bool) -> None:
        entries = state.get("Catch")
        if entries is None or not self.of_type(entries, list, f"{where}/Catch", "Array"):
            return
        assert isinstance(entries, list)
        for place, one in enumerate(entries):
            here = f"{where}/Catch[{place}]"
            if not self.of_type(one, dict, here, "Object"):
                continue
            self.fields(one, {"ErrorEquals", "Next", "Assign", "Comment", "Output" if query else "ResultPath"}, here)
            self.names_of(one, here, place == len(entries) - 1)
            if "Next" not in one:
                self.add(here, "These fields are required: [Next]")
            else:
                self.target(one["Next"], f"{here}/Next", states)
            if query:
                self.expressions(one, here)
            else:
                self.path(one.get("ResultPath"), f"{here}/ResultPath", reference=True)
                self.template(one.get("Assign"), f"{here}/Assign")
            self.assign(one, here)


_NESTED: Final = frozenset({"ItemProcessor", "Iterator", "Branches", "Choices", "Catch"})


def _targets(state: dict[str, Any]) -> list[str]:
    found = [state.get("Next"), state.get("Default")]
    for name in ("Choices", "Catch"):
        found += [one.get("Next") for one in state.get(name) or () if isinstance(one, dict)]
    return [one for one in found if isinstance(one, str)]
