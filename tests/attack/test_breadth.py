"""Requests that ask for little and cost much, and ranges that say much in other words."""

from __future__ import annotations

import json

import pytest
from botocore.exceptions import ClientError

from bastide.services.s3.public import is_public
from tests.platform import Account, allow


def _policy(*sources: str) -> str:
    statement = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": "s3:GetObject",
        "Resource": "arn:aws:s3:::b/*",
        "Condition": {"IpAddress": {"aws:SourceIp": list(sources)}},
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


@pytest.mark.parametrize(
    "source",
    [
        "0.0.0.0/0",
        "0.0.0.0/0.0.0.0",
        "1.2.3.4/0",
        "64.0.0.0/2",
        "128.0.0.0/7",
        "::/0",
        "0::0/0",
        "2000::/3",
        "2001::/31",
    ],
)
def test_the_whole_net_is_everybody_however_it_is_written(source: str) -> None:
    """S3 User Guide, "The meaning of 'public'": wider than /8 for IPv4 and /32 for IPv6. The block rests on it."""
    assert is_public(_policy(source))
    assert is_public(_policy("192.0.2.0/24", source))


@pytest.mark.parametrize("source", ["10.0.0.0/8", "192.0.2.0/24", "192.0.2.1", "2001:db8::/32", "10.0.0.0/255.0.0.0"])
def test_a_place_is_not_everybody(source: str) -> None:
    assert not is_public(_policy(source))


def test_many_actions_on_many_resources_are_not_listed_for_one_page(account: Account) -> None:
    """19,000 fields of one form are ninety million pairs: as a list, gigabytes and half a minute of everybody's time."""
    role = account.role("somebody", allow("s3:*"))
    iam = account.client("iam")
    began = account.platform.processor_seconds()
    answer = iam.simulate_principal_policy(
        PolicySourceArn=role,
        ActionNames=[f"s3:A{number}" for number in range(9500)],
        ResourceArns=[f"arn:aws:s3:::b{number}" for number in range(9500)],
        MaxItems=3,
    )
    assert account.platform.processor_seconds() - began < 5
    assert [(one["EvalActionName"], one["EvalResourceName"]) for one in answer["EvaluationResults"]] == [
        ("s3:A0", "arn:aws:s3:::b0"),
        ("s3:A0", "arn:aws:s3:::b1"),
        ("s3:A0", "arn:aws:s3:::b2"),
    ]
    assert answer["IsTruncated"]


def test_an_account_has_few_trails(account: Account) -> None:
    """Every trail reads every event: thousands of one account would keep everybody's record from being delivered."""
    bucket = f"trail-{account.id}"
    account.client("s3").create_bucket(Bucket=bucket)
    trails = account.client("cloudtrail")
    for number in range(5):
        trails.create_trail(Name=f"trail-{number}", S3BucketName=bucket)
    with pytest.raises(ClientError, match="MaximumNumberOfTrailsExceeded"):
        trails.create_trail(Name="trail-5", S3BucketName=bucket)
    with pytest.raises(ClientError, match=r"MaximumNumberOfTrailsExceeded|AlreadyExists"):
        trails.create_trail(Name="trail-1", S3BucketName=bucket)
    trails.delete_trail(Name="trail-4")
    trails.create_trail(Name="trail-5", S3BucketName=bucket)
