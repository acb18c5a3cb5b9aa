"""A role's session, for as long as a job or an endpoint needs one."""

from __future__ import annotations

from typing import Final

from bastide import kernel
from bastide.domain import Refused
from bastide.kernel import Calls

SAGEMAKER: Final = "sagemaker.amazonaws.com"


class RoleSession(kernel.RoleSession):
    """Acts with a role's permissions, for a job or an endpoint in `account` (`source_arn`, its ARN)."""

    def __init__(self, calls: Calls, role_arn: str, *, account: str, region: str, source_arn: str = "") -> None:
        super().__init__(calls, SAGEMAKER, role_arn, "SageMaker", account=account, region=region, source_arn=source_arn)


def cannot_assume(role_arn: str) -> Refused:
    """What AWS says of a role that SageMaker may not take on."""
    return Refused(
        "ValidationException",
        f"Could not assume role {role_arn}. Please ensure that the role exists and allows principal "
        f"'{SAGEMAKER}' to assume the role.",
    )


async def check_role(calls: Calls, role_arn: str, *, account: str, region: str, source_arn: str) -> None:
    """Raises Refused, as AWS does at once and not when the work begins, if the role cannot be assumed."""
    if f":{account}:" not in role_arn:
        raise Refused("ValidationException", "Cross-account pass role is not allowed.")
    try:
        await RoleSession(calls, role_arn, account=account, region=region, source_arn=source_arn).caller()
    except Refused:
        raise cannot_assume(role_arn) from None
