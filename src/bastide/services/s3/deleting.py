"""Objects, deleted: one by one or many at once.

Source: S3 API Reference, DeleteObject, DeleteObjects.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Ask, Asked, Authorised, Call, Output
from bastide.kernel.authorise import authorise
from bastide.services.s3 import heads, lock, notification
from bastide.services.s3.asking import given_version, keys, no_version, object_asked
from bastide.services.s3.bucket import Bucket, bucket_of
from bastide.services.s3.object import (
    _check_write,
    _removing,
    _removing_version,
    bypassed,
    bypassing,
    clear,
    stage_nothing,
)
from bastide.services.s3.versions import OBJECT, check_key, current, remove, version
from bastide.store import Transaction

_MOST_DELETED: Final = 1000


def _refuse_governance(given: Mapping[str, Any]) -> None:
    heads.refuse_unsupported(given)
    for member in ("IfMatchLastModifiedTime", "IfMatchSize"):
        if given.get(member) is not None:
            raise Refused("NotImplemented", f"{member} is not supported by Bastide yet.", 501)


def _delete(
    a: Authorised, tx: Transaction, bucket: Bucket, given: Mapping[str, Any], bypass: bool
) -> tuple[bool | None, str | None]:
    key = given["Key"]
    check_key(key)
    if given.get("IfMatch") is not None:
        _check_write({"IfMatch": given["IfMatch"]}, tx, bucket, key)
    id = given.get("VersionId") or None
    row = current(tx, bucket, key)
    gone = row if id is None else version(tx, bucket, key, id, row)
    marker, answered = remove(tx, bucket, key, id, a.now, a.staged.garbage, bypass=bypass)
    if gone is not None or marker:
        event = "ObjectRemoved:DeleteMarkerCreated" if id is None and marker else "ObjectRemoved:Delete"
        notification.happened(a, tx, bucket, event, key, {}, answered)
    return marker, answered


@OBJECT.operation(
    "DeleteObject",
    asks=[
        Ask("s3:DeleteObject", object_asked, more=_removing, when=no_version),
        Ask("s3:DeleteObjectVersion", object_asked, more=_removing_version, when=given_version),
        Ask(lock.BYPASS, object_asked, more=keys, when=lambda asked: given_version(asked) and bypassing(asked)),
    ],
    data=True,
    before=stage_nothing,
    after=clear,
)
def delete(a: Authorised, tx: Transaction) -> Output:
    _refuse_governance(a.input)
    marker, id = _delete(a, tx, bucket_of(a, tx), a.input, bypassed(a))
    return {"DeleteMarker": marker, "VersionId": id}


def _each_object(asked: Asked) -> list[str]:
    given = asked.call.input
    return [f"arn:aws:s3:::{given['Bucket']}/{one['Key']}" for one in given["Delete"]["Objects"]]


@OBJECT.operation(
    "DeleteObjects",
    # Asked for nobody here, and for everybody else object by object below: one refusal is not that of the others.
    asks=[Ask("s3:DeleteObject", _each_object, more=keys, needless=True)],
    data=True,
    before=stage_nothing,
    after=clear,
)
def delete_many(a: Authorised, tx: Transaction) -> Output:
    """Deletes up to 1,000 objects. What the caller may not delete, and what is locked, is an error of its own in the
    answer; if it is all of them, the answer is the same whether there is such a bucket or not."""
    given = a.input
    _refuse_governance(given)
    wanted = given["Delete"]["Objects"]
    if not wanted or len(wanted) > _MOST_DELETED:
        raise Refused("MalformedXML", "The XML you provided was not well-formed or did not validate against our "
                      "published schema", 400)  # fmt: skip
    single = a.calls.registry.operations["s3", "DeleteObject"]
    questions: list[Any] = []
    errors: list[dict[str, Any]] = []
    allowed: list[tuple[dict[str, Any], bool]] = []
    for one in wanted:
        input: dict[str, Any] = {"Bucket": given["Bucket"], "Key": one["Key"]}
        if one.get("VersionId"):
            input["VersionId"] = one["VersionId"]
        if one.get("ETag"):
            input["IfMatch"] = one["ETag"]
        if given.get("BypassGovernanceRetention"):
            input["BypassGovernanceRetention"] = True
        try:
            proof = authorise(a.calls, tx, Call(single, input, a.caller, a.account, a.region, a.request))
        except Refused as refused:
            questions += refused.kept.get("questions", ())
            errors.append({**_which(one), "Code": "AccessDenied", "Message": "Access Denied"})
        else:
            questions += proof.questions
            allowed.append((one, bypassed(proof)))
    a.questions = questions
    if not allowed:
        return {"Deleted": [], "Errors": errors}
    bucket = bucket_of(a, tx)
    deleted: list[dict[str, Any]] = []
    for one, bypass in allowed:
        try:
            _refuse_governance({"IfMatchSize": one.get("Size"), "IfMatchLastModifiedTime": one.get("LastModifiedTime")})
            marker, id = _delete(a, tx, bucket, {**one, "IfMatch": one.get("ETag")}, bypass)
        except Refused as refused:
            errors.append({**_which(one), "Code": refused.code, "Message": refused.message})
            continue
        done = _which(one)
        if marker:
            done |= {"DeleteMarker": True, "DeleteMarkerVersionId": id}
        deleted.append(done)
    if given["Delete"].get("Quiet"):
        deleted = []
    return {"Deleted": deleted, "Errors": errors}


def _which(one: Mapping[str, Any]) -> dict[str, Any]:
    found = {"Key": one["Key"]}
    if one.get("VersionId"):
        found["VersionId"] = one["VersionId"]
    return found
