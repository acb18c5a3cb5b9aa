"""What a launch asks for, settled before anything is made: the version, the way, the parameters, the tags, the role.

All that can be refused at once is refused here; what only the launch role may find out ends its record.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from bastide.domain import Refused, tag_map
from bastide.engines import templates
from bastide.engines.templates import parameters
from bastide.kernel import Authorised, Output
from bastide.services.servicecatalog import fetching
from bastide.services.servicecatalog.noun import PRODUCT, ask, invalid, named, sliced
from bastide.services.servicecatalog.paths import (
    Path,
    chosen,
    option_values,
    paths,
    product_named,
    role_of,
    summaries,
    tags_on,
)
from bastide.services.servicecatalog.product import artifact_named, body_of, parameters_of
from bastide.store import Row, View

_TOPIC: Final = re.compile(r"arn:aws:sns:[a-z0-9-]+:\d{12}:[A-Za-z0-9_-]{1,256}")
_MOST_TOPICS: Final = 5


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be launched. role: empty for the caller's own rights."""

    path: Path
    artifact: Row
    role: str
    template: str
    parameters: dict[str, str]
    tags: dict[str, str]
    topics: list[str]

    def asked(self) -> dict[str, Any]:
        """What CloudFormation is asked for."""
        found: dict[str, Any] = {
            "TemplateBody": self.template,
            "Parameters": [{"ParameterKey": key, "ParameterValue": one} for key, one in self.parameters.items()],
            "Tags": [{"Key": key, "Value": one} for key, one in self.tags.items()],
            "Capabilities": ["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"],
        }
        return found | ({"NotificationARNs": self.topics} if self.topics else {})


def told(a: Authorised) -> dict[str, str | None]:
    """The parameters that a call brings; None stands for the value before."""
    found: dict[str, str | None] = {}
    for one in a.input.get("ProvisioningParameters") or ():
        key = one.get("Key")
        if not key or key in found:
            raise invalid("Each of ProvisioningParameters has a Key of its own.")
        found[key] = None if one.get("UsePreviousValue") else one.get("Value") or ""
    return found


def _rules(path: Path) -> dict[str, Any]:
    """The rules of all template constraints of a path, under names of their own."""
    found = {}
    for row in path.bound:
        if row.doc["Type"] == "TEMPLATE":
            for name, rule in row.doc["Parameters"]["Rules"].items():
                found[f"{name}{re.sub('[^a-z0-9]', '', row.name)}"] = rule
    return found


def _ruled(body: str, rules: Mapping[str, Any]) -> str:
    """A template with the constraints' rules in it, so that CloudFormation holds them, too."""
    if not rules:
        return body
    raw = templates.read(body)
    made = orjson.dumps({**raw, "Rules": {**(raw.get("Rules") or {}), **rules}}).decode()
    if len(made.encode()) > templates.MOST_BYTES:
        raise invalid("The template is too large together with the rules of the template constraints.")
    return made


def _checked(body: str, given: Mapping[str, str | None], earlier: Mapping[str, str] | None) -> dict[str, str]:
    """The parameters' values; raises InvalidParametersException for what the template or its rules do not allow."""
    try:
        raw = templates.read(body)
        declared = raw.get("Parameters") or {}
        values = parameters.given(declared, given, earlier)
        stored = any(parameters.stored_type(one["Type"]) for one in declared.values())
        if raw.get("Rules") and not stored:  # CloudFormation looks stored ones up, and holds the rules itself
            resolved = {name: parameters.split(one["Type"], values[name]) for name, one in declared.items()}
            conditions = raw.get("Conditions") or {}
            scope = templates.Scope(resolved, mappings=raw.get("Mappings") or {}, conditions=conditions)
            templates.rules.check(raw["Rules"], scope)
    except templates.Unknown:
        return values
    except Refused as refused:
        raise invalid(refused.message) from None
    return values


def _tags(a: Authorised, view: View, path: Path, *, given: bool) -> dict[str, str]:
    """The tags of what is provisioned: of portfolio and product, what TagOptions leave no choice of, and the caller's."""
    mine = tag_map(a.input.get("Tags"), code="InvalidParametersException")
    options = option_values(a, view, path)
    for key, values in options.items():
        if key in mine and mine[key] not in values:
            raise invalid(f"The tag {key} may be one of: {', '.join(sorted(values))} (TagOptions of the product).")
        if key not in mine and len(values) > 1 and given:
            raise invalid(
                f"The tag {key} must be chosen: one of {', '.join(sorted(values))} (TagOptions of the product)."
            )
    only = {key: values[0] for key, values in options.items() if len(values) == 1}
    held = {**tags_on(path), **only}
    # In conditions the case of a tag's key does not count, so that it must not make another tag here either.
    fixed = {key.lower(): (key, value) for key, value in held.items()}
    for key, value in mine.items():
        if fixed.get(key.lower(), (key, value)) != (key, value):
            raise invalid(f"The tag {key} is set by the portfolio or the product; it cannot be given another value.")
    tags = {**held, **mine}
    if len(tags) > 50:
        raise invalid("What is provisioned may have at most 50 tags.")
    return tags


