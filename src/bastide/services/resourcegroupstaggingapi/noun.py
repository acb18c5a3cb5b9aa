"""Resources of other services, as far as their tags go: which kinds have any, and where their rows are."""

from __future__ import annotations

from typing import Final

from bastide.domain import Arn, Refused
from bastide.kernel import Authorised, Kind
from bastide.store import Row, View

TAGGED = Kind("Tagged", service="resourcegroupstaggingapi", arn="tagged/{}", tags=False, history=False)
"""Not a noun: what the operations hang on."""

HOME: Final = "us-east-1"
"""The region in which resources without a region are seen."""
_BUCKET: Final = "s3:Bucket"


def invalid(message: str) -> Refused:
    """InvalidParameterException."""
    return Refused("InvalidParameterException", message)


def type_of(kind: Kind) -> str:
    """``sagemaker:endpoint``, as ResourceTypeFilters has it."""
    return f"{kind.arn_service}:{'bucket' if kind.key == _BUCKET else kind.type.strip('/:')}"


def kinds(a: Authorised) -> list[Kind]:
    """The kinds that have tags and are seen from the call's account and region, in a fixed order."""
    found = [kind for service in a.calls.registry.services.values() for kind in service.kinds if kind.tags]
    seen = [kind for kind in found if not kind.global_ or (a.region == HOME and _owner(a, kind) is not None)]
    return sorted(seen, key=lambda kind: kind.key)


def _owner(a: Authorised, kind: Kind) -> str | None:
    """The account whose rows are the caller's: what Organizations keeps is the management account's."""
    if kind.service != "organizations":
        return a.account
    return "" if a.account == a.calls.home else None


def place(a: Authorised, kind: Kind) -> tuple[str, str]:
    """Account and region under which the caller's rows of a kind stand."""
    return _owner(a, kind) or "", "" if kind.global_ or kind.key == _BUCKET else a.region


def here(a: Authorised, row: Row) -> bool:
    """Whether a row is of the call's region: buckets stand under no region and know theirs."""
    return row.kind != _BUCKET or row.doc["Region"] == a.region


def arn_of(kind: Kind, row: Row) -> str:
    """The resource's ARN."""
    for member in ("Arn", "arn"):
        if member in row.doc:
            return str(row.doc[member])
    return kind.arn(row.account, row.region, row.name.removeprefix("/") if kind.service == "ssm" else row.name)


def _row_names(kind: Kind, arn: Arn) -> tuple[str, ...]:
    """What the row of an ARN may be called, where names and ARNs differ."""
    name = arn.resource.removeprefix(kind.type)
    last = name.rpartition("/")[2]
    match kind.service:
        case "iam":
            return (last.lower(),)
        case "organizations":
            return (last,)
        case "secretsmanager":
            return (name[:-7],)  # without the six characters that make ARNs differ
        case "ssm":
            return (name, f"/{name}")
    return (name,)


def resource(a: Authorised, view: View, given: str) -> tuple[Kind, Row]:
    """The caller's resource with that ARN; raises Refused (InvalidParameterException)."""
    try:
        arn = Arn.parse(given)
    except ValueError:
        raise invalid(f"`{given[:300]}` is not an ARN.") from None
    kind = a.calls.registry.kind(arn)
    if kind is None or not kind.tags or _owner(a, kind) is None or (arn.region and arn.region != a.region):
        raise invalid(f"`{given[:300]}` is not the ARN of something that has tags in this region.")
    account, region = place(a, kind)
    for name in _row_names(kind, arn):
        row = view.get(kind.key, account, region, name)
        if row is not None and arn_of(kind, row) == given and here(a, row):
            return kind, row
    raise invalid(f"`{given[:300]}` does not exist in this account and region.")
