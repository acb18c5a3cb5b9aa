"""How the layers make a decision."""

from __future__ import annotations

from typing import Any

import pytest

from bastide.policy import Form, Principal, canonical_id
from tests.unit.policy.asking import (
    HOME,
    NOBODY,
    OBJECT,
    OTHER,
    ROLE_ARN,
    ROOT,
    SERVICE,
    SESSION,
    USER,
    allow,
    ask,
    attached,
    deny,
    layers,
)  # fmt: skip

ACCOUNT = {"AWS": HOME}
KEY = f"arn:aws:kms:eu-west-1:{HOME}:key/1"
ROLE = f"arn:aws:iam::{HOME}:role/target"
ELSEWHERE = [allow("ec2:*")]


def grant(principal: Any, effect: str = "Allow") -> list[dict[str, Any]]:
    return [{"Effect": effect, "Action": "*", "Resource": "*", "Principal": principal}]


def trust(principal: Any) -> list[dict[str, Any]]:
    return [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": principal}]


def test_nothing_says_no() -> None:
    decision = ask(layers())
    assert (decision.allowed, decision.verdict, decision.layer) == (False, "ImplicitlyDenied", "identity")


def test_the_answer_names_the_statement() -> None:
    policies = layers(identity=[allow("ec2:*"), allow("s3:Get*", Sid="Read"), deny("s3:*", "arn:aws:s3:::secret/*")])
    yes = ask(policies)
    assert (yes.allowed, yes.layer, yes.source, yes.statement, yes.sid) == (
        True, "identity", "arn:aws:test:::identity", 1, "Read",
    )  # fmt: skip
    no = ask(policies, resource="arn:aws:s3:::secret/x")
    assert (no.verdict, no.layer, no.statement, no.sid) == ("ExplicitlyDenied", "identity", 2, None)


@pytest.mark.parametrize("layer", ["identity", "boundary", "session", "scps", "rcps", "resource", "endpoint"])
def test_an_explicit_deny_wins_in_every_layer(layer: str) -> None:
    every: dict[str, Any] = {"identity": [allow()], "boundary": [allow()], "session": [allow()], "scps": [[allow()]]}
    every |= {"resource": grant("*"), "endpoint": grant("*"), "rcps": []}
    assert ask(layers(**every), SESSION).allowed
    refusing = [deny("s3:*")] if layer in ("identity", "boundary", "session", "scps") else grant("*", "Deny")
    refusing[0]["Action"] = "s3:*"
    if layer in ("scps", "rcps"):
        every[layer] = [*every[layer], refusing]
    else:
        every[layer] = [*every[layer], *refusing]
    decision = ask(layers(**every), SESSION)
    assert decision.verdict == "ExplicitlyDenied"
    assert decision.layer == layer.removesuffix("s")


def test_every_level_of_scps_has_to_allow() -> None:
    identity = [allow()]
    assert ask(layers(identity, scps=[[allow()], [allow("s3:*")]])).allowed
    decision = ask(layers(identity, scps=[[allow()], ELSEWHERE, [allow()]]))
    assert (decision.verdict, decision.layer) == ("ImplicitlyDenied", "scp")
    assert ask(layers(identity, scps=[[allow()], []])).layer == "scp"
    assert not ask(layers(scps=[[allow()]])).allowed, "they never grant"
    assert ask(layers(scps=[[ELSEWHERE[0]]]), ROOT).layer == "scp", "they bind the root user of a member account"


def test_boundary_and_session_limit_what_identity_grants() -> None:
    assert ask(layers([allow()], boundary=[allow("s3:*")], session=[allow("s3:Get*")]), SESSION).allowed
    assert ask(layers([allow()], boundary=ELSEWHERE), SESSION).layer == "boundary"
    assert ask(layers([allow()], session=ELSEWHERE), SESSION).layer == "session"
    assert ask(layers([allow()], session=[]), SESSION).layer == "session", "session policies of which none is left"
    assert not ask(layers(boundary=[allow()], session=[allow()]), SESSION).allowed, "they never grant"


def test_the_endpoint_has_to_allow() -> None:
    assert ask(layers([allow()], endpoint=grant("*"))).allowed
    named = [{**grant("*")[0], "Resource": "arn:aws:s3:::other/*"}]
    decision = ask(layers([allow()], endpoint=named))
    assert (decision.layer, decision.source) == ("endpoint", "arn:aws:test:::endpoint")
    assert not ask(layers(endpoint=grant("*"))).allowed, "it never grants"


LIMITED = {"boundary": ELSEWHERE, "session": ELSEWHERE}


@pytest.mark.parametrize(
    ("who", "named", "limits", "allowed"),
    [
        # the table of "Policy evaluation logic": who asks, whom the resource's policy names, implicit denies elsewhere
        (USER, USER.arn, {"boundary": ELSEWHERE}, True),
        (SESSION, SESSION.arn, LIMITED, True),
        (SESSION, ROLE_ARN, {}, True),
        (SESSION, ROLE_ARN, {"boundary": ELSEWHERE}, False),
        (SESSION, ROLE_ARN, {"session": ELSEWHERE}, False),
        (SESSION, ROLE_ARN, {"boundary": [allow()], "session": [allow()]}, True),
        (USER, "*", {"boundary": ELSEWHERE}, True),
        (USER, HOME, {}, False),
        (USER, f"arn:aws:iam::{HOME}:root", {}, False),
        (USER, f"arn:aws:iam::{HOME}:user/bob", {}, False),
        (USER, OTHER, {}, False),
        (SESSION, f"arn:aws:sts::{HOME}:assumed-role/dev/s2", {}, False),
        (NOBODY, USER.arn, {}, False),
        (NOBODY, "*", {}, True),
    ],
)
def test_the_resource_policy_in_one_account(who: Principal, named: str, limits: Any, allowed: bool) -> None:
    assert ask(layers(resource=grant({"AWS": named}), **limits), who).allowed is allowed


def test_the_strongest_grant_of_a_resource_policy_counts() -> None:
    statements = [*grant(ACCOUNT), *grant({"AWS": ROLE_ARN}), *grant({"AWS": SESSION.arn})]
    assert ask(layers(resource=statements, **LIMITED), SESSION).statement == 2
    assert ask(layers(resource=statements[:2]), SESSION).statement == 1
    assert not ask(layers(resource=statements[:2], **LIMITED), SESSION).allowed


def test_a_role_asking_by_itself_is_limited_as_its_sessions_are() -> None:
    role = Principal("Role", HOME, ROLE_ARN, ROLE_ARN)
    assert ask(layers(resource=grant({"AWS": ROLE_ARN})), role).allowed
    assert not ask(layers(resource=grant({"AWS": ROLE_ARN}), boundary=ELSEWHERE), role).allowed


def test_a_grant_to_the_account_lets_identity_policies_decide() -> None:
    assert ask(layers([allow()], resource=grant(ACCOUNT))).layer == "identity"
    assert ask(layers([allow()], resource=grant(ACCOUNT))).allowed
    assert ask(layers([allow()])).allowed


@pytest.mark.parametrize("named", [{"AWS": HOME}, {"AWS": USER.arn}, "*"])
def test_between_accounts_both_sides_have_to_allow(named: Any) -> None:
    assert ask(layers([allow()], resource=grant(named)), account=OTHER).allowed
    one = ask(layers(resource=grant(named)), account=OTHER)
    assert (one.allowed, one.layer) == (False, "identity")
    other = ask(layers([allow()]), account=OTHER)
    assert (other.allowed, other.layer) == (False, "resource")
    assert ask(layers([allow()], boundary=ELSEWHERE, resource=grant(named)), account=OTHER).layer == "boundary"
    assert not ask(layers([allow()], resource=grant({"AWS": OTHER})), account=OTHER).allowed


def test_services_and_nobody_need_the_resource_policy() -> None:
    assert ask(layers(resource=grant({"Service": SERVICE.arn})), SERVICE).allowed
    assert not ask(layers(resource=grant({"Service": "ec2.amazonaws.com"})), SERVICE).allowed
    assert not ask(layers([allow()]), SERVICE).allowed
    assert not ask(layers([allow()]), NOBODY).allowed
    assert ask(layers(), NOBODY).layer == "resource"


def test_the_root_user_needs_no_identity_policy() -> None:
    assert ask(layers(), ROOT).allowed
    assert not ask(layers(resource=grant("*", "Deny")), ROOT).allowed
    assert not ask(layers(), ROOT, account=OTHER).allowed
    assert not ask(layers(resource=grant({"AWS": USER.arn}), kind="key"), ROOT, "kms:Decrypt", KEY).allowed
    assert ask(layers(resource=grant(ACCOUNT), kind="key"), ROOT, "kms:Decrypt", KEY).allowed


def test_a_key_policy_has_the_first_word() -> None:
    def decrypt(**policies: Any) -> Any:
        return ask(layers(kind="key", **policies), SESSION, "kms:Decrypt", KEY)

    assert decrypt(identity=[allow()]).layer == "resource"
    assert decrypt(identity=[allow()], resource=grant({"AWS": USER.arn})).layer == "resource"
    assert decrypt(identity=[allow()], resource=grant(ACCOUNT)).allowed
    assert decrypt(resource=grant(ACCOUNT)).layer == "identity"
    assert decrypt(resource=grant({"AWS": ROLE_ARN})).allowed
    assert not decrypt(resource=grant({"AWS": ROLE_ARN}), boundary=ELSEWHERE).allowed
    far = ask(layers(resource=grant(ACCOUNT), kind="key"), SESSION, "kms:Decrypt", KEY, OTHER)
    assert (far.allowed, far.layer) == (False, "identity")
    assert ask(layers([allow()], resource=grant(ACCOUNT), kind="key"), SESSION, "kms:Decrypt", KEY, OTHER).allowed


def test_a_trust_policy_has_to_allow() -> None:
    def assume(who: Principal = USER, account: str = HOME, **policies: Any) -> Any:
        return ask(layers(kind="trust", **policies), who, "sts:AssumeRole", ROLE, account)

    assert assume(identity=[allow()]).layer == "trust"
    assert assume(identity=[allow()], resource=trust({"AWS": f"arn:aws:iam::{HOME}:user/bob"})).layer == "trust"
    assert assume(resource=trust({"AWS": USER.arn})).allowed
    assert not assume(resource=trust(ACCOUNT)).allowed
    assert assume(identity=[allow("sts:AssumeRole", ROLE)], resource=trust(ACCOUNT)).allowed
    assert not assume(resource=trust({"AWS": USER.arn}), account=OTHER).allowed
    assert assume(identity=[allow("sts:AssumeRole", ROLE)], resource=trust({"AWS": USER.arn}), account=OTHER).allowed
    assert assume(SERVICE, resource=trust({"Service": SERVICE.arn})).allowed
    assert not assume(SERVICE, resource=trust({"Service": "ec2.amazonaws.com"})).allowed
    provider = f"arn:aws:iam::{HOME}:saml-provider/corp"
    federated = Principal("Federated", None, provider, provider)
    saml = [{"Effect": "Allow", "Action": "sts:AssumeRoleWithSAML", "Principal": {"Federated": provider}}]
    assert ask(layers(resource=saml, kind="trust"), federated, "sts:AssumeRoleWithSAML", ROLE).allowed
    assert not assume(federated, resource=saml).allowed
    assert not assume(federated, resource=trust("*")).allowed, "a foreign provider has to be named"
    assert not assume(NOBODY, resource=trust("*")).allowed
    assert assume(resource=trust("*")).allowed


def exempting(*names: str) -> list[dict[str, Any]]:
    return [{"Effect": "Deny", "Action": "*", "Resource": "*", "NotPrincipal": {"AWS": list(names)}}]


def test_not_principal_exempts_only_who_is_wholly_listed() -> None:
    assert ask(layers([allow()], resource=exempting(HOME, USER.arn))).allowed
    assert not ask(layers([allow()], resource=exempting(USER.arn))).allowed
    assert not ask(layers([allow()], resource=exempting(HOME))).allowed
    assert ask(layers([allow()], resource=exempting(HOME, ROLE_ARN, SESSION.arn)), SESSION).allowed
    assert not ask(layers([allow()], resource=exempting(HOME, ROLE_ARN)), SESSION).allowed
    assert not ask(layers([allow()], resource=exempting(HOME, SESSION.arn)), SESSION).allowed
    assert not ask(layers(resource=exempting(HOME, USER.arn)), NOBODY).allowed
    # "will always deny any IAM principal that has a permissions boundary policy attached"
    assert not ask(layers([allow()], boundary=[allow()], resource=exempting(HOME, USER.arn))).allowed


def test_not_principal_in_an_allow_never_grants_to_who_is_listed_in_any_form() -> None:
    def but(*names: str) -> list[dict[str, Any]]:
        return [{"Effect": "Allow", "Action": "*", "Resource": "*", "NotPrincipal": {"AWS": list(names)}}]

    assert ask(layers(resource=but(OTHER))).allowed
    for names in ([USER.arn], [HOME]):
        assert not ask(layers(resource=but(*names))).allowed
    assert not ask(layers(resource=but(ROLE_ARN)), SESSION).allowed


def test_a_statement_of_a_resource_policy_without_resource_is_about_that_resource() -> None:
    statement = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject"}
    assert ask(layers(resource=[statement]), NOBODY, resource=OBJECT).allowed


FEDERATED = Principal("FederatedUser", HOME, f"arn:aws:sts::{HOME}:federated-user/guest", USER.arn, f"{HOME}:guest")


def test_a_federated_user_session_has_what_user_and_session_policies_both_allow() -> None:
    assert ask(layers([allow()], session=[allow("s3:Get*")]), FEDERATED).allowed
    assert ask(layers([allow()], session=ELSEWHERE), FEDERATED).layer == "session"
    assert ask(layers(ELSEWHERE, session=[allow()]), FEDERATED).layer == "identity"
    # "If you do not pass a policy, the resulting federated user session has no permissions"
    assert ask(layers([allow()]), FEDERATED).layer == "session"
    assert ask(layers([allow()], resource=grant({"AWS": USER.arn})), FEDERATED).layer == "session"
    assert not ask(layers([allow()], resource=grant(ACCOUNT)), FEDERATED).allowed
    # "The only exception is when the resource-based policy specifically references the federated user session"
    assert ask(layers(resource=grant({"AWS": FEDERATED.arn})), FEDERATED).allowed
    assert not ask(layers([allow()], resource=grant({"AWS": FEDERATED.arn})), FEDERATED, account=OTHER).allowed
    assert ask(
        layers([allow()], session=[allow()], resource=grant({"AWS": FEDERATED.arn})), FEDERATED, account=OTHER
    ).allowed


def test_unique_ids_name_who_has_them_and_not_who_got_the_name() -> None:
    ids = grant({"AWS": ["AIDAOLDOLDOLDOLDOLD1", "AROAOLDOLDOLDOLDOLD1"]})
    old = Principal("User", HOME, USER.arn, USER.arn, "AIDAOLDOLDOLDOLDOLD1")
    anew = Principal("User", HOME, USER.arn, USER.arn, "AIDANEWNEWNEWNEWNEW1")
    assert ask(layers(resource=ids), old).allowed
    assert not ask(layers(resource=ids), anew).allowed
    session = Principal("AssumedRole", HOME, SESSION.arn, ROLE_ARN, "AROAOLDOLDOLDOLDOLD1:s1")
    assert ask(layers(resource=ids), session).allowed
    assert not ask(layers(resource=ids, **LIMITED), session).allowed, "it is the role that is named"
    assert not ask(layers(resource=ids), SERVICE).allowed


def test_a_canonical_user_is_an_account() -> None:
    named = grant({"CanonicalUser": canonical_id(HOME)})
    assert ask(layers([allow()], resource=named), account=OTHER).allowed
    assert ask(layers(resource=named)).layer == "identity"
    assert not ask(layers([allow()], resource=grant({"CanonicalUser": canonical_id(OTHER)})), account=OTHER).allowed


def test_a_grant_of_a_key_stands_beside_its_policy() -> None:
    def decrypt(who: Principal = SESSION, account: str = HOME, **policies: Any) -> Any:
        found = layers(kind="key", **policies)
        found.grants = [attached(Form.KEY, *grant({"AWS": ROLE_ARN}), source="grant 1")]
        return ask(found, who, "kms:Decrypt", KEY, account)

    yes = decrypt(resource=grant({"AWS": OTHER}))
    assert (yes.allowed, yes.source) == (True, "grant 1")
    assert not decrypt(USER, resource=grant({"AWS": OTHER})).allowed
    assert decrypt(resource=grant("*", "Deny")).verdict == "ExplicitlyDenied"
    assert decrypt(identity=[deny("kms:*")]).verdict == "ExplicitlyDenied"
    assert decrypt(session=ELSEWHERE).layer == "session"
    assert decrypt(account=OTHER).source == "grant 1"
    assert decrypt(session=ELSEWHERE, account=OTHER).layer in ("identity", "session")
    assert decrypt(resource=grant("*"), account=OTHER).source == "grant 1"


def test_nobody_uses_a_key_that_is_open_to_everybody() -> None:
    assert not ask(layers(resource=grant("*"), kind="key"), NOBODY, "kms:Decrypt", KEY).allowed
    assert ask(layers(resource=grant("*"), kind="key"), USER, "kms:Decrypt", KEY).allowed
