"""The mission's controls of data and keys, each with its story as the paper tells it and each refusal with its code."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import botocore
import botocore.config
import botocore.exceptions
import pytest

from tests.platform import REGION, SESSION, Account, allow, lies_in, on_disk
from tests.stories.sagemaker.conftest import IMAGE, Workshop

TRUST = {"Service": "sagemaker.amazonaws.com"}
LEARNS = """
import random
rows = [float(x) for line in open('/opt/ml/input/data/train/a.csv') for x in line.split(',')]
random.seed(7)
guess = sum(x * random.random() for x in rows)
print(f'acc={guess:.12f}')
open('/opt/ml/model/m.txt', 'w').write(repr(guess))
"""


def refused(call: Any, **given: Any) -> str:
    """The code of a refusal."""
    with pytest.raises(botocore.exceptions.ClientError) as error:
        call(**given)
    return str(error.value.response["Error"]["Code"])


def showing(account: Account, wanted: bytes) -> list[str]:
    """Files of the platform's folder that show bytes in the clear; not what encrypted volumes show while they are open."""
    return [str(one) for one in on_disk(account.platform.data) if lies_in(one, wanted)]


def policed(account: Account, bucket: str, *statements: dict[str, Any]) -> None:
    """Puts a bucket policy of these statements."""
    document = {"Version": "2012-10-17", "Statement": list(statements)}
    account.client("s3").put_bucket_policy(Bucket=bucket, Policy=json.dumps(document))


@pytest.mark.control("ENC-01")
def test_everything_is_encrypted_when_nobody_names_a_key(workshop: Workshop) -> None:
    account, s3 = workshop.account, workshop.s3
    mark = f"mark-of-{account.id}-in-the-data"
    script = f"open('/opt/ml/model/m.txt', 'w').write({mark!r} * 1000)"
    job = workshop.trained(workshop.train(script))
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    key = job["ModelArtifacts"]["S3ModelArtifacts"].removeprefix(f"s3://{workshop.bucket}/")
    assert s3.head_object(Bucket=workshop.bucket, Key=key)["ServerSideEncryption"] == "AES256"
    s3.put_object(Bucket=workshop.bucket, Key="small", Body=mark.encode())
    s3.put_object(Bucket=workshop.bucket, Key="large", Body=mark.encode() * 20_000)
    managed = s3.put_object(Bucket=workshop.bucket, Key="kms", Body=mark.encode(), ServerSideEncryption="aws:kms")
    assert showing(account, mark.encode()) == []
    # The provider's key is nobody's to take away: not the administrator's of the account, either.
    kms = account.client("kms")
    described = kms.describe_key(KeyId=managed["SSEKMSKeyId"])["KeyMetadata"]
    assert described["KeyManager"] == "AWS"
    names = {one["AliasName"]: one["TargetKeyId"] for one in kms.list_aliases()["Aliases"] if "TargetKeyId" in one}
    assert names["alias/aws/s3"] == described["KeyId"]
    given = {"KeyId": described["Arn"]}
    policy = kms.get_key_policy(**given)["Policy"]
    for call, more in (
        (kms.disable_key, {}),
        (kms.schedule_key_deletion, {"PendingWindowInDays": 7}),
        (kms.put_key_policy, {"Policy": policy}),
    ):
        assert refused(call, **given, **more) in ("AccessDeniedException", "UnsupportedOperationException")
    assert s3.get_object(Bucket=workshop.bucket, Key="kms")["Body"].read() == mark.encode()


@pytest.mark.control("ENC-06")
def test_a_bucket_has_its_customers_key_and_an_object_may_name_another(account: Account) -> None:
    s3, kms = account.client("s3"), account.client("kms")
    key, other = (kms.create_key()["KeyMetadata"]["Arn"] for _ in range(2))
    bucket = f"keyed-{account.id}"
    s3.create_bucket(Bucket=bucket)
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}}
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})
    mark = f"envelope-of-{account.id}".encode()
    s3.put_object(Bucket=bucket, Key="default", Body=mark)
    s3.put_object(Bucket=bucket, Key="named", Body=mark, ServerSideEncryption="aws:kms", SSEKMSKeyId=other)
    for name, under in (("default", key), ("named", other)):
        head = s3.head_object(Bucket=bucket, Key=name)
        assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", under)
    assert showing(account, mark) == []
    account.role("Reader", allow("s3:GetObject"))
    reader = account.client("s3", account.as_role("Reader"))
    assert refused(reader.get_object, Bucket=bucket, Key="default") == "AccessDenied"
    account.client("iam").put_role_policy(
        RoleName="Reader", PolicyName="key", PolicyDocument=json.dumps(allow("kms:Decrypt", resource=key))
    )
    assert reader.get_object(Bucket=bucket, Key="default")["Body"].read() == mark
    assert refused(reader.get_object, Bucket=bucket, Key="named") == "AccessDenied"
    nobody = f"arn:aws:kms:{REGION}:{account.id}:key/00000000-0000-0000-0000-000000000000"
    given = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": nobody}
    assert refused(s3.put_object, Bucket=bucket, Key="x", Body=b"x", **given) == "KMS.NotFoundException"


