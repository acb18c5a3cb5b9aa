"""The services that exist."""

from __future__ import annotations

from bastide.kernel import Service
from bastide.services import (
    accessanalyzer,
    application_autoscaling,
    cloudtrail,
    cloudwatch,
    ec2,
    ecr,
    events,
    iam,
    identity_center,
    kms,
    logs,
    organizations,
    resourcegroupstaggingapi,
    s3,
    sagemaker,
    sagemaker_mlflow,
    sagemaker_runtime,
    secretsmanager,
    ssm,
    states,
    sts,
)

SERVICES: tuple[Service, ...] = (
    accessanalyzer.SERVICE,
    application_autoscaling.SERVICE,
    cloudtrail.SERVICE,
    cloudwatch.SERVICE,
    ec2.SERVICE,
    ecr.SERVICE,
    events.SERVICE,
    iam.SERVICE,
    *identity_center.SERVICES,
    kms.SERVICE,
    logs.SERVICE,
    organizations.SERVICE,
    resourcegroupstaggingapi.SERVICE,
    s3.SERVICE,
    sagemaker.METRICS,
    sagemaker.SERVICE,
    sagemaker_mlflow.SERVICE,
    sagemaker_runtime.SERVICE,
    secretsmanager.SERVICE,
    ssm.SERVICE,
    states.SERVICE,
    sts.SERVICE,
)
