"""What can be read of stacks and templates.

Source: CloudFormation API Reference, "DescribeStacks" and its like.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import orjson

from bastide.domain import Refused
from bastide.engines import templates
from bastide.engines.templates import Template, text
from bastide.kernel import Ask, Asked, Authorised, Output, anything, each, pages
from bastide.kernel.address import Address
from bastide.services.cloudformation import record
from bastide.services.cloudformation.intake import EXPAND, actor_of, body_of, check_types, required_capabilities
from bastide.services.cloudformation.record import (
    EVENT,
    EXPORT,
    IMPORT,
    STACK,
    active,
    arn_of,
    found,
    rows_of,
    set_of,
    this,
)
from bastide.services.cloudformation.stack import invalid, shown
from bastide.store import Row, View

_PAGE: Final = 100
_STACKS: Final = 50
_MOST_EXAMINED: Final = 1000
"""Rows that a filtered page looks at before it hands out a token instead."""


def _every(asked: Asked) -> Iterable[str]:
    """The stack that is named, or all of the caller's."""
    if asked.input.get("StackName"):
        found_: Iterable[str] = this()(asked)
        return found_
    return (STACK.arn(asked.call.account, asked.call.region, "*"),)


@STACK.reads(
    "DescribeStacks",
    asks=[
        Ask("cloudformation:DescribeStacks", _every),
        Ask("cloudformation:ListStacks", anything, when=lambda asked: not asked.input.get("StackName")),
    ],
)
def describe(a: Authorised, view: View) -> Output:
    given = a.input.get("StackName")
    if given:
        row = active(view, a.account, a.region, given)
        if row is None:
            raise Refused("ValidationError", f"Stack with id {given} does not exist")
        return {"Stacks": [shown(a, row)]}
    after = pages.position(a, a.input.get("NextToken"))
    held = view.scan(record.LIVE, a.account, a.region, after=after, limit=_STACKS + 1)
    rows = [view.get(STACK.key, a.account, a.region, f"{one.name}/{one.doc['id']}") for one in held[:_STACKS]]
    told: Output = {"Stacks": [shown(a, row) for row in rows if row is not None]}
    if len(held) > _STACKS:
        told["NextToken"] = pages.seal(a, held[_STACKS - 1].name)
    return told


@STACK.reads("ListStacks", asks=[Ask("cloudformation:ListStacks", anything)])
def listed(a: Authorised, view: View) -> Output:
    wanted = set(a.input.get("StackStatusFilter") or ())
    after = pages.position(a, a.input.get("NextToken"))
    summaries: list[Output] = []
    examined = 0
    while True:
        rows = view.scan(
            STACK.key, a.account, a.region, order="created", descending=True, after=tuple(after) if after else None,
            limit=_PAGE + 1,
        )  # fmt: skip
        for row in rows[:_PAGE]:
            after = [row.created, row.name]
            examined += 1
            if not wanted or row.status in wanted:
                summaries.append(_summary(row))
        if len(rows) <= _PAGE:
            return {"StackSummaries": summaries}
        if len(summaries) >= _PAGE or not wanted or examined >= _MOST_EXAMINED:
            return {"StackSummaries": summaries, "NextToken": pages.seal(a, after)}


def _summary(row: Row) -> Output:
    doc = row.doc
    told: Output = {
        "StackId": arn_of(row),
        "StackName": row.name.partition("/")[0],
        "CreationTime": row.created,
        "StackStatus": row.status,
        "DriftInformation": doc.get("drift") or {"StackDriftStatus": "NOT_CHECKED"},
    }
    for name, value in (
        ("TemplateDescription", doc.get("Description")),
        ("StackStatusReason", doc.get("reason")),
        ("LastUpdatedTime", doc.get("updated")),
        ("DeletionTime", doc.get("deleted")),
        ("ParentId", doc.get("ParentId")),
        ("RootId", doc.get("RootId")),
    ):
        if value:
            told[name] = value
    return told


