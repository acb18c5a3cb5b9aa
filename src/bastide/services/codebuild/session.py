"""The role of a project, for as long as a build needs it."""

from __future__ import annotations

from typing import Any

from bastide import kernel
from bastide.domain import Refused
from bastide.kernel import Calls, Output
from bastide.services.codebuild.noun import PRINCIPAL, invalid


class RoleSession(kernel.RoleSession):
    """Acts with a service role, for something of a project (`source_arn`, its ARN); of the credentials the build itself
    gets those that it asks for. in_vpc: S3 is reached by a gateway alone."""

    def __init__(
        self, calls: Calls, role: str, *, account: str, region: str, source_arn: str, name: str = "AWSCodeBuild"
    ) -> None:
        super().__init__(calls, PRINCIPAL, role, name, account=account, region=region, source_arn=source_arn)
        self.in_vpc = False

    async def act(self, service: str, operation: str, input: dict[str, Any], **more: Any) -> Output:
        """A call to another service; raises Refused as it does."""
        if service == "s3" and self.in_vpc and not self.gateway:
            raise Refused(
                "EndpointUnreachable",
                "the build's subnet has no way to S3: make a gateway VPC endpoint for S3 and name the subnet's route "
                "table in it",
            )
        return await super().act(service, operation, input, **more)


async def check_role(calls: Calls, role: str, *, account: str, region: str, source_arn: str) -> None:
    """Raises Refused, as AWS does at once and not when a build begins, if the role cannot be assumed."""
    if not role.startswith(f"arn:aws:iam::{account}:role/"):
        raise invalid(f"Invalid service role: {role[:300]} is not the ARN of a role of this account.")
    try:
        await RoleSession(calls, role, account=account, region=region, source_arn=source_arn).caller()
    except Refused:
        raise invalid(
            f"CodeBuild is not authorized to perform: sts:AssumeRole on {role}. Please ensure that the role exists and "
            f"that its trust policy allows the service principal '{PRINCIPAL}' to assume it."
        ) from None
