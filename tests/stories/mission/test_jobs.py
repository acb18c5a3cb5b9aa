"""The mission's controls of jobs: what their roles may, which keys they use, what they cannot do without."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest

from tests.platform import Account, allow
from tests.stories.cloudtrail.test_trail import Records
from tests.stories.codecommit.remote import Remote
from tests.stories.ec2.conftest import make_vpc
from tests.stories.mission.test_data_and_keys import TRUST, refused
from tests.stories.sagemaker.conftest import IMAGE, Workshop
from tests.stories.sagemaker.serving import until
from tests.stories.sagemaker.test_guardrails import RESOURCES, role
from tests.stories.sagemaker.test_job_role import SCRIPT, Study, policy
from tests.stories.sagemaker.test_metrics import sums
from tests.stories.sagemaker.test_tuning import config, definition, trials, tune, tuned

LOCAL = "/opt/ml/processing"


def given(name: str, uri: str, **more: Any) -> dict[str, Any]:
    source = {"S3Uri": uri, "LocalPath": f"{LOCAL}/{name}", "S3DataType": "S3Prefix", "S3InputMode": "File", **more}
    return {"InputName": name, "S3Input": source}


def made(name: str, uri: str) -> dict[str, Any]:
    target = {"S3Uri": uri, "LocalPath": f"{LOCAL}/{name}", "S3UploadMode": "EndOfJob"}
    return {"OutputName": name, "S3Output": target}


def process(shop: Workshop, script: str, inputs: list[Any], outputs: list[Any], **more: Any) -> str:
    """Starts a processing job of a script; its name. key, output_key: of its volume and its outputs."""
    cluster = {**RESOURCES, **more.pop("cluster", {})}
    name = more.pop("ProcessingJobName", None) or shop.name("prepare")
    sealed = {"KmsKeyId": key} if (key := more.pop("output_key", "")) else {}
    shop.sagemaker.create_processing_job(**{
        "ProcessingJobName": name,
        "RoleArn": shop.role,
        "AppSpecification": {
            "ImageUri": IMAGE,
            "ContainerEntrypoint": ["python3", "-c", "import sys; exec(chr(10).join(sys.argv[1:]))"],
            "ContainerArguments": script.strip().splitlines(),
        },
        "ProcessingResources": {"ClusterConfig": cluster},
        "ProcessingInputs": inputs,
        "ProcessingOutputConfig": {"Outputs": outputs, **sealed},
        **more,
    })  # fmt: skip
    return name


def processed(shop: Workshop, name: str) -> dict[str, Any]:
    """The processing job when it is over."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        found: dict[str, Any] = shop.sagemaker.describe_processing_job(ProcessingJobName=name)
        if found["ProcessingJobStatus"] not in ("InProgress", "Stopping"):
            return found
        time.sleep(0.05)
    raise AssertionError(f"{name} does not end: {found}")


def content(shop: Workshop, prefix: str) -> dict[str, bytes]:
    listed = shop.s3.list_objects_v2(Bucket=shop.bucket, Prefix=prefix).get("Contents", ())
    return {
        one["Key"].removeprefix(prefix): shop.s3.get_object(Bucket=shop.bucket, Key=one["Key"])["Body"].read()
        for one in listed
    }


COPY = f"import shutil\nshutil.copytree('{LOCAL}/raw', '{LOCAL}/clean', dirs_exist_ok=True)"


