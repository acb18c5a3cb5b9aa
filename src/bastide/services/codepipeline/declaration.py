"""A pipeline's declaration: what may be declared, and the defaults that are read back.

Source: CodePipeline User Guide, "Pipeline structure reference"; API Reference, PipelineDeclaration.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from bastide.domain import Refused
from bastide.domain.schedule import NoSchedule, Schedule, zone
from bastide.kernel import Authorised
from bastide.services.codepipeline import action_type
from bastide.services.codepipeline.action_type import ActionType, Setting
from bastide.services.codepipeline.noun import Doc, invalid
from bastide.services.codepipeline.rule_type import RULES
from bastide.services.codepipeline.variables import RESERVED, references

MOMENTS: Final = ("beforeEntry", "onSuccess", "onFailure")
_RESULTS: Final = {
    "beforeEntry": ("FAIL", "SKIP"),
    "onSuccess": ("FAIL", "ROLLBACK"),
    "onFailure": ("FAIL", "ROLLBACK", "RETRY", "SKIP"),
}
_ACTION: Final = (
    "name", "actionTypeId", "runOrder", "configuration", "outputArtifacts", "inputArtifacts", "roleArn", "region",
    "namespace", "timeoutInMinutes",
)  # fmt: skip
_MOST_STAGES: Final = 50
_MOST_ACTIONS: Final = 1000
# Not CHANGE_SET_REPLACE, whatever the reference says: published pipelines have it without.
_ROLE_MODES: Final = ("CREATE_UPDATE", "REPLACE_ON_FAILURE", "DELETE_ONLY")


def structure(message: str) -> Refused:
    """InvalidStructureException."""
    return invalid("InvalidStructure", message)


def _action(message: str) -> Refused:
    return invalid("InvalidActionDeclaration", message)


def _stage(message: str) -> Refused:
    return invalid("InvalidStageDeclaration", message)


def checked(a: Authorised, given: Mapping[str, Any]) -> Doc:
    """A declaration as it is kept and read back; raises Refused for what is none, and for what Bastide has not."""
    doc: Doc = {key: value for key, value in given.items() if value is not None}
    doc.setdefault("pipelineType", "V1")
    doc.setdefault("executionMode", "SUPERSEDED")
    _store(a, doc)
    if doc["pipelineType"] == "V1":
        for member, wrong in (
            ("variables", bool(doc.get("variables"))),
            ("triggers", bool(doc.get("triggers"))),
            ("executionMode", doc["executionMode"] != "SUPERSEDED"),
        ):
            if wrong:
                raise structure(f"{member}: pipelines of type V1 do not have this; use pipelineType V2")
    if doc.get("triggers"):
        raise structure(
            "triggers: a trigger is about an action whose provider is CodeStarSourceConnection, which is not supported by "
            "Bastide. Start the pipeline from an EventBridge rule for the repository's changes instead."
        )
    doc["stages"] = _stages(a, doc)
    names = [one["name"] for one in doc.get("variables") or ()]
    if len(set(names)) != len(names):
        raise structure("Names of variables must be unique within a pipeline.")
    _references(doc)
    return doc


def _store(a: Authorised, doc: Doc) -> None:
    one, several = doc.get("artifactStore"), doc.get("artifactStores")
    if (one is None) == (several is None):
        raise structure("Exactly one of artifactStore and artifactStores must be given.")
    if several is not None and set(several) != {a.region}:
        raise structure(
            f"artifactStores: actions run in the pipeline's own region, so there is one store, of {a.region}."
        )
    held = store_of(doc, a.region)
    key = (held.get("encryptionKey") or {}).get("id", "")
    if key.startswith("arn:") and key.split(":")[3:4] != [a.region]:
        raise structure(f"The encryption key {key} is not of the pipeline's region, {a.region}.")


def store_of(doc: Mapping[str, Any], region: str) -> Doc:
    """The artifact store of a declaration."""
    found: Doc = doc.get("artifactStore") or (doc.get("artifactStores") or {}).get(region) or {}
    return found


def _unique(names: Iterable[str], wrong: Refused) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise Refused(wrong.code, f"{wrong.message} {name} has been used more than once.")
        seen.add(name)


def _stages(a: Authorised, doc: Doc) -> list[Doc]:
    stages = doc["stages"]
    if len(stages) < 2:
        raise structure(
            f"Pipeline has only {len(stages)} stage(s). There should be a minimum of 2 stages in a pipeline"
        )
    if len(stages) > _MOST_STAGES:
        raise Refused("LimitExceededException", f"A pipeline has at most {_MOST_STAGES} stages.")
    _unique((one["name"] for one in stages), structure("Stage names within a pipeline must be unique."))
    found = [_one_stage(a, doc, one) for one in stages]
    first, *others = found
    if any(one["actionTypeId"]["category"] != "Source" for one in first["actions"]):
        raise structure("Pipeline should start with a stage that only contains source actions")
    for stage in others:
        for one in stage["actions"]:
            if one["actionTypeId"]["category"] == "Source":
                raise structure(
                    f"Source actions may occur in the first stage only; {one['name']} is in the stage {stage['name']}"
                )
    if sum(len(stage["actions"]) for stage in found) > _MOST_ACTIONS:
        raise Refused("LimitExceededException", f"A pipeline has at most {_MOST_ACTIONS} actions.")
    if any(first.get(moment) for moment in ("beforeEntry",)):
        raise _stage(f"The source stage {first['name']} cannot have conditions for its entry")
    _artifacts(found)
    return found


def _one_stage(a: Authorised, doc: Doc, given: Mapping[str, Any]) -> Doc:
    name = given["name"]
    if given.get("blockers"):
        raise invalid("InvalidBlockerDeclaration", f"Stage {name} has blockers, which are reserved for future use.")
    if not given["actions"]:
        raise _stage(f"Stage {name} must have at least one action.")
    _unique((one["name"] for one in given["actions"]), _stage(f"Action names within the stage {name} must be unique."))
    stage: Doc = {"name": name, "actions": [_one_action(a, one) for one in given["actions"]]}
    for moment in MOMENTS:
        held = given.get(moment)
        if not held:
            continue
        if doc["pipelineType"] == "V1":
            raise _stage(f"Stage {name}: {moment} is for pipelines of type V2.")
        stage[moment] = _conditions(a, doc, name, moment, held)
    return stage


def _conditions(a: Authorised, doc: Doc, name: str, moment: str, held: Mapping[str, Any]) -> Doc:
    results = [held["result"]] if held.get("result") else []
    for condition in held.get("conditions") or ():
        results += [condition["result"]] if condition.get("result") else []
        rules = condition.get("rules") or ()
        if not rules and moment != "onFailure":
            raise _stage(f"Stage {name}: a condition of {moment} needs rules.")
        _unique((one["name"] for one in rules), _stage(f"Names of rules within {moment} of {name} must be unique."))
        for rule in rules:
            _rule(a, name, rule)
    for result in results:
        if result not in _RESULTS[moment]:
            raise _stage(f"Stage {name}: {result} is no result of {moment}; use one of {', '.join(_RESULTS[moment])}.")
        if result == "ROLLBACK" and doc["executionMode"] == "PARALLEL":
            raise _stage(f"Stage {name}: a pipeline in PARALLEL mode does not roll back.")
        if result == "ROLLBACK" and name == doc["stages"][0]["name"]:
            raise _stage(f"Stage {name}: the source stage cannot be rolled back.")
    if moment == "onFailure" and not results:
        raise _stage(f"Stage {name}: onFailure needs a result.")
    return {key: value for key, value in held.items() if value is not None}


def _rule(a: Authorised, stage: str, rule: Mapping[str, Any]) -> None:
    type, where = rule["ruleTypeId"], f"Rule {rule['name']} of the stage {stage}"
    settings = RULES.get(type["provider"])
    if settings is None or type.get("owner", "AWS") != "AWS" or type.get("version", "1") != "1":
        raise _stage(
            f"{where}: there is no rule {type['provider'][:35]} in Bastide; there are {', '.join(sorted(RULES))}."
        )
    for member in ("commands", "inputArtifacts"):
        if rule.get(member):
            raise _stage(f"{where}: {member} is not supported for the rule {type['provider']}.")
    _region(a, rule, where)
    configuration = rule.get("configuration") or {}
    _settings(configuration, settings, where, _stage)
    if type["provider"] == "DeploymentWindow":
        try:
            window(configuration["Cron"])
            zone(configuration.get("TimeZone") or "UTC")
        except NoSchedule as wrong:
            raise _stage(f"{where}: {wrong}") from None
    if type["provider"] == "CloudWatchAlarm":
        states = [one.strip() for one in str(configuration.get("AlarmStates") or "ALARM").split(",")]
        if any(one not in ("ALARM", "OK", "INSUFFICIENT_DATA") for one in states):
            raise _stage(f"{where}: AlarmStates are ALARM, OK and INSUFFICIENT_DATA.")
        if not str(configuration.get("WaitTime") or "0").isdecimal():
            raise _stage(f"{where}: WaitTime is a number of minutes.")


def window(cron: str) -> Schedule:
    """The schedule of a deployment window: its first field is seconds, which is ``*``. Raises NoSchedule."""
    seconds, *fields = cron.split()
    if seconds not in ("*", "0") or len(fields) not in (5, 6):
        raise NoSchedule("Cron has seconds (*), minutes, hours, day of month, month, day of week and perhaps a year.")
    return Schedule.of(f"cron({' '.join(fields if len(fields) == 6 else [*fields, '*'])})")


def _region(a: Authorised, given: Mapping[str, Any], where: str) -> None:
    if given.get("region") not in (None, a.region):
        raise _action(
            f"{where} is of the region {given['region'][:30]}; actions run in the pipeline's own, {a.region}."
        )


def _one_action(a: Authorised, given: Mapping[str, Any]) -> Doc:
    name, id = given["name"], given["actionTypeId"]
    where = f"Action {name}"
    type = action_type.found(a, id)
    if type is None:
        raise _action(
            f"ActionType (Category: '{id['category']}', Provider: '{id['provider'][:35]}', Owner: '{id['owner']}', "
            f"Version: '{id['version'][:9]}') in action '{name}' is not available in region "
            f"{a.region.upper().replace('-', '_')}"
        )
    for member, value in given.items():
        if value and member not in _ACTION:
            raise _action(f"{where}: {member} is not supported by Bastide for the provider {id['provider']}.")
    _region(a, given, where)
    configuration = given.get("configuration") or {}
    _settings(configuration, type.settings, where, _action)
    _particular(type, configuration, where)
    doc: Doc = {
        "name": name,
        "actionTypeId": dict(id),
        "runOrder": given.get("runOrder") or 1,
        "configuration": dict(configuration),
        "outputArtifacts": [_plain(one, where) for one in given.get("outputArtifacts") or ()],
        "inputArtifacts": [dict(one) for one in given.get("inputArtifacts") or ()],
    }
    doc |= {key: given[key] for key in ("roleArn", "region", "namespace", "timeoutInMinutes") if given.get(key)}
    for word, amounts, held in (
        ("input", type.inputs, doc["inputArtifacts"]),
        ("output", type.outputs, doc["outputArtifacts"]),
    ):
        low, high = amounts
        if not low <= len(held) <= high:
            wanted = str(low) if low == high else f"{low} to {high}"
            raise _action(f"{where} has {len(held)} {word} artifacts; {id['provider']} takes {wanted}.")
    return doc


def _plain(one: Mapping[str, Any], where: str) -> Doc:
    if one.get("files"):
        raise _action(f"{where}: files of an output artifact are for the Commands action, which is not supported.")
    return {"name": one["name"]}


def _settings(given: Mapping[str, str], known: Mapping[str, Setting], where: str, wrong: Any) -> None:
    for name, setting in known.items():
        if setting.required and not given.get(name):
            raise wrong(f"{where} is missing required configuration '{name}'")
    for name, value in given.items():
        if name not in known:
            raise wrong(f"{where} contains unknown configuration '{name[:50]}'")
        setting = known[name]
        if value in setting.lacking:
            raise wrong(f"{where}: {name} {value} is not supported by Bastide: {setting.lacking[value]}.")
        if setting.values and value not in setting.values and "#{" not in value:
            raise wrong(f"{where}: '{value[:100]}' is no value of {name}; use one of {', '.join(setting.values)}.")


def _particular(type: ActionType, given: Mapping[str, str], where: str) -> None:
    """What belongs together in one provider's configuration."""
    if type.provider == "CloudFormation":
        mode = given["ActionMode"]
        if mode in _ROLE_MODES and not given.get("RoleArn"):
            raise _action(f"{where}: {mode} needs the configuration 'RoleArn', the role of the stack.")
        if mode.startswith("CHANGE_SET") and not given.get("ChangeSetName"):
            raise _action(f"{where}: {mode} needs the configuration 'ChangeSetName'.")
        if mode in ("CREATE_UPDATE", "REPLACE_ON_FAILURE", "CHANGE_SET_REPLACE") and not given.get("TemplatePath"):
            raise _action(f"{where}: {mode} needs the configuration 'TemplatePath'.")
    if (
        type.provider == "S3"
        and type.category == "Deploy"
        and given["Extract"] == "false"
        and not given.get("ObjectKey")
    ):
        raise _action(f"{where}: without Extract an ObjectKey is needed.")
    for name in ("EnvironmentVariables", "ParameterOverrides"):
        text = given.get(name)
        if text and "#{" not in text:
            try:
                json.loads(text)
            except (ValueError, RecursionError):
                raise _action(f"{where}: {name} is to be JSON.") from None


