"""Taking a landing zone away: its stacks in the opposite order. Accounts are left, or closed when told so."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import botocore.exceptions

from bastide.landing import applying
from bastide.landing.applying import Failed, Tell, silent
from bastide.landing.blueprint import MANAGEMENT, Blueprint
from bastide.landing.cloud import Cloud
from bastide.landing.planning import deployed
from bastide.landing.rendering import Stack
from bastide.landing.words import account_word

_ATTEMPTS: Final = 3


@dataclass(slots=True)
class Removal:
    """What was done. left, closed: accounts; keys: those that will be deleted when their waiting period is over."""

    stacks: list[tuple[str, str]] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    closed: dict[str, str] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    emptied: list[str] = field(default_factory=list)
    seconds: float = 0.0


def destroy(
    blueprint: Blueprint, cloud: Cloud, tell: Tell = silent, *, empty: bool = False, close: bool = False
) -> Removal:
    """Removes every stack of the landing zone; raises Failed before anything is removed if a bucket holds something and
    may not be emptied."""
    began = time.monotonic()
    done = Removal()
    standing = deployed(blueprint, cloud)
    if not standing:
        raise Failed(f"there is no landing zone {blueprint.name}")
    top = applying.current(cloud.client("cloudformation"), f"{blueprint.name}-landing-organisation")
    assert top is not None
    ids = applying.outputs(top) | {account_word(name): id_ for name, id_ in applying.enrolled(blueprint, cloud).items()}

    def place(stack: Stack) -> str:
        return MANAGEMENT if stack.account == MANAGEMENT else ids[account_word(stack.account)]

    buckets = [(one, bucket) for one in standing for bucket in _buckets(cloud, place(one), one.name)]
    logs = f"{blueprint.name}-logs-"  # where the record of this very removal would go
    full = [bucket for one, bucket in buckets if bucket.startswith(logs) or _holds(cloud, place(one), bucket)]
    if full and not empty:
        names = ", ".join(full)
        raise Failed(f"{names}: not empty; nothing was removed. --empty-buckets deletes what is in them, for good")
    backwards = sorted(standing, key=lambda one: -one.phase)
    for phase, stacks in itertools.groupby(backwards, key=lambda one: one.phase):
        held = list(stacks)
        if phase == 0:
            _accounts(blueprint, cloud, ids, done, tell, close=close)
        done.keys += [key for one in held for key in _keys(cloud, place(one), one.name)]
        for attempt in range(_ATTEMPTS if empty and phase == 3 else 1):
            for stack, bucket in buckets if phase == 3 else ():
                if _holds(cloud, place(stack), bucket):
                    _empty(cloud, place(stack), bucket)
                    tell(bucket, stack.account, "emptied")
                    done.emptied += [bucket] if bucket not in done.emptied else []
            try:
                _delete(cloud, held, place, tell)
                break
            except Failed:  # something was written between the emptying and the end
                if attempt + 1 == _ATTEMPTS or not empty or phase != 3:
                    raise
        done.stacks += [(one.name, one.account) for one in held]
    done.seconds = time.monotonic() - began
    return done


def _delete(cloud: Cloud, stacks: Sequence[Stack], place: object, tell: Tell) -> None:
    assert callable(place)

    def work(stack: Stack) -> str:
        client = cloud.client("cloudformation", place(stack))
        held = applying.current(client, stack.name)
        if held is None:
            return "gone"
        client.delete_stack(StackName=held["StackId"])
        found = applying.settled(client, held["StackId"], lambda what: tell(stack.name, stack.account, what))
        if found["StackStatus"] != "DELETE_COMPLETE":
            raise Failed(f"{stack.name} in {stack.account}: {applying.cause(client, held['StackId'])}")
        return "deleted"

    applying.together(stacks, work)


def _physical(cloud: Cloud, account: str, stack: str, type_: str) -> list[str]:
    told = cloud.client("cloudformation", account).describe_stack_resources(StackName=stack)["StackResources"]
    return [one["PhysicalResourceId"] for one in told if one["ResourceType"] == type_ and one.get("PhysicalResourceId")]


def _buckets(cloud: Cloud, account: str, stack: str) -> list[str]:
    return _physical(cloud, account, stack, "AWS::S3::Bucket")


def _keys(cloud: Cloud, account: str, stack: str) -> list[str]:
    return _physical(cloud, account, stack, "AWS::KMS::Key")


def _holds(cloud: Cloud, account: str, bucket: str) -> bool:
    try:
        told = cloud.client("s3", account).list_object_versions(Bucket=bucket, MaxKeys=1)
    except botocore.exceptions.ClientError as error:
        if error.response["Error"]["Code"] in ("NoSuchBucket", "404"):
            return False
        raise
    return bool(told.get("Versions") or told.get("DeleteMarkers"))


def _empty(cloud: Cloud, account: str, bucket: str) -> None:
    """Every version of every object; the bucket's own policy, which may forbid it, goes first."""
    s3 = cloud.client("s3", account)
    s3.delete_bucket_policy(Bucket=bucket)
    while True:
        told = s3.list_object_versions(Bucket=bucket)
        found = [
            {"Key": one["Key"], "VersionId": one["VersionId"]}
            for one in (*told.get("Versions", ()), *told.get("DeleteMarkers", ()))
        ]
        if not found:
            return
        answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": found, "Quiet": True})
        if answer.get("Errors"):
            one = answer["Errors"][0]
            raise Failed(f"{bucket}: {one['Key']} cannot be deleted: {one.get('Message', one['Code'])}")


def _accounts(
    blueprint: Blueprint, cloud: Cloud, ids: dict[str, str], done: Removal, tell: Tell, *, close: bool
) -> None:
    """Accounts go back to the root, where no guardrail of the landing zone is; those that it made are closed if asked."""
    client = cloud.client("organizations")
    root = client.list_roots()["Roots"][0]["Id"]
    for name, one in blueprint.accounts.items():
        id_ = ids.get(account_word(name))
        if id_ is None:
            continue
        now = client.list_parents(ChildId=id_)["Parents"][0]["Id"]
        if now != root:
            client.move_account(AccountId=id_, SourceParentId=now, DestinationParentId=root)
        if close and not one.id:
            client.close_account(AccountId=id_)
            tell("account", name, "closed")
            done.closed[name] = id_
        else:
            done.left[name] = id_
