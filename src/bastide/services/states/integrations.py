"""Which operation a task's resource means, and how its data become an operation's input and back.

Names of members begin with a capital letter on this side, as in AWS's SDK for Java; times are texts (optimised
integrations: numbers of milliseconds). Source: Step Functions developer guide, "Integrating services with Step Functions".
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any, Final

from bastide.domain import Refused, iso
from bastide.engines.asl.values import dumps, instant, loads
from bastide.kernel import Registry
from bastide.protocol import codec

SYNC: Final = ".sync"
_OPTIMISED: Final = {
    "lambda": {"invoke": ("lambda", "Invoke")},
    "sns": {"publish": ("sns", "Publish")},
    "sqs": {"sendMessage": ("sqs", "SendMessage")},
    "events": {"putEvents": ("events", "PutEvents")},
    "states": {"startExecution": ("stepfunctions", "StartExecution")},
    "sagemaker": {
        name: ("sagemaker", name[0].upper() + name[1:])
        for name in (
            "createTrainingJob", "createTransformJob", "createProcessingJob", "createHyperParameterTuningJob",
            "createLabelingJob", "createModel", "createEndpoint", "createEndpointConfig", "updateEndpoint",
        )
    },
    "codebuild": {
        name: ("codebuild", name[0].upper() + name[1:])
        for name in ("startBuild", "stopBuild", "batchDeleteBuilds", "batchGetReports", "startBuildBatch")
    },
    "dynamodb": {
        name: ("dynamodb", name[0].upper() + name[1:]) for name in ("getItem", "putItem", "updateItem", "deleteItem")
    },
    "ecs": {"runTask": ("ecs", "RunTask")},
    "batch": {"submitJob": ("batch", "SubmitJob")},
    "glue": {"startJobRun": ("glue", "StartJobRun")},
    "athena": {
        name: ("athena", name[0].upper() + name[1:])
        for name in ("startQueryExecution", "stopQueryExecution", "getQueryExecution", "getQueryResults")
    },
    "bedrock": {"invokeModel": ("bedrock-runtime", "InvokeModel")},
    "http": {"invoke": ("http", "Invoke")},
}  # fmt: skip
"""By the resource's service and action; the operation need not exist here."""
_CALLBACKS: Final = ("lambda", "sns", "sqs", "events", "states", "ecs", "bedrock", "batch", "glue", "codebuild")
_SYNCS: Final = {
    "sagemaker": (
        "createTrainingJob", "createTransformJob", "createProcessingJob", "createHyperParameterTuningJob",
        "createLabelingJob",
    ),
    "states": ("startExecution",),
    "codebuild": ("startBuild", "startBuildBatch"),
    "ecs": ("runTask",),
    "batch": ("submitJob",),
    "glue": ("startJobRun",),
    "athena": ("startQueryExecution",),
}  # fmt: skip
_SDK_NAMES: Final = {
    "sfn": "stepfunctions",
    "cloudwatchlogs": "logs",
    "eventbridge": "events",
    "sagemakerruntime": "sagemaker-runtime",
    "sagemakermetrics": "sagemaker-metrics",
}
_PREFIXES: Final = {
    "sagemaker": "SageMaker", "secretsmanager": "SecretsManager", "cloudwatchlogs": "CloudWatchLogs", "sns": "Sns",
    "eventbridge": "EventBridge", "cloudwatch": "CloudWatch", "cloudtrail": "CloudTrail",
    "cloudformation": "CloudFormation",
    "sagemakerruntime": "SageMakerRuntime", "accessanalyzer": "AccessAnalyzer", "ssoadmin": "SsoAdmin",
    "identitystore": "Identitystore", "applicationautoscaling": "ApplicationAutoScaling", "dynamodb": "DynamoDb",
    "resourcegroupstaggingapi": "ResourceGroupsTaggingApi", "sagemakermetrics": "SageMakerMetrics", "ssooidc": "SsoOidc",
}  # fmt: skip
_OPTIMISED_PREFIXES: Final = {
    "lambda": ("Lambda", "Lambda.AWSLambdaException"),
    "sns": ("SNS", "SNS.AmazonSNSException"),
    "sqs": ("SQS", "SQS.AmazonSQSException"),
    "events": ("EventBridge", "EventBridge.AmazonEventBridgeException"),
    "states": ("StepFunctions", "StepFunctions.AWSStepFunctionsException"),
    "sagemaker": ("SageMaker", "SageMaker.AmazonSageMakerException"),
    "dynamodb": ("DynamoDB", "DynamoDB.AmazonDynamoDBException"),
    "codebuild": ("CodeBuild", "CodeBuild.AWSCodeBuildException"),
}


