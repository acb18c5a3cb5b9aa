"""MLflow tracking servers, through SageMaker's API and MLflow's own client with the plugin."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest
import urllib3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from bastide.engines import images
from bastide.engines.keys import open_root
from bastide.main import tracks
from bastide.store.directory import DataDirectory
from tests.clients.program import run, surroundings
from tests.platform import PROGRAM, REGION, Account, Keys, Running, allow

PROGRAMS = Path(__file__).parents[1] / "clients" / "programs"


@dataclass
class Tracking:
    """One server of one account, and MLflow's client for it."""

    account: Account
    sagemaker: Any
    arn: str
    bucket: str
    home: Path

    @property
    def name(self) -> str:
        return self.arn.rpartition("/")[2]

    def status(self, *wanted: str) -> dict[str, Any]:
        """The description once its status is one of these."""
        until = time.monotonic() + 120
        while True:
            told: dict[str, Any] = self.sagemaker.describe_mlflow_tracking_server(TrackingServerName=self.name)
            if told["TrackingServerStatus"] in wanted:
                return told
            assert told["TrackingServerStatus"].endswith("ing") and time.monotonic() < until, told
            time.sleep(0.1)

    def client(self, program: str, **more: str) -> Any:
        """How a program of MLflow's client ended. Nothing is said to it but where Bastide is."""
        environment = surroundings(self.account.platform, self.account.keys, self.home) | more
        environment |= {
            "SAGEMAKER_MLFLOW_CUSTOM_ENDPOINT": self.account.platform.url,
            "REQUESTS_CA_BUNDLE": self.account.platform.authority,
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        }
        return run("mlflow", PROGRAMS / program, self.arn, environment=environment)

    def api(self, method: str, path: str, body: Any = None, keys: Keys | None = None) -> tuple[int, Any, str]:
        """One request of MLflow's REST API, signed as the plugin signs it: status, answer, request id."""
        held, content = keys or self.account.keys, b"" if body is None else json.dumps(body).encode()
        url = self.account.platform.url + (path if path.startswith("/") else f"/api/2.0/mlflow/{path}")
        headers = {"x-mlflow-sm-tracking-server-arn": self.arn, "Content-Type": "application/json"}
        request = AWSRequest(method, url, headers, content)
        SigV4Auth(Credentials(held.access_key, held.secret, held.token), "sagemaker-mlflow", REGION).add_auth(request)
        with urllib3.PoolManager(ca_certs=self.account.platform.authority) as pool:
            got = pool.request(method, url, headers=dict(request.headers), body=content, retries=False)
        return got.status, json.loads(got.data), got.headers["x-amzn-requestid"]


