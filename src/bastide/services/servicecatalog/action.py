"""Self-service actions: runbooks of Systems Manager that end users may run on what they have provisioned.

Source: Service Catalog API Reference, "CreateServiceAction", "ExecuteProvisionedProductServiceAction"; Administrator Guide,
"AWS Service Catalog Service Actions".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson

from bastide.domain import Refused
from bastide.kernel import Ask, Asked, Authorised, Output, anything, once
from bastide.services.servicecatalog.noun import (
    ACTION,
    ARTIFACT,
    MOST,
    PRINCIPAL,
    PRODUCT,
    absent,
    ask,
    drop,
    invalid,
    keep,
    levels,
    named,
    new,
    sliced,
    used,
)
from bastide.services.servicecatalog.paths import paths, product_of
from bastide.services.servicecatalog.product import brief, view_of
from bastide.services.servicecatalog.provisioned import ACTED, asked_product, begin, changing, found, seal, told
from bastide.store import Row, Transaction, View

ACTIONS_OF: Final = "servicecatalog:ActionOf"
"""``PRODUCT/ARTIFACT/ACTION``, in the product's account."""
LAUNCH_ROLE: Final = "LAUNCH_ROLE"
_MEMBERS: Final = ("Name", "Version", "AssumeRole", "Parameters")
_NAME: Final = re.compile(r"[a-zA-Z0-9_\-.]{1,256}")
_ROLE: Final = re.compile(r"arn:aws:iam::\d{12}:role/[\w+=,.@/-]{1,512}")
_TYPES: Final = ("TARGET", "TEXT_VALUE")
_MOST_ACTIONS: Final = 200


def parameters_of(definition: Mapping[str, str]) -> list[dict[str, str]]:
    """The parameters that a definition speaks of: ``[{"Name": ..., "Type": "TARGET"}]``; raises Refused."""
    try:
        held = orjson.loads(definition.get("Parameters") or "[]")
    except orjson.JSONDecodeError:
        held = None
    fits = isinstance(held, list) and all(
        isinstance(one, dict) and isinstance(one.get("Name"), str) and one.get("Type") in _TYPES for one in held
    )
    if not fits:
        raise invalid('Parameters of a definition are JSON: [{"Name": "InstanceId", "Type": "TARGET"}], or TEXT_VALUE.')
    return list(held)


def _checked(a: Authorised, given: Mapping[str, str]) -> dict[str, str]:
    more = sorted(set(given) - set(_MEMBERS))
    if more or not given.get("Name") or not given.get("Version"):
        raise invalid(
            f"A definition has a Name and a Version of a document, and may have {' and '.join(_MEMBERS[2:])}."
        )
    role = given.get("AssumeRole")
    if role and role != LAUNCH_ROLE and (not _ROLE.fullmatch(role) or role.split(":")[4] != a.account):
        raise invalid(f"AssumeRole is the ARN of a role of this account, or {LAUNCH_ROLE}.")
    parameters_of(given)
    return {name: given[name] for name in _MEMBERS if given.get(name)}


def _passed(asked: Asked) -> Iterable[str]:
    role = (asked.input.get("Definition") or {}).get("AssumeRole") or ""
    return (role,) if role.startswith("arn:") else ()


_PASS: Final = Ask("iam:PassRole", _passed, given={"iam:PassedToService": lambda _: PRINCIPAL})


def _summary(row: Row) -> Output:
    told_ = {"Id": row.name, "Name": row.doc["Name"], "DefinitionType": "SSM_AUTOMATION"}
    return told_ | ({"Description": row.doc["Description"]} if row.doc.get("Description") else {})


def _detail(row: Row) -> Output:
    return {"ServiceActionDetail": {"ServiceActionSummary": _summary(row), "Definition": row.doc["Definition"]}}


