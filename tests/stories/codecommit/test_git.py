"""git clones, fetches and pushes as whom its credentials say, and nothing but what policies allow."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import Account, Keys, allow
from tests.stories.codecommit.remote import Remote

ARN = "arn:aws:codecommit:us-east-1:{}:code"


def code(call: Any, **given: Any) -> str:
    try:
        call(**given)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return ""


def records(account: Account, name: str) -> list[dict[str, Any]]:
    given = [{"AttributeKey": "EventName", "AttributeValue": name}]
    found = account.client("cloudtrail").lookup_events(LookupAttributes=given)["Events"]
    return [json.loads(one["CloudTrailEvent"]) for one in found]


@pytest.mark.control("EXP-20", "STG-01")
def test_a_clone_a_commit_a_push_and_a_pull_through_both_helpers(remote: Remote) -> None:
    client = remote.client
    remote.git("clone", "-q", remote.url, "one")
    first = remote.work("one", train_dot_py="print(1)\n", src__model_dot_py="x = 1\n")
    remote.git("push", "-q", "origin", "HEAD:main", at="one", helper="aws")
    assert client.get_branch(repositoryName="code", branchName="main")["branch"]["commitId"] == first
    assert client.get_repository(repositoryName="code")["repositoryMetadata"]["defaultBranch"] == "main"

    remote.git("clone", "-q", "codecommit::us-east-1://code", "two", helper="")
    assert remote.head("two") == first
    second = remote.work("two", train_dot_py="print(2)\n")
    remote.git("tag", "-a", "v1", "-m", "one", at="two")
    remote.git("push", "-q", "--follow-tags", at="two", helper="")
    remote.git("-c", "protocol.version=0", "pull", "-q", "origin", "main", at="one")
    assert remote.head("one") == second
    assert (remote.folder / "one" / "train.py").read_text() == "print(2)\n"
    commit = client.get_commit(repositoryName="code", commitId=second)["commit"]
    assert (commit["author"]["name"], commit["parents"]) == ("Ada", [first])
    assert client.get_file(repositoryName="code", commitSpecifier="v1", filePath="train.py")["commitId"] == second

    remote.git("push", "-q", "origin", "HEAD:refs/heads/later", at="one")
    remote.git("push", "-q", "origin", ":later", at="one")
    assert client.list_branches(repositoryName="code")["branches"] == ["main"]
    gone = remote.git("push", "origin", ":main", at="one", fine=False)
    assert gone.returncode and "default branch cannot be deleted" in gone.stderr

    pushed = records(remote.account, "GitPush")
    moved = next(one for one in pushed if "refs/heads/main" in (one["requestParameters"].get("references") or ()))
    assert moved["additionalEventData"]["protocol"] == "HTTP" and moved["additionalEventData"]["dataTransferred"]
    assert moved["resources"][0]["ARN"] == ARN.format(remote.account.id)
    assert any(one["additionalEventData"]["repositoryName"] == "code" for one in records(remote.account, "GitPull"))


@pytest.mark.control("EXP-20", "STG-01", "ACC-02")
def test_who_may_not_push_to_main_is_refused_there_and_nowhere_else(remote: Remote, neighbour: Account) -> None:
    """AWS's own sample policy: a Deny on codecommit:References, which are absent when git only asks what there is."""
    account = remote.account
    trust = {"AWS": f"arn:aws:iam::{neighbour.id}:root"}
    denied = {
        "Effect": "Deny", "Action": ["codecommit:GitPush", "codecommit:PutFile", "codecommit:DeleteBranch"],
        "Resource": "*",
        "Condition": {
            "StringEqualsIfExists": {"codecommit:References": ["refs/heads/main"]},
            "Null": {"codecommit:References": "false"},
        },
    }  # fmt: skip
    policy = allow("codecommit:Git*", "codecommit:PutFile", resource=ARN.format(account.id))
    policy["Statement"].append(denied)
    account.role("Scientist", policy, trust=trust)
    account.role("Reader", allow("codecommit:GitPull"), trust=trust)
    account.client("codecommit").create_repository(repositoryName="other")
    platform = account.platform
    scientist, reader = (
        platform.assume(f"arn:aws:iam::{account.id}:role/{name}", neighbour.keys) for name in ("Scientist", "Reader")
    )
    remote.git("clone", "-q", remote.url, "one", keys=reader)
    remote.work("one", a="1")
    remote.git("push", "-q", "origin", "HEAD:main", at="one")

    second = remote.work("one", a="2")
    for target in ("main", "work", "main work"):
        specs = [f"HEAD:refs/heads/{one}" for one in target.split()]
        told = remote.git("push", "origin", *specs, at="one", keys=reader, fine=False)
        assert "403" in told.stderr, target
    for specs in (["HEAD:main"], ["HEAD:refs/heads/work", "HEAD:main"], ["--force", "HEAD:main"]):
        told = remote.git("push", "origin", *specs, at="one", keys=scientist, fine=False)
        assert "403" in told.stderr, specs
    remote.git("push", "-q", "origin", "HEAD:refs/heads/work", at="one", keys=scientist)
    given = {"repositoryName": "code", "filePath": "b", "fileContent": b"b", "parentCommitId": second}
    client = account.client("codecommit", scientist)
    assert code(client.put_file, branchName="main", **given) == "AccessDeniedException"
    assert code(client.put_file, branchName="work", **given) == ""
    assert sorted(remote.client.list_branches(repositoryName="code")["branches"]) == ["main", "work"]
    assert remote.client.get_branch(repositoryName="code", branchName="main")["branch"]["commitId"] != second

    other = Remote(account, remote.folder, "other")
    assert "403" in other.git("clone", other.url, "no", keys=scientist, fine=False).stderr
    own = neighbour.client("codecommit")
    assert code(own.get_repository, repositoryName="code") == "RepositoryDoesNotExistException"
    assert "not found" in remote.git("clone", remote.url, "no", keys=neighbour.keys, fine=False).stderr
    wrong = [one for one in records(account, "GitPush") if one.get("errorCode") == "AccessDeniedException"]
    assert len(wrong) >= 5


