"""What one account, or the author of one file, can take of what all share."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from bastide.domain import Refused
from bastide.policy_testing.cases import Faulty, read
from bastide.services.accessanalyzer.check import Room
from tests.platform import Account, allow


def test_an_account_does_not_keep_others_from_having_proofs(account: Account, neighbour: Account) -> None:
    document = json.dumps(allow("s3:GetObject"))

    def check(client: object) -> str:
        try:
            return str(
                client.check_no_new_access(  # type: ignore[attr-defined]
                    newPolicyDocument=document, existingPolicyDocument=document, policyType="IDENTITY_POLICY"
                )["result"]
            )
        except ClientError as error:
            return str(error.response["Error"]["Code"])

    greedy, modest = account.client("accessanalyzer"), neighbour.client("accessanalyzer")
    with ThreadPoolExecutor(11) as threads:
        many = [threads.submit(check, greedy) for _ in range(10)]
        one = threads.submit(check, modest)
        told = [each.result() for each in many]
        assert one.result() == "PASS"
    assert set(told) <= {"PASS", "ThrottlingException"} and told.count("PASS") >= 4


def test_the_places_of_one_account_are_fewer_than_all() -> None:
    room = Room()
    with ExitStack() as held:
        for _ in range(4):
            held.enter_context(room.place("greedy"))
        with pytest.raises(Refused, match="ThrottlingException"), room.place("greedy"):
            pass
        for number in range(12):
            held.enter_context(room.place(f"modest-{number}"))
        with pytest.raises(Refused, match="ThrottlingException"), room.place("late"):
            pass
    with room.place("greedy"):
        assert room.waiting == {"greedy": 1}


def test_aliases_of_aliases_are_not_written_out(tmp_path: Path) -> None:
    lines = ["policies:", "  none: &a0 {Effect: Allow}"]
    lines += [f"  p{n}: &a{n} {{Statement: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 12)]
    lines += ["cases:", "  - {action: 's3:GetObject', resource: '*', expect: allow}"]
    bomb = tmp_path / "policy_bomb.yaml"
    bomb.write_text("\n".join(lines))
    with pytest.raises(Faulty, match="too large"):
        read(bomb)
    knot = tmp_path / "policy_knot.yaml"
    knot.write_text("policies:\n  p: &a {Statement: [*a]}\ncases: []\n")
    with pytest.raises(Faulty):
        read(knot)
