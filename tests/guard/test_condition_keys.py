"""Each condition key that a question fills from the request matters: left unfilled, what was refused is allowed, and what
was allowed is refused.

The tests walk the registry. For SageMaker and S3 the values are written down (`samples.py`); for the others they are what
an example of the operation gives. A key that no example brings fails.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch
from uuid import UUID

import pytest

from bastide.domain import MICROS, Refused
from bastide.kernel import Ask, Asked, Bytes, Call, Caller, Calls, Operation, Registry, Request
from bastide.kernel import authorise as guard
from bastide.kernel.authorise import authorise
from bastide.kernel.context import FORWARDED, TAG_KEY_MEMBERS, TAG_MEMBERS
from bastide.main.catalogue import SERVICES
from bastide.main.compose import Platform
from bastide.store import Row, Transaction
from bastide.store.directory import DataDirectory
from tests.guard import samples
from tests.guard.reference import authorization
from tests.guard.samples import ACCOUNT, BUCKET, OTHER, REGION
from tests.platform import PROGRAM

NOW = 1_000_000 * MICROS
DENIED = ("UnauthorizedOperation", "AuthorizationError")
"""Refusals of EC2 and SNS."""
REGISTRY = Registry(SERVICES)
ROOT = Caller(
    "Root", ACCOUNT, f"arn:aws:iam::{ACCOUNT}:root", f"arn:aws:iam::{ACCOUNT}:root", ACCOUNT, "root"
)  # fmt: skip
FILLED = sorted(
    {
        (service, name, ask.action, key)
        for (service, name), operation in REGISTRY.operations.items()
        if operation.identify is None
        for ask in operation.asks
        if not ask.needless
        for key in authorization.filled(ask)
        if key != "bastide:GrantId"
    }
)
"""The id of a live grant is seen in tests/stories/kms/test_grants.py. Needless questions are put to nobody but those who
did not sign, who have no policies. What an assertion says of its bearer is in the context only when it was verified; the
stories of those operations show it."""


@dataclass
class Place:
    """An account with a bucket, a tagged object, an upload, a package: whatever questions look at."""

    calls: Calls
    role: Row
    version: str
    upload: str
    held: str
    via: tuple[str, ...] = ()

    def call(self, operation: Operation, given: dict[str, Any], *statements: dict[str, Any]) -> Call:
        """A call by a session that has these statements alone."""
        policy = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
        session, _, _ = self.calls.sessions.issue(
            account=ACCOUNT, role=self.role.doc["Arn"], role_id=self.role.doc["RoleId"], name="s", issued=NOW,
            expires=NOW + 3600 * MICROS, policies=(policy,),
        )  # fmt: skip
        with self.calls.store.reading() as view:
            caller = self.calls.directory.by_session(view, session)
        assert caller is not None
        request = Request(
            str(UUID(int=7)), NOW, "192.0.2.1", "tests", True, "json", tls="TLSv1.3", signed="header",
            signed_at=NOW - 2 * MICROS, content_sha256="UNSIGNED-PAYLOAD", via=self.via,
        )  # fmt: skip
        return Call(operation, given, caller, ACCOUNT, REGION, request)

    def allowed(self, operation: Operation, given: dict[str, Any], *statements: dict[str, Any]) -> bool:
        """Whether every question of the call is answered yes."""
        call = self.call(operation, given, *statements)
        # What a session may never do is looked at elsewhere; here a session asks everything.
        with self.calls.store.reading() as view, patch.object(guard, "_bar", lambda call: None):
            try:
                authorise(self.calls, view, call)
            except Refused as refused:
                assert refused.code.startswith("AccessDenied") or refused.code in DENIED, refused.code
                return False
        return True

    def found(self, operation: Operation, ask: Ask, given: dict[str, Any]) -> dict[str, Any] | None:
        """The condition keys that a question fills, lower case, and its resource's; None if it is not asked."""
        with self.calls.store.reading() as view:
            asked = Asked(self.call(operation, given, ALLOW), view)
            try:
                if (ask.when is not None and not ask.when(asked)) or not (arns := list(ask.about(asked))):
                    return None
            except (KeyError, Refused):
                return None
            held = {key: read(asked) for key, read in ask.given.items()}
            held.update(ask.more(asked) if ask.more is not None else {})
            for arn in arns:
                held.update(self.calls.registry.facts(view, arn, ACCOUNT, ask.action).keys)
        return {key.lower(): value for key, value in held.items() if value is not None and value not in ((), [])}