def test_git_credentials_of_a_user(remote: Remote) -> None:
    iam = remote.account.client("iam")
    iam.create_user(UserName="Ann")
    iam.put_user_policy(UserName="Ann", PolicyName="p", PolicyDocument=json.dumps(allow("codecommit:Git*")))
    given = {"UserName": "Ann", "ServiceName": "codecommit.amazonaws.com"}
    made = iam.create_service_specific_credential(**given)["ServiceSpecificCredential"]
    assert made["ServiceUserName"] == f"Ann-at-{remote.account.id}"
    assert made["ServicePassword"] not in json.dumps(records(remote.account, "CreateServiceSpecificCredential"))
    second = iam.create_service_specific_credential(**given)["ServiceSpecificCredential"]
    assert second["ServiceUserName"] != made["ServiceUserName"]
    assert code(iam.create_service_specific_credential, **given) == "LimitExceeded"
    other = {"UserName": "Ann", "ServiceName": "cassandra.amazonaws.com"}
    assert code(iam.create_service_specific_credential, **other) == "NoSuchEntity", "as AWS was recorded"
    id = {"UserName": "Ann", "ServiceSpecificCredentialId": made["ServiceSpecificCredentialId"]}
    url = remote.with_password(made["ServiceUserName"], made["ServicePassword"])
    remote.git("clone", "-q", url, "one", helper="")
    remote.work("one", a="1")
    remote.git("push", "-q", "origin", "HEAD:main", at="one", helper="")
    record = next(one for one in records(remote.account, "GitPush") if one["userIdentity"].get("userName") == "Ann")
    assert record["userIdentity"]["accessKeyId"] == made["ServiceSpecificCredentialId"]

    iam.update_user(UserName="Ann", NewUserName="Anna")
    id["UserName"] = "Anna"
    remote.git("fetch", "-q", at="one", helper="")
    iam.update_service_specific_credential(**id, Status="Inactive")
    assert remote.git("fetch", at="one", helper="", fine=False).returncode
    iam.update_service_specific_credential(**id, Status="Active")
    reset = iam.reset_service_specific_credential(**id)["ServiceSpecificCredential"]
    assert remote.git("fetch", at="one", helper="", fine=False).returncode
    remote.git(
        "fetch", "-q", remote.with_password(made["ServiceUserName"], reset["ServicePassword"]), at="one", helper=""
    )
    listed = iam.list_service_specific_credentials(UserName="Anna")["ServiceSpecificCredentials"]
    assert [one["UserName"] for one in listed] == ["Anna", "Anna"]
    assert not any("Password" in key for one in listed for key in one)
    assert code(iam.delete_user, UserName="Anna") == "DeleteConflict"
    for one in (made, second):
        iam.delete_service_specific_credential(
            UserName="Anna", ServiceSpecificCredentialId=one["ServiceSpecificCredentialId"]
        )
    assert remote.git("fetch", at="one", helper="", fine=False).returncode


