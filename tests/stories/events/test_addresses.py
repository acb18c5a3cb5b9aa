"""Rules call addresses elsewhere with what a connection keeps, and with a role that may; archives give events again."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.listening import Heard, listening
from tests.moved import until
from tests.platform import Account, Running, allow, lies_in, on_disk
from tests.stories.events.test_events import EVENTS, arrived, send, watched
from tests.stories.events.test_targets import lets, rule
from tests.stories.sns.test_topics import arrived as received
from tests.stories.sqs.test_queues import made

BASIC = {"BasicAuthParameters": {"Username": "u", "Password": "a-password-of-mine"}}


@pytest.fixture
def heard(platform: Running) -> Iterator[Heard]:
    with listening(platform.data / "tls") as one:
        yield one


def destination(account: Account, url: str, kind: str, parameters: dict[str, Any], **more: Any) -> str:
    events = account.client("events")
    connection = events.create_connection(Name="c", AuthorizationType=kind, AuthParameters=parameters, **more)
    assert connection["ConnectionState"] == "AUTHORIZED"
    given = {"ConnectionArn": connection["ConnectionArn"], "InvocationEndpoint": url, "HttpMethod": "POST"}
    arn: str = events.create_api_destination(Name="d", **given)["ApiDestinationArn"]
    return arn


def test_an_address_is_called_as_the_connection_says(account: Account, heard: Heard) -> None:
    events, sqs = account.client("events"), account.client("sqs")
    fixed = {
        "HeaderParameters": [{"Key": "x-own", "Value": "hidden", "IsValueSecret": True}],
        "QueryStringParameters": [{"Key": "q", "Value": "1"}], "BodyParameters": [{"Key": "more", "Value": "yes"}],
    }  # fmt: skip
    arn = destination(account, f"{heard.url}/*", "BASIC", {**BASIC, "InvocationHttpParameters": fixed})
    dead, role = made(sqs), account.role("Caller", allow("events:InvokeApiDestination", resource=arn), trust=EVENTS)
    source = rule(account, "r")
    target = {
        "Id": "a", "Arn": arn, "RoleArn": role, "InputPath": "$.detail",
        "DeadLetterConfig": {"Arn": lets(account, dead, source)},
        "HttpParameters": {"PathParameterValues": ["$.detail.item"], "HeaderParameters": {"x-item": "$.detail.item"}},
    }  # fmt: skip
    with pytest.raises(ClientError, match="RoleArn is required"):
        events.put_targets(Rule="r", Targets=[{"Id": "a", "Arn": arn}])
    events.put_targets(Rule="r", Targets=[target])
    answers = iter([503, 200])
    heard.answer = lambda: next(answers)
    send(account, {"item": "a chair"})
    until(lambda: len(heard.posts) == 2)
    head, body = heard.posts[1]
    assert heard.paths[1] == "/told/a%20chair?q=1" and json.loads(body) == {"item": "a chair", "more": "yes"}
    assert (head["authorization"], head["x-own"], head["x-item"]) == (
        "Basic dTphLXBhc3N3b3JkLW9mLW1pbmU=", "hidden", "a chair",
    )  # fmt: skip
    told = events.describe_connection(Name="c")
    assert told["AuthParameters"]["BasicAuthParameters"] == {"Username": "u"} and "hidden" not in str(told)
    assert not [one for one in on_disk(account.platform.data) if lies_in(one, b"a-password-of-mine")]
    heard.answer = lambda: 404
    send(account, {"item": "table"})
    [letter] = received(account, dead)
    assert "404" in letter["MessageAttributes"]["ERROR_MESSAGE"]["StringValue"]
    # A role that may not call it, and a connection that is gone.
    account.client("iam").put_role_policy(
        RoleName="Caller", PolicyName="inline", PolicyDocument=json.dumps(allow("events:PutEvents"))
    )
    send(account, {"item": "x"})
    [letter] = received(account, dead)
    assert letter["MessageAttributes"]["ERROR_CODE"]["StringValue"] == "NO_PERMISSIONS" and len(heard.posts) == 3


def test_a_token_is_fetched_and_kept(account: Account, heard: Heard, platform: Running) -> None:
    with listening(platform.data / "tls") as issuer:
        issuer.body = b'{"access_token": "t0ken", "expires_in": 3600}'
        oauth = {
            "ClientParameters": {"ClientID": "me", "ClientSecret": "secret"}, "AuthorizationEndpoint": issuer.url,
            "HttpMethod": "POST", "OAuthHttpParameters": {"BodyParameters": [{"Key": "scope", "Value": "all"}]},
        }  # fmt: skip
        key = account.client("kms").create_key()["KeyMetadata"]["Arn"]
        parameters = {"OAuthParameters": oauth}
        with pytest.raises(ClientError, match="key policy must let"):
            destination(account, heard.url, "OAUTH_CLIENT_CREDENTIALS", parameters, KmsKeyIdentifier=key)
        owner = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{account.id}:root"}, "Action": "kms:*"}
        service = {"Effect": "Allow", "Principal": EVENTS, "Action": ["kms:GenerateDataKey", "kms:Decrypt"]}
        policy = {"Version": "2012-10-17", "Statement": [{**one, "Resource": "*"} for one in (owner, service)]}
        account.client("kms").put_key_policy(KeyId=key, Policy=json.dumps(policy))
        arn = destination(account, heard.url, "OAUTH_CLIENT_CREDENTIALS", parameters, KmsKeyIdentifier=key)
        role = account.role("Caller", allow("events:InvokeApiDestination"), trust=EVENTS)
        rule(account, "r", {"Id": "a", "Arn": arn, "RoleArn": role})
        for _ in range(2):
            send(account, {})
        until(lambda: len(heard.posts) == 2)
        assert {head["authorization"] for head, _ in heard.posts} == {"Bearer t0ken"} and len(issuer.posts) == 1
        assert b"client_secret=secret" in issuer.posts[0][1] and b"scope=all" in issuer.posts[0][1]


def test_what_is_no_address_or_connection_is_refused(account: Account) -> None:
    events = account.client("events")
    both = {**BASIC, "ApiKeyAuthParameters": {"ApiKeyName": "a", "ApiKeyValue": "b"}}
    for kind, given in (("API_KEY", BASIC), ("BASIC", {}), ("BASIC", both)):
        with pytest.raises(ClientError, match="ValidationException"):
            events.create_connection(Name="c", AuthorizationType=kind, AuthParameters=given)
    arn = events.create_connection(Name="c", AuthorizationType="BASIC", AuthParameters=BASIC)["ConnectionArn"]
    for url in ("http://127.0.0.1/", "https://u:p@example.com/"):
        with pytest.raises(ClientError, match="ValidationException"):
            events.create_api_destination(Name="d", ConnectionArn=arn, InvocationEndpoint=url, HttpMethod="GET")
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        events.create_api_destination(
            Name="d", ConnectionArn=f"{arn[:-1]}x", InvocationEndpoint="https://example.com/", HttpMethod="GET"
        )
    assert [one["Name"] for one in events.list_connections()["Connections"]] == ["c"]
    assert events.deauthorize_connection(Name="c")["ConnectionState"] == "DEAUTHORIZED"
    events.delete_connection(Name="c")
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        events.describe_connection(Name="c")


def test_what_was_archived_comes_again(account: Account) -> None:
    events = account.client("events")
    bus = events.describe_event_bus(Name="default")["Arn"]
    pattern = json.dumps({"source": ["shop"], "detail": {"n": [{"numeric": ["<", 3]}]}})
    archive = events.create_archive(ArchiveName="a", EventSourceArn=bus, EventPattern=pattern, RetentionDays=1)[
        "ArchiveArn"
    ]
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=1)
    for n in range(5):
        send(account, {"n": n})
    until(lambda: events.describe_archive(ArchiveName="a")["EventCount"] == 3)
    watched(account, "late", {"source": ["shop"]})
    watched(account, "other", {"source": ["shop"]})
    only = events.describe_rule(Name="late")["Arn"]
    given = {
        "EventSourceArn": archive, "EventStartTime": start, "EventEndTime": start + datetime.timedelta(minutes=5),
    }  # fmt: skip
    with pytest.raises(ClientError, match="Event bus defaultx does not exist"):
        events.start_replay(ReplayName="bad", Destination={"Arn": f"{bus}x"}, **given)
    events.start_replay(ReplayName="again", Destination={"Arn": bus, "FilterArns": [only]}, **given)
    until(lambda: len(arrived(account, "late")) == 3)
    assert sorted(one["detail"]["n"] for one in arrived(account, "late")) == [0, 1, 2]
    assert {one["replay-name"] for one in arrived(account, "late")} == {"again"} and arrived(account, "other") == []
    told = events.describe_replay(ReplayName="again")
    assert told["State"] == "COMPLETED" and told["EventLastReplayedTime"] >= start
    with pytest.raises(ClientError, match="IllegalStatusException"):
        events.cancel_replay(ReplayName="again")
    # What was replayed is not archived again.
    assert events.list_archives()["Archives"][0]["EventCount"] == 3
    assert [one["ReplayName"] for one in events.list_replays()["Replays"]] == ["again"]
    events.delete_archive(ArchiveName="a")
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        events.describe_archive(ArchiveName="a")