@ACTION.operation("CreateServiceAction", asks=[*ask("CreateServiceAction", anything), _PASS])
def create(a: Authorised, tx: Transaction) -> Output:
    given = a.input

    def make() -> Output:
        if not _NAME.fullmatch(given["Name"]):
            raise invalid("Name has letters, digits, _, - and .")
        if len(tx.scan(ACTION.key, a.account, a.region, limit=_MOST_ACTIONS)) == _MOST_ACTIONS:
            raise Refused("LimitExceededException", f"An account has at most {_MOST_ACTIONS} service actions.")
        doc = {"Name": given["Name"], "Definition": _checked(a, given["Definition"])}
        if given.get("Description"):
            doc["Description"] = given["Description"]
        return _detail(ACTION.create(a, tx, new("act"), doc))

    return once(a, tx, given["IdempotencyToken"], make, code="InvalidParametersException")


@ACTION.operation("UpdateServiceAction", asks=[*ask("UpdateServiceAction", anything), _PASS])
def update(a: Authorised, tx: Transaction) -> Output:
    row = ACTION.find(tx, a.account, a.region, a.input["Id"])
    if a.input.get("Name") and not _NAME.fullmatch(a.input["Name"]):
        raise invalid("Name has letters, digits, _, - and .")
    row.doc |= {name: a.input[name] for name in ("Name", "Description") if a.input.get(name) is not None}
    if a.input.get("Definition"):
        row.doc["Definition"] = _checked(a, {**row.doc["Definition"], **a.input["Definition"]})
    ACTION.change(tx, row, a.operation.name, a.request.id)
    return _detail(row)


@ACTION.operation("DeleteServiceAction", asks=ask("DeleteServiceAction", anything))
def delete(a: Authorised, tx: Transaction) -> Output:
    row = ACTION.find(tx, a.account, a.region, a.input["Id"])
    if _bound(tx, a, row.name):
        raise used(f"The service action {row.name} is associated with products; please disassociate it first.")
    ACTION.remove(tx, row, a.operation.name, a.request.id)
    return {}


@ACTION.reads("DescribeServiceAction", asks=ask("DescribeServiceAction", anything))
def describe(a: Authorised, view: View) -> Output:
    return _detail(ACTION.find(view, a.account, a.region, a.input["Id"]))


@ACTION.reads("ListServiceActions", asks=ask("ListServiceActions", anything))
def listed(a: Authorised, view: View) -> Output:
    rows = view.scan(ACTION.key, a.account, a.region, limit=_MOST_ACTIONS)
    return sliced(a, "ServiceActionSummaries", [(row.name, _summary(row)) for row in rows])


# -- of which products -------------------------------------------------------------------------------------------------


def _bound(view: View, a: Authorised, action: str) -> list[Row]:
    rows = view.scan(ACTIONS_OF, a.account, a.region, limit=MOST * 100)
    return [row for row in rows if row.name.endswith(f"/{action}")]


def _version(a: Authorised, view: View, given: Mapping[str, str]) -> tuple[Row, str]:
    product = PRODUCT.get(view, a.account, a.region, given["ProductId"])
    if product is None:
        raise absent("Product", given["ProductId"])
    version = given["ProvisioningArtifactId"]
    if view.get(ARTIFACT, a.account, a.region, f"{product.name}/{version}") is None:
        raise absent("Provisioning artifact", version)
    ACTION.find(view, a.account, a.region, given["ServiceActionId"])
    return product, f"{product.name}/{version}/{given['ServiceActionId']}"


def _associate(a: Authorised, tx: Transaction, given: Mapping[str, str]) -> None:
    product, name = _version(a, tx, given)
    if tx.get(ACTIONS_OF, a.account, a.region, name) is not None:
        raise Refused("DuplicateResourceException", "The action is associated with this version already.")
    version = f"{product.name}/{given['ProvisioningArtifactId']}/"
    if len(tx.scan(ACTIONS_OF, a.account, a.region, prefix=version, limit=25)) == 25:
        raise Refused("LimitExceededException", "A version has at most 25 service actions.")
    keep(a, tx, ACTIONS_OF, name, {})


def _disassociate(a: Authorised, tx: Transaction, given: Mapping[str, str]) -> None:
    _, name = _version(a, tx, given)
    held = tx.get(ACTIONS_OF, a.account, a.region, name)
    if held is None:
        raise absent("Service action", f"{given['ServiceActionId']} of this version")
    drop(a, tx, held)


