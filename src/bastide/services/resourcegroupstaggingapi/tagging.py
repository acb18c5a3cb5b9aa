"""Tagging resources of any service: each ARN is handed to its own service, for the caller, so that every question that the
service asks is asked and every rule that it has holds. What one refuses does not undo the others.

Source: AWS Resource Groups Tagging API Reference, TagResources, UntagResources, FailureInfo.
"""

from __future__ import annotations

from typing import Any, Final

from bastide.domain import Refused, tag_list
from bastide.kernel import Ask, Authorised, Kind, Output, anything
from bastide.protocol import codec
from bastide.services.resourcegroupstaggingapi.noun import TAGGED, arn_of, invalid, resource
from bastide.store import Row, Transaction

_VIA: Final = "tagging.amazonaws.com"
_OPERATIONS: Final = {
    "cloudtrail": ("AddTags", "RemoveTags"),
    "ec2": ("CreateTags", "DeleteTags"),
    "sagemaker": ("AddTags", "DeleteTags"),
    "ssm": ("AddTagsToResource", "RemoveTagsFromResource"),
}
"""Where they are not called TagResource and UntagResource."""
_BY_ID: Final = frozenset({"ec2", "organizations"})
"""Services that name what is tagged by its id."""


def _forward(a: Authorised, tx: Transaction, service: str, operation: str, input: dict[str, Any]) -> Output:
    return a.forward(tx, service, operation, input, _VIA)


def _names(kind: Kind) -> tuple[str, str]:
    if kind.service == "iam":
        return f"Tag{kind.name}", f"Untag{kind.name}"
    return _OPERATIONS.get(kind.service, ("TagResource", "UntagResource"))


def _call(
    a: Authorised, tx: Transaction, kind: Kind, row: Row, operation: str, tags: dict[str, str], *, removed: bool
) -> None:
    """Calls the service's own operation, whose input its model tells: what names the resource, and how tags are written."""
    if a.calls.registry.operation(kind.service, operation) is None:
        raise invalid(f"{kind.service} cannot tag or untag its resources here.")
    shape = codec(kind.service).operations[operation].input_shape
    input: dict[str, Any] = {}
    for member in shape.required_members:
        part = shape.members[member]
        if part.type_name == "map":
            input[member] = dict(tags)
        elif part.type_name == "string":
            input[member] = _name(kind, row, member)
        elif part.type_name == "list" and part.member.type_name == "structure":
            input[member] = _written(part.member, tags, removed=removed)
        elif part.type_name == "list":
            input[member] = list(tags) if "key" in member.lower() else [_name(kind, row, member)]
    if len(input) < 2:  # the tags to take away are optional where all of them may go
        [member] = [one for one in shape.members if one not in input and "tag" in one.lower()][:1]
        input[member] = _written(shape.members[member].member, tags, removed=removed)
    _forward(a, tx, kind.service, operation, input)


def _written(shape: Any, tags: dict[str, str], *, removed: bool) -> list[dict[str, str]]:
    key = next(one for one in shape.members if one.lower().endswith("key"))
    value = next(one for one in shape.members if one.lower().endswith("value"))
    return [{key: name} if removed else {key: name, value: held} for name, held in tags.items()]


def _name(kind: Kind, row: Row, member: str) -> str:
    """What an operation calls the resource by."""
    if member.endswith("Type"):
        return kind.name
    if kind.service in _BY_ID or member.endswith("Name"):
        return arn_of(kind, row).rpartition("/")[2]
    return arn_of(kind, row)


def _bucket_tags(a: Authorised, tx: Transaction, name: str) -> dict[str, str]:
    try:
        held = _forward(a, tx, "s3", "GetBucketTagging", {"Bucket": name})["TagSet"]
    except Refused as refused:
        if refused.code != "NoSuchTagSet":
            raise
        return {}
    return {one["Key"]: one["Value"] for one in held}


def _put_bucket_tags(a: Authorised, tx: Transaction, name: str, tags: dict[str, str]) -> None:
    """S3 knows only the whole set of tags."""
    if tags:
        _forward(a, tx, "s3", "PutBucketTagging", {"Bucket": name, "Tagging": {"TagSet": tag_list(tags)}})
    else:
        _forward(a, tx, "s3", "DeleteBucketTagging", {"Bucket": name})


def _tag(a: Authorised, tx: Transaction, kind: Kind, row: Row) -> None:
    tags = {str(key): str(value) for key, value in a.input["Tags"].items()}
    if kind.service == "s3":
        _put_bucket_tags(a, tx, row.name, _bucket_tags(a, tx, row.name) | tags)
    else:
        _call(a, tx, kind, row, _names(kind)[0], tags, removed=False)


def _untag(a: Authorised, tx: Transaction, kind: Kind, row: Row) -> None:
    keys = [str(key) for key in a.input["TagKeys"]]
    if kind.service == "s3":
        held = _bucket_tags(a, tx, row.name)
        left = {key: value for key, value in held.items() if key not in keys}
        if left != held:
            _put_bucket_tags(a, tx, row.name, left)
    else:
        _call(a, tx, kind, row, _names(kind)[1], dict.fromkeys(keys, ""), removed=True)


def _each(a: Authorised, tx: Transaction, work: Any) -> Output:
    failed: dict[str, Output] = {}
    for arn in dict.fromkeys(a.input["ResourceARNList"]):
        try:
            with tx.savepoint():
                work(a, tx, *resource(a, tx, arn))
        except Refused as refused:
            failed[arn] = {
                "StatusCode": refused.status,
                "ErrorCode": refused.code,
                "ErrorMessage": refused.message,
            }
    a.touched += [arn for arn in dict.fromkeys(a.input["ResourceARNList"]) if arn not in failed]
    return {"FailedResourcesMap": failed}


def _reserved(keys: Any) -> None:
    for key in keys:
        if str(key).lower().startswith("aws:"):
            raise invalid("Tag keys that begin with aws: are reserved.")


@TAGGED.operation("TagResources", asks=[Ask("tag:TagResources", anything)])
def tag_resources(a: Authorised, tx: Transaction) -> Output:
    """The same tags for up to 20 resources."""
    _reserved(a.input["Tags"])
    return _each(a, tx, _tag)


@TAGGED.operation("UntagResources", asks=[Ask("tag:UntagResources", anything)])
def untag_resources(a: Authorised, tx: Transaction) -> Output:
    """Takes tags from up to 20 resources."""
    _reserved(a.input["TagKeys"])
    return _each(a, tx, _untag)