@STACK.reads("DescribeStackEvents", asks=[Ask("cloudformation:DescribeStackEvents", this())])
def events(a: Authorised, view: View) -> Output:
    row = found(view, a.account, a.region, a.input["StackName"])
    uuid = row.name.partition("/")[2]
    after = pages.position(a, a.input.get("NextToken"))
    rows = view.scan(EVENT, row.account, row.region, prefix=f"{uuid}/", descending=True, after=after, limit=_PAGE + 1)
    told = {"StackId": arn_of(row), "StackName": row.name.partition("/")[0]}
    answer: Output = {"StackEvents": [{**told, **one.doc} for one in rows[:_PAGE]]}
    if len(rows) > _PAGE:
        answer["NextToken"] = pages.seal(a, rows[_PAGE - 1].name)
    return answer


# -- resources ---------------------------------------------------------------------------------------------------------


def _resource(stack: Row, row: Row, *, detail: bool) -> Output:
    doc = row.doc
    told: Output = {
        "LogicalResourceId": row.name.partition("/")[2],
        "ResourceType": doc["type"],
        "ResourceStatus": row.status,
        "DriftInformation": doc.get("drift") or {"StackResourceDriftStatus": "NOT_CHECKED"},
    }
    told["LastUpdatedTimestamp" if detail else "Timestamp"] = doc.get("at") or row.modified
    if doc.get("physical"):
        told["PhysicalResourceId"] = doc["physical"]
    if doc.get("reason"):
        told["ResourceStatusReason"] = doc["reason"]
    if detail and doc.get("metadata"):
        told["Metadata"] = doc["metadata"]
    return {"StackName": stack.name.partition("/")[0], "StackId": arn_of(stack), **told}


@STACK.reads("DescribeStackResource", asks=[Ask("cloudformation:DescribeStackResource", this())])
def resource(a: Authorised, view: View) -> Output:
    stack = active(view, a.account, a.region, a.input["StackName"])
    if stack is None:
        raise invalid(f"Stack '{a.input['StackName']}' does not exist")
    logical = a.input["LogicalResourceId"]
    row = view.get(record.RESOURCE, stack.account, stack.region, f"{stack.name.partition('/')[2]}/{logical}")
    if row is None:
        raise invalid(f"Resource {logical} does not exist for stack {stack.name.partition('/')[0]}")
    return {"StackResourceDetail": _resource(stack, row, detail=True)}


@STACK.reads("DescribeStackResources", asks=[Ask("cloudformation:DescribeStackResources", _every)])
def resources(a: Authorised, view: View) -> Output:
    given, physical = a.input.get("StackName"), a.input.get("PhysicalResourceId")
    if not given:
        if not physical:
            raise invalid("Either StackName or PhysicalResourceId must be specified.")
        for stack in record.living(view, a.account, a.region):
            if any(one.doc.get("physical") == physical for one in rows_of(view, stack)):
                return {"StackResources": [_resource(stack, one, detail=False) for one in rows_of(view, stack)[:_PAGE]]}
        raise invalid(f"Stack for {physical} does not exist")
    stack = found(view, a.account, a.region, given, id=True)
    wanted = a.input.get("LogicalResourceId")
    rows = [one for one in rows_of(view, stack) if not wanted or one.name.partition("/")[2] == wanted]
    return {"StackResources": [_resource(stack, one, detail=False) for one in rows[:_PAGE]]}


@STACK.reads("ListStackResources", asks=[Ask("cloudformation:ListStackResources", this())])
def list_resources(a: Authorised, view: View) -> Output:
    stack = found(view, a.account, a.region, a.input["StackName"], id=True)
    after = pages.position(a, a.input.get("NextToken"))
    uuid = stack.name.partition("/")[2]
    rows = view.scan(record.RESOURCE, stack.account, stack.region, prefix=f"{uuid}/", after=after, limit=_PAGE + 1)
    told = []
    for one in rows[:_PAGE]:
        shown_ = _resource(stack, one, detail=True)
        told.append({key: value for key, value in shown_.items() if key not in ("StackId", "StackName", "Metadata")})
    answer: Output = {"StackResourceSummaries": told}
    if len(rows) > _PAGE:
        answer["NextToken"] = pages.seal(a, rows[_PAGE - 1].name)
    return answer


