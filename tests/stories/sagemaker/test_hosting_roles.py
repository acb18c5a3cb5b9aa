"""Who may bring models into service, and with which role they are served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import allow
from tests.stories.sagemaker.conftest import Workshop
from tests.stories.sagemaker.serving import container, variant
from tests.stories.sagemaker.test_job_role import SERVICE, policy


@pytest.mark.control("PRM-11")
def test_a_notebooks_role_brings_a_model_into_service_with_the_models_role_alone(
    workshop: Workshop, mission: Path
) -> None:
    account = workshop.account
    served = container(workshop, "A")
    other = account.role("OtherExecution", allow("s3:*", "logs:*"), trust=SERVICE)
    account.role("Bare", allow("s3:GetObject"))
    text = policy(
        mission,
        "08-notebook-execution-role-create-model-endpoint.json",
        ACCOUNT_ID=account.id,
        SAGEMAKER_MODEL_EXECUTION_ROLE_ARN=workshop.role,
    )
    account.role("Notebook", text)

    def steps(client: Any, role: str) -> list[Any]:
        named = {"EndpointConfigName": "c"}
        return [
            lambda: client.create_model(ModelName="m", ExecutionRoleArn=role, PrimaryContainer=served, Tags=TAGS),
            lambda: client.create_endpoint_config(**named, ProductionVariants=[variant("m")], Tags=TAGS),
            lambda: client.create_endpoint(EndpointName="e", **named, Tags=TAGS),
        ]

    for step in steps(account.client("sagemaker", account.as_role("Bare")), workshop.role):
        with pytest.raises(ClientError, match="not authorized"):
            step()
    notebook = account.client("sagemaker", account.as_role("Notebook"))
    with pytest.raises(ClientError, match="iam:PassRole"):
        steps(notebook, other)[0]()
    for step in steps(notebook, workshop.role):
        step()
    assert workshop.endpoint("e", "InService", "Failed")["EndpointStatus"] == "InService"
    assert notebook.describe_endpoint(EndpointName="e")["EndpointStatus"] == "InService"
    runtime = account.client("sagemaker-runtime")
    assert runtime.invoke_endpoint(EndpointName="e", Body=b"x", ContentType="text/plain")["Body"].read() == b"Ax"
    with pytest.raises(ClientError, match="not authorized"):
        notebook.delete_endpoint(EndpointName="e")


TAGS = [{"Key": "team", "Value": "risk"}]
