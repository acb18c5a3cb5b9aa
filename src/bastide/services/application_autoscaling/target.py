"""Scalable targets: what may be scaled, and between which bounds."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Ask, Asked, Authorised, Kind, Output, anything, pages
from bastide.kernel.kind import each
from bastide.store import Row, Transaction, View

PRINCIPAL: Final = "sagemaker.application-autoscaling.amazonaws.com"
LINKED_ROLE: Final = "AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint"
NAMESPACE: Final = "sagemaker"
DIMENSION: Final = "sagemaker:variant:DesiredInstanceCount"
REGISTERED: Final = "application-autoscaling:Registered"
"""The key of rows that name every target of the platform, for whoever looks after all of them."""

_RESOURCE: Final = re.compile(r"endpoint/([A-Za-z0-9-]{1,63})/variant/([A-Za-z0-9-]{1,63})")
_WHAT: Final = ("ServiceNamespace", "ResourceId", "ScalableDimension")
_MOST_LISTED: Final = 50

TARGET = Kind(
    "ScalableTarget",
    service="application-autoscaling",
    arn="scalable-target/{}",
    named_by="ResourceId",
    missing=("ObjectNotFoundException", "No scalable target registered for this service namespace and resource.", 400),
    taken=("ConcurrentUpdateException", "The scalable target was registered at the same time.", 400),
)

"""Beside what the API shows a row keeps `_out` and `_in`, when its variant last grew and shrank."""


def name_of(given: dict[str, Any]) -> str:
    """The name of the target that a request means: the same for the same resource and dimension."""
    told = "|".join(str(given.get(member)) for member in _WHAT)
    return "0" + hashlib.sha256(told.encode()).hexdigest()[:33]


def this(asked: Asked) -> Iterable[str]:
    """The ARN of the target that a request means."""
    return (TARGET.arn(asked.call.account, asked.call.region, name_of(asked.input)),)


KEYS: Final = {
    "application-autoscaling:service-namespace": each("ServiceNamespace"),
    "application-autoscaling:scalable-dimension": each("ScalableDimension"),
}


def check(given: dict[str, Any]) -> tuple[str, str]:
    """Endpoint and variant that a request is about; raises Refused for anything else that could be scaled on AWS."""
    if given["ServiceNamespace"] != NAMESPACE or given.get("ScalableDimension", DIMENSION) != DIMENSION:
        raise Refused(
            "ValidationException",
            f"Bastide scales the variants of endpoints: the service namespace {NAMESPACE} and the dimension {DIMENSION}.",
        )
    match = _RESOURCE.fullmatch(given["ResourceId"])
    if match is None:
        raise Refused("ValidationException", "ResourceId is of the form endpoint/NAME/variant/NAME.")
    return match[1], match[2]


def found(a: Authorised, view: View) -> Row:
    """The registered target that a request means; raises Refused."""
    check(a.input)
    return TARGET.find(view, a.account, a.region, name_of(a.input))


def bounds(given: dict[str, Any]) -> None:
    """Raises Refused for bounds that no count lies between."""
    least, most = given["MinCapacity"], given["MaxCapacity"]
    if least < 1:
        raise Refused("ValidationException", "MinCapacity is at least 1: a variant with instances keeps one.")
    if least > most:
        raise Refused("ValidationException", "Maximum capacity cannot be less than minimum capacity")


@TARGET.operation(
    "RegisterScalableTarget",
    asks=[
        Ask("application-autoscaling:RegisterScalableTarget", this, given=KEYS),
        Ask("application-autoscaling:TagResource", this, when=lambda asked: bool(asked.input.get("Tags"))),
    ],
)
def register(a: Authorised, tx: Transaction) -> Output:
    given = a.input
    endpoint, variant = check(given)
    row = TARGET.get(tx, a.account, a.region, name_of(given))
    doc = dict(row.doc) if row is not None else {member: given[member] for member in _WHAT}
    for member in ("MinCapacity", "MaxCapacity"):
        if given.get(member) is not None:
            doc[member] = given[member]
        elif member not in doc:
            raise Refused("ValidationException", f"{member} is needed for a target that is not registered yet.")
    bounds(doc)
    _check_variant(a, tx, endpoint, variant)
    # Whatever RoleARN says: of a service that has a service-linked role that one is used (API Reference,
    # RegisterScalableTarget), and what is described names it.
    role = f"arn:aws:iam::{a.account}:role/aws-service-role/{PRINCIPAL}/{LINKED_ROLE}"
    if tx.get("iam:Role", a.account, "", LINKED_ROLE.lower()) is None:
        a.forward(tx, "iam", "CreateServiceLinkedRole", {"AWSServiceName": PRINCIPAL}, via=PRINCIPAL)
    state = {
        "DynamicScalingInSuspended": False,
        "DynamicScalingOutSuspended": False,
        "ScheduledScalingSuspended": False,
    }
    doc["SuspendedState"] = {**state, **doc.get("SuspendedState", {}), **(given.get("SuspendedState") or {})}
    doc["RoleARN"] = role
    arn = TARGET.arn(a.account, a.region, name_of(given))
    doc["ScalableTargetARN"] = arn
    if row is None:
        TARGET.create(a, tx, name_of(given), doc, tags=dict(given.get("Tags") or {}))
        every = f"{a.account}/{a.region}/{name_of(given)}"
        tx.insert(Row(REGISTERED, "", "", every, {}), keep=False)
    else:
        if given.get("Tags"):
            raise Refused("ValidationException", "Tags are given to a new target; call TagResource for this one.")
        row.doc = doc
        TARGET.change(tx, row, a.operation.name, a.request.id)
    return {"ScalableTargetARN": arn}


def _check_variant(a: Authorised, view: View, endpoint: str, variant: str) -> None:
    row = view.get("sagemaker:Endpoint", a.account, a.region, endpoint)
    shapes = (row.doc.get("ProductionVariants") or ()) if row is not None else ()
    for one in shapes:
        if one["VariantName"] == variant:
            if "DesiredInstanceCount" not in one:
                raise Refused("ValidationException", f"The variant {variant} is serverless and scales by itself.")
            return
    raise Refused("ValidationException", f"There is no endpoint {endpoint} in service with the variant {variant}.")


def page(a: Authorised, view: View, kind: Kind, keep: Any) -> tuple[list[Row], str | None]:
    """A page of the caller's rows of a kind that `keep` keeps, and the token for the next."""
    limit = int(a.input.get("MaxResults") or _MOST_LISTED)
    after = pages.position(a, a.input.get("NextToken"), code="InvalidNextTokenException")
    rows: list[Row] = []
    while True:
        several = view.scan(kind.key, a.account, a.region, after=after, limit=100)
        for row in several:
            if not keep(row.doc):
                after = row.name
                continue
            if len(rows) == limit:
                return rows, pages.seal(a, after)
            rows.append(row)
            after = row.name
        if len(several) < 100:
            return rows, None