class Unknown(ValueError):  # noqa: N818
    """A resource that means no operation, or none that exists here."""


_CALLED: Final = {
    "lambda": "AWSLambda", "sqs": "AmazonSQS", "sns": "AmazonSNS", "states": "AWSStepFunctions",
    "sagemaker": "AmazonSageMaker",
}  # fmt: skip
"""What the first version of AWS's SDK calls services."""


@dataclass(frozen=True, slots=True)
class Target:
    """An operation that a resource means. sdk: by the generic integration. sync: 0, or which form of ``.sync``."""

    service: str
    operation: str
    sdk: bool
    sync: int
    callback: bool
    named: str
    """The service as the resource names it."""

    @property
    def prefix(self) -> str:
        """What error names begin with."""
        if not self.sdk:
            return _OPTIMISED_PREFIXES.get(self.named, (self.named.title(), ""))[0]
        return _PREFIXES.get(self.named, self.named.title())

    def error(self, refused: Refused) -> str:
        """The error's name, as AWS's SDK has it."""
        code = refused.code.rpartition(".")[2]
        if self.service == "s3" and code == "AccessDenied":
            return "S3.S3Exception"
        if codec(self.service).error_shape(code) is not None or (code == "ValidationException" and not self.unmodelled):
            return f"{self.prefix}.{code if code.endswith('Exception') else code + 'Exception'}"
        if not self.sdk:
            return _OPTIMISED_PREFIXES.get(self.named, ("", f"{self.prefix}.{self.prefix}Exception"))[1]
        return f"{self.prefix}.{self.prefix}Exception"

    @property
    def unmodelled(self) -> bool:
        return codec(self.service).error_shape("ValidationException") is None

    def cause(self, refused: Refused, request_id: str, status: int) -> str:
        """The cause, as AWS's SDK words it: the first one's for optimised integrations."""
        if not self.sdk and self.named in _CALLED:
            code = refused.code.rpartition(".")[2]
            return (
                f"{refused.message} (Service: {_CALLED[self.named]}; Status Code: {status}; Error Code: {code}; "
                f"Request ID: {request_id}; Proxy: null)"
            )
        told = f"Service: {self.prefix}, Status Code: {status}, Request ID: {request_id}"
        if self.service == "s3":
            told += f", Extended Request ID: {request_id}"
        attempts = " (SDK Attempt Count: 1)" if self.named == "sfn" else ""
        return f"{refused.message} ({told}){attempts}"


def target(resource: str) -> Target:
    """What a resource means (``arn:aws:states:::sagemaker:createTrainingJob.sync``); raises Unknown."""
    parts = resource.split(":")
    if parts[:3] != ["arn", "aws", "states"] or len(parts) < 7:
        raise Unknown(f"The resource '{resource[:200]}' is not one of Step Functions")
    rest = parts[5:]
    if rest[0] == "aws-sdk":
        if len(rest) != 3:
            raise Unknown(f"The resource '{resource[:200]}' names no service and operation")
        name, callback = rest[2].removesuffix(".waitForTaskToken"), rest[2].endswith(".waitForTaskToken")
        if name.endswith((SYNC, SYNC + ":2")):
            raise Unknown(f"The resource '{resource[:200]}' cannot wait for what it began (.sync)")
        return Target(_sdk_service(rest[1]), name[0].upper() + name[1:], True, 0, callback, rest[1])
    service, action = rest[0], ":".join(rest[1:])
    plain, callback, sync = action, False, 0
    if action.endswith(".waitForTaskToken"):
        plain, callback = action.removesuffix(".waitForTaskToken"), True
    elif action.endswith(".sync:2"):
        plain, sync = action.removesuffix(".sync:2"), 2
    elif action.endswith(".sync"):
        plain, sync = action.removesuffix(".sync"), 1
    known = _OPTIMISED.get(service, {}).get(plain)
    if (
        known is None
        or (callback and service not in _CALLBACKS)
        or (sync and plain not in _SYNCS.get(service, ()))
        or (sync == 2 and service != "states")
    ):
        raise Unknown(f"The resource provided {resource[:200]} is not recognized.")
    return Target(*known, False, sync, callback, service)