ALLOW = {"Effect": "Allow", "Action": "*", "Resource": "*"}


async def _furnish(calls: Calls) -> tuple[Row, str, str, str]:
    """Makes what there is, as its operations make it."""

    async def act(service: str, operation: str, body: bytes | None = None, **given: Any) -> dict[str, Any]:
        return await calls.act(
            ROOT, service, operation, given, region=REGION, source="test", body=None if body is None else Bytes(body)
        )

    trust = {"Effect": "Allow", "Action": ["sts:*"], "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    for name in ("asker", "name"):
        await act("iam", "CreateRole", RoleName=name, AssumeRolePolicyDocument=document)
    everything = json.dumps({"Version": "2012-10-17", "Statement": [ALLOW]})
    await act("iam", "PutRolePolicy", RoleName="asker", PolicyName="p", PolicyDocument=everything)
    boundary = await act("iam", "CreatePolicy", PolicyName="name", PolicyDocument=everything)
    for entity in ("Role", "User"):
        if entity == "User":
            await act("iam", "CreateUser", UserName="name")
        await act(
            "iam",
            f"Put{entity}PermissionsBoundary",
            **{f"{entity}Name": "name"},
            PermissionsBoundary=boundary["Policy"]["Arn"],
        )
    for bucket in (BUCKET, OTHER):
        await act("s3", "CreateBucket", Bucket=bucket)
    enabled = {"Status": "Enabled"}
    await act("s3", "PutBucketVersioning", Bucket=BUCKET, VersioningConfiguration=enabled)
    put = await act("s3", "PutObject", b"x", Bucket=BUCKET, Key="name", Tagging="class=old")
    await act(
        "s3", "PutObjectLockConfiguration", Bucket=BUCKET, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"}
    )
    until = datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC)
    retained = {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": int(until.timestamp()) * MICROS}
    held = await act("s3", "PutObject", b"x", Bucket=BUCKET, Key="held", **retained)
    key = (await act("kms", "CreateKey"))["KeyMetadata"]["KeyId"]
    upload = await act("s3", "CreateMultipartUpload", Bucket=BUCKET, Key="name", ServerSideEncryption="aws:kms")
    await act("sagemaker", "CreateModelPackageGroup", ModelPackageGroupName="g")
    await act(
        "sagemaker",
        "CreateModelPackage",
        ModelPackageGroupName="g",
        ModelLifeCycle={"Stage": "Dev", "StageStatus": "Done"},
        CustomerMetadataProperties={"Owner": "ann"},
    )

    def work(tx: Transaction) -> Row:
        # The key under the id that examples name, and an upload that named its key.
        held = tx.get("kms:Key", ACCOUNT, REGION, key)
        assert held is not None
        tx.insert(replace(held, name=authorization._TEXTS["targetkeyid"]), keep=False)
        for row in authorization._ROWS:
            tx.insert(replace(row), keep=False)
        begun = tx.get("s3:Upload", ACCOUNT, REGION, f"{BUCKET}/name\0{upload['UploadId']}")
        assert begun is not None and begun.doc["said"] == {"s3:x-amz-server-side-encryption": "aws:kms"}
        begun.doc["said"]["s3:x-amz-server-side-encryption-aws-kms-key-id"] = "the-key"
        tx.update(begun, keep=False)
        found = tx.get("iam:Role", ACCOUNT, "", "asker")
        assert found is not None
        return found

    return await calls.store.write(work), put["VersionId"], upload["UploadId"], held["VersionId"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A platform as it is composed, in this process; nobody listens."""
    data = tmp_path_factory.mktemp("keys") / "data"
    subprocess.run([*PROGRAM, "init", "--data", str(data), "--account-id", ACCOUNT], check=True, capture_output=True)
    loop = asyncio.new_event_loop()
    platform = loop.run_until_complete(Platform.start(DataDirectory(data), "https://localhost:4566"))
    try:
        yield Place(platform.calls, *loop.run_until_complete(_furnish(platform.calls)))
    finally:
        loop.run_until_complete(platform.close())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def _written(place: Place, service: str) -> samples.Samples:
    if service == "s3":
        return samples.s3(place.version, place.upload, place.held)
    written = {"sagemaker": samples.SAGEMAKER, "sagemaker-runtime": samples.RUNTIME, "events": samples.EVENTS}
    written["servicecatalog"] = samples.CATALOG
    return {**written, "stepfunctions": samples.STATES, "sns": samples.SNS}.get(service, {})


def _inputs(place: Place, service: str, name: str, action: str) -> Iterator[dict[str, Any]]:
    yield from (given for given, _ in _written(place, service).get((name, action), ()))
    for given in authorization.inputs(REGISTRY.operations[service, name], REGISTRY):
        # Tags of EC2 say what they are for, and count only for what the operation makes.
        tagged = {"ResourceType": samples.MADE_BY.get(name), "Tags": [{"Key": "team", "Value": "red"}]}
        yield {**given, "TagSpecifications": [tagged]} if "TagSpecifications" in given else given


def _of(found: Mapping[str, Any], declared: str) -> str | None:
    """The key that was found for a declared one."""
    wanted = authorization.plain(declared)
    if "*" not in wanted:
        return wanted if wanted in found else None
    return next((key for key in found if key.startswith(wanted.partition("*")[0])), None)


def _sample(place: Place, service: str, name: str, action: str, declared: str) -> tuple[dict[str, Any], str, Any]:
    """An input that brings a key, the key, and its value."""
    operation = REGISTRY.operations[service, name]
    for given in _inputs(place, service, name, action):
        for ask in operation.asks:
            if ask.action == action and declared in authorization.filled(ask):
                found = place.found(operation, ask, given) or {}
                key = _of(found, declared)
                if key is not None and found[key] != "":
                    return given, key, found[key]
    raise AssertionError(f"no sample of {service}:{name} brings {declared} to {action}; write one into samples.py")


def _unfilled(operation: Operation, action: str, declared: str) -> Operation:
    """The same operation, whose questions about an action do not fill a key."""
    lost = authorization.plain(declared).partition("*")

    def is_lost(key: str) -> bool:
        return key.lower().startswith(lost[0]) if lost[1] else key.lower() == lost[0]

    def without(ask: Ask) -> Ask:
        if ask.action != action:
            return ask
        more = ask.more
        read = None if more is None else lambda asked: {k: v for k, v in more(asked).items() if not is_lost(k)}
        return replace(ask, given={k: v for k, v in ask.given.items() if not is_lost(k)}, more=read)

    return replace(operation, asks=tuple(without(ask) for ask in operation.asks))


def _asked_without(place: Place, operation: Operation, action: str, given: dict[str, Any], key: str) -> list[str]:
    """The resources that the same action is asked about in questions without the key: an alias beside its key."""
    found: list[str] = []
    for ask in operation.asks:
        held = place.found(operation, ask, given) if ask.action == action else None
        if held is not None and key.lower() not in held:
            with place.calls.store.reading() as view:
                found += ask.about(Asked(place.call(operation, given, ALLOW), view))
    return found


@pytest.mark.parametrize(("service", "name", "action", "declared"), FILLED)
def test_a_key_that_is_not_filled_is_missed(place: Place, service: str, name: str, action: str, declared: str) -> None:
    if declared in FORWARDED:
        place = replace(place, via=("s3.amazonaws.com",))
    given, key, value = _sample(place, service, name, action, declared)
    many = not isinstance(value, str)
    condition = {"ForAnyValue:StringEquals" if many else "StringEquals": {key: next(iter(value)) if many else value}}
    denied = (ALLOW, {"Effect": "Deny", "Action": action, "Resource": "*", "Condition": condition})
    needed = (
        {"Effect": "Allow", "NotAction": action, "Resource": "*"},
        {"Effect": "Allow", "Action": action, "Resource": "*", "Condition": condition},
    )
    whole = REGISTRY.operations[service, name]
    lame = _unfilled(whole, action, declared)
    elsewhere = _asked_without(place, whole, action, given, key)
    if elsewhere:
        needed = (*needed, {"Effect": "Allow", "Action": action, "Resource": elsewhere})
    assert not place.allowed(whole, given, *denied), "a Deny on the key does not bite"
    assert place.allowed(whole, given, *needed), "an Allow on the key does not hold"
    assert place.allowed(lame, given, *denied), "without the key it is refused all the same"
    assert not place.allowed(lame, given, *needed), "without the key it is allowed all the same"


TAGGED = sorted(
    {
        (one.operation.service, one.operation.name, one.action)
        for one in authorization.everything(REGISTRY)
        if authorization.plain(authorization.TAG_KEYS) in one.documented()
        and authorization.plain(authorization.TAG_KEYS) in one.keys
        and one.operation.identify is None
        and not any(authorization.TAG_KEYS in authorization.filled(ask) for ask in one.operation.asks)
    }
)


@pytest.mark.parametrize(("service", "name", "action"), TAGGED)
def test_tags_that_a_request_brings_or_names_are_seen(place: Place, service: str, name: str, action: str) -> None:
    """Tags of a request are the kernel's to fill, from the members that bring them."""
    operation = REGISTRY.operations[service, name]
    bring = {*TAG_MEMBERS, *TAG_KEY_MEMBERS}
    given = next(one for one in _inputs(place, service, name, action) if bring & set(one))
    plain = {key: value for key, value in given.items() if key not in bring}
    conditions: list[dict[str, Any]] = [{"ForAnyValue:StringEquals": {"aws:TagKeys": ["name", "team"]}}]
    if set(given) & set(TAG_MEMBERS):
        conditions += [{"Null": {f"aws:RequestTag/{_tag_key(given)}": "false"}}]
    for condition in conditions:
        deny = {"Effect": "Deny", "Action": action, "Resource": "*", "Condition": condition}
        assert not place.allowed(operation, given, ALLOW, deny), condition
        assert place.allowed(operation, plain, ALLOW, deny), condition


def _tag_key(given: dict[str, Any]) -> str:
    tags = next(given[member] for member in TAG_MEMBERS if member in given)
    return (
        next(iter(tags))
        if isinstance(tags, dict)
        else str(tags[0].get("Key") or tags[0].get("key") or tags[0]["TagKey"])
    )


OWN = [(service, name) for service, name in REGISTRY.operations if service in ("s3", "sagemaker", "sagemaker-runtime")]


@pytest.mark.parametrize(("service", "name"), OWN)
def test_keys_have_the_values_that_were_written_down(place: Place, service: str, name: str) -> None:
    operation = REGISTRY.operations[service, name]
    for (one, action), cases in _written(place, service).items():
        for given, values in cases if one == name else ():
            asks = [ask for ask in operation.asks if ask.action == action]
            found = [held for ask in asks if (held := place.found(operation, ask, given)) is not None]
            assert found, f"{action} is not asked"
            for held in found:
                got = {key: tuple(one) if isinstance(one, list) else one for key, one in held.items()}
                assert {key: got.get(key) for key in values} == values, action


@pytest.mark.parametrize(("service", "name"), [key for key, one in REGISTRY.operations.items() if one.identify is None])
def test_questions_find_no_key_that_they_do_not_declare(place: Place, service: str, name: str) -> None:
    operation = REGISTRY.operations[service, name]
    of_kinds = {authorization.plain(key) for one in SERVICES for kind in one.kinds for key in kind.fills}
    for ask in operation.asks:
        declared = {authorization.plain(key) for key in authorization.filled(ask)} | of_kinds
        for given in _inputs(place, service, name, ask.action):
            for key in place.found(operation, ask, given) or {}:
                assert any(_of({key: ""}, one) for one in declared), f"{ask.action} fills {key} and does not say so"
