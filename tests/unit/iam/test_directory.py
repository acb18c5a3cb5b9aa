"""What IAM tells the guard of a user: it is the same wherever a statement stands."""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from bastide import policy
from bastide.domain import Instant
from bastide.kernel import Caller
from bastide.services.iam.directory import IamDirectory
from bastide.services.iam.last_use import LastUse
from bastide.store import Row, SqliteStore, Transaction

ACTIONS = ("s3:GetObject", "s3:PutObject", "iam:GetUser")
ARN = "arn:aws:iam::111122223333:user/U"
CALLER = Caller("User", "111122223333", ARN, ARN, "AIDA", "U", "AKIA")
STATEMENT = st.builds(
    lambda effect, action: {"Effect": effect, "Action": action, "Resource": "*"},
    st.sampled_from(["Allow", "Allow", "Deny"]),
    st.sampled_from([*ACTIONS, "s3:*", "*"]),
)
PLACED = st.lists(
    st.tuples(STATEMENT, st.sampled_from(["inline", "attached", "group", "group's attached"])), max_size=6
)


class NoSealer:
    """Nothing here is sealed."""

    def seal(self, data: bytes, purpose: str) -> str:
        raise AssertionError

    def open(self, token: str, purpose: str) -> bytes:
        raise AssertionError


def _text(statement: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def _write(tx: Transaction, placed: list[tuple[dict[str, Any], str]], groups: list[str]) -> None:
    account = CALLER.account
    user: dict[str, Any] = {"UserName": "U", "UserId": "AIDA", "Arn": ARN, "boundary": "", "groups": groups}
    group: dict[str, Any] = {"GroupName": "G", "GroupId": "AGPA", "Arn": f"arn:aws:iam::{account}:group/G"}
    for doc in (user, group):
        doc.update(Path="/", inline={}, attached=[])
    at: Instant = tx.now
    for number, (statement, place) in enumerate(placed):
        doc = group if place.startswith("group") else user
        if place.endswith("attached"):
            arn = f"arn:aws:iam::{account}:policy/P{number}"
            versions = {"v1": {"text": _text(statement), "created": at}}
            held = {"PolicyName": f"P{number}", "Arn": arn, "DefaultVersionId": "v1", "versions": versions}
            tx.insert(Row("iam:Policy", account, "", f"p{number}", held))
            doc["attached"].append(arn)
        else:
            doc["inline"][f"p{number}"] = _text(statement)
    tx.insert(Row("iam:User", account, "", "u", user))
    tx.insert(Row("iam:Group", account, "", "g", group))
    tx.insert(Row("iam:UniqueId", account, "", "AGPA", {"name": "g"}))


def _decided(placed: list[tuple[dict[str, Any], str]], groups: list[str]) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore(Path(folder) / "db")
        try:
            asyncio.run(store.write(lambda tx: _write(tx, placed, groups)))
            with store.reading() as view:
                identity, boundary = IamDirectory(NoSealer(), LastUse(store)).policies(view, CALLER)
        finally:
            store.close()
    layers = policy.Layers(identity=identity, boundary=boundary, session=None, resource=None, scps=(), rcps=())
    return [
        policy.decide(policy.Request(CALLER.principal(), action, "arn:aws:s3:::b/k", None, {}), layers).verdict
        for action in ACTIONS
    ]


@settings(max_examples=15)  # each opens two stores
@given(PLACED)
def test_where_a_statement_stands_does_not_matter(placed: list[tuple[dict[str, Any], str]]) -> None:
    assert _decided(placed, ["AGPA"]) == _decided([(statement, "inline") for statement, _ in placed], [])


@settings(max_examples=15)  # each opens two stores
@given(PLACED)
def test_a_group_says_nothing_to_others(placed: list[tuple[dict[str, Any], str]]) -> None:
    own = [(statement, place) for statement, place in placed if not place.startswith("group")]
    assert _decided(placed, []) == _decided(own, [])


@settings(max_examples=15)  # each opens two stores
@given(PLACED)
def test_a_group_that_cannot_be_found_is_a_deny(placed: list[tuple[dict[str, Any], str]]) -> None:
    assert _decided(placed, ["AGPA", "AGPB"]) == ["ExplicitlyDenied"] * len(ACTIONS)
