"""The services that exist."""

from __future__ import annotations

from bastide.kernel import Service
from bastide.services import (
    accessanalyzer,
    cloudtrail,
    iam,
    kms,
    logs,
    organizations,
    s3,
    sagemaker,
    sagemaker_runtime,
    secretsmanager,
    ssm,
    sts,
)

SERVICES: tuple[Service, ...] = (
    accessanalyzer.SERVICE,
    cloudtrail.SERVICE,
    iam.SERVICE,
    kms.SERVICE,
    logs.SERVICE,
    organizations.SERVICE,
    s3.SERVICE,
    sagemaker.SERVICE,
    sagemaker_runtime.SERVICE,
    secretsmanager.SERVICE,
    ssm.SERVICE,
    sts.SERVICE,
)
