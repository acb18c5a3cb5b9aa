"""Reference stacks that others published, made here: which stand, and what the others still need.

Each repository lies checked out under its name in `.fetched/stacks` (or below `$BASTIDE_STACKS`). What a template names
that is not there (a type, a VPC endpoint's service, a managed policy that AWS withdrew) is taken out together with what
refers to it, and told: what is left must be made, and removed without a trace. Templates of one step share an account.
"""

from __future__ import annotations

import io
import os
import re
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
from botocore.exceptions import ClientError

from bastide.domain import Refused
from bastide.engines import templates
from tests.platform import Account, Running, allow
from tests.stories.cloudformation.stacks import Stacks

SECURE = "secure-data-science-reference-architecture/cloudformation/"
ACROSS = "aws-refarch-cross-account-pipeline/"
SAFE = "amazon-sagemaker-safe-deployment-pipeline/"
MLOPS = "amazon-sagemaker-secure-mlops/cfn_templates/"
PROJECT = {"ProjectName": "p"}
CASES: list[tuple[str, str, dict[str, str]]] = [
    ("L1", f"{SECURE}ds_env_network.yaml", {**PROJECT, "PyPIMirrorEndpointServiceName": "com.amazonaws.us-east-1.ssm"}),
    ("L1", f"{SECURE}ds_env_principals.yaml", PROJECT),
    ("L1", f"{SECURE}ds_env_backing_store.yaml", PROJECT),
    ("L1", f"{SECURE}ds_shared_services_network.yaml", {}),
    ("L2", f"{SECURE}ds_admin_principals.yaml", {}),
    ("L2", f"{SECURE}ds_admin_detective.yaml", {}),
    ("L2", f"{SECURE}ds_env_sagemaker.yaml", {}),
    ("L4", f"{ACROSS}ToolsAcct/pre-reqs.yaml", {}),
    ("L4", f"{ACROSS}ToolsAcct/code-pipeline.yaml", {"S3Bucket": "{bucket}"}),
    ("L4", f"{ACROSS}DevAccount/toolsacct-codepipeline-codecommit.yaml", {}),
    ("L4", f"{ACROSS}TestAccount/toolsacct-codepipeline-cloudformation-deployer.yaml", {}),
    (
        "L6",
        f"{SAFE}pipeline.yml",
        {"ProjectPrefix": "mlops", "SageMakerProjectName": "trips", "SageMakerProjectId": "p-1", "EmailAddress": ""},
    ),
    ("L6", f"{SAFE}assets/deploy-model-dev.yml", {}),
    ("L7", f"{MLOPS}env-vpc.yaml", {"AvailabilityZones": "us-east-1a,us-east-1b"}),
    ("L7", f"{MLOPS}env-kms.yaml", {}),
    ("L7", f"{MLOPS}env-iam.yaml", {}),
    ("L7", f"{MLOPS}env-s3.yaml", {}),
    ("L7", f"{MLOPS}env-iam-target-account-roles.yaml", {}),
    ("L7", f"{MLOPS}env-iam-setup-stackset-role.yaml", {}),
    ("L7", f"{MLOPS}core-iam-shared-roles.yaml", {}),
    ("L7", f"{MLOPS}core-iam-sc-sm-projects-roles.yaml", {}),
]
_MOST_CUT = 12
_FILLED_IN = ("< S3_CFN_STAGING_BUCKET >", "S3_BUCKET_NAME")
"""What those who package the templates put the name of their bucket for; their archives of code are put there."""
_TRUSTED = ("sagemaker.amazonaws.com", "lambda.amazonaws.com", "cloudformation.amazonaws.com")
_ARCHIVES = ("project.zip", "< S3_CFN_STAGING_PATH >/project_template.zip")


def _value(name: str, declared: dict[str, Any], account: Account) -> str:
    """A value for a parameter that the case does not give."""
    allowed = declared.get("AllowedValues")
    if allowed:
        return str(allowed[0])
    lower = name.lower()
    if "arn" in lower and ("key" in lower or "cmk" in lower):
        return str(account.client("kms").create_key()["KeyMetadata"]["Arn"])
    if "arn" in lower:
        try:
            return account.role(name, allow("*"), trust={"Service": list(_TRUSTED)})
        except ClientError:
            return f"arn:aws:iam::{account.id}:role/{name}"  # another template asked for it, too
    if "account" in lower:
        return account.id
    if "cidr" in lower:
        return "10.0.0.0/16"
    if declared["Type"] == "Number":
        return "1"
    return re.sub(r"[^a-z0-9]", "", lower)[:20] or "x"


def _without(raw: dict[str, Any], gone: set[str]) -> None:
    """Takes resources out, with all that refers to them."""
    while gone:
        for section in ("Resources", "Outputs"):
            held = raw.get(section) or {}
            for name in [one for one in held if section == "Resources" and one in gone]:
                del held[name]
        more: set[str] = set()
        for name, one in (raw.get("Resources") or {}).items():
            depends = one.get("DependsOn") or []
            depends = [depends] if isinstance(depends, str) else depends
            one["DependsOn"] = [other for other in depends if other not in gone]
            if not one["DependsOn"]:
                del one["DependsOn"]
            if any(other in gone for other, _ in templates.references(one.get("Properties") or {})):
                more.add(name)
        for name, one in list((raw.get("Outputs") or {}).items()):
            if any(other in gone for other, _ in templates.references(one)):
                del raw["Outputs"][name]
        gone = more


