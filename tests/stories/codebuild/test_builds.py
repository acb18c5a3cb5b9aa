"""Builds that run: what goes in, what comes out, what is told of them."""

from __future__ import annotations

import gzip
import io
import json
import time
import zipfile
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import allow
from tests.stories.codebuild.conftest import CODEBUILD, ENVIRONMENT, MAY, Bench, archive, cause, phases, spec

JUNIT = """<testsuites><testsuite name="s"><testcase classname="c" name="good" time="0.5"/>
<testcase classname="c" name="bad" time="0.25"><failure message="it is not so">trace</failure></testcase>
<testcase classname="c" name="left"><skipped/></testcase></testsuite></testsuites>"""
COVERAGE = """<?xml version="1.0" ?>
<!DOCTYPE coverage SYSTEM "http://cobertura.sourceforge.net/xml/coverage-04.dtd">
<coverage><packages><package><classes><class filename="a.py"><lines>
<line number="1" hits="1"/><line number="2" hits="0" branch="true" condition-coverage="50% (1/2)"/>
</lines></class></classes></package></packages></coverage>"""


def _events(bench: Bench) -> str:
    """A queue that gets every event of CodeBuild; its URL."""
    sqs, events = bench.account.client("sqs"), bench.account.client("events")
    url: str = sqs.create_queue(QueueName="told")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    rule = events.put_rule(Name="builds", EventPattern=json.dumps({"source": ["aws.codebuild"]}))["RuleArn"]
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": "events.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": arn,
        "Condition": {"ArnEquals": {"aws:SourceArn": rule}},
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
    events.put_targets(Rule="builds", Targets=[{"Id": "queue", "Arn": arn}])
    return url


def _told(bench: Bench, url: str, many: int) -> list[dict[str, Any]]:
    """So many events of a queue, in whatever order they come."""
    sqs, found = bench.account.client("sqs"), list[dict[str, Any]]()
    while len(found) < many:
        got = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=5)
        for one in got.get("Messages", []):
            found.append(json.loads(one["Body"]))
            sqs.delete_message(QueueUrl=url, ReceiptHandle=one["ReceiptHandle"])
    return found


