"""Functions: made, changed, shown, deleted.

A function is `Pending` until what was asked for has been taken up, and then `Active`; a change is `InProgress` until then.
Source: AWS Lambda API Reference; Lambda Developer Guide, "Lambda function states".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from bastide.domain import MICROS, Instant, Refused
from bastide.engines.functions import Functions
from bastide.kernel import Ask, Authorised, Calls, Output, anything, each, pages
from bastide.kernel.address import Address
from bastide.kernel.kind import Asked
from bastide.services.lambda_ import code as codes
from bastide.services.lambda_ import configuration as config
from bastide.services.lambda_ import image as images
from bastide.services.lambda_ import version as versions
from bastide.services.lambda_.code import Code
from bastide.services.lambda_.image import Image
from bastide.services.lambda_.noun import (
    ALIAS,
    FUNCTION,
    HOLDER,
    LATEST,
    PRINCIPAL,
    VERSION,
    Named,
    find,
    invalid,
    is_number,
    limit_of,
    matches,
    named,
    own_archive,
    resolved,
    rows_of,
    this,
    this_qualified,
    version_row,
)
from bastide.store import Row, Transaction, View

_MOST_TAGS: Final = 50
_TEN_MINUTES: Final = 600 * MICROS
TICKET: Final = "lambda/code"


@dataclass(slots=True)
class Work:
    """What a request brought, and the archives that nobody names any more once it is done."""

    code: Code | None = None
    image: Image | None = None
    drop: list[str] = field(default_factory=list)


async def _forget(a: Authorised, output: Output) -> Output:
    for id in a.staged.drop:
        await codes.drop(a.calls, id)
    return output


async def _undo(a: Authorised) -> None:
    if a.staged is not None and a.staged.code is not None:
        await codes.drop(a.calls, a.staged.code.id)


def hold(tx: Transaction, account: str, region: str) -> None:
    """Notes that an account has functions or layers in a region."""
    name = f"{account}|{region}"
    if tx.get(HOLDER, "", "", name) is None:
        tx.insert(Row(HOLDER, "", "", name, {}), keep=False)


def unnamed(tx: Transaction, what: Named, row: Row | None, ids: set[str]) -> list[str]:
    """Of archives, those that no version of a function names (any more); row: its row as it is now."""
    held: set[str] = set()
    for one in [*rows_of(tx, VERSION, what), *([row] if row is not None else [])]:
        held |= own_archive(one.doc)
    return sorted(ids - held)


# -- making --------------------------------------------------------------------------------------------------------------

_NETWORK: Final = {
    "lambda:Layer": each("Layers"),
    "lambda:VpcIds": config.vpc_ids,
    "lambda:SubnetIds": each("VpcConfig.SubnetIds"),
    "lambda:SecurityGroupIds": each("VpcConfig.SecurityGroupIds"),
}


def _passing(asked: Asked) -> list[str]:
    role = asked.input.get("Role")
    return [str(role)] if role else []


_PASS: Final = Ask(
    "iam:PassRole",
    _passing,
    given={
        "iam:PassedToService": lambda _: PRINCIPAL,
        "iam:AssociatedResourceArn": lambda asked: list(this(asked)),
    },
)
_GET_LAYERS: Final = Ask("lambda:GetLayerVersion", config.layer_arns)


async def _receive(a: Authorised) -> Work:
    what = named(a)
    config.unsupported(a.input)
    _own(a, what)
    await config.check(a.calls, a.input, what, str(a.input["Role"]))
    return await _brought(a, what, a.input["Code"], a.input.get("PackageType") == "Image")


async def _brought(a: Authorised, what: Named, given: Mapping[str, Any], imaged: bool) -> Work:
    """The archive that a request brings, or the image that it names."""
    if not imaged:
        return Work(await codes.receive(a, given))
    if not given.get("ImageUri") or any(given.get(one) for one in ("ZipFile", "S3Bucket", "S3Key")):
        raise invalid("ImageUri alone is needed when the intended function PackageType is Image.")
    return Work(image=await images.find(a, what, str(given["ImageUri"])))


def _put(doc: dict[str, Any], work: Work) -> None:
    if work.image is not None:
        config.with_image(doc, work.image)
    elif work.code is not None:
        config.with_code(doc, work.code)


def _own(a: Authorised, what: Named) -> None:
    if what.account != a.account:
        raise Refused("AccessDeniedException", "A function is made in the caller's own account.", 403)


@FUNCTION.operation(
    "CreateFunction",
    asks=[
        Ask(
            "lambda:CreateFunction",
            this,
            given={**_NETWORK, "lambda:CodeSigningConfigArn": each("CodeSigningConfigArn")},
        ),
        Ask("lambda:TagResource", this, when=lambda asked: bool(asked.input.get("Tags"))),
        _PASS,
        _GET_LAYERS,
    ],
    before=_receive,
    undo=_undo,
    after=_forget,
)
def create(a: Authorised, tx: Transaction) -> Output:
    what, given = named(a), a.input
    if what.qualifier:
        raise invalid("FunctionName is the name of a function, without a version or alias.")
    if FUNCTION.get(tx, what.account, what.region, what.name) is not None:
        raise Refused("ResourceConflictException", f"Function already exist: {what.name}", 409)
    tags = {str(key): str(value) for key, value in (given.get("Tags") or {}).items()}
    if len(tags) > _MOST_TAGS or any(key.lower().startswith("aws:") for key in tags):
        raise invalid(f"A function has at most {_MOST_TAGS} tags, and none that begins with aws:.")
    doc = config.founded(a, given, what.name)
    _put(doc, a.staged)
    config.changed(a, tx, what, doc, given)
    config.touch(a, doc)
    row = FUNCTION.create(a, tx, what.name, doc, status="Pending", tags=tags)
    hold(tx, what.account, what.region)
    if given.get("Publish"):
        return versions.publish(a, tx, what, row, given.get("Description"))
    return config.shown(a, tx, row, row.doc, what.function)


# -- changing ------------------------------------------------------------------------------------------------------------


async def _new_code(a: Authorised) -> Work:
    config.unsupported(a.input)
    what = named(a)
    with a.calls.store.reading() as view:
        row = find(view, what)
    config.settled(row)
    matches(a.input.get("RevisionId"), row.doc["RevisionId"])
    return await _brought(a, what, a.input, row.doc["PackageType"] == "Image")


@FUNCTION.operation(
    "UpdateFunctionCode",
    asks=[Ask("lambda:UpdateFunctionCode", this)],
    before=_new_code,
    undo=_undo,
    after=_forget,
)
def update_code(a: Authorised, tx: Transaction) -> Output:
    what, given = named(a), a.input
    row = find(tx, what)
    config.settled(row)
    matches(given.get("RevisionId"), row.doc["RevisionId"])
    if given.get("DryRun"):
        told = dict(row.doc)
        _put(told, a.staged)
        a.staged.drop.extend(own_archive(told))
        return config.shown(a, tx, row, told, what.function)
    before = own_archive(row.doc)
    _put(row.doc, a.staged)
    _begin(a, tx, row)
    output = (
        versions.publish(a, tx, what, row, None)
        if given.get("Publish")
        else config.shown(a, tx, row, row.doc, what.function)
    )
    a.staged.drop.extend(unnamed(tx, what, row, before))
    return output


async def _look(a: Authorised) -> Work:
    what = named(a)
    config.unsupported(a.input)
    with a.calls.store.reading() as view:
        row = find(view, what)
    if a.input.get("Role") or a.input.get("VpcConfig"):
        await config.check(a.calls, a.input, what, str(a.input.get("Role") or row.doc["Role"]))
    return Work()


@FUNCTION.operation(
    "UpdateFunctionConfiguration",
    asks=[Ask("lambda:UpdateFunctionConfiguration", this, given=_NETWORK), _PASS, _GET_LAYERS],
    before=_look,
)
def update_configuration(a: Authorised, tx: Transaction) -> Output:
    what = named(a)
    row = find(tx, what)
    config.settled(row)
    matches(a.input.get("RevisionId"), row.doc["RevisionId"])
    config.changed(a, tx, what, row.doc, a.input)
    _begin(a, tx, row)
    return config.shown(a, tx, row, row.doc, what.function)


def _begin(a: Authorised, tx: Transaction, row: Row) -> None:
    config.touch(a, row.doc)
    row.doc["LastUpdateStatus"] = "InProgress"
    FUNCTION.change(tx, row, a.operation.name, a.request.id)


# -- showing -------------------------------------------------------------------------------------------------------------


@FUNCTION.reads("GetFunctionConfiguration", asks=[Ask("lambda:GetFunctionConfiguration", this_qualified)])
def get_configuration(a: Authorised, view: View) -> Output:
    what = named(a)
    row, doc, _ = resolved(view, what)
    return config.shown(a, view, row, doc, what.arn)


@FUNCTION.reads("GetFunction", asks=[Ask("lambda:GetFunction", this_qualified)])
def get(a: Authorised, view: View) -> Output:
    what = named(a)
    row, doc, _ = resolved(view, what)
    output: Output = {
        "Configuration": config.shown(a, view, row, doc, what.arn),
        "Code": _shown_code(a, what, doc),
        "Tags": dict(row.tags) or None,
    }
    if "_reserved" in row.doc:
        output["Concurrency"] = {"ReservedConcurrentExecutions": row.doc["_reserved"]}
    return output


def _shown_code(a: Authorised, what: Named, doc: dict[str, Any]) -> Output:
    held = doc.get("_image")
    if held:
        return {"RepositoryType": "ECR", "ImageUri": held["uri"], "ResolvedImageUri": held["resolved"]}
    return {"RepositoryType": "S3", "Location": location(a, "function", what, doc)}


def location(a: Authorised, kind: str, what: Named, doc: dict[str, Any]) -> str:
    """An address of an archive, good for ten minutes, for whoever has it."""
    told = orjson.dumps([kind, what.account, what.region, doc["_code"], a.now + _TEN_MINUTES])
    ticket = a.calls.sealer.seal(told, TICKET)
    return f"{a.engine(Address).url}/_bastide/lambda/code/{ticket}"


def opened(calls: Calls, ticket: str, now: Instant) -> dict[str, Any]:
    """What is kept of the archive that an address means; raises Refused for one that is none, or no more."""
    try:
        _, _, _, kept, until = orjson.loads(calls.sealer.open(ticket, TICKET))
    except (ValueError, Refused):
        raise Refused("AccessDenied", "The address of the code is not valid.", 403) from None
    if now >= until:
        raise Refused("AccessDenied", "Request has expired", 403)
    held: dict[str, Any] = kept
    return held


@FUNCTION.reads("ListFunctions", asks=[Ask("lambda:ListFunctions", anything)])
def listed(a: Authorised, view: View) -> Output:
    if a.input.get("MasterRegion"):
        raise invalid("MasterRegion is not supported by Bastide: there is no Lambda@Edge.")
    every, limit = a.input.get("FunctionVersion") == "ALL", limit_of(a)
    after = pages.position(a, a.input.get("Marker"), code="InvalidParameterValueException")
    rows = view.scan(FUNCTION.key, a.account, a.region, after=after, limit=limit + 1)
    found: list[Output] = []
    for row in rows[:limit]:
        what = Named(row.account, row.region, row.name)
        if every:
            found.append(config.shown(a, view, row, row.doc, f"{what.function}:{LATEST}"))
            found += [
                config.shown(a, view, row, one.doc, f"{what.function}:{one.doc['Version']}")
                for one in rows_of(view, VERSION, what)
            ]
        else:
            found.append(config.shown(a, view, row, row.doc, what.function))
    output: Output = {"Functions": found}
    if len(rows) > limit:
        output["NextMarker"] = pages.seal(a, rows[limit - 1].name)
    return output


# -- deleting ------------------------------------------------------------------------------------------------------------


async def _nothing(_: Authorised) -> Work:
    return Work()


async def _deleted(a: Authorised, output: Output) -> Output:
    what = named(a)
    a.engine(Functions).forget(f"{what.function}:{what.qualifier}|" if what.qualifier else f"{what.function}:")
    return await _forget(a, output)


@FUNCTION.operation(
    "DeleteFunction", asks=[Ask("lambda:DeleteFunction", this_qualified)], before=_nothing, after=_deleted
)
def delete(a: Authorised, tx: Transaction) -> Output:
    what = named(a)
    row = find(tx, what)
    aliases = rows_of(tx, ALIAS, what)
    if what.qualifier:
        if what.qualifier == LATEST or not is_number(what.qualifier):
            raise invalid("$LATEST version cannot be deleted without deleting the function, and no alias this way.")
        held = version_row(tx, what, what.qualifier)
        if held is None:
            return {}  # as on AWS
        for one in aliases:
            weights = one.doc.get("AdditionalVersionWeights") or {}
            if what.qualifier == one.doc["FunctionVersion"] or what.qualifier in weights:
                raise Refused(
                    "ResourceConflictException",
                    f"The version {what.qualifier} is referenced by the alias {one.name.partition(':')[2]}.",
                    409,
                )
        tx.delete(held, keep=False)
        a.staged.drop.extend(unnamed(tx, what, row, own_archive(held.doc)))
        return {}
    versions_ = rows_of(tx, VERSION, what)
    for one in [*versions_, *aliases]:
        tx.delete(one, keep=False)
    FUNCTION.remove(tx, row, a.operation.name, a.request.id)
    a.staged.drop.extend(set().union(*(own_archive(one.doc) for one in [*versions_, row])))
    return {}


__all__ = ["TICKET", "Work", "hold", "location", "opened", "unnamed"]