def recorded(running: Running, request_id: str) -> dict[str, Any]:
    with sqlite3.connect(f"file:{running.data / 'bastide.db'}?mode=ro", uri=True) as db:
        text = "SELECT body FROM event WHERE request_id=?1 UNION ALL SELECT body FROM event_new WHERE request_id=?1"
        found: dict[str, Any] = json.loads(db.execute(text, (request_id,)).fetchone()[0])
    db.close()
    return found


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A platform that may be killed."""
    images.build("mlflow")
    found = Running(tmp_path_factory.mktemp("tracking") / "data")
    found.start()
    found.found()
    yield found
    found.stop()


@pytest.fixture(scope="module")
def tracking(running: Running, tmp_path_factory: pytest.TempPathFactory) -> Tracking:
    """A server and a run in it."""
    account = running.account()
    bucket = f"tracks-{account.id}"
    account.client("s3").create_bucket(Bucket=bucket)
    role = account.role("Server", allow("s3:ListBucket", "s3:GetObject"), trust={"Service": "sagemaker.amazonaws.com"})
    sagemaker = account.client("sagemaker")
    asked = {"TrackingServerName": "tracks", "ArtifactStoreUri": f"s3://{bucket}/mlflow", "RoleArn": role}
    for member, value in (("AutomaticModelRegistration", True), ("MlflowVersion", "2.13.2")):
        with pytest.raises(botocore.exceptions.ClientError, match=member):
            sagemaker.create_mlflow_tracking_server(**asked, **{member: value})
    tags = [{"Key": "team", "Value": "red"}]
    arn = sagemaker.create_mlflow_tracking_server(**asked, Tags=tags)["TrackingServerArn"]
    found = Tracking(account, sagemaker, arn, bucket, tmp_path_factory.mktemp("mlflow"))
    with pytest.raises(botocore.exceptions.ClientError, match="Creating"):
        sagemaker.stop_mlflow_tracking_server(TrackingServerName="tracks")
    assert found.api("POST", "runs/search", {})[1]["message"].startswith("The tracking server tracks is not active")
    assert found.status("Created")["IsActive"] == "Active"
    return found


@pytest.fixture(scope="module", autouse=True)
def day(tracking: Tracking) -> tuple[str, str]:
    """A day with MLflow's client: the run that it made, for all tests of a process, and where its artifacts are."""
    policy = allow("sagemaker-mlflow:*", resource=tracking.arn)
    policy["Statement"].append({"Effect": "Deny", "Action": "sagemaker-mlflow:LogMetric", "Resource": "*"})
    tracking.account.role("Reader", policy)
    reader = tracking.account.as_role("Reader")
    ended = tracking.client(
        "mlflow_day.py", READER_AWS_ACCESS_KEY_ID=reader.access_key, READER_AWS_SECRET_ACCESS_KEY=reader.secret,
        READER_AWS_SESSION_TOKEN=str(reader.token),
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    id, place = ended.stdout.split()[-2:]
    return id, place


def test_a_day_with_mlflows_client(tracking: Tracking, day: tuple[str, str]) -> None:
    id, place = day
    assert place == f"s3://{tracking.bucket}/mlflow/1/{id}/artifacts"
    note = tracking.account.client("s3").get_object(
        Bucket=tracking.bucket, Key=f"mlflow/1/{id}/artifacts/notes/first.txt"
    )
    assert note["Body"].read() == b"a note"


def test_policies_speak_of_actions_tags_and_the_server(tracking: Tracking) -> None:
    platform, account = tracking.account.platform, tracking.account
    account.role("Red", allow("sagemaker-mlflow:Create*", Condition={"StringEquals": {"aws:ResourceTag/team": "red"}}))
    red = account.as_role("Red")
    status, told, id = tracking.api("POST", "experiments/create", {"name": "red"}, red)
    assert status == 200, told
    entry = recorded(platform, id)
    assert (entry["eventName"], entry["eventSource"]) == ("CreateExperiment", "sagemaker-mlflow.amazonaws.com")
    assert entry["resources"][0]["ARN"] == tracking.arn and "red" not in json.dumps(entry["requestParameters"])
    status, _, id = tracking.api("POST", "runs/search", {"experiment_ids": ["1"]}, red)
    assert (status, recorded(platform, id)["errorCode"]) == (403, "AccessDeniedException")
    stranger = platform.account()
    stranger.role("Everything", allow("*"))
    for keys in (stranger.keys, stranger.as_role("Everything")):
        assert tracking.api("POST", "experiments/search", {"max_results": 5}, keys)[0] == 403


_MODEL = "m-0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/graphql"),
        ("GET", "/health"),
        ("GET", "/ajax-api/2.0/mlflow/experiments/get?experiment_id=1"),
        ("GET", "/api/2.0/mlflow-artifacts/artifacts"),
        ("GET", "/api/3.0/mlflow/gateway/secrets/list"),
        ("GET", "/api/3.0/mlflow/traces/get?trace_id=tr-0"),
        ("PATCH", f"/api/2.0/mlflow/logged-models/{_MODEL}%2Ftags"),
        ("DELETE", f"/api/2.0/mlflow/logged-models/{_MODEL}/tags/..%2F.."),
    ],
)
def test_what_no_action_is_for_does_not_reach_the_server(tracking: Tracking, method: str, path: str) -> None:
    status, told, _ = tracking.api(method, path)
    assert status == 404 and "No action of sagemaker-mlflow" in told["message"]