@pytest.mark.control("SVR-03")
def test_a_processing_job_works_with_its_own_role(account: Account, neighbour: Account) -> None:
    s3, into, out = account.client("s3"), f"raw-{account.id}", f"clean-{account.id}"
    for bucket in (into, out):
        s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=into, Key="mortgage/a.csv", Body=b"1,2\n")
    may = allow("s3:GetObject", "s3:ListBucket", resource=[f"arn:aws:s3:::{into}", f"arn:aws:s3:::{into}/mortgage/*"])
    may["Statement"] += allow("s3:PutObject", resource=f"arn:aws:s3:::{out}/*")["Statement"]
    processing = account.role("Processing", may, trust=TRUST)
    account.role("Scientist", allow("sagemaker:*", "iam:PassRole"))
    resource = {"Type": "AWS::S3::Object", "Values": [f"arn:aws:s3:::{into}/"]}
    records = Records(
        account, [{"ReadWriteType": "All", "IncludeManagementEvents": False, "DataResources": [resource]}]
    )
    keys = account.as_role("Scientist")
    shop = Workshop(account, out, processing, account.client("sagemaker", keys), s3)
    assert refused(account.client("s3", keys).get_object, Bucket=into, Key="mortgage/a.csv") == "AccessDenied"

    def prepare(**more: Any) -> dict[str, Any]:
        raw = given("raw", f"s3://{into}/mortgage/")
        return processed(shop, process(shop, COPY, [raw], [made("clean", f"s3://{out}/made")], **more))

    job = prepare()
    assert job["ProcessingJobStatus"] == "Completed", job.get("FailureReason")
    assert content(shop, "made/") == {"a.csv": b"1,2\n"}

    def readers() -> set[str]:
        """Roles that read; the refusal from before may be delivered by itself."""
        read = [one for one in records.delivered() if one["eventName"] == "GetObject" and "errorCode" not in one]
        return {one["userIdentity"]["sessionContext"]["sessionIssuer"]["arn"] for one in read}

    assert until(readers) == {processing}
    closed = allow("s3:PutObject", resource=f"arn:aws:s3:::{out}/*")
    account.client("iam").put_role_policy(RoleName="Processing", PolicyName="inline", PolicyDocument=json.dumps(closed))
    job = prepare()
    assert job["ProcessingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("ClientError: Data download failed: AccessDenied")
    foreign = neighbour.role("Processing", allow("s3:*"), trust=TRUST)
    assert refused(prepare, RoleArn=foreign) == "AccessDeniedException"


@pytest.mark.control("PRM-06")
def test_the_notebook_role_starts_jobs_and_passes_the_job_role_to_sagemaker_only(study: Study) -> None:
    shop, account = study.shop, study.account
    target = f"s3://{study.output}/models"

    def start(role: str) -> tuple[str, str, str]:
        trained = study.train(RoleArn=role)
        prepared = process(shop, "print(1)", [], [], RoleArn=role)
        defined = definition(shop, RoleArn=role, OutputDataConfig={"S3OutputPath": target})
        return trained, prepared, tune(shop, config(most=1, parallel=1), defined)

    trained, prepared, searched = start(shop.role)
    assert shop.trained(trained)["TrainingJobStatus"] == "Completed"
    assert processed(shop, prepared)["ProcessingJobStatus"] == "Completed"
    done = tuned(shop, searched)
    assert done["HyperParameterTuningJobStatus"] == "Completed", done.get("FailureReason")

    other = account.role("Richer", allow("s3:*"), trust=TRUST)
    defined = definition(shop, RoleArn=other, OutputDataConfig={"S3OutputPath": target})
    for call in (
        lambda: study.train(RoleArn=other),
        lambda: process(shop, "print(1)", [], [], RoleArn=other),
        lambda: tune(shop, config(most=1), defined),
    ):
        with pytest.raises(botocore.exceptions.ClientError, match="iam:PassRole") as error:
            call()
        assert error.value.response["Error"]["Code"] == "AccessDeniedException"
    # To another service it is not passed, whatever else the notebook may do there.
    more = json.dumps(allow("iam:AddRoleToInstanceProfile", "events:*"))
    account.client("iam").put_role_policy(RoleName="Notebook", PolicyName="more", PolicyDocument=more)
    account.client("iam").create_instance_profile(InstanceProfileName="p")
    keys = account.as_role("Notebook")
    with pytest.raises(botocore.exceptions.ClientError, match="iam:PassRole") as error:
        account.client("iam", keys).add_role_to_instance_profile(InstanceProfileName="p", RoleName="TrainingJob")
    assert error.value.response["Error"]["Code"] == "AccessDenied"


@pytest.mark.control("PRM-12")
def test_a_jobs_logs_metrics_and_interface_are_its_roles(study: Study) -> None:
    account, shop = study.account, study.shop
    vpc = make_vpc(account)
    vpc.ec2.create_vpc_endpoint(
        VpcId=vpc.id, ServiceName="com.amazonaws.us-east-1.s3", RouteTableIds=[vpc.main_table()]
    )
    inside = {"VpcConfig": {"Subnets": [vpc.subnet], "SecurityGroupIds": [vpc.group]}}
    target = {"OutputDataConfig": {"S3OutputPath": f"s3://{study.output}/models"}}
    logs, group = account.client("logs"), "/aws/sagemaker/TrainingJobs"

    def streams(name: str) -> list[str]:
        found = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{name}/")["logStreams"]
        return [one["logStreamName"] for one in found]

    name = shop.train("import time\nprint('acc=0.5', flush=True)\ntime.sleep(5)", **inside, **target)
    seen: list[dict[str, Any]] = []
    while shop.sagemaker.describe_training_job(TrainingJobName=name)["TrainingJobStatus"] == "InProgress":
        seen += vpc.ec2.describe_network_interfaces()["NetworkInterfaces"]
    job = shop.trained(name)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert {(one["SubnetId"], one["Groups"][0]["GroupId"]) for one in seen} == {(vpc.subnet, vpc.group)}
    assert vpc.ec2.describe_network_interfaces()["NetworkInterfaces"] == []
    [stream] = streams(name)
    told = logs.get_log_events(logGroupName=group, logStreamName=stream)["events"]
    assert "acc=0.5" in [one["message"] for one in told]
    assert sums(account.client("cloudwatch"), group, "acc", {"TrainingJobName": name}) == {"SampleCount": 1}

    iam = account.client("iam")
    [whole] = iam.list_role_policies(RoleName="TrainingJob")["PolicyNames"]
    document = iam.get_role_policy(RoleName="TrainingJob", PolicyName=whole)["PolicyDocument"]

    def without(service: str) -> None:
        kept = []
        for one in document["Statement"]:
            actions = [action for action in one["Action"] if not action.startswith(service)]
            kept += [{**one, "Action": actions}] if actions else []
        changed = json.dumps({**document, "Statement": kept})
        iam.put_role_policy(RoleName="TrainingJob", PolicyName=whole, PolicyDocument=changed)

    without("ec2:")
    with pytest.raises(
        botocore.exceptions.ClientError, match=r"not authorized to perform: ec2:DescribeSubnets"
    ) as error:
        shop.train("print(1)", **inside, **target)
    assert error.value.response["Error"]["Code"] == "ValidationException"
    without("logs:")
    name = shop.train("print('acc=0.5')", **target)
    assert shop.trained(name)["TrainingJobStatus"] == "Completed"
    assert streams(name) == []


@pytest.mark.control("PRM-13")
@pytest.mark.control("ENC-03", lacking="AutoML")
def test_jobs_work_and_store_under_the_roles_key_and_not_without_it(study: Study) -> None:
    account, shop, key = study.account, study.shop, study.key
    kms = account.client("kms")
    shop.sagemaker = account.client("sagemaker")
    path = f"s3://{study.output}/models"

    def train(output: str, volume: str = "", **more: Any) -> str:
        resources = {**RESOURCES, "VolumeKmsKeyId": volume or output}
        target = {"S3OutputPath": path, "KmsKeyId": output}
        return shop.train(SCRIPT, OutputDataConfig=target, ResourceConfig=resources, **more)

    def prepare(output: str) -> str:
        raw = given("raw", f"s3://{shop.bucket}/data/")
        cluster = {"VolumeKmsKeyId": output}
        return process(shop, COPY, [raw], [made("clean", f"{path}/made")], cluster=cluster, output_key=output)

    name, prepared = train(key), prepare(key)
    job, other = shop.trained(name), processed(shop, prepared)
    assert job["TrainingJobStatus"] == other["ProcessingJobStatus"] == "Completed", (job, other)
    assert (job["ResourceConfig"]["VolumeKmsKeyId"], job["OutputDataConfig"]["KmsKeyId"]) == (key, key)
    assert other["ProcessingResources"]["ClusterConfig"]["VolumeKmsKeyId"] == key
    assert other["ProcessingOutputConfig"]["KmsKeyId"] == key
    results = [f"models/{name}/output/model.tar.gz", "models/made/part/a.csv"]
    for one in results:
        head = shop.s3.head_object(Bucket=study.output, Key=one)
        assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", key)
    # Each data key was made for the job, by its role.
    wanted = [{"AttributeKey": "EventName", "AttributeValue": "GenerateDataKey"}]
    pages = account.client("cloudtrail").get_paginator("lookup_events").paginate(LookupAttributes=wanted)
    events = [json.loads(one["CloudTrailEvent"]) for page in pages for one in page["Events"]]
    mine = [one for one in events if ":assumed-role/TrainingJob/" in one["userIdentity"].get("arn", "")]
    about = [one["requestParameters"].get("encryptionContext") or {} for one in mine]
    assert {f"arn:aws:s3:::{study.output}/{one}" for one in results} <= {one.get("aws:s3:arn") for one in about}

    foreign = kms.create_key()["KeyMetadata"]["Arn"]  # which the role's policy does not name
    failed = [shop.trained(train(*keys)) for keys in ((foreign, key), (key, foreign))]
    assert all(one["TrainingJobStatus"] == "Failed" for one in failed)
    assert failed[0]["FailureReason"].startswith("ClientError: Artifact upload failed: AccessDenied")
    assert failed[1]["FailureReason"].startswith("ClientError: The volume's key cannot be used: AccessDenied")
    for change, code in (
        (lambda: kms.disable_key(KeyId=key), "DisabledException"),
        (lambda: kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7), "KMSInvalidStateException"),
    ):
        change()
        for ended in (shop.trained(train_(train, shop, key)), processed(shop, prepare(key))):
            assert code in ended["FailureReason"] and "Completed" not in ended.values(), ended
        for one in results:
            with pytest.raises(botocore.exceptions.ClientError, match=r"DisabledException|InvalidState"):
                shop.s3.get_object(Bucket=study.output, Key=one)


