"""What serves in Production: its parts carry tags, and it answers while one version takes the other's place."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.stories.landing.zone import DENIED, Zone, refused
from tests.waiting import until

PARTS = [{"Key": key, "Value": "mortgage"} for key in ("owner", "environment", "project")]


def deployable(zone: Zone, package: str, bucket: str, archive: str) -> None:
    """Has a version approved and served in Production for a moment, as its stack role would: once image and model, too,
    carry the tags."""
    approver = zone.platform.client("sagemaker", zone.person("shared-services", "ModelApprover"))
    approver.update_model_package(ModelPackageArn=package, ModelApprovalStatus="Approved")
    production = zone.account("production")
    told = production.client("ssm").get_parameters_by_path(Path="/bank/network")["Parameters"]
    where = {one["Name"].rpartition("/")[2]: one["Value"] for one in told}
    stack = zone.platform.client("sagemaker", zone.service("production", zone.arn("production", "StackRole")))
    tags = [{"Key": key, "Value": "production"} for key in ("owner", "environment", "project")]
    model = {
        "ModelName": "bought", "ExecutionRoleArn": zone.arn("production", "ModelRole"), "EnableNetworkIsolation": True,
        "Containers": [{"ModelPackageName": package}], "Tags": tags,
        "VpcConfig": {"Subnets": where["subnets"].split(","), "SecurityGroupIds": [where["security-group"]]},
    }  # fmt: skip
    registry = zone.account("shared-services").client("ecr")
    repository = registry.describe_repositories(repositoryNames=["mortgage/inference"])["repositories"][0][
        "repositoryArn"
    ]
    refused(DENIED, stack.create_model, **{**model, "Tags": tags[1:]})
    stack.create_model(**model)
    variant = {"VariantName": "all", "ModelName": "bought", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    key = zone.key("production", "production")
    stack.create_endpoint_config(EndpointConfigName="bought", ProductionVariants=[variant], KmsKeyId=key, Tags=tags)

    def settled() -> Any:
        found = stack.describe_endpoint(EndpointName="bought")
        return found if found["EndpointStatus"] in ("InService", "Failed") else None

    def served() -> dict[str, Any]:
        stack.create_endpoint(EndpointName="bought", EndpointConfigName="bought", Tags=tags)
        told: dict[str, Any] = until(settled, 240)
        if told["EndpointStatus"] == "Failed":
            stack.delete_endpoint(EndpointName="bought")
        return told

    why = served()["FailureReason"]
    assert archive in why, why
    workflow = zone.platform.client("s3", zone.service("test", zone.arn("test", "StateMachineRole")))
    workflow.put_object_tagging(Bucket=bucket, Key=archive, Tagging={"TagSet": PARTS})
    registry.untag_resource(resourceArn=repository, tagKeys=["owner"])  # as who deploys the landing zone may
    why = served()["FailureReason"]
    assert "mortgage/inference" in why, why
    registry.tag_resource(resourceArn=repository, tags=[{"Key": "owner", "Value": "mortgage"}])
    found = served()
    assert found["EndpointStatus"] == "InService", found.get("FailureReason")
    asking = zone.platform.client(
        "sagemaker-runtime", zone.service("production", zone.arn("production", "FunctionRole"))
    )
    assert asking.invoke_endpoint(EndpointName="bought", Body=b"row")["Body"].read() == b"seen row"
    # All that serves carries the tags, and nobody takes one away: not in Production, and not where the parts lie.
    place = {"Bucket": bucket, "Key": archive}
    carried = [
        {one["Key"] for one in production.client("sagemaker").list_tags(ResourceArn=found["EndpointArn"])["Tags"]},
        {one["Key"] for one in registry.list_tags_for_resource(resourceArn=repository)["tags"]},
        {one["Key"] for one in zone.account("shared-services").client("s3").get_object_tagging(**place)["TagSet"]},
    ]
    assert all({"owner", "environment", "project"} <= one for one in carried), carried
    everything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    for name in ("production", "shared-services"):
        account = zone.account(name)
        helper = zone.platform.assume(account.role("Tidy", everything), account.keys)
        mine = {service: zone.platform.client(service, helper) for service in ("sagemaker", "ecr", "s3")}
        refused(DENIED, mine["ecr"].untag_resource, resourceArn=repository, tagKeys=["owner"])
        refused(DENIED, mine["s3"].delete_object_tagging, **place)
        refused(DENIED, mine["s3"].put_object_tagging, **place, Tagging={"TagSet": []})
        refused(DENIED, mine["sagemaker"].delete_tags, ResourceArn=found["EndpointArn"], TagKeys=["owner"])
    stack.delete_endpoint(EndpointName="bought")


@contextmanager
def asking(ask: Callable[[], int]) -> Iterator[list[int]]:
    """Asks over and over beside what is done inside: what was answered."""
    answers: list[int] = []
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            answers.append(ask())

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield answers
    finally:
        over.set()
        thread.join()