def _sdk_service(name: str) -> str:
    if name in _SDK_NAMES:
        return _SDK_NAMES[name]
    return _DASHED.get(name, name)


_DASHED: Final = {
    one.replace("-", ""): one
    for one in ("application-autoscaling", "sso-admin", "sso-oidc", "sagemaker-runtime", "sagemaker-mlflow")
}


def lacking(registry: Registry, resource: str) -> str:
    """Why a resource cannot be called here; empty if it can."""
    try:
        found = target(resource)
    except Unknown as unknown:
        return str(unknown)
    if found.service not in registry.services:
        return f"The resource provided {resource[:200]} is not there: {found.named} does not exist in Bastide."
    if registry.operation(found.service, found.operation) is None:
        return f"The resource provided {resource[:200]} is not there: {found.operation} does not exist in Bastide."
    return ""


# -- data in -------------------------------------------------------------------------------------------------------------


def _capital(name: str) -> str:
    return name[:1].upper() + name[1:]


def into(shape: Any, value: Any, where: str = "") -> Any:
    """A value of JSON as handlers have it; raises ValueError with what is wrong."""
    kind = shape.type_name
    if value is None:
        return None
    if kind == "structure":
        if shape.is_document_type:
            return value
        if not isinstance(value, dict):
            raise ValueError(f"The value for the field '{where or 'Parameters'}' must be an object")
        names = {_capital(name): name for name in shape.members}
        found: dict[str, Any] = {}
        for name, one in value.items():
            if name not in names:
                raise ValueError(f"The field '{where}{name}' is not supported by Step Functions")
            held = into(shape.members[names[name]], one, f"{where}{name}.")
            if held is not None:
                found[names[name]] = held
        return found
    if kind == "list":
        if not isinstance(value, list):
            raise ValueError(f"The value for the field '{where.rstrip('.')}' must be an array")
        return [into(shape.member, one, where) for one in value]
    if kind == "map":
        if not isinstance(value, dict):
            raise ValueError(f"The value for the field '{where.rstrip('.')}' must be an object")
        return {key: into(shape.value, one, where) for key, one in value.items()}
    return _scalar(shape, kind, value, where.rstrip("."))


def _scalar(shape: Any, kind: str, value: Any, where: str) -> Any:
    if kind in ("string", "character"):
        return value if isinstance(value, str) else dumps(value)
    if kind == "blob":
        text = value if isinstance(value, str) else dumps(value)
        if shape.serialization.get("streaming") or shape.name in ("Blob", "BlobStream", "Body"):
            return dumps(value).encode()
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            return text.encode()
    if kind == "timestamp":
        at = instant(value)
        if at is None and isinstance(value, (int, float)) and not isinstance(value, bool):
            at = int(value * 1000) * 1000 if value < 1e11 else int(value) * 1000
            at = int(value * 1_000_000) if value < 1e11 else int(value * 1000)
        if at is None:
            raise ValueError(f"The value for the field '{where}' must be a time")
        return at
    if kind == "boolean":
        if not isinstance(value, bool):
            raise ValueError(f"The value for the field '{where}' must be a BOOLEAN")
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"The value for the field '{where}' must be a number")
    return int(value) if kind in ("integer", "long") else float(value)


# -- data out ------------------------------------------------------------------------------------------------------------


def outof(shape: Any, value: Any, *, sdk: bool) -> Any:
    """What a handler gives as JSON."""
    kind = shape.type_name
    if value is None:
        return None
    if kind == "structure":
        if shape.is_document_type or not isinstance(value, dict):
            return value
        members = shape.members
        return {
            _capital(name): outof(members[name], one, sdk=sdk)
            for name, one in value.items()
            if name in members and one is not None
        }
    if kind == "list":
        return [outof(shape.member, one, sdk=sdk) for one in value]
    if kind == "map":
        return {str(key): outof(shape.value, one, sdk=sdk) for key, one in value.items()}
    if kind == "timestamp" and isinstance(value, int):
        if not sdk:
            return value // 1000
        text = iso(value, fraction=True)
        return f"{text[:-8]}{text[-8:-4]}Z" if value % 1_000_000 else iso(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        raw = bytes(value)
        if shape.serialization.get("streaming"):
            return raw.decode("utf-8", "replace")
        return base64.b64encode(raw).decode()
    return value


def payload(text: str) -> Any:
    """What a function gave: JSON, or the text itself."""
    try:
        return loads(text)
    except ValueError:
        return text
