"""A grant as a policy: whom it gives what, under which encryption context, and what may be given on."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastide import policy
from bastide.policy import Attached, Document, Form, Grant, Principal

ACCOUNT, OTHER = "111111111111", "222222222222"
KEY = f"arn:aws:kms:us-east-1:{ACCOUNT}:key/k"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/R"
SESSION = Principal("AssumedRole", ACCOUNT, f"arn:aws:sts::{ACCOUNT}:assumed-role/R/s", ROLE)
FOREIGN = f"arn:aws:iam::{OTHER}:role/R"
STRANGER = Principal("AssumedRole", OTHER, f"arn:aws:sts::{OTHER}:assumed-role/R/s", FOREIGN)


def document(effect: str, *actions: str, form: Form = Form.IDENTITY) -> Attached:
    statement = {"Effect": effect, "Action": list(actions), "Resource": "*"}
    return Attached(Document.parse({"Version": "2012-10-17", "Statement": [statement]}, form), "p")


def decided(
    grant: Grant, action: str, who: Principal = SESSION, context: dict[str, Any] | None = None, **layers: Any
) -> policy.Decision:
    request = policy.Request(who, f"kms:{action}", KEY, ACCOUNT, policy.context(context or {}))
    held: dict[str, Any] = {"identity": (), "boundary": None, "session": None, "resource": None, "scps": (), "rcps": ()}
    granted = (Attached(grant.document(), "grant g"),)
    return policy.decide(request, policy.Layers(**{**held, "resource_kind": "key", "grants": granted, **layers}))


def encryption(context: dict[str, str]) -> dict[str, Any]:
    """The condition keys of an encryption context of keys that differ in more than case."""
    if not context:
        return {}
    return {f"kms:EncryptionContext:{key}": value for key, value in context.items()} | {
        "kms:EncryptionContextKeys": list(context)
    }


@pytest.mark.parametrize(("who", "grantee"), [(SESSION, ROLE), (STRANGER, FOREIGN)])
def test_it_gives_its_grantee_its_operations_in_every_account(who: Principal, grantee: str) -> None:
    grant = Grant("g", {"AWS": grantee}, ["Decrypt"])
    found = decided(grant, "Decrypt", who)
    assert (found.allowed, found.source) == (True, "grant g")
    assert not decided(grant, "Encrypt", who).allowed
    assert not decided(grant, "Decrypt", STRANGER if who is SESSION else SESSION).allowed
    deny = document("Deny", "kms:Decrypt")
    for layer in ({"identity": (deny,)}, {"session": (deny,)}, {"boundary": deny}):
        assert decided(grant, "Decrypt", who, **layer).verdict == "ExplicitlyDenied"
    assert decided(grant, "Decrypt", who, scps=((document("Allow", "s3:*", form=Form.SCP),),)).layer == "scp"
    assert decided(grant, "Decrypt", who, boundary=document("Allow", "s3:*")).layer == "boundary"
    assert decided(grant, "Decrypt", who, session=(document("Allow", "s3:*"),)).layer == "session"


def test_a_grant_to_an_account_needs_its_administrators_word() -> None:
    grant = Grant("g", {"AWS": f"arn:aws:iam::{OTHER}:root"}, ["Decrypt"])
    assert not decided(grant, "Decrypt", STRANGER).allowed
    assert decided(grant, "Decrypt", STRANGER, identity=(document("Allow", "kms:*"),)).allowed


CONTEXTS = st.dictionaries(st.sampled_from("abcd"), st.sampled_from(["1", "2"]), max_size=4)


@given(CONTEXTS.filter(bool), CONTEXTS)
def test_constraints_are_equality_and_inclusion(wanted: dict[str, str], seen: dict[str, str]) -> None:
    equals = Grant("g", {"AWS": ROLE}, ["Decrypt"], equals=wanted)
    subset = Grant("g", {"AWS": ROLE}, ["Decrypt"], subset=wanted)
    assert decided(equals, "Decrypt", context=encryption(seen)).allowed is (seen == wanted)
    assert decided(subset, "Decrypt", context=encryption(seen)).allowed is (wanted.items() <= seen.items())


def test_keys_of_contexts_are_meant_in_their_case() -> None:
    for constraint in ("equals", "subset"):
        more: dict[str, Any] = {constraint: {"team": "risk"}}
        grant = Grant("g", {"AWS": ROLE}, ["Encrypt", "DescribeKey"], **more)
        assert decided(grant, "Encrypt", context=encryption({"team": "risk"})).allowed
        assert not decided(grant, "Encrypt", context=encryption({"Team": "risk"})).allowed
        both = {"kms:EncryptionContext:team": ["risk", "it"], "kms:EncryptionContextKeys": ["team", "Team"]}
        assert not decided(grant, "Encrypt", context=both).allowed
        assert decided(grant, "DescribeKey").allowed, "it takes no context"


OPERATIONS = st.lists(st.sampled_from(["Encrypt", "Decrypt", "CreateGrant", "DescribeKey"]), unique=True, min_size=1)


@given(OPERATIONS, OPERATIONS, CONTEXTS, CONTEXTS, st.booleans(), st.booleans())
def test_what_is_given_on_is_no_more(
    held: list[str],
    asked: list[str],
    wanted: dict[str, str],
    child: dict[str, str],
    parent_equals: bool,
    child_equals: bool,
) -> None:
    parent: dict[str, Any] = {"equals" if parent_equals else "subset": wanted} if wanted else {}
    grant = Grant("g", {"AWS": ROLE}, held, **parent)
    context = encryption(child) | {"kms:GrantOperations": asked}
    if child:
        context["kms:GrantConstraintType"] = [f"EncryptionContext{'Equals' if child_equals else 'Subset'}"]
    fits = wanted.items() <= child.items() if not parent_equals else child == wanted and child_equals
    expected = "CreateGrant" in held and set(asked) <= set(held) and (not wanted or fits)
    assert decided(grant, "CreateGrant", context=context).allowed is expected


def test_who_retires_it() -> None:
    user = Principal("User", OTHER, f"arn:aws:iam::{OTHER}:user/u", f"arn:aws:iam::{OTHER}:user/u")
    grant = Grant("g", {"AWS": ROLE}, ["Decrypt"], retiring={"AWS": user.arn})
    this, another = {policy.GRANT_ID: "g"}, {policy.GRANT_ID: "h"}
    assert decided(grant, "RetireGrant", user, this).allowed
    assert not decided(grant, "RetireGrant", user, another).allowed
    assert not decided(grant, "RetireGrant", user).allowed
    assert not decided(grant, "RetireGrant", SESSION, this).allowed
    assert not decided(grant, "Decrypt", user, this).allowed
    assert decided(Grant("g", {"AWS": ROLE}, ["RetireGrant"]), "RetireGrant", SESSION, this).allowed


def test_a_service_for_one_resource() -> None:
    service = Principal("Service", ACCOUNT, "sagemaker.amazonaws.com", "sagemaker.amazonaws.com")
    grant = Grant("g", {"Service": service.arn}, ["Decrypt"], source_arn="arn:aws:sagemaker:r:a:x/y")
    assert decided(grant, "Decrypt", service, {"aws:SourceArn": "arn:aws:sagemaker:r:a:x/y"}).allowed
    assert not decided(grant, "Decrypt", service, {"aws:SourceArn": "arn:aws:sagemaker:r:a:x/z"}).allowed
    assert not decided(grant, "Decrypt", service).allowed