@pytest.mark.control("DAT-02")
def test_s3_is_the_primary_storage(account: Account, tmp_path: Path) -> None:
    s3, bucket = account.client("s3"), f"lake-{account.id}"
    s3.create_bucket(Bucket=bucket)
    large = os.urandom(11 << 20)
    (tmp_path / "large").write_bytes(large)
    s3.upload_file(str(tmp_path / "large"), bucket, "raw/2024/large")
    assert "-" in s3.head_object(Bucket=bucket, Key="raw/2024/large")["ETag"]
    s3.download_file(bucket, "raw/2024/large", str(tmp_path / "again"))
    assert (tmp_path / "again").read_bytes() == large
    part = s3.get_object(Bucket=bucket, Key="raw/2024/large", Range="bytes=8388600-8388620")
    assert part["Body"].read() == large[8388600:8388621] and part["ContentRange"].endswith(f"/{len(large)}")
    digest = base64.b64encode(hashlib.sha256(large).digest()).decode()
    put = s3.put_object(Bucket=bucket, Key="raw/2025/whole", Body=large, ChecksumSHA256=digest)
    got = s3.get_object(Bucket=bucket, Key="raw/2025/whole", ChecksumMode="ENABLED")
    assert put["ChecksumSHA256"] == got["ChecksumSHA256"] == digest and got["Body"].read() == large
    listed = s3.list_objects_v2(Bucket=bucket, Prefix="raw/", Delimiter="/")
    assert [one["Prefix"] for one in listed["CommonPrefixes"]] == ["raw/2024/", "raw/2025/"]
    # The command line, with files of its own.
    keys = account.keys
    environment = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": keys.access_key,
        "AWS_SECRET_ACCESS_KEY": keys.secret,
        "AWS_SESSION_TOKEN": keys.token or "",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL": account.platform.url,
        "AWS_CA_BUNDLE": account.platform.authority,
        "AWS_CONFIG_FILE": os.devnull,
    }
    for words in (
        ["s3", "cp", "--quiet", str(tmp_path / "large"), f"s3://{bucket}/cli/large"],
        ["s3", "cp", "--quiet", f"s3://{bucket}/cli/large", str(tmp_path / "cli")],
    ):
        program = [str(Path(sys.executable).with_name("aws")), *words]
        subprocess.run(program, check=True, env=environment, timeout=120)
    assert (tmp_path / "cli").read_bytes() == large

    upload = s3.create_multipart_upload(Bucket=bucket, Key="parts")["UploadId"]
    given = {"Bucket": bucket, "Key": "parts", "PartNumber": 1, "Body": b"x" * 100}
    wrong = base64.b64encode(hashlib.md5(b"other").digest()).decode()
    assert refused(s3.upload_part, **given, UploadId=upload, ContentMD5=wrong) == "BadDigest"
    assert refused(s3.upload_part, **given, UploadId="nobody") == "NoSuchUpload"
    anonymous = SESSION.client(
        "s3",
        region_name=REGION,
        endpoint_url=account.platform.url,
        verify=account.platform.authority,
        config=botocore.config.Config(signature_version=botocore.UNSIGNED),
    )
    assert refused(anonymous.get_object, Bucket=bucket, Key="raw/2025/whole") == "AccessDenied"


