"""`why`, `policy replay` and `policy prove` against a running platform."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import botocore.exceptions
import click.testing
import pytest

from bastide.commands.cli import cli
from bastide.commands.client import Credentials, Platform
from bastide.commands.live import Reader, readers
from bastide.commands.why import explained, find
from tests.platform import Account, Keys, Running, allow

SCP = "SERVICE_CONTROL_POLICY"
DENY_USERS = {"Sid": "NoUsers", "Effect": "Deny", "Action": "iam:CreateUser", "Resource": "*",
              "Condition": {"Null": {"aws:RequestTag/team": "true"}}}  # fmt: skip


def refused(call: Any, **given: Any) -> str:
    """The request id of a call that must be refused."""
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        call(**given)
    assert caught.value.response["Error"]["Code"].startswith("AccessDenied")
    return str(caught.value.response["ResponseMetadata"]["RequestId"])


def guard(account: Account, *statements: dict[str, Any]) -> str:
    """An SCP on the account; its ARN."""
    client = account.platform.client("organizations")
    content = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
    made = client.create_policy(Name=f"g-{account.name}", Description="", Type=SCP, Content=content)
    client.attach_policy(PolicyId=made["Policy"]["PolicySummary"]["Id"], TargetId=account.id)
    return str(made["Policy"]["PolicySummary"]["Arn"])


def run(platform: Running, *words: str) -> click.testing.Result:
    """A command of the administrator."""
    none = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"))
    return click.testing.CliRunner().invoke(cli, list(words), env={**none, "BASTIDE_DATA": str(platform.data)})


def why_as(account: Account, keys: Keys, request: str, *, all_policies: bool = False) -> dict[str, Any]:
    """An explanation to whoever holds the keys. all_policies: these are read by the administrator."""
    platform = Platform(account.platform.data)
    held = Credentials(keys.access_key, keys.secret, keys.token)
    record = find(platform, held, request)
    assert record is not None
    told: dict[str, Any] = json.loads(
        json.dumps(explained(record, Reader(platform, readers(platform, None if all_policies else held))))
    )
    return told


def why(account: Account, request: str) -> dict[str, Any]:
    """An explanation to the account's administrator, with all that the organisation's may read."""
    return why_as(account, account.keys, request, all_policies=True)


def test_why_a_guardrail_refused_and_what_would_have_passed(account: Account) -> None:
    arn = guard(account, DENY_USERS)
    request = refused(account.client("iam").create_user, UserName="x")
    [question] = why(account, request)["questions"]
    assert question["then"]["policy"] == arn and question["then"]["sid"] == "NoUsers"
    assert question["now"]["verdict"] == "ExplicitlyDenied" and not question["changed"]
    [denying] = [one for one in question["layers"] if one["verdict"] == "ExplicitlyDenied"]
    assert (denying["layer"], denying["source"]) == ("scp", arn)
    [statement] = denying["statements"]
    assert statement["text"] == DENY_USERS
    assert statement["conditions"] == [
        {"operator": "Null", "key": "aws:RequestTag/team", "wanted": ["true"], "seen": None, "held": True}
    ]
    [change] = question["nearest"]
    assert change["by"] == "caller" and "tag it with team" in change["change"] and "NoUsers" in change["change"]
    account.client("iam").create_user(UserName="x", Tags=[{"Key": "team", "Value": "red"}])


def test_why_nothing_allows_it_and_who_may_change_that(account: Account) -> None:
    account.role("Scientist", allow("s3:ListAllMyBuckets"))
    request = refused(account.client("iam", account.as_role("Scientist")).list_users)
    [question] = why(account, request)["questions"]
    assert (question["then"]["verdict"], question["then"]["layer"]) == ("ImplicitlyDenied", "identity")
    [change] = question["nearest"]
    role = f"arn:aws:iam::{account.id}:role/Scientist"
    assert change["change"] == f"add iam:ListUsers on arn:aws:iam::{account.id}:user/ to a policy of {role}" or (
        change["change"].startswith("add iam:ListUsers on ") and change["change"].endswith(role)
    )
    assert f"administrators of the account {account.id}" in change["who"]
    account.client("iam").put_role_policy(
        RoleName="Scientist", PolicyName="inline", PolicyDocument=json.dumps(allow("iam:ListUsers"))
    )
    [question] = why(account, request)["questions"]
    assert question["changed"] and question["now"]["verdict"] == "Allowed", "it says that the policies changed since"


def test_why_a_sessions_own_policy_refused(account: Account) -> None:
    arn = account.role("Scientist", allow("iam:*"))
    keys = account.platform.assume(arn, account.keys, Policy=json.dumps(allow("s3:*")))
    [question] = why(account, refused(account.client("iam", keys).list_users))["questions"]
    assert question["then"]["layer"] == "session" and question["now"] is None, (
        "nobody can read it, so nothing is claimed"
    )
    [change] = question["nearest"]
    assert change["who"] == "whoever starts the session"


def test_why_tells_nobody_what_they_may_not_read(account: Account) -> None:
    arn = guard(account, DENY_USERS)
    account.role("Auditor", allow("cloudtrail:LookupEvents", "iam:Get*", "iam:List*"))
    account.role("Blind", allow("cloudtrail:LookupEvents"))
    request = refused(account.client("iam").create_user, UserName="x")
    for role in ("Auditor", "Blind"):
        told = why_as(account, account.as_role(role), request)
        [question] = told["questions"]
        assert question["now"] is None
        [scp] = [one for one in question["layers"] if one["layer"] == "scp"]
        assert (scp["verdict"], scp["note"]) == (None, "a policy you may not read")
        assert "aws:RequestTag/team" not in json.dumps(told), "what the guardrail says is not told"
        readable = [one for one in question["layers"] if one["layer"] == "identity" and one["verdict"] is not None]
        assert bool(readable) is (role == "Auditor"), "own policies are told to whoever may read these"
        [change] = question["nearest"]
        assert "the organisation's administrators" in change["who"] and "may not read" in change["change"]
    assert arn


def test_why_finds_a_record_by_its_events_id(platform: Running, account: Account, tmp_path: Path) -> None:
    request = refused(account.client("iam", account_role(account)).list_users)
    known = why(account, request)
    held = Credentials(account.keys.access_key, account.keys.secret, account.keys.token)
    event = find(Platform(platform.data), held, request)
    assert event is not None
    assert why(account, event["eventID"])["questions"][0]["then"] == known["questions"][0]["then"]
    assert find(Platform(platform.data), held, "00000000-0000-7000-8000-000000000000") is None
    assert run(platform, "why").exit_code == 2

    delivered = tmp_path / "log.json.gz"
    delivered.write_bytes(gzip.compress(json.dumps({"Records": [event]}).encode()))
    done = run(platform, "why", request, "--records", str(delivered), "--format", "json")
    assert json.loads(done.output)["questions"][0]["then"] == known["questions"][0]["then"]
    done = run(platform, "why", request, "--records", str(delivered))
    assert "what would have allowed it" in done.output and "iam:ListUsers" in done.output
    assert run(platform, "why", "another", "--records", str(delivered)).exit_code == 1
    scp = tmp_path / "scp.json"
    scp.write_text(json.dumps({"Version": "2012-10-17", "Statement": [DENY_USERS]}))
    told = json.loads(
        run(platform, "policy", "replay", "--scp", str(scp), "--records", str(delivered), "--format", "json").output
    )
    assert (told["calls"], told["same"], told["flips"]) == (1, 1, [])


def account_role(account: Account) -> Keys:
    account.role("Small", allow("s3:ListAllMyBuckets"))
    return account.as_role("Small")


def test_replay_lists_what_would_flip(platform: Running, account: Account, tmp_path: Path) -> None:
    iam = account.client("iam")
    iam.create_user(UserName="one", Tags=[{"Key": "team", "Value": "red"}])
    iam.create_user(UserName="two")
    iam.list_users()
    arn = guard(account, {"Sid": "NoGroups", "Effect": "Deny", "Action": "iam:CreatePolicy", "Resource": "*"})
    refused(iam.create_policy, PolicyName="p", PolicyDocument=json.dumps(allow("s3:*")))
    path = tmp_path / "scp.json"
    path.write_text(json.dumps({"Version": "2012-10-17", "Statement": [DENY_USERS]}))
    done = run(platform, "policy", "replay", "--scp", str(path), "--account", account.id, "--format", "json")
    told = json.loads(done.output)
    assert done.exit_code == 1
    assert [(one["action"], one["flip"], one["count"]) for one in told["flips"]] == [
        ("iam:CreateUser", "allowed -> denied", 1)
    ]
    assert f"{path} statement NoUsers" in told["flips"][0]["by"]
    assert told["calls"] == told["same"] + 1 and told["notKnown"] == [] and told["accountsNotRead"] == []

    path.write_text(
        json.dumps({"Version": "2012-10-17", "Statement": {"Effect": "Deny", "Action": "ec2:*", "Resource": "*"}})
    )
    done = run(platform, "policy", "replay", "--policy", f"{arn}={path}", "--account", account.id, "--format", "json")
    told = json.loads(done.output)
    assert [(one["action"], one["flip"]) for one in told["flips"]] == [("iam:CreatePolicy", "denied -> allowed")]
    assert "not on record" in told["flips"][0]["note"]
    done = run(platform, "policy", "replay", "--scp", str(path), "--account", account.id)
    assert done.exit_code == 0 and "0 would flip" in done.output

    iam.put_role_policy(
        RoleName="OrganizationAccountAccessRole", PolicyName="more", PolicyDocument=json.dumps(allow("s3:*"))
    )
    organizations = platform.client("organizations")
    organizations.update_policy(
        PolicyId=arn.rpartition("/")[2],
        Content=json.dumps(
            {"Version": "2012-10-17", "Statement": {"Effect": "Deny", "Action": "iam:CreateUser", "Resource": "*"}}
        ),
    )
    told = json.loads(
        run(platform, "policy", "replay", "--scp", str(path), "--account", account.id, "--format", "json").output
    )
    assert [(one["reason"], one["count"]) for one in told["notKnown"]] == [("the guardrails changed since", 3)]
    assert told["calls"] == told["same"] + 3, "what is not known is counted, never left out"


def test_replay_says_what_is_missing(platform: Running, tmp_path: Path) -> None:
    assert run(platform, "policy", "replay").exit_code == 2
    path = tmp_path / "scp.json"
    path.write_text("{}")
    done = run(platform, "policy", "replay", "--scp", str(path))
    assert done.exit_code == 1 and "Statement" in done.output
    assert run(platform, "policy", "replay", "--policy", f"nonsense={path}").exit_code == 2


def test_who_can_is_proved_on_live_policies(platform: Running, account: Account) -> None:
    reader, writer = account.role("Reader", allow("s3:GetObject")), account.role("Writer", allow("s3:Put*"))
    only = ("--principal", reader, "--principal", writer)
    bucket = f"bank-{account.name}"
    account.client("s3").create_bucket(Bucket=bucket)

    def can(action: str, resource: str = f"arn:aws:s3:::{bucket}/*") -> tuple[int, dict[str, Any]]:
        done = run(
            platform, "policy", "prove", "can", action, resource, "--account", account.id, *only, "--format", "json"
        )
        return done.exit_code, json.loads(done.output)

    code, told = can("s3:PutObject")
    assert (code, told["outcome"]) == (1, "refuted")
    [answer] = told["answers"]
    assert answer["principal"] == writer and answer["request"]["action"] == "s3:PutObject"
    assert can("s3:DeleteObject")[0] == 0
    guard(account, {"Sid": "NoWriting", "Effect": "Deny", "Action": "s3:PutObject", "Resource": "*"})
    assert can("s3:PutObject")[0] == 0, "the guardrail holds for whatever request"
    statement = {"Effect": "Allow", "Principal": {"AWS": reader}, "Action": "s3:DeleteObject",
                 "Resource": f"arn:aws:s3:::{bucket}/*"}  # fmt: skip
    policy = json.dumps({"Version": "2012-10-17", "Statement": statement})
    account.client("s3").put_bucket_policy(Bucket=bucket, Policy=policy)
    code, told = can("s3:DeleteObject")
    assert code == 1 and [one["principal"] for one in told["answers"]] == [reader], "the bucket's policy grants, too"
    code, told = can("s3:DeleteObject", "arn:aws:s3:::*/*")
    assert (code, told["outcome"]) == (2, "not proved") and "policies" in told["why"]


def test_guardrails_are_proved_from_files_and_live(platform: Running, account: Account, tmp_path: Path) -> None:
    scp, claim, old = tmp_path / "scp.json", tmp_path / "claim.yaml", tmp_path / "old.json"
    scp.write_text(json.dumps({"Version": "2012-10-17", "Statement": [DENY_USERS]}))
    claim.write_text('actions: iam:CreateUser\nunless: {"Null": {"aws:RequestTag/team": "false"}}\n')
    done = run(platform, "policy", "prove", "guardrail", str(claim), "--scp", str(scp))
    assert done.exit_code == 0 and done.output.startswith("proved")
    guard(account, DENY_USERS)
    assert run(platform, "policy", "prove", "guardrail", str(claim), "--account", account.id).exit_code == 0
    claim.write_text('actions: iam:CreateUser\nunless: {StringEquals: {"aws:RequestTag/team": red}}\n')
    done = run(platform, "policy", "prove", "guardrail", str(claim), "--scp", str(scp), "--format", "json")
    told = json.loads(done.output)
    assert done.exit_code == 1 and told["request"]["context"]["aws:requesttag/team"] not in ("", "red")
    claim.write_text("actoins: x\n")
    assert run(platform, "policy", "prove", "guardrail", str(claim), "--scp", str(scp)).exit_code == 1
    old.write_text(json.dumps(allow("s3:Get*")))
    scp.write_text(json.dumps(allow("s3:GetObject")))
    assert run(platform, "policy", "prove", "compare", str(scp), str(old)).exit_code == 0
    assert run(platform, "policy", "prove", "compare", str(old), str(scp)).exit_code == 1
    assert run(platform, "policy", "validate", str(old)).exit_code == 0
    claim.write_text("{}")
    assert run(platform, "policy", "validate", str(old), str(claim)).exit_code == 1


def test_live_cases_are_asked_of_the_platform(platform: Running, account: Account, tmp_path: Path) -> None:
    role = account.role("Reader", allow("s3:GetObject"))
    guard(account, {"Effect": "Deny", "Action": "s3:PutObject", "Resource": "*"})
    path = tmp_path / "live.policytest.yaml"
    path.write_text(
        f"defaults: {{live: true, principal: '{role}', resource: 'arn:aws:s3:::bank/a'}}\n"
        "cases:\n"
        "- {action: s3:GetObject, expect: {decision: allow, layer: identity}}\n"
        "- {action: s3:DeleteObject, expect: {decision: implicit-deny, layer: identity}}\n"
        "- {action: s3:PutObject, expect: {decision: explicit-deny, layer: scp}}\n"
    )
    done = run(platform, "policy", "test", str(path))
    assert done.exit_code == 0, done.output
    assert "3 of 3 cases as expected" in done.output


def test_why_explains_the_message_at_a_refusals_end(platform: Running, account: Account, neighbour: Account) -> None:
    arn = guard(account, DENY_USERS)
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        account.client("iam").create_user(UserName="x")
    refusal = str(caught.value)
    token = refusal.rpartition("Encoded authorization failure message: ")[2]
    assert 0 < len(token) < 100, "people read it at every refusal's end"

    # The administrator's, whose account it is not; the token alone and the refusal as it was printed.
    for given in (token, refusal):
        told = json.loads(run(platform, "why", "--message", given, "--format", "json").output)
        [question] = told["questions"]
        assert question["action"] == "iam:CreateUser"
        assert (question["then"]["layer"], question["then"]["policy"], question["then"]["sid"]) == (
            "scp",
            arn,
            "NoUsers",
        )
        [denying] = [one for one in question["layers"] if one["verdict"] == "ExplicitlyDenied"]
        assert denying["source"] == arn
        assert "tag it with team" in question["nearest"][0]["change"]
    shown = run(platform, "why", "--message", token).output
    assert "who can: whoever asks" in shown
    assert any(line.split()[2:] == ["denies", arn] for line in shown.splitlines()), shown

    def env(keys: Keys) -> dict[str, str | None]:
        return {"AWS_ACCESS_KEY_ID": keys.access_key, "AWS_SECRET_ACCESS_KEY": keys.secret,
                "AWS_SESSION_TOKEN": keys.token, "BASTIDE_DATA": str(platform.data)}  # fmt: skip

    words = ["why", "--message", token]
    mine = click.testing.CliRunner().invoke(cli, words, env=env(account.keys))
    assert mine.exit_code == 0 and "not yours to read" in mine.output, "the guardrail is the organisation's"
    theirs = click.testing.CliRunner().invoke(cli, words, env=env(neighbour.keys))
    assert theirs.exit_code == 1 and "decode no such message" in theirs.output
    cut = run(platform, "why", "--message", token[:-3])
    assert cut.exit_code == 1 and "decode no such message" in cut.output


def test_why_tells_the_answer_first(platform: Running, account: Account) -> None:
    arn = guard(account, DENY_USERS)
    request = refused(account.client("iam").create_user, UserName="x")
    lines = run(platform, "why", request).output.splitlines()
    assert "Encoded authorization" not in "".join(lines)
    asked = f"arn:aws:iam::{account.id}:user/x"
    first = lines.index(f"iam:CreateUser on {asked}: denied by a service control policy")
    assert lines[first + 1] == f"  by the statement NoUsers of {arn}"
    assert "    Null aws:RequestTag/team: wants true, saw (missing): holds" in lines
    assert lines.index("  what would have allowed it") < lines.index("  every policy in force, by itself")
    assert not any(line.startswith("    aws:useragent") for line in lines), "no policy asks for it"
    assert any(
        line.startswith("    aws:useragent") for line in run(platform, "why", request, "--full").output.splitlines()
    )


def test_why_writes_names_as_they_are(platform: Running, account: Account, tmp_path: Path) -> None:
    secret = account.client("secretsmanager").create_secret(Name="a", SecretString="x")["ARN"]
    account.role("Nobody", allow("s3:Get*"))
    nobody = account.client("secretsmanager", account.as_role("Nobody"))
    request = refused(nobody.get_secret_value, SecretId=secret)
    shown = run(platform, "why", request).output
    assert f"secretsmanager:GetSecretValue on {secret}: refused" in shown, "no pictures for :secret:"

    # What the sender of a request wrote neither colours nor steers the terminal of whoever looks.
    held = Credentials(account.keys.access_key, account.keys.secret, account.keys.token)
    record = json.dumps(find(Platform(platform.data), held, request))
    path = tmp_path / "log.json"
    path.write_text(json.dumps({"Records": [json.loads(record.replace(secret, r"[/]\u001b[2J[red]name"))]}))
    shown = run(platform, "why", request, "--records", str(path)).output
    assert r"secretsmanager:GetSecretValue on [/]\x1b[2J[red]name: refused" in shown and "\x1b[2J" not in shown
