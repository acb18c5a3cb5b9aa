"""The platform is killed at random moments while clients write; what was acknowledged is there, and recorded once."""

from __future__ import annotations

import hashlib
import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import botocore.exceptions
import botocore.parsers
import pytest

from tests.platform import Account, Running

ROUNDS = int(os.environ.get("BASTIDE_CRASH_ROUNDS", "3"))
AN_ACCOUNT = 40
"""Rounds in one account, before it has as many roles as an account may have."""
TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"Service": "s3.amazonaws.com"}, "Action": "sts:AssumeRole"}],
    }
)
Work = Callable[[int], dict[str, Any]]


@dataclass
class Acknowledged:
    """What was answered with success."""

    objects: dict[str, str] = field(default_factory=dict)
    roles: set[str] = field(default_factory=set)
    groups: set[str] = field(default_factory=set)
    calls: dict[str, str] = field(default_factory=dict)
    """Event name by request id, of management events."""


@dataclass
class Crew:
    """Clients of one account that work until the platform is gone."""

    account: Account
    bucket: str
    seen: Acknowledged
    tag: str
    stop: threading.Event = field(default_factory=threading.Event)
    killed: threading.Event = field(default_factory=threading.Event)
    faults: list[BaseException] = field(default_factory=list)

    def _client(self, service: str) -> Any:
        return self.account.client(service, retries={"total_max_attempts": 1}, read_timeout=20, connect_timeout=5)

    def small(self) -> Work:
        return self._putting("small", lambda: os.urandom(random.randrange(0, 600)))

    def large(self) -> Work:
        return self._putting("large", lambda: os.urandom(100 * 1024))

    def _putting(self, kind: str, made: Callable[[], bytes]) -> Work:
        s3 = self._client("s3")

        def work(number: int) -> dict[str, Any]:
            key, body = f"{self.tag}/{kind}/{threading.get_ident()}/{number}", made()
            answer: dict[str, Any] = s3.put_object(Bucket=self.bucket, Key=key, Body=body)
            self.seen.objects[key] = hashlib.sha256(body).hexdigest()
            return answer

        return work

    def roles(self) -> Work:
        iam = self._client("iam")

        def work(number: int) -> dict[str, Any]:
            name = f"r-{self.tag}-{number}"
            answer: dict[str, Any] = iam.create_role(RoleName=name, AssumeRolePolicyDocument=TRUST)
            self.seen.roles.add(name)
            self.seen.calls[answer["ResponseMetadata"]["RequestId"]] = "CreateRole"
            return answer

        return work

    def groups(self) -> Work:
        sagemaker = self._client("sagemaker")

        def work(number: int) -> dict[str, Any]:
            name = f"g-{self.tag}-{number}"
            answer: dict[str, Any] = sagemaker.create_model_package_group(ModelPackageGroupName=name)
            self.seen.groups.add(name)
            self.seen.calls[answer["ResponseMetadata"]["RequestId"]] = "CreateModelPackageGroup"
            return answer

        return work

    def reads(self) -> Work:
        iam = self._client("iam")

        def work(number: int) -> dict[str, Any]:
            answer: dict[str, Any] = iam.get_role(RoleName="OrganizationAccountAccessRole")
            self.seen.calls[answer["ResponseMetadata"]["RequestId"]] = "GetRole"
            return answer

        return work

    def run(self, make: Callable[[], Work]) -> None:
        try:
            work = make()
            for number in range(100_000):
                if self.stop.is_set():
                    return
                work(number)
        except (botocore.exceptions.HTTPClientError, botocore.exceptions.ConnectionError):
            return  # the platform is gone; what was not answered may be there or not
        except botocore.parsers.ResponseParserError as error:
            # A kill between the head and the body of an answer: the client takes what is missing for an empty body.
            if not self.killed.is_set():
                self.faults.append(error)
        except BaseException as error:
            self.faults.append(error)


