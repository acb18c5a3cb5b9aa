"""DVC keeps a dataset's versions: which, in git, and their bytes in S3; both the platform's."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.clients.program import run, surroundings
from tests.platform import Account, allow
from tests.stories.codecommit.remote import Remote

COMMANDS = """
import json, os, subprocess, sys
from dvc.cli import main
for folder, program, *words in json.loads(sys.argv[1]):
    os.chdir(folder)
    if program == "dvc":
        code = main(words)
    else:
        code = subprocess.run([program, *words], check=False).returncode
    if code:
        sys.exit(f"{program} {words}: {code}")
"""
"""DVC's command line several times in one process, which takes a second to begin."""


def _run(account: Account, keys: Any, home: Path, *commands: list[str]) -> str:
    program = home / "commands.py"
    program.write_text(COMMANDS)
    around = surroundings(account.platform, keys, home) | {"DVC_NO_ANALYTICS": "1"}
    for who in ("AUTHOR", "COMMITTER"):
        around |= {f"GIT_{who}_NAME": "Ada", f"GIT_{who}_EMAIL": "ada@example.com"}
    done = run("dvc", program, json.dumps(commands), environment=around)
    return done.stderr if done.returncode else ""


@pytest.mark.control("LIN-03")
def test_a_data_set_comes_back_by_its_commit(remote: Remote) -> None:
    account, home = remote.account, remote.folder
    s3, sagemaker, bucket = account.client("s3"), account.client("sagemaker"), f"sets-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=bucket)
    # Who makes data sets adds to the store and changes nothing in it; who trains reads it.
    objects = f"arn:aws:s3:::{bucket}/*"
    adds = allow("s3:ListBucket", "s3:GetObject", "s3:PutObject", resource=["arn:aws:s3:::*", objects])
    adds["Statement"].append(
        {"Effect": "Deny", "Action": "s3:PutObject", "Resource": f"arn:aws:s3:::{bucket}/loans/v1/*"}
    )
    account.role("Engineer", adds)
    account.role("Scientist", allow("s3:ListBucket", "s3:GetObject"))
    engineer, scientist = account.as_role("Engineer"), account.as_role("Scientist")
    # Two data sets: two prefixes and two artifacts.
    sets = []
    for name in ("loans/v1", "cards/v1"):
        s3.put_object(Bucket=bucket, Key=f"{name}/data.csv", Body=name.encode())
        source = {"SourceUri": f"s3://{bucket}/{name}/"}
        properties = {"rows": "1", "owner": "data engineering"}
        made = sagemaker.create_artifact(
            ArtifactName=name.replace("/", "-"), Source=source, ArtifactType="DataSet", Properties=properties
        )
        sets.append(made["ArtifactArn"])
    listed = sagemaker.list_artifacts(ArtifactType="DataSet")["ArtifactSummaries"]
    assert {one["ArtifactArn"] for one in listed} >= set(sets) and len(set(sets)) == 2
    assert sagemaker.describe_artifact(ArtifactArn=sets[0])["Properties"]["owner"] == "data engineering"
    with pytest.raises(ClientError, match="AccessDenied"):
        account.client("s3", engineer).put_object(Bucket=bucket, Key="loans/v1/data.csv", Body=b"other")

    remote.git("clone", "-q", remote.url, "own")
    own = str(home / "own")
    commands = [
        [own, "dvc", "init", "-q"],
        [own, "dvc", "remote", "add", "-q", "-d", "store", f"s3://{bucket}/dvc"],
    ]
    for number, rows in (("1", "a,1\n"), ("2", "a,1\nb,2\n")):
        (home / number).write_text(rows)
        commands += [
            [own, "cp", str(home / number), "loans.csv"],
            [own, "dvc", "add", "-q", "loans.csv"],
            [own, "git", "add", "-A"],
            [own, "git", "commit", "-q", "-m", number],
            [own, "git", "tag", f"v{number}"],
            [own, "dvc", "push", "-q"],
        ]
    assert _run(account, engineer, home, *commands) == ""
    commits = [remote.head("own", name) for name in ("v1", "v2")]
    remote.git("push", "-q", "origin", "HEAD:main", at="own")
    # Somebody else has the commit, and with it the data of then.
    remote.git("clone", "-q", remote.url, "theirs")
    theirs = str(home / "theirs")
    remote.git("checkout", "-q", commits[0], at="theirs")
    back = [theirs, "dvc", "pull"]
    assert _run(account, scientist, home, back) == ""
    assert (home / "theirs" / "loans.csv").read_text() == "a,1\n"
    remote.git("checkout", "-q", commits[1], at="theirs")
    account.client("iam").delete_role_policy(RoleName="Scientist", PolicyName="inline")
    assert "Forbidden" in _run(account, scientist, home, back)  # a commit is no leave to read
    assert (home / "theirs" / "loans.csv").read_text() == "a,1\n"