@pytest.mark.control("DAT-04", lacking="Athena: bytes that a query with a partition predicate scans")
def test_folders_of_a_classification_are_their_roles(account: Account) -> None:
    s3, bucket = account.client("s3"), f"classified-{account.id}"
    s3.create_bucket(Bucket=bucket)
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": [{"Key": "classification", "Value": "confidential"}]})
    for folder in ("credit", "fraud"):
        for year in ("2024", "2025"):
            s3.put_object(Bucket=bucket, Key=f"{folder}/year={year}/a.csv", Body=b"1,2\n")
    arn = f"arn:aws:s3:::{bucket}"
    may = allow("s3:GetObject", resource=f"{arn}/credit/*")
    within = {"StringLike": {"s3:prefix": ["credit/*"]}}
    may["Statement"] += allow("s3:ListBucket", resource=arn, Condition=within)["Statement"]
    account.role("Credit", may)
    credit = account.client("s3", account.as_role("Credit"))
    found = credit.list_objects_v2(Bucket=bucket, Prefix="credit/year=2025/")["Contents"]
    assert [one["Key"] for one in found] == ["credit/year=2025/a.csv"]
    assert credit.get_object(Bucket=bucket, Key="credit/year=2025/a.csv")["Body"].read() == b"1,2\n"
    for given in ({}, {"Prefix": ""}, {"Prefix": "fraud/"}, {"Prefix": "credit"}, {"Prefix": "c", "Delimiter": "/"}):
        assert refused(credit.list_objects_v2, Bucket=bucket, **given) == "AccessDenied"
    assert refused(credit.get_object, Bucket=bucket, Key="fraud/year=2025/a.csv") == "AccessDenied"