def train_(train: Callable[..., str], shop: Workshop, key: str) -> str:
    """A job whose code lies in a bucket that needs no key: it is the volume's and the output's that count."""
    algorithm = {"TrainingImage": IMAGE, "TrainingInputMode": "File", "ContainerEntrypoint": ["true"]}
    shop.s3.put_bucket_encryption(
        Bucket=shop.bucket,
        ServerSideEncryptionConfiguration={
            "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
        },
    )
    return train(key, AlgorithmSpecification=algorithm)


@pytest.mark.control("GRD-05")
@pytest.mark.control("GRD-06")
@pytest.mark.control("GRD-08")
def test_tuning_jobs_are_held_to_the_guardrails_of_jobs(workshop: Workshop, mission: Path) -> None:
    admin, free = workshop.sagemaker, allow("sagemaker:*", "iam:PassRole")
    key = workshop.account.client("kms").create_key()["KeyMetadata"]["Arn"]
    resources = definition(workshop)["HyperParameterTuningResourceConfig"]
    output = {"S3OutputPath": f"s3://{workshop.bucket}/out", "KmsKeyId": key}
    cases: tuple[tuple[str, list[dict[str, Any]], dict[str, Any]], ...] = (
        (
            "22-guardrail-job-volume-encryption",
            [{}, {"OutputDataConfig": output}],
            {"HyperParameterTuningResourceConfig": {**resources, "VolumeKmsKeyId": key}},
        ),
        (
            "23-guardrail-inter-container-encryption",
            [{}, {"EnableInterContainerTrafficEncryption": False}],
            {"EnableInterContainerTrafficEncryption": True},
        ),
        (
            "25-guardrail-network-isolation",
            [{}, {"EnableNetworkIsolation": False}],
            {"EnableNetworkIsolation": True},
        ),
    )
    started = []
    for document, offends, complies in cases:
        guardrail = policy(mission, f"{document}.json")
        workshop.sagemaker = role(workshop.account, f"Bound-{document[:2]}", free=free, guardrail=guardrail)
        for one in offends:
            with pytest.raises(botocore.exceptions.ClientError, match="explicit deny") as error:
                tune(workshop, config(most=1), definition(workshop, **one))
            assert error.value.response["Error"]["Code"] == "AccessDeniedException"
        started.append(tune(workshop, config(most=1, parallel=1), definition(workshop, **complies)))
    workshop.sagemaker = admin
    shown = []
    for name in started:
        assert tuned(workshop, name)["HyperParameterTuningJobStatus"] in ("Completed", "Failed")
        [trial] = trials(workshop, name)
        shown.append(admin.describe_training_job(TrainingJobName=trial["TrainingJobName"]))
    assert [one["TrainingJobStatus"] for one in shown[:2]] == ["Completed", "Completed"]
    assert shown[0]["ResourceConfig"]["VolumeKmsKeyId"] == key
    assert shown[1]["EnableInterContainerTrafficEncryption"] and shown[2]["EnableNetworkIsolation"]