# -- exports -----------------------------------------------------------------------------------------------------------


@STACK.reads("ListExports", asks=[Ask("cloudformation:ListExports", anything)])
def exports(a: Authorised, view: View) -> Output:
    after = pages.position(a, a.input.get("NextToken"))
    rows = view.scan(EXPORT, a.account, a.region, after=after, limit=_PAGE + 1)
    answer: Output = {
        "Exports": [
            {
                "ExportingStackId": STACK.arn(a.account, a.region, one.doc["stack"]),
                "Name": one.name,
                "Value": one.doc["value"],
            }
            for one in rows[:_PAGE]
        ]
    }
    if len(rows) > _PAGE:
        answer["NextToken"] = pages.seal(a, rows[_PAGE - 1].name)
    return answer


@STACK.reads("ListImports", asks=[Ask("cloudformation:ListImports", anything)])
def imports(a: Authorised, view: View) -> Output:
    name = a.input["ExportName"]
    if view.get(EXPORT, a.account, a.region, name) is None:
        raise invalid(f"Export '{name}' does not exist.")
    after = pages.position(a, a.input.get("NextToken"))
    rows = view.scan(IMPORT, a.account, a.region, prefix=f"{name}\n", after=after, limit=_PAGE + 1)
    if not rows:
        raise invalid(f"Export '{name}' is not imported by any stack.")
    answer: Output = {"Imports": [one.name.partition("\n")[2] for one in rows[:_PAGE]]}
    if len(rows) > _PAGE:
        answer["NextToken"] = pages.seal(a, rows[_PAGE - 1].name)
    return answer


# -- templates ---------------------------------------------------------------------------------------------------------


@STACK.reads("GetTemplate", asks=[Ask("cloudformation:GetTemplate", record.of_set)])
def template(a: Authorised, view: View) -> Output:
    given, change_set = a.input.get("StackName"), a.input.get("ChangeSetName")
    if not given and not change_set:
        raise invalid("StackName is required if ChangeSetName is not specified.")
    if not given and not str(change_set).startswith("arn:"):
        raise invalid("StackName is a required parameter.")
    row = found(view, a.account, a.region, given, id=True) if given else None
    if change_set:
        row = record.stack_of_set(view, a.account, a.region, a.input)
        held = set_of(view, row, change_set) if row is not None else None
        if held is None:
            raise Refused("ChangeSetNotFound", f"ChangeSet [{change_set}] does not exist", 404)
        state = record.State(**record.opened(a.calls, held.doc["state"]))
    else:
        assert row is not None
        if "state" not in row.doc:
            raise invalid(f"Template is not available for stack {row.name.partition('/')[0]} in {row.status}.")
        state = record.state_of(a.calls, row)
    processed = a.input.get("TemplateStage") == "Processed"
    body = orjson.dumps(orjson.loads(state.processed), option=orjson.OPT_INDENT_2).decode() if processed else state.body
    return {"TemplateBody": body, "StagesAvailable": ["Original", "Processed"]}


async def _read_template(a: Authorised) -> Any:
    """The template that a call brings, checked in its form, and its text."""
    body = await body_of(actor_of(a, ""), a.input, None, a.engine(Address).hosts)
    return parsed(body), body


def parsed(body: str) -> Template:
    """A template as far as its form goes; loops are not written out without parameters."""
    raw = templates.read(body)
    changed = templates.macros.used(raw) or templates.SERVERLESS in templates.transforms_of(raw)
    if not changed and not any("Fn::ForEach" in key for key in _keys(raw)) and not templates.includes.asked(raw):
        return templates.checked(raw)
    templates.parameters.check_declared(raw.get("Parameters") or {})
    return Template(raw, templates.transforms_of(raw))


