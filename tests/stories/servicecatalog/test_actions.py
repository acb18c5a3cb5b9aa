"""Self-service actions: people run runbooks on what they provisioned, with rights that they do not have themselves."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import Account, allow
from tests.stories.cloudformation.stacks import Stacks
from tests.stories.cloudformation.stacks import template as stack
from tests.stories.servicecatalog.catalog import USER, Catalog, Person, template

TYPE = "AWS::SageMaker::ModelPackageGroup"
RUN = ("ssm:DescribeDocument", "ssm:StartAutomationExecution", "ssm:GetAutomationExecution")
FIND = ("cloudformation:ListStackResources",)


def _runbook() -> dict[str, Any]:
    tag = {
        "Service": "sagemaker", "Api": "AddTags", "ResourceArn": "{{ Group }}",
        "Tags": [{"Key": "state", "Value": "{{ State }}"}],
    }  # fmt: skip
    return {
        "schemaVersion": "0.3",
        "parameters": {"Group": {"type": "String"}, "State": {"type": "String", "default": "retired"}},
        "mainSteps": [{"name": "tag", "action": "aws:executeAwsApi", "inputs": tag}],
    }


def _actions(product: str, version: str, role: str) -> str:
    """A stack with a runbook, and three actions of a product that run it."""
    document = {
        "Type": "AWS::SSM::Document",
        "Properties": {
            "Name": "retire", "DocumentType": "Automation", "TargetType": f"/{TYPE}", "Content": _runbook(),
        },
    }  # fmt: skip
    resources: dict[str, Any] = {"Runbook": document}
    parameters = json.dumps([{"Name": "Group", "Type": "TARGET"}, {"Name": "State", "Type": "TEXT_VALUE"}])
    for name, assumed in (("Launch", "LAUNCH_ROLE"), ("Other", role), ("Mine", "")):
        definition = {"Name": {"Ref": "Runbook"}, "Version": "1", "Parameters": parameters}
        if assumed:
            definition["AssumeRole"] = assumed
        properties = {
            "Name": name, "DefinitionType": "SSM_AUTOMATION",
            "Definition": [{"Key": key, "Value": value} for key, value in definition.items()],
        }  # fmt: skip
        resources[name] = {"Type": "AWS::ServiceCatalog::ServiceAction", "Properties": properties}
        resources[f"{name}Of"] = {
            "Type": "AWS::ServiceCatalog::ServiceActionAssociation",
            "Properties": {"ProductId": product, "ProvisioningArtifactId": version, "ServiceActionId": {"Ref": name}},
        }
    return stack(resources)


@pytest.mark.control("SSV-02")
def test_people_run_actions_on_what_they_provisioned(account: Account) -> None:
    catalog, stacks, sagemaker = Catalog(account), Stacks(account), account.client("sagemaker")
    portfolio = catalog.portfolio()
    product, version = catalog.product(template(), portfolio)
    launch = catalog.launch_role("Launch", *RUN, *FIND)
    other = account.role("Other", allow(*RUN), trust={"Service": "servicecatalog.amazonaws.com"})
    catalog.constrain(portfolio, product, "LAUNCH", {"RoleArn": launch})
    catalog.principal(portfolio, account.role("Scientist", USER))
    told = stacks.create("actions", _actions(product, version, other))
    assert told["StackStatus"] == "CREATE_COMPLETE", stacks.story("actions")
    person = Person(account, account.as_role("Scientist", "ann"))
    client = person.client
    provisioned = person.provision(product, version, "retired")["RecordDetail"]["ProvisionedProductId"]
    arn = sagemaker.describe_model_package_group(ModelPackageGroupName="retired")["ModelPackageGroupArn"]

    def state() -> str | None:
        tags = {one["Key"]: one["Value"] for one in sagemaker.list_tags(ResourceArn=arn)["Tags"]}
        return tags.get("state")

    found = client.list_service_actions_for_provisioning_artifact(ProductId=product, ProvisioningArtifactId=version)
    ids = {one["Name"]: one["Id"] for one in found["ServiceActionSummaries"]}
    assert set(ids) == {"Launch", "Other", "Mine"}

    def run(name: str, **more: Any) -> dict[str, Any]:
        asked = client.execute_provisioned_product_service_action(
            ProvisionedProductId=provisioned, ServiceActionId=ids[name], **more
        )["RecordDetail"]
        assert asked["RecordType"] == "EXECUTE_PROVISIONED_PRODUCT_SERVICE_ACTION"
        held: dict[str, Any] = person.settled(asked["RecordId"])["RecordDetail"]
        detail = client.describe_provisioned_product(Id=provisioned)["ProvisionedProductDetail"]
        assert detail["Status"] == "AVAILABLE"
        return held

    # The launch role may; what the action is to be done to is found in what was provisioned.
    held = run("Launch")
    assert held["Status"] == "SUCCEEDED", held["RecordErrors"]
    assert state() == "retired"
    assert run("Launch", Parameters={"State": ["back"]})["Status"] == "SUCCEEDED"
    assert state() == "back"
    # Neither the person nor another role may.
    failed = run("Mine", Parameters={"Group": [arn]})
    assert failed["Status"] == "FAILED" and "ssm:StartAutomationExecution" in failed["RecordErrors"][0]["Description"]
    failed = run("Other", Parameters={"Group": [arn], "State": ["gone"]})
    assert failed["Status"] == "FAILED" and "sagemaker:AddTags" in failed["RecordErrors"][0]["Description"]
    assert state() == "back"
    with pytest.raises(ClientError, match="no parameter Else"):
        run("Launch", Parameters={"Else": ["x"]})
    # Whoever may look into the stack is told what the parameters would be.
    administrator = account.client("servicecatalog")
    told = administrator.describe_service_action_execution_parameters(
        ProvisionedProductId=provisioned, ServiceActionId=ids["Launch"]
    )
    assert told["ServiceActionParameters"] == [
        {"Name": "Group", "Type": "TARGET", "DefaultValues": [arn]},
        {"Name": "State", "Type": "TEXT_VALUE", "DefaultValues": ["retired"]},
    ]
    with pytest.raises(ClientError, match="associated with products"):
        administrator.delete_service_action(Id=ids["Launch"])
    assert stacks.delete("actions")["StackStatus"] == "DELETE_COMPLETE", stacks.story("actions")
    assert not administrator.list_service_actions()["ServiceActionSummaries"]