SPLIT = f"""
rows = [line for line in open('{LOCAL}/raw/a.csv')]
for name, part in (('train', rows[:70]), ('validation', rows[70:90]), ('test', rows[90:])):
    open(f'{LOCAL}/{{name}}/{{name}}.csv', 'w').writelines(part)
"""
FITS = """
rows = [tuple(map(float, line.split(','))) for line in open('/opt/ml/input/data/train/train.csv')]
x, y = (sum(part) / len(rows) for part in zip(*rows))
slope = sum((a - x) * (b - y) for a, b in rows) / sum((a - x) ** 2 for a, _ in rows)
open('/opt/ml/model/model.txt', 'w').write(f'{slope} {y - slope * x}')
print(f'acc={slope:.3f}')
"""


@pytest.mark.control("PIP-05")
def test_raw_data_becomes_data_sets_and_a_model(workshop: Workshop) -> None:
    base = f"s3://{workshop.bucket}/run"
    rows = b"".join(b"%d,%d\n" % (number, 3 * number + 1) for number in range(100))

    def run(raw: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The two steps as a program takes them: the second needs the first's results."""
        outputs = [made(part, f"{base}/{part}") for part in ("train", "validation", "test")]
        job = processed(workshop, process(workshop, SPLIT, [given("raw", raw)], outputs))
        if job["ProcessingJobStatus"] != "Completed":
            return job, []
        source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"{base}/train/"}}
        trained = workshop.train(FITS, InputDataConfig=[{"ChannelName": "train", "DataSource": source}])
        return job, [workshop.trained(trained)]

    job, trained = run(f"{base}/raw/")
    assert job["ProcessingJobStatus"] == "Failed" and trained == []
    assert "no objects found" in job["FailureReason"]
    assert workshop.sagemaker.list_training_jobs()["TrainingJobSummaries"] == []
    workshop.s3.put_object(Bucket=workshop.bucket, Key="run/raw/a.csv", Body=rows)
    job, [done] = run(f"{base}/raw/")
    assert done["TrainingJobStatus"] == "Completed", done.get("FailureReason")
    parts = {
        part: content(workshop, f"run/{part}/")[f"{part}.csv"].splitlines() for part in ("train", "validation", "test")
    }
    assert sorted(line for part in parts.values() for line in part) == sorted(rows.splitlines())
    assert {part: len(lines) for part, lines in parts.items()} == {"train": 70, "validation": 20, "test": 10}
    assert done["FinalMetricDataList"][0]["Value"] == 3
    packed = content(workshop, f"out/{done['TrainingJobName']}/output/")["model.tar.gz"]
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        assert tar.getnames() == ["model.txt"]