def shown(row: Row) -> dict[str, Any]:
    """What a list shows of a row: what begins with an underscore is ours."""
    return {**{key: value for key, value in row.doc.items() if not key.startswith("_")}, "CreationTime": row.created}


def of_resource(given: dict[str, Any], doc: dict[str, Any]) -> bool:
    """Whether something is of the resource and dimension that a list asks for, as far as it does."""
    return all(given.get(member) in (None, doc[member]) for member in _WHAT)


@TARGET.reads("DescribeScalableTargets", asks=[Ask("application-autoscaling:DescribeScalableTargets", anything)])
def described(a: Authorised, view: View) -> Output:
    given = a.input
    ids = given.get("ResourceIds")
    asked = {member: given.get(member) for member in ("ServiceNamespace", "ScalableDimension")}
    rows, token = page(a, view, TARGET, lambda doc: of_resource(asked, doc) and (not ids or doc["ResourceId"] in ids))
    return {"ScalableTargets": [shown(row) for row in rows], "NextToken": token}


@TARGET.operation(
    "DeregisterScalableTarget", asks=[Ask("application-autoscaling:DeregisterScalableTarget", this, given=KEYS)]
)
def deregister(a: Authorised, tx: Transaction) -> Output:
    row = found(a, tx)
    for kind in ("ScalingPolicy", "ScheduledAction"):
        # What hangs on it goes with it (User Guide, "Delete a scaling policy", "Deregister").
        for one in tx.scan(f"application-autoscaling:{kind}", a.account, a.region, limit=1000):
            if one.name.startswith(f"{row.name}/"):
                tx.delete(one, event=a.operation.name, request_id=a.request.id, keep=False)
    every = tx.get(REGISTERED, "", "", f"{a.account}/{a.region}/{row.name}")
    if every is not None:
        tx.delete(every, keep=False)
    TARGET.remove(tx, row, a.operation.name, a.request.id)
    return {}