def _topics(a: Authorised, path: Path) -> list[str]:
    found = list(a.input.get("NotificationArns") or ())
    if not all(_TOPIC.fullmatch(one) for one in found):
        raise invalid("NotificationArns are ARNs of topics.")
    for row in path.bound:
        if row.doc["Type"] == "NOTIFICATION":
            found += row.doc["Parameters"]["NotificationArns"]
    unique = list(dict.fromkeys(found))
    if len(unique) > _MOST_TOPICS:
        raise invalid(f"A stack tells at most {_MOST_TOPICS} topics.")
    return unique


def updates_tags(path: Path) -> bool:
    """Whether tags of what was provisioned may be changed."""
    return any(
        row.doc["Type"] == "RESOURCE_UPDATE"
        and row.doc["Parameters"]["Properties"]["TagUpdateOnProvisionedProduct"] == "ALLOWED"
        for row in path.bound
    )


def ordered(
    a: Authorised,
    view: View,
    *,
    given: Mapping[str, Any] | None = None,
    earlier: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
) -> Order:
    """What a call asks for; raises Refused. given: the input, completed. earlier, tags: of what was provisioned before,
    which is changed."""
    given = a.input if given is None else given
    if any(one is not None for one in (a.input.get("ProvisioningPreferences") or {}).values()):
        raise invalid(
            "ProvisioningPreferences are for products with a STACKSET constraint, which Bastide does not have."
        )
    path = chosen(a, view, given)
    artifact = artifact_named(view, path.product, given, id="ProvisioningArtifactId", name="ProvisioningArtifactName")
    version = artifact.name.partition("/")[2]
    if not artifact.doc["Active"]:
        raise invalid(f"The provisioning artifact {version} is not active; please choose another version.")
    body = _ruled(body_of(a.calls, artifact), _rules(path))
    values = _checked(body, told(a), earlier)
    if tags is None:
        mine = _tags(a, view, path, given=True)
    elif a.input.get("Tags"):
        if not updates_tags(path):
            raise invalid(
                "Tags of this provisioned product may not be updated: the product has no RESOURCE_UPDATE constraint with "
                "TagUpdateOnProvisionedProduct ALLOWED."
            )
        mine = {**tags, **_tags(a, view, path, given=False)}
    else:
        mine = dict(tags)
    return Order(path, artifact, role_of(path, a.account), body, values, mine, _topics(a, path))


# -- what may be asked for ---------------------------------------------------------------------------------------------


@PRODUCT.reads(
    "DescribeProvisioningParameters",
    asks=ask("DescribeProvisioningParameters", product_named("ProductId", "ProductName")),
)
def describe(a: Authorised, view: View) -> Output:
    path = chosen(a, view, a.input)
    artifact = artifact_named(view, path.product, a.input, id="ProvisioningArtifactId", name="ProvisioningArtifactName")
    if not artifact.doc["Active"]:
        raise invalid("The provisioning artifact is not active; please choose another version.")
    template = fetching.read(body_of(a.calls, artifact))
    rules = [row for row in path.bound if row.doc["Type"] == "TEMPLATE"]
    outputs = [
        {"Key": name, "Description": str(one.get("Description") or "")}
        for name, one in template.section("Outputs").items()
        if isinstance(one, dict)
    ]
    return {
        "ProvisioningArtifactParameters": parameters_of(template),
        "ConstraintSummaries": summaries(path),
        "UsageInstructions": [
            {"Type": "rules", "Value": orjson.dumps(row.doc["Parameters"]["Rules"]).decode()} for row in rules
        ] + [{"Type": "version", "Value": "2010-09-09"}],
        "TagOptions": [{"Key": key, "Values": values} for key, values in option_values(a, view, path).items()],
        "ProvisioningArtifactOutputKeys": outputs,
    }  # fmt: skip


@PRODUCT.reads("ListLaunchPaths", asks=ask("ListLaunchPaths", named(PRODUCT, "ProductId")))
def launch_paths(a: Authorised, view: View) -> Output:
    found = []
    for path in paths(a, view, a.input["ProductId"]):
        tags = [{"Key": key, "Value": value} for key, value in tags_on(path).items()]
        found.append(
            (path.id, {"Id": path.id, "Name": path.name, "ConstraintSummaries": summaries(path), "Tags": tags})
        )
    return sliced(a, "LaunchPathSummaries", found)