def _keys(value: Any) -> Iterable[str]:
    here = [value]
    while here:
        one = here.pop()
        if isinstance(one, dict):
            yield from one
            here += one.values()
        elif isinstance(one, list):
            here += one


_URL: Final = {"cloudformation:TemplateUrl": each("TemplateURL")}


@STACK.reads(
    "ValidateTemplate", asks=[Ask("cloudformation:ValidateTemplate", anything, given=_URL)], before=_read_template
)
def validate(a: Authorised, view: View) -> Output:
    held, _ = a.staged
    check_types(a.calls, held)
    needs, why = required_capabilities(held)
    answer: Output = {
        "Parameters": [
            {
                "ParameterKey": name,
                "NoEcho": text(one.get("NoEcho", "")).lower() == "true",
                **({"DefaultValue": text(one["Default"])} if "Default" in one else {}),
                **({"Description": one["Description"]} if one.get("Description") else {}),
            }
            for name, one in held.parameters.items()
        ],
        "DeclaredTransforms": list(held.transforms),
        **_needed(held, needs, why),
    }
    if held.description:
        answer["Description"] = held.description
    return answer


def _needed(held: Template, needs: list[str], why: list[str]) -> Output:
    capabilities = [*needs, *([EXPAND] if held.transforms else [])]
    if not capabilities:
        return {}
    reason = (
        f"The following resource(s) require capabilities: [{', '.join(why)}]" if why else "The template has transforms."
    )
    return {"Capabilities": capabilities, "CapabilitiesReason": reason}


async def _read_summary(a: Authorised) -> Any:
    if a.input.get("StackSetName"):
        raise invalid("StackSetName: describe the stack set instead.")
    return None if a.input.get("StackName") else await _read_template(a)


def _summarised(asked: Asked) -> Iterable[str]:
    found_: Iterable[str] = this()(asked) if asked.input.get("StackName") else ("*",)
    return found_


@STACK.reads(
    "GetTemplateSummary", asks=[Ask("cloudformation:GetTemplateSummary", _summarised, given=_URL)], before=_read_summary
)
def summary(a: Authorised, view: View) -> Output:
    if a.staged is not None:
        held, _ = a.staged
    else:
        row = found(view, a.account, a.region, a.input["StackName"])
        if row.status == "REVIEW_IN_PROGRESS":
            raise invalid("GetTemplateSummary cannot be called on REVIEW_IN_PROGRESS stacks.")
        held = templates.checked(orjson.loads(record.state_of(a.calls, row).processed))
    needs, why = required_capabilities(held)
    told = []
    for name, one in held.parameters.items():
        entry: Output = {
            "ParameterKey": name,
            "ParameterType": one["Type"],
            "NoEcho": text(one.get("NoEcho", "")).lower() == "true",
            "ParameterConstraints": {"AllowedValues": [text(v) for v in one["AllowedValues"]]}
            if "AllowedValues" in one
            else {},
        }
        if "Default" in one:
            entry["DefaultValue"] = text(one["Default"])
        if one.get("Description"):
            entry["Description"] = one["Description"]
        told.append(entry)
    answer: Output = {
        "Parameters": told,
        "ResourceTypes": held.types(),
        "DeclaredTransforms": list(held.transforms),
        "ResourceIdentifierSummaries": [
            {
                "ResourceType": kind,
                "LogicalResourceIds": sorted(name for name, one in held.resources.items() if one.type == kind),
                "ResourceIdentifiers": [
                    one.rpartition("/")[2] for one in templates.schema.schema(kind).get("primaryIdentifier", ())
                ],
            }
            for kind in held.types()
            if templates.schema.has_schema(kind)
        ],
        **_needed(held, needs, why),
    }
    if held.description:
        answer["Description"] = held.description
    if held.raw.get("AWSTemplateFormatVersion"):
        answer["Version"] = held.raw["AWSTemplateFormatVersion"]
    if held.raw.get("Metadata"):
        answer["Metadata"] = orjson.dumps(held.raw["Metadata"]).decode()
    return answer