@pytest.fixture
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("acknowledged") / "data")
    running.start()
    running.found()
    yield running
    running.stop()


def _killed_while_busy(account: Account, bucket: str, seen: Acknowledged, tag: str) -> None:
    crew = Crew(account, bucket, seen, tag)
    jobs = (crew.small, crew.large, crew.large, crew.roles, crew.groups, crew.reads)
    threads = [threading.Thread(target=crew.run, args=(job,)) for job in jobs]
    before = len(seen.objects) + len(seen.calls)
    for thread in threads:
        thread.start()
    until = time.monotonic() + 60
    while len(seen.objects) + len(seen.calls) < before + 40 and time.monotonic() < until:
        time.sleep(0.002)
    time.sleep(random.uniform(0, 1.0))
    crew.killed.set()
    account.platform.kill()
    crew.stop.set()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    if crew.faults:
        raise crew.faults[0]


def _recorded(account: Account) -> dict[str, list[str]]:
    """Event names by request id, from every page of the record."""
    found: dict[str, list[str]] = {}
    pages = account.client("cloudtrail").get_paginator("lookup_events").paginate(PaginationConfig={"PageSize": 50})
    for page in pages:
        for event in page["Events"]:
            record = json.loads(event["CloudTrailEvent"])
            found.setdefault(record["requestID"], []).append(event["EventName"])
    return found


def _holds(account: Account, bucket: str, seen: Acknowledged) -> None:
    s3, iam, sagemaker = (account.client(name) for name in ("s3", "iam", "sagemaker"))
    for key, digest in list(seen.objects.items()):
        body = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        assert hashlib.sha256(body).hexdigest() == digest, key
    listed = {
        one["Key"]
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        for one in page.get("Contents", ())
    }
    assert set(seen.objects) <= listed
    for key in listed - set(seen.objects):
        # Written and not acknowledged: whole, or not there.
        s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    roles = {one["RoleName"] for page in iam.get_paginator("list_roles").paginate() for one in page["Roles"]}
    assert seen.roles <= roles
    groups = {
        one["ModelPackageGroupName"]
        for page in sagemaker.get_paginator("list_model_package_groups").paginate()
        for one in page["ModelPackageGroupSummaryList"]
    }
    assert seen.groups <= groups
    recorded = _recorded(account)
    for request, name in seen.calls.items():
        assert recorded.get(request) == [name], (request, name, recorded.get(request))


# A client whose connection was cut in the middle of its handshake does not close it.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_was_acknowledged_outlives_the_platform(mortal: Running) -> None:
    for first in range(0, ROUNDS, AN_ACCOUNT):
        account = mortal.account()
        bucket = f"kept-{account.id}"
        account.client("s3").create_bucket(Bucket=bucket)
        seen = Acknowledged()
        for turn in range(first, min(ROUNDS, first + AN_ACCOUNT)):
            _killed_while_busy(account, bucket, seen, str(turn))
            mortal.launch()
            # Nothing writes now: whatever lies among the drafts was left behind.
            drafts = mortal.data / "objects" / "drafts"
            assert drafts.is_dir() and list(drafts.iterdir()) == []
        assert len(seen.objects) > 20 and len(seen.calls) > 40 and seen.roles and seen.groups
        assert "GetRole" in seen.calls.values()
        _holds(account, bucket, seen)
        print(f"{turn + 1} kills: {len(seen.objects)} objects and {len(seen.calls)} calls of this account are there")


def test_a_recorded_read_is_there_though_the_kill_came_at_once(mortal: Running) -> None:
    account = mortal.account()
    iam = account.client("iam")
    seen: list[str] = []
    for _ in range(2):
        for _ in range(random.randrange(1, 30)):
            seen.append(iam.list_roles()["ResponseMetadata"]["RequestId"])
        mortal.kill()
        mortal.launch()
        iam = account.client("iam")
    recorded = _recorded(account)
    assert [recorded.get(one) for one in seen] == [["ListRoles"]] * len(seen)
