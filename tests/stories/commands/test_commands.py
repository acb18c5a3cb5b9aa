"""The command line, as a person and as a program uses it, on a platform of its own."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions
import pytest
from click.testing import CliRunner

from bastide.main import program
from tests.platform import HOME, PROGRAM, Account, Keys, Running, allow

SCP = "SERVICE_CONTROL_POLICY"
AWS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "BASTIDE_DATA",
    "AWS_CA_BUNDLE",
)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A small platform: `why` and `status` walk through every account."""
    running = Running(tmp_path_factory.mktemp("commands") / "data")
    running.start()
    running.found()
    # An account whose administrators' role has another name: nobody's command may stumble over it.
    running.client("organizations").create_account(AccountName="odd", Email="odd@example.com", RoleName="Entry")
    yield running
    running.stop()


@pytest.fixture(scope="module")
def member(running: Running) -> Account:
    return running.account("data-science")


def bastide(*words: str, data: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the program in an environment without credentials."""
    clean = {key: value for key, value in os.environ.items() if key not in AWS}
    given = [*words, "--data", str(data)] if data is not None else list(words)
    return subprocess.run(
        [*PROGRAM, *given],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
        env={**clean, "COLUMNS": "250", **environment},
    )


def told(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    """What a command that must not work says: a sentence, no stack."""
    assert done.returncode != 0, done.stdout
    assert "Traceback" not in done.stderr and done.stderr.strip(), done.stderr
    return done.stderr


def who(running: Running, keys: Keys) -> str:
    arn: str = running.client("sts", keys).get_caller_identity()["Arn"]
    return arn


# -- credentials -------------------------------------------------------------------------------------------------------


def test_credentials_for_a_shell(running: Running, member: Account) -> None:
    lines = told(bastide("credentials", data=running.data)).splitlines()
    assert "unset AWS_SESSION_TOKEN" in lines
    given = dict(shlex.split(line)[1].split("=", 1) for line in lines if line.startswith("export "))
    assert given["AWS_ENDPOINT_URL"] == running.url and given["AWS_CA_BUNDLE"] == running.authority
    assert given["AWS_REGION"] == given["AWS_DEFAULT_REGION"] == "us-east-1"
    held = Keys(given["AWS_ACCESS_KEY_ID"], given["AWS_SECRET_ACCESS_KEY"])
    assert who(running, held).startswith(f"arn:aws:iam::{HOME}:user/")
    command = (
        f'eval "$({shlex.join(PROGRAM)} credentials --data {shlex.quote(str(running.data))} --account data-science)"'
    )
    ask = "import boto3; print(boto3.client('sts').get_caller_identity()['Account'])"
    done = subprocess.run(
        ["bash", "-c", f"{command} && {shlex.join([sys.executable, '-c', ask])}"],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout.strip()) == (0, member.id), done.stderr


@pytest.mark.parametrize("by", ["name", "id"])
def test_credentials_for_a_program(running: Running, member: Account, by: str) -> None:
    account = member.name if by == "name" else member.id
    given = json.loads(told(bastide("credentials", "--account", account, "--format", "json", data=running.data)))
    assert given["EndpointUrl"] == running.url and given["Region"] == "us-east-1"
    held = Keys(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])
    role = "OrganizationAccountAccessRole"
    assert who(running, held) == f"arn:aws:sts::{member.id}:assumed-role/{role}/bastide-cli"


def test_credentials_of_a_role(running: Running, member: Account) -> None:
    member.role("Scientist", allow("s3:*"), trust={"AWS": f"arn:aws:iam::{HOME}:root"})
    more = ("--account", "data-science", "--role", "Scientist", "--session-name", "dora", "--format", "json")
    given = json.loads(told(bastide("credentials", *more, data=running.data)))
    held = Keys(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])
    assert who(running, held) == f"arn:aws:sts::{member.id}:assumed-role/Scientist/dora"


def test_credentials_as_a_credential_process(
    running: Running, member: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*PROGRAM, "credentials", "--data", str(running.data), "--account", "data-science", "--format", "process"]
    config = tmp_path / "config"
    config.write_text(
        "[profile bank]\n"
        f"credential_process = {shlex.join(words)}\n"
        "region = us-east-1\n"
        f"endpoint_url = {running.url}\n"
        f"ca_bundle = {running.authority}\n"
    )
    for name in AWS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    session = boto3.session.Session(profile_name="bank")
    assert session.client("sts").get_caller_identity()["Account"] == member.id
    session.client("s3").list_buckets()


def test_credentials_that_nobody_can_have(running: Running, member: Account) -> None:
    said = complaint(bastide("credentials", "--account", "nobody", data=running.data))
    assert "no account named `nobody`" in said and "bastide status" in said
    said = complaint(bastide("credentials", "--account", "999999999999", data=running.data))
    assert "not authorized to perform: sts:AssumeRole" in said
    said = complaint(bastide("credentials", "--account", member.id, "--role", "Nobody", data=running.data))
    assert "sts:AssumeRole" in said and "role/Nobody" in said


# -- status, inventory, doctor -----------------------------------------------------------------------------------------


def test_status(running: Running, member: Account) -> None:
    found = json.loads(told(bastide("status", "--format", "json", data=running.data)))
    assert found["health"]["enforcement"]
    rows = {row["account"]: row for row in found["accounts"]}
    assert rows[member.id] == {
        "account": member.id,
        "name": "data-science",
        "jobs": 0,
        "running": 0,
        "models": 0,
        "endpoints": {},
    }
    assert HOME in rows
    table = told(bastide("status", data=running.data))
    assert member.id in table and "data-science" in table and found["health"]["enforcement"][0] in table
    assert "no access" in table


def test_inventory_of_a_platform_without_endpoints(running: Running, member: Account) -> None:
    assert json.loads(told(bastide("inventory", "--format", "json", data=running.data))) == []
    assert "registered versions" in told(bastide("inventory", data=running.data))


def test_doctor() -> None:
    done = bastide("doctor", "--format", "json")
    found = {one["name"]: one for one in json.loads(done.stdout)}
    assert done.returncode in (0, 1)
    assert {"privileges", "seccomp", "cgroups"} <= set(found)
    assert all(one["ok"] or one["remedy"] for one in found.values())


# -- why ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def refusal(running: Running, member: Account) -> tuple[str, dict[str, Any]]:
    """A call that an SCP refused: its request id, and the SCP's statement."""
    statement = {"Sid": "NoUsersHere", "Effect": "Deny", "Action": "iam:CreateUser", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    org = running.client("organizations")
    made = org.create_policy(Name="no-users", Description="", Type=SCP, Content=document)["Policy"]["PolicySummary"]
    org.attach_policy(PolicyId=made["Id"], TargetId=member.id)
    with pytest.raises(botocore.exceptions.ClientError) as error:
        member.client("iam").create_user(UserName="x")
    return str(error.value.response["ResponseMetadata"]["RequestId"]), {"arn": made["Arn"], **statement}


def test_why_shows_the_administrator_the_statement(running: Running, refusal: tuple[str, dict[str, Any]]) -> None:
    request, statement = refusal
    said = told(bastide("why", request, data=running.data))
    assert "CreateUser" in said and "AccessDenied" in said and "denied by a service control policy" in said
    assert '"Sid": "NoUsersHere"' in said and statement["arn"] in said


def test_why_shows_others_what_they_may_read(
    running: Running, member: Account, refusal: tuple[str, dict[str, Any]]
) -> None:
    member.role("Auditor", allow("cloudtrail:LookupEvents"))
    keys = member.as_role("Auditor")
    environment = {"AWS_ACCESS_KEY_ID": keys.access_key, "AWS_SECRET_ACCESS_KEY": keys.secret}
    said = told(bastide("why", refusal[0], data=running.data, AWS_SESSION_TOKEN=keys.token or "", **environment))
    assert "CreateUser" in said and "you may not read that policy" in said
    assert '"Effect"' not in said
    member.role("Outsider", allow("s3:ListAllMyBuckets"))
    keys = member.as_role("Outsider")
    environment = {"AWS_ACCESS_KEY_ID": keys.access_key, "AWS_SECRET_ACCESS_KEY": keys.secret}
    done = bastide("why", refusal[0], data=running.data, AWS_SESSION_TOKEN=keys.token or "", **environment)
    assert "cloudtrail:LookupEvents" in complaint(done) and "CreateUser" not in done.stdout + done.stderr


def test_why_shows_a_members_own_policy(running: Running, member: Account) -> None:
    statement = {"Sid": "NotThese", "Effect": "Deny", "Action": "iam:ListUsers", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    policy = member.client("iam").create_policy(PolicyName="not-these", PolicyDocument=document)["Policy"]["Arn"]
    member.role("Bound", allow("iam:*"))
    member.client("iam").attach_role_policy(RoleName="Bound", PolicyArn=policy)
    with pytest.raises(botocore.exceptions.ClientError) as error:
        member.client("iam", member.as_role("Bound")).list_users()
    said = told(bastide("why", error.value.response["ResponseMetadata"]["RequestId"], data=running.data))
    assert '"Sid": "NotThese"' in said


def test_why_of_nothing(running: Running) -> None:
    said = complaint(bastide("why", "00000000-0000-0000-0000-000000000000", data=running.data))
    assert "no management event" in said


# -- init, up ----------------------------------------------------------------------------------------------------------


def test_init_makes_files_for_its_owner_alone_and_only_once(tmp_path: Path) -> None:
    data = tmp_path / "data"
    said = told(bastide("init", data=data))
    assert f"bastide up --data {data}" in said
    assert data.stat().st_mode & 0o777 == 0o700
    for path in data.rglob("*"):
        wanted = 0o700 if path.is_dir() else 0o600
        assert path.stat().st_mode & 0o077 == 0, path
        assert path.stat().st_mode & 0o777 == wanted or path.suffix == ".pem", path
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    secret = json.loads((data / "administrator.json").read_text())["SecretAccessKey"]
    assert secret not in said
    again = complaint(bastide("init", data=data))
    assert "holds a platform already" in again and "bastide up" in again
    assert {path: path.read_bytes() for path in data.rglob("*") if path.is_file()} == before
    assert "twelve digits" in complaint(bastide("init", "--account-id", "12", data=tmp_path / "other"))
    assert not (tmp_path / "other").exists()


def test_up_refuses_what_it_must(running: Running, tmp_path: Path) -> None:
    said = complaint(bastide("up", "--listen", "127.0.0.1:0", data=running.data))
    assert "already runs" in said and str(running.data) in said
    running.client("sts").get_caller_identity()
    assert "loopback" in complaint(bastide("up", "--http", "0.0.0.0:1", data=running.data))
    assert "HOST:PORT" in complaint(bastide("up", "--listen", "nowhere", data=running.data))
    nothing = tmp_path / "nothing"
    for words in (("up",), ("credentials",), ("status",), ("inventory",), ("why", "x")):
        said = complaint(bastide(*words, data=nothing))
        assert f"bastide init --data {nothing}" in said, words


def test_a_platform_that_does_not_run_is_said_with_the_fix(tmp_path: Path) -> None:
    stopped = Running(tmp_path / "data")
    stopped.start()
    stopped.kill()
    for words in (("status",), ("inventory",), ("why", "x"), ("credentials", "--account", "x")):
        said = complaint(bastide(*words, data=stopped.data))
        assert f"bastide up --data {stopped.data}" in said, (words, said)
    stopped.launch()
    stopped.stop()
    said = complaint(bastide("status", data=stopped.data))
    assert f"bastide up --data {stopped.data}" in said


def test_every_command_teaches() -> None:
    first = told(bastide("--help"))
    listed = first.partition("Commands:")[2].split("\n")
    names = [line.split()[0] for line in listed if line.startswith("  ") and line[2] != " "]
    assert {"init", "up", "credentials", "status", "inventory", "doctor", "why", "demo"} <= set(names)
    for name in names:
        # In this process: each would start as the first did.
        said = CliRunner().invoke(program.cli, [name, "--help"], prog_name="bastide", catch_exceptions=False).output
        body = said.partition("\n\n")[2].partition("Options:")[0].strip()
        assert len(body) > 30, name
    assert told(bastide("--version")).startswith("bastide")