def test_artifacts_are_read_with_the_servers_role(tracking: Tracking) -> None:
    _, told, _ = tracking.api("POST", "runs/search", {"experiment_ids": ["1"]})
    (run_id,) = [one["info"]["run_id"] for one in told["runs"]]
    status, told, _ = tracking.api("GET", f"artifacts/list?run_id={run_id}")
    assert status == 200 and [one["path"] for one in told["files"]] == ["notes"]
    tracking.account.client("iam").delete_role_policy(RoleName="Server", PolicyName="inline")
    status, told, _ = tracking.api("GET", f"artifacts/list?run_id={run_id}")
    assert status == 403 and "is not authorized to perform: s3:ListBucket" in told["message"], told


def test_a_stopped_server_is_refused_and_what_it_held_survives_a_kill_and_a_restore(
    tracking: Tracking, running: Running, tmp_path: Path
) -> None:
    asked = {"TrackingServerName": tracking.name}
    # While it serves a backup reads through the volume that is open.
    directory = DataDirectory(running.data)
    [(_, kept)] = tracks.read(directory, directory.database, open_root(running.data), tmp_path / "none")
    with contextlib.closing(sqlite3.connect(":memory:")) as copy:
        copy.deserialize(kept)
        assert ("C", "0.5") in copy.execute("SELECT key, value FROM params").fetchall()
    tracking.sagemaker.stop_mlflow_tracking_server(**asked)
    assert tracking.status("Stopped")["IsActive"] == "Inactive"
    status, told, _ = tracking.api("POST", "experiments/search", {"max_results": 5})
    assert status == 400 and "StartMlflowTrackingServer" in told["message"]
    assert b"irises" not in b"".join(one.read_bytes() for one in running.data.glob("tracking/*/*") if one.is_file())
    (running.data / "tracking").rename(running.data / "away")  # as after a restore
    tracking.sagemaker.start_mlflow_tracking_server(**asked)
    assert tracking.status("StartFailed")["IsActive"] == "Inactive"
    shutil.rmtree(running.data / "tracking", ignore_errors=True)
    (running.data / "away").rename(running.data / "tracking")
    tracking.sagemaker.start_mlflow_tracking_server(**asked)
    running.kill()
    # What is left is backed up and brought back somewhere else, and goes on there.
    target, key = tmp_path / "b", running.data / "root.key"
    elsewhere = tmp_path / "machine" / "data"
    for words in (
        ("backup", "--data", running.data, target),
        ("restore", "--data", elsewhere, target, "--root-key", key),
    ):
        done = subprocess.run([*PROGRAM, *map(str, words)], check=False, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
    assert b"irises" not in b"".join(one.read_bytes() for one in elsewhere.glob("tracking/*/**/*") if one.is_file())
    running.data = elsewhere
    running.launch()
    tracking.sagemaker = tracking.account.client("sagemaker")
    tracking.status("Started")
    _, told, _ = tracking.api("POST", "runs/search", {"experiment_ids": ["1"]})
    (held,) = told["runs"]
    assert {one["key"]: one["value"] for one in held["data"]["params"]}["C"] == "0.5"
    listed = tracking.sagemaker.list_mlflow_tracking_servers(TrackingServerStatus="Started")["TrackingServerSummaries"]
    assert [one["TrackingServerArn"] for one in listed] == [tracking.arn]
    tracking.sagemaker.delete_mlflow_tracking_server(**asked)
    until = time.monotonic() + 60
    while tracking.sagemaker.list_mlflow_tracking_servers()["TrackingServerSummaries"] and time.monotonic() < until:
        time.sleep(0.1)
    assert not list(running.data.glob("tracking/*"))
    assert tracking.api("POST", "experiments/search", {})[0] == 404