COUNTS = f"""
import json, os
host = json.load(open('/opt/ml/config/resourceconfig.json'))['current_host']
open(f'{LOCAL}/clean/{{host}}', 'w').write(','.join(sorted(os.listdir('{LOCAL}/raw'))))
os.makedirs('/opt/ml/output', exist_ok=True)
open('/opt/ml/output/message', 'w').write('all counted')
"""


@pytest.mark.control("EXP-10")
def test_processing_shards_fails_and_stops_as_it_is_told(workshop: Workshop) -> None:
    for name in "abcd":
        workshop.s3.put_object(Bucket=workshop.bucket, Key=f"raw/{name}", Body=b"x")
    shards = given("raw", f"s3://{workshop.bucket}/raw/", S3DataDistributionType="ShardedByS3Key")
    target = made("clean", f"s3://{workshop.bucket}/counted")
    both = process(workshop, COUNTS, [shards], [target], cluster={"InstanceCount": 2})
    wrong = process(workshop, "print('before')\nraise SystemExit('no such column')", [], [])
    endless = process(workshop, "import time\ntime.sleep(100)", [], [])
    with pytest.raises(botocore.exceptions.ClientError) as error:
        process(workshop, "print(1)", [], [], ProcessingJobName=both)
    assert error.value.response["Error"]["Code"] == "ResourceInUse"
    missing = {"ProcessingJobName": "nobody"}
    assert refused(workshop.sagemaker.describe_processing_job, **missing) in ("ResourceNotFound", "ValidationException")
    workshop.sagemaker.stop_processing_job(ProcessingJobName=endless)
    job = processed(workshop, both)
    assert job["ProcessingJobStatus"] == "Completed", job.get("FailureReason")
    assert content(workshop, "counted/") == {"algo-1": b"a,c", "algo-2": b"b,d"}
    assert job["ExitMessage"] == "all counted"
    assert job["CreationTime"] <= job["ProcessingStartTime"] <= job["ProcessingEndTime"]
    job = processed(workshop, wrong)
    assert job["ProcessingJobStatus"] == "Failed"
    assert "no such column" in job["FailureReason"] and "exit code: 1" in job["FailureReason"]
    assert processed(workshop, endless)["ProcessingJobStatus"] == "Stopped"
    listed = workshop.sagemaker.list_processing_jobs(StatusEquals="Stopped")["ProcessingJobSummaries"]
    assert [one["ProcessingJobName"] for one in listed] == [endless]