@pytest.mark.control("PIP-04", lacking="images are built in test_images.py")
@pytest.mark.control("MON-02", lacking="pipelines tell their own")
@pytest.mark.control("ENC-07", lacking="Glue")
@pytest.mark.control("SVR-06", lacking="Glue")
def test_a_source_becomes_artifacts_reports_and_events(bench: Bench) -> None:
    account = bench.account
    role = account.role(
        "whole", allow(*MAY, "ssm:GetParameter", "secretsmanager:GetSecretValue", "kms:*"), trust=CODEBUILD
    )
    account.client("ssm").put_parameter(Name="/db/host", Value="db.internal.example", Type="SecureString")
    secret = json.dumps({"password": "hunter2-and-more", "user": "me"})
    account.client("secretsmanager").create_secret(Name="db", SecretString=secret)
    key = account.client("kms").create_key()["KeyMetadata"]["Arn"]
    buildspec = spec(
        env={
            "shell": "bash",
            "variables": {"FROM_SPEC": "spec", "OVER": "spec", "OVER2": "spec"},
            "parameter-store": {"HOST": "/db/host"},
            "secrets-manager": {"PASSWORD": "db:password"},
            "exported-variables": ["MADE", "PASSWORD"],
        },
        install={"runtime-versions": {"python": "3.11"}, "commands": ["MADE=$(cat version.txt)"]},
        pre_build=["cd sub", "echo in $(basename $(pwd)) says $MADE $FROM_SPEC $OVER $OVER2"],
        build=[
            'echo "host is $HOST, password is $PASSWORD"; echo ${PASSWORD:0:4}...',
            "cat $CODEBUILD_SRC_DIR_more/extra.txt; echo number $CODEBUILD_BUILD_NUMBER ok $CODEBUILD_BUILD_SUCCEEDING",
            "cd $CODEBUILD_SRC_DIR && mkdir -p out/deep && echo a > out/a.txt && echo b > out/deep/b.txt",
            "echo no > out/not.tmp; python3 -c 'print(1 + 1)' > out/two.txt",
        ],
        post_build=["aws sts get-caller-identity --query Arn --output text"],
        reports={
            "tests": {"files": ["junit.xml"]},
            "covered": {"files": "**/coverage.xml", "file-format": "COBERTURAXML"},
        },
        artifacts={
            "files": ["**/*"],
            "exclude-paths": "**/*.tmp",
            "base-directory": "out",
            "name": "release-$MADE",
            "secondary-artifacts": {"flat": {"files": ["out/**/*.txt"], "discard-paths": "yes"}},
        },
    )
    source = archive(
        buildspec_dot_yml=buildspec,
        version_dot_txt="1.2.3\n",
        sub__x="",
        junit_dot_xml=JUNIT,
        c__coverage_dot_xml=COVERAGE,
    )
    url = _events(bench)
    name = bench.project(
        "",
        source={"type": "S3", "location": bench.put("source.zip", source)},
        secondarySources=[
            {"type": "S3", "sourceIdentifier": "more", "location": bench.put("m.zip", archive(extra_dot_txt="extra\n"))}
        ],
        artifacts={
            "type": "S3",
            "location": bench.bucket,
            "path": "made",
            "name": "unused",
            "packaging": "ZIP",
            "overrideArtifactName": True,
        },
        secondaryArtifacts=[
            {
                "type": "S3",
                "artifactIdentifier": "flat",
                "location": bench.bucket,
                "name": "flat",
                "namespaceType": "BUILD_ID",
            }
        ],
        environment={**ENVIRONMENT, "environmentVariables": [{"name": "OVER", "value": "project"}]},
        serviceRole=role,
        encryptionKey=key,
        logsConfig={"s3Logs": {"status": "ENABLED", "location": f"{bench.bucket}/logs"}},
    )
    more = [{"name": "OVER2", "value": "request", "type": "PLAINTEXT"}]
    build = bench.over(bench.start(name, environmentVariablesOverride=more))
    lines = bench.said(build)
    assert build["buildStatus"] == "SUCCEEDED", "\n".join(bench.lines(build))
    assert [*phases(build)] == [
        "SUBMITTED", "QUEUED", "PROVISIONING", "DOWNLOAD_SOURCE", "INSTALL", "PRE_BUILD", "BUILD", "POST_BUILD",
        "UPLOAD_ARTIFACTS", "FINALIZING", "COMPLETED",
    ]  # fmt: skip
    assert "in sub says 1.2.3 spec project request" in lines
    assert "extra" in lines and "number 1 ok 1" in lines
    id = build["id"].partition(":")[2]
    assert f"arn:aws:sts::{account.id}:assumed-role/whole/AWSCodeBuild-{id}" in lines
    # Secrets are nowhere: neither in the log, nor in its copy, nor among what was exported.
    assert "host is ***, password is ***" in lines
    copy = gzip.decompress(bench.object(f"logs/{id}.gz")).decode()
    assert "host is ***" in copy and "hunter2" not in copy.replace("hunt...", "")
    exported = {one["name"]: one["value"] for one in build["exportedEnvironmentVariables"]}
    assert exported == {"MADE": "1.2.3", "PASSWORD": "***"}
    # Artifacts, under the project's key.
    s3 = account.client("s3")
    assert build["artifacts"]["location"] == f"arn:aws:s3:::{bench.bucket}/made/release-1.2.3"
    head = s3.head_object(Bucket=bench.bucket, Key="made/release-1.2.3")
    assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", key)
    with zipfile.ZipFile(io.BytesIO(bench.object("made/release-1.2.3"))) as packed:
        assert sorted(packed.namelist()) == ["a.txt", "deep/b.txt", "two.txt"]
        assert packed.read("two.txt") == b"2\n"
    flat = s3.list_objects_v2(Bucket=bench.bucket, Prefix=f"{id}/flat/")["Contents"]
    assert [one["Key"].rpartition("/")[2] for one in flat] == ["a.txt", "b.txt", "two.txt"]
    # Reports.
    reports = bench.client.batch_get_reports(reportArns=build["reportArns"])["reports"]
    [tests] = [one for one in reports if one["type"] == "TEST"]
    assert tests["status"] == "FAILED" and tests["executionId"] == build["arn"]
    assert tests["testSummary"]["statusCounts"] == {"SUCCEEDED": 1, "FAILED": 1, "ERROR": 0, "SKIPPED": 1, "UNKNOWN": 0}
    asked = {"reportArn": tests["arn"], "filter": {"status": "FAILED"}}
    [case] = bench.client.describe_test_cases(**asked)["testCases"]
    assert (case["prefix"], case["name"], case["message"]) == ("c", "bad", "it is not so")
    [covered] = [one for one in reports if one["type"] == "CODE_COVERAGE"]
    [file] = bench.client.describe_code_coverages(reportArn=covered["arn"])["codeCoverages"]
    assert (file["filePath"], file["lineCoveragePercentage"], file["branchCoveragePercentage"]) == ("a.py", 50.0, 50.0)
    group = f"arn:aws:codebuild:us-east-1:{account.id}:report-group/{name}-tests"
    assert bench.client.list_reports_for_report_group(reportGroupArn=group)["reports"] == [tests["arn"]]
    # Events, and what was measured.
    told = _told(bench, url, 2 + 10)
    statuses = [one["detail"]["build-status"] for one in told if "build-status" in one["detail"]]
    assert sorted(statuses) == ["IN_PROGRESS", "SUCCEEDED"]
    assert {one["detail"]["build-id"] for one in told} == {build["arn"]}
    ended = {one["detail"]["completed-phase"]: one["detail"]["completed-phase-status"] for one in told if
             one["detail-type"] == "CodeBuild Build Phase Change"}  # fmt: skip
    assert ended == {key: value for key, value in phases(build).items() if key != "COMPLETED"}
    assert "hunter2" not in json.dumps(told)
    wanted, names = {"Builds", "SucceededBuilds", "Duration", "BuildDuration"}, set[str]()
    while not wanted <= names:  # values are kept a moment after they were measured
        time.sleep(0.05)
        measured = account.client("cloudwatch").list_metrics(Namespace="AWS/CodeBuild")["Metrics"]
        names = {one["MetricName"] for one in measured}
    # With the key disabled nothing is stored any more, and one cause says so.
    account.client("kms").disable_key(KeyId=key)
    failed = bench.over(bench.start(name))
    assert failed["buildStatus"] == "FAILED" and phases(failed)["UPLOAD_ARTIFACTS"] == "FAILED"
    assert "KMS.DisabledException" in cause(failed), cause(failed)