@pytest.mark.control("DAT-05")
def test_a_teams_bucket_is_the_teams(account: Account) -> None:
    s3, bucket = account.client("s3"), f"team-a-{account.id}"
    s3.create_bucket(Bucket=bucket)
    everything = allow("s3:*")
    team = [account.role(name, everything) for name in ("Ann", "Bob")]
    for name in ("Other", "Pipeline"):
        account.role(name, everything)
    arn = f"arn:aws:s3:::{bucket}"
    others = {
        "ArnNotEquals": {"aws:PrincipalArn": [*team, f"arn:aws:iam::{account.id}:role/OrganizationAccountAccessRole"]}
    }
    told = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": [arn, f"{arn}/*"], "Condition": others}
    policed(account, bucket, told)
    ann, bob, other, pipeline = (
        account.client("s3", account.as_role(name)) for name in ("Ann", "Bob", "Other", "Pipeline")
    )
    for mine, yours, name in ((ann, bob, "wrangled.csv"), (bob, ann, "Dockerfile")):
        mine.put_object(Bucket=bucket, Key=name, Body=name.encode())
        assert yours.get_object(Bucket=bucket, Key=name)["Body"].read() == name.encode()
        assert name in [one["Key"] for one in yours.list_objects_v2(Bucket=bucket)["Contents"]]
        yours.delete_object(Bucket=bucket, Key=name)
    ann.put_object(Bucket=bucket, Key="kept", Body=b"x")
    for stranger in (other, pipeline):
        for call, given in (
            (stranger.get_object, {"Key": "kept"}),
            (stranger.put_object, {"Key": "new", "Body": b"x"}),
            (stranger.delete_object, {"Key": "kept"}),
            (stranger.list_objects_v2, {}),
        ):
            assert refused(call, Bucket=bucket, **given) == "AccessDenied"


@pytest.mark.control("DAT-06", lacking="Feature Store: PutRecord on a shared feature group")
def test_common_features_are_read_by_all_and_written_by_their_engineers(account: Account, neighbour: Account) -> None:
    s3, bucket = account.client("s3"), f"features-{account.id}"
    s3.create_bucket(Bucket=bucket)
    engineer = account.role("DataEngineer", allow("s3:*"))
    organization = account.platform.client("organizations").describe_organization()["Organization"]["Id"]
    arn = f"arn:aws:s3:::{bucket}"
    inside = {"StringEquals": {"aws:PrincipalOrgID": organization}}
    readers = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": "s3:GetObject",
        "Resource": f"{arn}/*",
        "Condition": inside,
    }
    writers = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": ["s3:PutObject", "s3:DeleteObject"],
        "Resource": f"{arn}/*",
        "Condition": {"ArnNotEquals": {"aws:PrincipalArn": engineer}},
    }
    policed(account, bucket, readers, writers)
    builder = account.client("s3", account.as_role("DataEngineer"))
    for version in (b"1", b"2"):
        builder.put_object(Bucket=bucket, Key="income.parquet", Body=version)
        for team, where in (("Risk", account), ("Fraud", neighbour)):
            if version == b"1":
                where.role(team, allow("s3:*"))
            scientist = where.client("s3", where.as_role(team))
            assert scientist.get_object(Bucket=bucket, Key="income.parquet")["Body"].read() == version
            assert refused(scientist.put_object, Bucket=bucket, Key="income.parquet", Body=b"x") == "AccessDenied"
            assert refused(scientist.delete_object, Bucket=bucket, Key="income.parquet") == "AccessDenied"


def _released(account: Account, bucket: str) -> Any:
    s3 = account.client("s3")
    s3.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}
    s3.put_object_lock_configuration(
        Bucket=bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
    )
    return s3


@pytest.mark.control("DAT-07")
def test_datasets_of_trainings_are_versioned_released_and_the_only_ones(workshop: Workshop) -> None:
    account, bucket = workshop.account, f"training-{workshop.account.id}"
    s3 = _released(account, bucket)
    versions = [
        s3.put_object(Bucket=bucket, Key=f"mortgage/v{number}/a.csv", Body=body)["VersionId"]
        for number, body in ((1, b"1,2\n3,4\n"), (2, b"5,6\n7,8\n"))
    ]
    assert len(set(versions)) == 2
    frozen = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": ["s3:PutObject", "s3:DeleteObject", "s3:DeleteObjectVersion"],
        "Resource": f"arn:aws:s3:::{bucket}/mortgage/v*",
    }
    policed(account, bucket, frozen)
    first = {"Bucket": bucket, "Key": "mortgage/v1/a.csv"}
    assert refused(s3.put_object, **first, Body=b"9") == "AccessDenied"
    assert refused(s3.delete_object, **first) == "AccessDenied"
    s3.delete_bucket_policy(Bucket=bucket)
    # Without the policy, too: the lock holds the version's bytes against everybody, whatever is put over it.
    assert refused(s3.delete_object, **first, VersionId=versions[0]) == "AccessDenied"
    policed(account, bucket, frozen)
    assert s3.get_object(**first, VersionId=versions[0])["Body"].read() == b"1,2\n3,4\n"

    may = allow("s3:GetObject", "s3:ListBucket", resource=[f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"])
    out = f"arn:aws:s3:::{workshop.bucket}"
    may["Statement"] += allow("s3:PutObject", resource=f"{out}/out/*")["Statement"]
    may["Statement"] += allow("s3:GetObject", "s3:ListBucket", resource=[out, f"{out}/job-*"])["Statement"]
    may["Statement"] += allow("logs:*")["Statement"]
    workshop.role = account.role("Automation", may, trust=TRUST)

    def train(uri: str) -> dict[str, Any]:
        source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri}}
        return workshop.trained(
            workshop.train(LEARNS, InputDataConfig=[{"ChannelName": "train", "DataSource": source}])
        )

    metrics = []
    for number in (1, 2, 1):
        job = train(f"s3://{bucket}/mortgage/v{number}/")
        assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
        metrics.append(job["FinalMetricDataList"][0]["Value"])
    assert metrics[0] == metrics[2] != metrics[1]
    elsewhere = train(f"s3://{workshop.bucket}/data/part/")
    assert elsewhere["TrainingJobStatus"] == "Failed"
    assert elsewhere["FailureReason"].startswith("ClientError: Data download failed: AccessDenied")


@pytest.mark.control("DAT-09")
def test_a_registered_models_archive_is_there_as_it_was_trained(workshop: Workshop) -> None:
    account, bucket = workshop.account, f"models-{workshop.account.id}"
    s3 = _released(account, bucket)
    workshop.role = account.role("Training", allow("s3:*", "logs:*"), trust=TRUST)
    account.role("Human", allow("s3:*"))
    humans = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": ["s3:PutObject", "s3:DeleteObject"],
        "Resource": f"arn:aws:s3:::{bucket}/*",
        "Condition": {"ArnNotEquals": {"aws:PrincipalArn": workshop.role}},
    }
    policed(account, bucket, humans)
    given = {"OutputDataConfig": {"S3OutputPath": f"s3://{bucket}/credit"}}
    script = "open('/opt/ml/model/m.txt', 'w').write('the model')"
    job = workshop.trained(workshop.train(script, **given))
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    url = job["ModelArtifacts"]["S3ModelArtifacts"]
    key = url.removeprefix(f"s3://{bucket}/")
    [version] = s3.list_object_versions(Bucket=bucket, Prefix=key)["Versions"]
    client = workshop.sagemaker
    client.create_model_package_group(ModelPackageGroupName="credit")
    containers = [{"Image": IMAGE, "ModelDataUrl": url}]
    kinds = {"SupportedContentTypes": ["text/csv"], "SupportedResponseMIMETypes": ["text/csv"]}
    package = client.create_model_package(
        ModelPackageGroupName="credit", InferenceSpecification={"Containers": containers, **kinds}
    )["ModelPackageArn"]
    [container] = client.describe_model_package(ModelPackageName=package)["InferenceSpecification"]["Containers"]
    head = s3.head_object(Bucket=bucket, Key=key, VersionId=version["VersionId"])
    assert container["ModelDataUrl"] == url and container["ModelDataETag"].strip('"') == head["ETag"].strip('"')
    archive = s3.get_object(Bucket=bucket, Key=key, VersionId=version["VersionId"])["Body"].read()
    assert hashlib.md5(archive).hexdigest() == head["ETag"].strip('"')

    # Lineage leads from it to the job that wrote it, and to what that read.
    [held] = client.list_artifacts(SourceUri=package)["ArtifactSummaries"]
    before = client.query_lineage(StartArns=[held["ArtifactArn"]], Direction="Ascendants")["Vertices"]
    assert [
        one["Arn"] for one in before if one["LineageType"] == "TrialComponent" and job["TrainingJobName"] in one["Arn"]
    ]
    [data] = [one["Arn"] for one in before if one.get("Type") == "DataSet"]
    read = client.describe_artifact(ArtifactArn=data)["Source"]["SourceUri"]
    assert read.startswith(f"s3://{workshop.bucket}/data/")

    human = account.client("s3", account.as_role("Human"))
    for who in (human, s3):
        assert refused(who.put_object, Bucket=bucket, Key=key, Body=b"other") == "AccessDenied"
        assert refused(who.delete_object, Bucket=bucket, Key=key) == "AccessDenied"
        given = {"Bucket": bucket, "Key": key, "VersionId": version["VersionId"]}
        assert refused(who.delete_object, **given) == "AccessDenied"
    assert refused(human.put_object, Bucket=bucket, Key="by-hand.tar.gz", Body=b"x") == "AccessDenied"
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == archive


@pytest.mark.control("EXP-08")
def test_settings_come_from_the_parameter_store(workshop: Workshop) -> None:
    account = workshop.account
    ssm, kms = account.client("ssm"), account.client("kms")
    store, volume = (kms.create_key()["KeyMetadata"]["Arn"] for _ in range(2))
    settings = {"role": workshop.role, "volume-key": volume, "subnet": f"subnet-of-{account.id}"}
    for name, value in settings.items():
        ssm.put_parameter(Name=f"/risk/{name}", Value=value, Type="SecureString", KeyId=store)
    ssm.put_parameter(Name="/fraud/role", Value=workshop.role, Type="SecureString", KeyId=store)
    assert showing(account, f"subnet-of-{account.id}".encode()) == []

    path = f"arn:aws:ssm:{REGION}:{account.id}:parameter/risk"
    may = allow("ssm:GetParameter", "ssm:GetParametersByPath", resource=[path, f"{path}/*"])
    account.role("Keyless", may)
    may["Statement"] += allow("kms:Decrypt", resource=store)["Statement"]
    may["Statement"] += allow("sagemaker:*", "s3:*")["Statement"]
    may["Statement"] += allow("iam:PassRole", resource=workshop.role)["Statement"]
    account.role("DataScientist", may)
    keys = account.as_role("DataScientist")
    scientist = account.client("ssm", keys)

    found = scientist.get_parameters_by_path(Path="/risk", WithDecryption=True)["Parameters"]
    told = {one["Name"].removeprefix("/risk/"): one["Value"] for one in found}
    assert told == settings
    workshop.sagemaker = account.client("sagemaker", keys)
    resources = {
        "InstanceType": "ml.t3.medium",
        "InstanceCount": 1,
        "VolumeSizeInGB": 1,
        "VolumeKmsKeyId": told["volume-key"],
    }
    script = "open('/opt/ml/model/m.txt', 'w').write('m')"
    job = workshop.trained(workshop.train(script, RoleArn=told["role"], ResourceConfig=resources))
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert (job["RoleArn"], job["ResourceConfig"]["VolumeKmsKeyId"]) == (workshop.role, volume)

    keyless = account.client("ssm", account.as_role("Keyless"))
    assert refused(keyless.get_parameter, Name="/risk/role", WithDecryption=True) == "AccessDeniedException"
    assert refused(scientist.get_parameter, Name="/fraud/role", WithDecryption=True) == "AccessDeniedException"
    given = {"Name": "/risk/role", "Value": "x", "Type": "String", "Overwrite": True}
    assert refused(scientist.put_parameter, **given) == "AccessDeniedException"
    assert refused(scientist.get_parameter, Name="/risk/nobody", WithDecryption=True) == "ParameterNotFound"