def _attempt(
    stacks: Stacks, stack: str, raw: dict[str, Any], given: dict[str, str], bucket: str
) -> tuple[set[str], str]:
    """Makes a stack; the resources that could not be, and why."""
    key = "template.json"
    stacks.account.client("s3").put_object(Bucket=bucket, Key=key, Body=orjson.dumps(raw))
    told = [{"ParameterKey": name, "ParameterValue": value} for name, value in given.items()]
    try:
        id = stacks.client.create_stack(
            StackName=stack, TemplateURL=f"https://{bucket}.s3.amazonaws.com/{key}", Parameters=told,
            Capabilities=["CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"],
        )["StackId"]  # fmt: skip
    except ClientError as error:
        message = error.response["Error"]["Message"]
        types = re.search(r"Unrecognized resource types: \[([^\]]*)\]", message)
        if types:
            names = set(types[1].split(", "))
            lost = {name for name, one in raw["Resources"].items() if one.get("Type") in names}
            return lost, f"no {', '.join(sorted(names))}"
        named = re.search(r"for resource (\w+) with", message)
        return ({named[1]} if named else set()), message
    made = stacks.settled(id)
    if made["StackStatus"] == "CREATE_COMPLETE":
        return set(), ""
    failed = [
        (name, reason)
        for name, status, reason in stacks.story(id)
        if status == "CREATE_FAILED" and "cancelled" not in reason
    ]
    stacks.client.delete_stack(StackName=id)
    stacks.settled(id)
    return {name for name, _ in failed}, "; ".join(f"{name}: {reason}" for name, reason in failed)


def _case(stacks: Stacks, path: Path, given: dict[str, str], bucket: str) -> tuple[bool, str]:
    """Whether what is left of a template was made, and what was taken out."""
    text = path.read_text()
    for name in _FILLED_IN:
        text = text.replace(name, bucket)
    raw = templates.read(text)
    of = len(raw["Resources"])
    values = {
        name: given[name].format(bucket=bucket) if name in given else _value(name, one, stacks.account)
        for name, one in (raw.get("Parameters") or {}).items()
        if name in given or "Default" not in one
    }
    why: list[str] = []
    for _ in range(_MOST_CUT):
        lost, reason = _attempt(stacks, path.stem.replace("_", "-"), raw, values, bucket)
        if not reason:
            return True, f"{len(raw['Resources'])} of {of}" + (f" without {'; '.join(why)}" if why else "")
        why.append(reason)
        if not lost:
            break
        _without(raw, lost)
        if not raw["Resources"]:
            return True, f"0 of {of}: {'; '.join(why)}"
    return False, "; ".join(why)


def _empty(stacks: Stacks, stack: str) -> None:
    """A bucket with something in it stays, as on AWS: trails and pipelines have written into some."""
    s3 = stacks.account.client("s3")
    for one in stacks.client.describe_stack_resources(StackName=stack)["StackResources"]:
        if one["ResourceType"] == "AWS::S3::Bucket":
            s3.delete_bucket_policy(Bucket=one["PhysicalResourceId"])
            pages = s3.get_paginator("list_object_versions").paginate(Bucket=one["PhysicalResourceId"])
            for held in [
                held for page in pages for held in (*page.get("Versions", ()), *page.get("DeleteMarkers", ()))
            ]:
                s3.delete_object(Bucket=one["PhysicalResourceId"], Key=held["Key"], VersionId=held["VersionId"])


def _archive() -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("README.md", "What a project begins with.\n")
    return held.getvalue()


def _found(folder: Path) -> Iterator[tuple[str, Path, dict[str, str]]]:
    for step, name, given in CASES:
        if (folder / name).is_file():
            yield step, folder / name, given


def run(folder: Path, told: bool) -> tuple[int, int]:
    """Every template that was fetched; how many were made (as far as types exist) and removed, and how many not."""
    folder = Path(os.environ.get("BASTIDE_STACKS", ".fetched/stacks"))
    passed = failed = 0
    with tempfile.TemporaryDirectory() as place:
        platform = Running(Path(place) / "data")
        platform.start()
        try:
            platform.found()
            for step in dict.fromkeys(step for step, _, _ in CASES):
                stacks = Stacks(platform.account())
                bucket = f"reference-{stacks.account.id}"
                stacks.account.client("s3").create_bucket(Bucket=bucket)
                for name in _ARCHIVES:
                    stacks.account.client("s3").put_object(Bucket=bucket, Key=name, Body=_archive())
                for _, path, given in [one for one in _found(folder) if one[0] == step]:
                    try:
                        good, what = _case(stacks, path, given, bucket)
                    except (Refused, AssertionError, ClientError) as error:
                        good, what = False, str(error)
                    passed, failed = passed + good, failed + (not good)
                    if told:
                        print(f"{'ok  ' if good else 'FAIL'} {step} {path.name}: {what[:600]}", flush=True)
                # A stack whose exports others use goes after them.
                left = sorted(stacks.client.describe_stacks()["Stacks"], key=lambda one: one["CreationTime"])
                for one in reversed(left):
                    _empty(stacks, one["StackName"])
                    gone = stacks.delete(one["StackName"])
                    if gone["StackStatus"] != "DELETE_COMPLETE":
                        failed += 1
                        print(f"FAIL {step} {one['StackName']} stays: {gone.get('StackStatusReason')}", flush=True)
        finally:
            platform.stop()
    return passed, failed