def _artifacts(stages: list[Doc]) -> None:
    made: set[str] = set()
    for stage in stages:
        for group in groups(stage):
            for action in group:
                for one in action["inputArtifacts"]:
                    if one["name"] not in made:
                        raise _action(
                            f"Input Artifact Bundle {one['name']} in action {action['name']} is not declared as Output "
                            "Artifact Bundle in any of the preceding actions"
                        )
            for action in group:
                for one in action["outputArtifacts"]:
                    if one["name"] in made:
                        raise structure(
                            "Output Artifact Bundle name must be unique within the pipeline. "
                            f"{one['name']} has been used more than once."
                        )
                    made.add(one["name"])


def groups(stage: Mapping[str, Any]) -> list[list[Doc]]:
    """The actions of a stage, those of one runOrder together, in their order."""
    orders = sorted({one["runOrder"] for one in stage["actions"]})
    return [[one for one in stage["actions"] if one["runOrder"] == order] for order in orders]


def _references(doc: Doc) -> None:
    """Raises Refused for a namespace that no earlier action has, and for one that two have."""
    known = {"codepipeline"}
    if doc.get("variables"):
        known.add("variables")
    declared = {one["name"] for one in doc.get("variables") or ()}
    taken: set[str] = set()

    def check(configuration: Mapping[str, str], where: str, wrong: Any) -> None:
        for value in configuration.values():
            for namespace, name in references(value):
                if namespace not in known:
                    raise wrong(f"{where} refers to the namespace {namespace}, which no preceding action has.")
                if namespace == "variables" and name not in declared:
                    raise wrong(f"{where} refers to the variable {name}, which the pipeline does not declare.")

    for stage in doc["stages"]:
        _check_rules(stage, ("beforeEntry",), check)
        for group in groups(stage):
            for action in group:
                check(action["configuration"], f"Action {action['name']}", _action)
            for action in group:
                namespace = action.get("namespace")
                if not namespace:
                    continue
                if namespace in RESERVED or namespace in taken:
                    raise _action(f"Action {action['name']}: the namespace {namespace} is reserved, or there twice.")
                taken.add(namespace)
                known.add(namespace)
        _check_rules(stage, ("onSuccess", "onFailure"), check)


def _check_rules(stage: Doc, moments: tuple[str, ...], check: Any) -> None:
    for moment in moments:
        for condition in (stage.get(moment) or {}).get("conditions") or ():
            for rule in condition.get("rules") or ():
                check(rule.get("configuration") or {}, f"Rule {rule['name']}", _stage)
