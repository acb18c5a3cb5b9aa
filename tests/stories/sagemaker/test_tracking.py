"""MLflow tracking servers, through SageMaker's API and MLflow's own client with the plugin."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest

from bastide.engines import images
from tests.clients.program import run, surroundings
from tests.platform import Account, Keys, Running, allow

PROGRAMS = Path(__file__).parents[1] / "clients" / "programs"
TRUST = {"Service": "sagemaker.amazonaws.com"}


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

    def client(self, program: str, *words: str, keys: Keys | None = None) -> Any:
        """How a program of MLflow's client ended. Nothing is said to it but where Bastide is."""
        environment = surroundings(self.account.platform, keys or self.account.keys, self.home)
        environment |= {
            "SAGEMAKER_MLFLOW_CUSTOM_ENDPOINT": self.account.platform.url,
            "REQUESTS_CA_BUNDLE": self.account.platform.authority,
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        }
        return run("mlflow", PROGRAMS / program, self.arn, *words, environment=environment)

    def api(self, operation: str, keys: Keys | None = None, **body: Any) -> tuple[int, dict[str, Any]]:
        """Status and answer of one request of MLflow's REST API, signed as the plugin signs."""
        client = self.account.client("sagemaker-mlflow", keys)
        try:
            got = getattr(client, operation)(
                TrackingServerArn=self.arn, ContentType="application/json", Body=json.dumps(body).encode()
            )
        except botocore.exceptions.ClientError as error:
            return error.response["ResponseMetadata"]["HTTPStatusCode"], error.response["Error"]
        return got["Status"], json.loads(got["Body"].read())


def made(account: Account, home: Path, name: str = "tracks", **more: Any) -> Tracking:
    bucket = f"tracks-{account.id}"
    account.client("s3").create_bucket(Bucket=bucket)
    role = account.role("Server", allow("s3:ListBucket", "s3:GetObject"), trust=TRUST)
    sagemaker = account.client("sagemaker")
    arn = sagemaker.create_mlflow_tracking_server(
        TrackingServerName=name, ArtifactStoreUri=f"s3://{bucket}/mlflow", RoleArn=role, **more
    )["TrackingServerArn"]
    return Tracking(account, sagemaker, arn, bucket, home)


@pytest.fixture(scope="module")
def tracking(platform: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracking]:
    images.build("mlflow")
    found = made(platform.account(), tmp_path_factory.mktemp("mlflow"), Tags=[{"Key": "team", "Value": "red"}])
    found.status("Created")
    yield found
    found.sagemaker.delete_mlflow_tracking_server(TrackingServerName=found.name)


def test_a_run_through_mlflows_client(tracking: Tracking) -> None:
    ended = tracking.client("mlflow_day.py")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    id, place = ended.stdout.split()[-2:]
    assert place == f"s3://{tracking.bucket}/mlflow/1/{id}/artifacts"
    print(ended.stdout, ended.stderr)