@pytest.mark.control("STG-01", lacking="that a pipeline starts is shown where pipelines are")
def test_a_push_tells_event_bridge_and_triggers(remote: Remote) -> None:
    account = remote.account
    events, sqs, sns = (account.client(name) for name in ("events", "sqs", "sns"))
    allow_all = {"Statement": [{"Effect": "Allow", "Principal": "*", "Action": "sqs:SendMessage", "Resource": "*"}]}
    queue = sqs.create_queue(
        QueueName="heard", Attributes={"Policy": json.dumps({"Version": "2012-10-17", **allow_all})}
    )
    arn = f"arn:aws:sqs:us-east-1:{account.id}:heard"
    pattern = {"source": ["aws.codecommit"], "detail-type": ["CodeCommit Repository State Change"]}
    events.put_rule(Name="pushes", EventPattern=json.dumps(pattern))
    events.put_targets(Rule="pushes", Targets=[{"Id": "q", "Arn": arn}])
    topic = sns.create_topic(Name="pushes")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes={"RawMessageDelivery": "true"})
    statement = {
        "Effect": "Allow", "Principal": {"Service": "codecommit.amazonaws.com"}, "Action": "sns:Publish", "Resource": topic,
        "Condition": {"ArnEquals": {"aws:SourceArn": ARN.format(account.id)}},
    }  # fmt: skip
    trigger = {
        "name": "t",
        "destinationArn": topic,
        "branches": ["main"],
        "events": ["updateReference"],
        "customData": "x",
    }
    test = remote.client.test_repository_triggers(repositoryName="code", triggers=[trigger])
    assert test["failedExecutions"][0]["trigger"] == "t" and not test["successfulExecutions"]
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    sns.set_topic_attributes(TopicArn=topic, AttributeName="Policy", AttributeValue=policy)
    assert code(
        remote.client.put_repository_triggers, repositoryName="code", triggers=[{**trigger, "destinationArn": arn}]
    ) == "InvalidRepositoryTriggerDestinationArnException"  # fmt: skip
    remote.client.put_repository_triggers(repositoryName="code", triggers=[trigger])
    assert remote.client.get_repository_triggers(repositoryName="code")["triggers"] == [trigger]

    remote.git("clone", "-q", remote.url, "one")
    first = remote.work("one", a="1")
    remote.git("push", "-q", "origin", "HEAD:main", "HEAD:refs/heads/work", at="one")
    second = remote.work("one", a="2")
    remote.git("push", "-q", "origin", "HEAD:main", at="one")
    heard: list[dict[str, Any]] = []
    while len(heard) < 4:
        for one in sqs.receive_message(QueueUrl=queue["QueueUrl"], WaitTimeSeconds=20).get("Messages", ()):
            heard.append(json.loads(one["Body"]))
            sqs.delete_message(QueueUrl=queue["QueueUrl"], ReceiptHandle=one["ReceiptHandle"])
    told = {(one["detail"]["event"], one["detail"]["referenceName"]): one["detail"] for one in heard if "detail" in one}
    assert set(told) == {("referenceCreated", "main"), ("referenceCreated", "work"), ("referenceUpdated", "main")}
    moved = told["referenceUpdated", "main"]
    assert (moved["oldCommitId"], moved["commitId"], moved["repositoryName"]) == (first, second, "code")
    record = next(one for one in heard if "Records" in one)["Records"][0]
    assert record["codecommit"]["references"] == [{"commit": second, "ref": "refs/heads/main"}]
    assert (record["eventTriggerName"], record["customData"]) == ("t", "x")
    assert record["eventSourceARN"] == ARN.format(account.id)


def test_a_key_of_ones_own_is_asked_at_every_fetch(remote: Remote) -> None:
    account = remote.account
    kms = account.client("kms")
    key = kms.create_key()["KeyMetadata"]["Arn"]
    other = Remote(account, remote.folder, "sealed")
    client = other.client
    assert client.create_repository(repositoryName="sealed", kmsKeyId=key)["repositoryMetadata"]["kmsKeyId"] == key
    other.git("clone", "-q", other.url, "one")
    other.work("one", a="a secret of sealed")
    other.git("push", "-q", "origin", "HEAD:main", at="one")
    account.role("Reader", allow("codecommit:*"))
    reader = account.as_role("Reader")
    assert code(account.client("codecommit", reader).get_file, repositoryName="sealed", filePath="a") == (
        "EncryptionKeyAccessDeniedException"
    )
    assert "403" in other.git("fetch", other.url, at="one", keys=reader, fine=False).stderr
    kms.disable_key(KeyId=key)
    assert code(client.get_file, repositoryName="sealed", filePath="a") == "EncryptionKeyDisabledException"
    assert "403" in other.git("fetch", other.url, at="one", fine=False).stderr
    kms.enable_key(KeyId=key)
    fresh = kms.create_key()["KeyMetadata"]["Arn"]
    moved = client.update_repository_encryption_key(repositoryName="sealed", kmsKeyId=fresh)
    assert (moved["kmsKeyId"], moved["originalKmsKeyId"]) == (fresh, key)
    kms.disable_key(KeyId=key)
    assert client.get_file(repositoryName="sealed", filePath="a")["fileContent"] == b"a secret of sealed"


def test_a_user_of_another_region_and_a_users_own_key(remote: Remote) -> None:
    iam = remote.account.client("iam")
    iam.create_user(UserName="bob")
    iam.put_user_policy(UserName="bob", PolicyName="p", PolicyDocument=json.dumps(allow("codecommit:*")))
    made = iam.create_access_key(UserName="bob")["AccessKey"]
    keys = Keys(made["AccessKeyId"], made["SecretAccessKey"])
    there = remote.with_password(*remote.signed(keys, region="eu-west-1"))
    remote.git("clone", "-q", remote.with_password(*remote.signed(keys)), "one", helper="")
    assert "not found" in remote.git("clone", there, "two", helper="", fine=False).stderr
    remote.account.client("codecommit", region="eu-west-1").create_repository(repositoryName="code")
    remote.git("clone", "-q", there, "two", helper="")