@pytest.mark.control("LIN-02")
def test_the_commit_that_a_model_tells_gives_the_code_it_was_trained_with(workshop: Workshop, tmp_path: Path) -> None:
    remote, client = Remote(workshop.account, tmp_path), workshop.sagemaker
    repositories = remote.client
    repositories.create_repository(repositoryName=remote.name)

    def archived(at: str, commit: str) -> bytes:
        remote.git("checkout", "-q", commit, at=at)
        remote.git("archive", "-o", f"{tmp_path}/{at}.tar", "HEAD", at=at)
        return gzip.compress((tmp_path / f"{at}.tar").read_bytes(), mtime=0)

    def digest(packed: bytes) -> str:
        told = json.dumps([["code.tar.gz", f"sha256:{hashlib.sha256(packed).hexdigest()}"]], separators=(",", ":"))
        return f"sha256:{hashlib.sha256(told.encode()).hexdigest()}"

    remote.git("clone", "-q", remote.url, "own")
    commits = [remote.work("own", train_dot_py=f"open('/opt/ml/model/m', 'w').write('{number}')") for number in (1, 2)]
    remote.git("push", "-q", "origin", "HEAD:main", at="own")
    jobs = []
    for commit in commits:
        workshop.s3.put_object(Bucket=workshop.bucket, Key=f"{commit}/code.tar.gz", Body=archived("own", commit))
        words = {
            "sagemaker_program": "train.py",
            "sagemaker_submit_directory": f"s3://{workshop.bucket}/{commit}/code.tar.gz",
        }
        jobs.append(workshop.train("", HyperParameters=words, Tags=[{"Key": "commit", "Value": commit}]))
    found = []
    for job in [workshop.trained(name) for name in jobs]:
        assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
        [component] = client.list_trial_components(SourceArn=job["TrainingJobArn"])["TrialComponentSummaries"]
        arn = component["TrialComponentArn"]
        [one] = client.list_associations(DestinationArn=arn, SourceType="Code")["AssociationSummaries"]
        code = client.describe_artifact(ArtifactArn=one["SourceArn"])
        ids = {kind["SourceIdType"]: kind["Value"] for kind in code["Source"]["SourceTypes"]}
        found.append((code["MetadataProperties"]["CommitId"], ids["Custom"]))
    assert [commit for commit, _ in found] == commits
    # Whoever has the model has the commit, and whoever has the commit has the code, out of the platform's repository.
    remote.git("clone", "-q", remote.url, "theirs")
    assert [told for _, told in found] == [digest(archived("theirs", commit)) for commit in commits]
    assert found[0][1] != found[1][1]
    assert repositories.get_commit(repositoryName="code", commitId=commits[1])["commit"]["parents"] == [commits[0]]
    held = repositories.get_file(repositoryName="code", commitSpecifier=commits[0], filePath="train.py")
    assert held["fileContent"] == b"open('/opt/ml/model/m', 'w').write('1')"
    both = {"beforeCommitSpecifier": commits[0], "afterCommitSpecifier": commits[1]}
    [difference] = repositories.get_differences(repositoryName="code", **both)["differences"]
    assert difference["afterBlob"]["path"] == "train.py"
    missing = {"repositoryName": "code", "commitId": "0" * 40}
    assert refused(repositories.get_commit, **missing) == "CommitIdDoesNotExistException"
    assert remote.git("checkout", "0" * 40, at="theirs", fine=False).returncode
    # What was released stays: who pushes may not push over it.
    denied = {
        "Effect": "Deny", "Action": "codecommit:GitPush", "Resource": "*",
        "Condition": {
            "StringEqualsIfExists": {"codecommit:References": ["refs/heads/main"]},
            "Null": {"codecommit:References": "false"},
        },
    }  # fmt: skip
    pushes = allow("codecommit:GitPull", "codecommit:GitPush")
    pushes["Statement"].append(denied)
    workshop.account.role("Scientist", pushes)
    scientist = workshop.account.as_role("Scientist")
    remote.git("checkout", "-q", commits[0], at="own")
    told = remote.git("push", "--force", "origin", "HEAD:main", at="own", keys=scientist, fine=False)
    assert "403" in told.stderr
    assert repositories.get_branch(repositoryName="code", branchName="main")["branch"]["commitId"] == commits[1]