@ACTION.operation(
    "AssociateServiceActionWithProvisioningArtifact",
    asks=ask("AssociateServiceActionWithProvisioningArtifact", named(PRODUCT, "ProductId")),
)
def associate(a: Authorised, tx: Transaction) -> Output:
    _associate(a, tx, a.input)
    return {}


@ACTION.operation(
    "DisassociateServiceActionFromProvisioningArtifact",
    asks=ask("DisassociateServiceActionFromProvisioningArtifact", named(PRODUCT, "ProductId")),
)
def disassociate(a: Authorised, tx: Transaction) -> Output:
    _disassociate(a, tx, a.input)
    return {}


_CODES: Final = {
    "DuplicateResourceException": "DUPLICATE_RESOURCE", "LimitExceededException": "LIMIT_EXCEEDED",
    "ResourceNotFoundException": "RESOURCE_NOT_FOUND",
}  # fmt: skip


def _each(a: Authorised, tx: Transaction, work: Any) -> Output:
    failed = []
    for one in a.input["ServiceActionAssociations"]:
        try:
            work(a, tx, one)
        except Refused as refused:
            failed.append(
                {**one, "ErrorCode": _CODES.get(refused.code, "INTERNAL_FAILURE"), "ErrorMessage": refused.message}
            )
    return {"FailedServiceActionAssociations": failed}


@ACTION.operation(
    "BatchAssociateServiceActionWithProvisioningArtifact",
    asks=ask("BatchAssociateServiceActionWithProvisioningArtifact", anything),
)
def associate_several(a: Authorised, tx: Transaction) -> Output:
    return _each(a, tx, _associate)


@ACTION.operation(
    "BatchDisassociateServiceActionFromProvisioningArtifact",
    asks=ask("BatchDisassociateServiceActionFromProvisioningArtifact", anything),
)
def disassociate_several(a: Authorised, tx: Transaction) -> Output:
    return _each(a, tx, _disassociate)


@ACTION.reads(
    "ListProvisioningArtifactsForServiceAction", asks=ask("ListProvisioningArtifactsForServiceAction", anything)
)
def artifacts_of(a: Authorised, view: View) -> Output:
    row = ACTION.find(view, a.account, a.region, a.input["ServiceActionId"])
    found_ = []
    for one in _bound(view, a, row.name):
        product, version, _ = one.name.split("/")
        held = PRODUCT.get(view, a.account, a.region, product)
        artifact = view.get(ARTIFACT, a.account, a.region, f"{product}/{version}")
        if held is not None and artifact is not None:
            found_.append((one.name, {"ProductViewSummary": view_of(held), "ProvisioningArtifact": brief(artifact)}))
    return sliced(a, "ProvisioningArtifactViews", found_)


def actions_of(view: View, product: Row, version: str) -> list[Row]:
    """The actions of a product's version."""
    rows = view.scan(ACTIONS_OF, product.account, product.region, prefix=f"{product.name}/{version}/", limit=MOST)
    held = [ACTION.get(view, row.account, row.region, row.name.rpartition("/")[2]) for row in rows]
    return [row for row in held if row is not None]


def _product_asked(asked: Asked) -> Row | None:
    return None


@ACTION.reads(
    "ListServiceActionsForProvisioningArtifact",
    asks=ask("ListServiceActionsForProvisioningArtifact", named(PRODUCT, "ProductId"), given=levels(_product_asked)),
)
def actions_for(a: Authorised, view: View) -> Output:
    ways = paths(a, view, a.input["ProductId"])
    product = ways[0].product if ways else product_of(a, view, a.input["ProductId"])
    rows = actions_of(view, product, a.input["ProvisioningArtifactId"])
    return sliced(a, "ServiceActionSummaries", [(row.name, _summary(row)) for row in rows])


# -- running -----------------------------------------------------------------------------------------------------------