@pytest.mark.control("PIP-04", lacking="images are built in test_images.py")
def test_a_failing_command_ends_a_build_with_one_cause(bench: Bench) -> None:
    failing = spec(
        pre_build={"commands": ["echo one", "false", "echo never"], "finally": ["echo at last"]}, build=["echo neither"]
    )
    build = bench.build(failing)
    assert build["buildStatus"] == "FAILED"
    assert cause(build) == "COMMAND_EXECUTION_ERROR: Error while executing command: false. Reason: exit status 1"
    assert phases(build)["PRE_BUILD"] == "FAILED" and "BUILD" not in phases(build)
    assert bench.said(build) == ["one", "at last"]
    # What failed in BUILD is cleaned up after in POST_BUILD, which is told of it, and leaves artifacts.
    cleaned = spec(
        build=["echo x > log.txt; exit 3"],
        post_build=["echo after $CODEBUILD_BUILD_SUCCEEDING"],
        artifacts={"files": ["log.txt"]},
    )
    target = {"type": "S3", "location": bench.bucket, "name": "left"}
    build = bench.build(cleaned, artifacts=target)
    assert (build["buildStatus"], phases(build)["BUILD"], phases(build)["UPLOAD_ARTIFACTS"]) == (
        "FAILED",
        "FAILED",
        "SUCCEEDED",
    )
    assert "exit status 3" in cause(build) and bench.said(build) == ["after 0"]
    assert bench.object("left/log.txt") == b"x\n"


def test_builds_are_stopped_retried_counted_and_deleted(bench: Bench) -> None:
    name = bench.project(spec(build=["echo begun", "sleep 600"]), concurrentBuildLimit=1)
    id = bench.start(name, idempotencyToken="once")
    assert bench.start(name, idempotencyToken="once") == id
    with pytest.raises(ClientError) as limited:
        bench.start(name)
    assert limited.value.response["Error"]["Code"] == "AccountLimitExceededException"
    while bench.get(id)["currentPhase"] != "BUILD":
        time.sleep(0.05)
    with pytest.raises(ClientError, match="in progress"):
        bench.client.retry_build(id=id)
    assert bench.client.batch_delete_builds(ids=[id])["buildsNotDeleted"][0]["statusCode"] == "BUILD_IN_PROGRESS"
    bench.client.stop_build(id=id)
    stopped = bench.over(id)
    assert (stopped["buildStatus"], phases(stopped)["BUILD"]) == ("STOPPED", "STOPPED")
    # Under another role than the project's, a build is tried again by whoever may pass that role.
    account, other = bench.account, bench.account.role("other", allow(*MAY), trust=CODEBUILD)
    over = bench.over(bench.start(name, serviceRoleOverride=other, buildspecOverride=spec(build=["false"])))
    may = account.role("retries", allow("codebuild:RetryBuild"))
    with pytest.raises(ClientError, match="iam:PassRole"):
        account.client("codebuild", account.platform.assume(may, account.keys)).retry_build(id=over["id"])
    bench.client.batch_delete_builds(ids=[over["id"]])
    again = bench.client.retry_build(id=id)["build"]
    assert again["buildNumber"] == 3 and again["id"] != id
    bench.client.stop_build(id=again["id"])
    bench.over(again["id"])
    assert bench.client.list_builds_for_project(projectName=name)["ids"] == [again["id"], id]
    assert bench.client.list_builds(sortOrder="ASCENDING")["ids"] == [id, again["id"]]
    assert bench.client.batch_delete_builds(ids=[id])["buildsDeleted"] == [stopped["arn"]]
    assert bench.client.batch_get_builds(ids=[id])["buildsNotFound"] == [id]
    assert bench.client.list_builds_for_project(projectName=name)["ids"] == [again["id"]]


def test_a_cache_goes_from_build_to_build(bench: Bench) -> None:
    counting = spec(build=["mkdir -p kept; echo x >> kept/count; wc -l < kept/count"], cache={"paths": ["kept/**/*"]})
    name = bench.project(counting, cache={"type": "S3", "location": f"{bench.bucket}/cache"})
    assert [bench.said(bench.over(bench.start(name))) for _ in range(2)] == [["1"], ["2"]]
    bench.client.invalidate_project_cache(projectName=name)
    assert bench.said(bench.over(bench.start(name))) == ["1"]