def _of(a: Authorised, view: View) -> tuple[Row, Row]:
    """The provisioned product, and the action on it, that a call names; raises Refused."""
    row = found(a, view)
    ways = paths(a, view, row.doc["ProductId"])
    product = ways[0].product if ways else product_of(a, view, row.doc["ProductId"])
    for one in actions_of(view, product, row.doc["ProvisioningArtifactId"]):
        if one.name == a.input["ServiceActionId"]:
            return row, one
    raise absent("Service action", f"{a.input['ServiceActionId']} of {row.name}")


async def _looked_up(a: Authorised) -> Any:
    """What the action's parameters would be, asked with the caller's own rights."""
    with a.calls.store.reading() as view:
        row, action = _of(a, view)
    definition = action.doc["Definition"]
    told_ = await a.calls.act(
        a.caller, "ssm", "DescribeDocument", {"Name": definition["Name"], "DocumentVersion": definition["Version"]},
        region=a.region, source=PRINCIPAL, via=(*a.request.via, PRINCIPAL),
    )  # fmt: skip
    held = told_["Document"]
    targets: list[str] = []
    declared = parameters_of(definition)
    if any(one["Type"] == "TARGET" for one in declared) and row.doc["stack"]:
        answer = await a.calls.act(
            a.caller, "cloudformation", "ListStackResources", {"StackName": row.doc["stack"]}, region=a.region,
            source=PRINCIPAL, via=(*a.request.via, PRINCIPAL),
        )  # fmt: skip
        targets = targets_of(answer["StackResourceSummaries"], held.get("TargetType") or "")
    defaults = {one["Name"]: one.get("DefaultValue") for one in held.get("Parameters") or ()}
    return [
        {
            "Name": one["Name"], "Type": one["Type"],
            "DefaultValues": targets if one["Type"] == "TARGET"
            else [defaults[one["Name"]]] if defaults.get(one["Name"]) else [],
        }
        for one in declared
    ]  # fmt: skip


def targets_of(resources: Iterable[Mapping[str, Any]], type: str) -> list[str]:
    """The physical ids of a stack's resources of a target type such as ``/AWS::SageMaker::NotebookInstance``."""
    return [
        one["PhysicalResourceId"]
        for one in resources
        if one.get("PhysicalResourceId") and type in ("", "/", f"/{one['ResourceType']}")
    ]


@ACTION.reads(
    "DescribeServiceActionExecutionParameters",
    asks=ask("DescribeServiceActionExecutionParameters", anything, given=levels(asked_product)), before=_looked_up,
)  # fmt: skip
def execution_parameters(a: Authorised, view: View) -> Output:
    return {"ServiceActionParameters": a.staged}


@ACTION.operation(
    "ExecuteProvisionedProductServiceAction",
    asks=ask("ExecuteProvisionedProductServiceAction", anything, given=levels(asked_product)),
)
def execute(a: Authorised, tx: Transaction) -> Output:
    def make() -> Output:
        row, action = _of(a, tx)
        if row.status not in ("AVAILABLE", "TAINTED"):
            raise Refused("InvalidStateException", f"The provisioned product {row.name} is {row.status}.")
        definition = action.doc["Definition"]
        declared = {one["Name"] for one in parameters_of(definition)}
        given = a.input.get("Parameters") or {}
        unknown = sorted(set(given) - declared)
        if unknown:
            raise invalid(f"The action has no parameter {unknown[0][:128]}.")
        role = definition.get("AssumeRole") or ""
        if role == LAUNCH_ROLE:
            role = row.doc["LaunchRoleArn"]
            if not role:
                raise invalid("The action is run by the launch role, but the product was launched without one.")
        record, before = new("rec"), row.status
        changing(a, tx, row, record)
        more = {
            "stack": row.doc["stack"], "definition": definition, "given": seal(a.calls, given), "before": before,
            "ServiceActionId": action.name,
        }  # fmt: skip
        return told(tx, begin(a, tx, row, ACTED, id=record, role=role, **more))

    return once(a, tx, a.input["ExecuteToken"], make, code="InvalidParametersException")
