"""The guard: every registered operation is asked by nobody, by a forger, by a stranger's key and by a neighbour.

A new operation is guarded before its author thinks of it: these tests walk the registry.
"""

from __future__ import annotations

import base64
import datetime
import functools
import json
import uuid
from typing import Any

import botocore.exceptions
import botocore.model
import botocore.session
import pytest

from bastide.main.catalogue import SERVICES
from bastide.protocol import MODELS
from tests.platform import REGION, Account, Keys, Running

OPERATIONS = [
    (kind.service, one.name)
    for service in SERVICES
    for kind in service.kinds
    for one in kind.operations
    if not one.inside
]
INSIDE = [one for service in SERVICES for kind in service.kinds for one in kind.operations if one.inside]
NEEDLESS = {("sts", "GetCallerIdentity"), ("sts", "GetAccessKeyInfo"), ("sts", "GetSessionToken")}
_REFUSALS = {
    "AccessDenied", "AccessDeniedException", "MissingAuthenticationToken", "MissingAuthenticationTokenException",
    "InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId", "SignatureDoesNotMatch",
    "InvalidSignatureException", "403", "Forbidden", "InvalidIdentityToken", "UnauthorizedOperation", "AuthFailure",
    "UnauthorizedException", "InvalidClientException", "AuthorizationError", "ForbiddenException",
}  # fmt: skip
_LOADER = botocore.session.get_session().get_component("data_loader")
_LOADER.search_paths.append(str(MODELS))


def example(shape: Any, name: str, account: str, depth: int = 0) -> Any:
    """A value the model allows, naming something in `account` that does not exist."""
    kind = shape.type_name
    if kind == "structure":
        chosen = list(shape.required_members)
        if shape.metadata.get("union") and shape.members:
            chosen = [next(iter(shape.members))]
        if shape.name in ("Tag", "Filter", "NewDhcpConfiguration") and not chosen:
            chosen = [
                next(one for one in ("Key", "key", "Name") if one in shape.members)
            ]  # an empty structure in a list is not even sent by the ec2 protocol
        return {one: example(shape.members[one], one, account, depth + 1) for one in chosen}
    if kind == "list":
        return [example(shape.member, name, account, depth + 1) for _ in range(max(1, shape.metadata.get("min", 1)))]
    if kind == "map":
        key = shape.key.enum[0] if shape.key.enum else "key"
        return {key: example(shape.value, name, account, depth + 1)}
    if kind == "string":
        return _text(shape, name, account)
    if kind in ("integer", "long"):
        return max(1, shape.metadata.get("min", 1))
    if kind in ("float", "double"):
        return 1.0
    if kind == "boolean":
        return True
    if kind == "timestamp":
        return datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    return b"bytes"


_PATTERNS = {
    "VersionWithLatestPublished": "1",
    "Action": "lambda:InvokeFunction",
    "LayerPermissionAllowedAction": "lambda:GetLayerVersion",
    "LayerPermissionAllowedPrincipal": "*",
    "TaggableResource": "arn:aws:lambda:{region}:{account}:function:nothing-here",
    "LayerVersionArn": "arn:aws:lambda:{region}:{account}:layer:nothing-here:1",
    "EventBusArn": "arn:aws:events:{region}:{account}:event-bus/nothing-here",
    "ArchiveArn": "arn:aws:events:{region}:{account}:archive/nothing-here",
    "ConnectionArn": "arn:aws:events:{region}:{account}:connection/nothing-here/00000000-0000-0000-0000-000000000007",
    "TagResourceArn": "arn:aws:scheduler:{region}:{account}:schedule-group/nothing-here",
    "Account": "{account}",
    "TagResourceId": "nothing-here",
    "DocumentVersionNumber": "1",
}
"""What the models of Lambda, EventBridge, Scheduler, CloudFormation and Route 53 allow, by their shapes."""


def _text(shape: Any, name: str, account: str) -> str:
    if shape.enum:
        return str(shape.enum[0])
    lower, pattern = name.lower(), str(shape.metadata.get("pattern", ""))
    if pattern.startswith(("[0-9a-f]{8}-", "[a-f0-9]{8}-")):
        return str(uuid.UUID(int=7))
    if pattern.startswith("arn:aws[0-9a-zA-Z_"):
        return f"arn:aws:controltower:{REGION}:{account}:enabledcontrol/nothing-here"
    if ":codepipeline:" in pattern:
        return f"arn:aws:codepipeline:{REGION}:{account}:nothing-here"
    if shape.metadata.get("max", 99) < 10 and pattern == "[0-9A-Za-z_-]+":
        return "1"
    if (known := _PATTERNS.get(str(shape.name))) is not None:
        return known.format(account=account, region=REGION)
    if "scalable-target" in str(shape.metadata.get("pattern", "")):
        return f"arn:aws:application-autoscaling:{REGION}:{account}:scalable-target/nothing-here"
    service = {"rolearn": "iam", "executionrolearn": "iam"}.get(lower)
    if (
        service
        or lower == "policysourcearn"
        or pattern.startswith(("arn:(aws[a-zA-Z-]*)?:iam", "arn:aws(-[\\w]+)*:iam"))
    ):
        return f"arn:aws:iam::{account}:role/nothing-here"
    if lower == "currentdeliverystreamversionid":
        return "1"
    if lower == "queueurl":
        return f"https://localhost/{account}/nothing-here"
    if lower == "taskhandle":
        told = {"taskId": "nothing-here", "sourceArn": f"arn:aws:sqs:{REGION}:{account}:nothing-here"}
        return base64.b64encode(json.dumps(told).encode()).decode()
    if lower in ("sourcearn", "destinationarn") and shape.name == "String":
        return f"arn:aws:sqs:{REGION}:{account}:nothing-here"
    if lower in ("topicarn", "targetarn") or shape.name == "AmazonResourceName":
        return f"arn:aws:sns:{REGION}:{account}:nothing-here"
    if lower == "subscriptionarn":
        return f"arn:aws:sns:{REGION}:{account}:nothing-here:{uuid.UUID(int=7)}"
    if lower in ("principalarn", "samlproviderarn"):
        return f"arn:aws:iam::{account}:saml-provider/nothing-here"
    if lower == "openidconnectproviderarn":
        return f"arn:aws:iam::{account}:oidc-provider/nothing-here.example.com"
    if lower == "serialnumber":
        return f"arn:aws:iam::{account}:mfa/nothing-here"
    if lower in ("authenticationcode1", "authenticationcode2", "tokencode"):
        return "123456"
    if lower in ("url", "repositoryurl"):
        return "https://nothing-here.example.com/code"
    if lower == "modelpackagearn":
        return f"arn:aws:sagemaker:{REGION}:{account}:model-package/nothing-here/1"
    if lower == "policyarn":
        return f"arn:aws:iam::{account}:policy/nothing-here"
    if lower in ("policydocument", "assumerolepolicydocument", "policy", "content", "resourcepolicy"):
        return json.dumps(
            {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "s3:*", "Resource": "*"}]}
        )
    if lower == "instancearn":
        return "arn:aws:sso:::instance/ssoins-0123456789abcdef"
    if lower == "permissionsetarn" or (lower == "resourcearn" and "sso" in str(shape.metadata.get("pattern", ""))):
        return "arn:aws:sso:::permissionSet/ssoins-0123456789abcdef/ps-0123456789abcdef"
    if lower == "managedpolicyarn":
        return "arn:aws:iam::aws:policy/AdministratorAccess"
    if lower == "identitystoreid":
        return "d-0123456789"
    if lower == "attributepath":
        return "title"
    if lower in ("userid", "groupid", "groupids", "membershipid", "principalid") or (
        lower.endswith("requestid") and lower != "createaccountrequestid"
    ):
        return str(uuid.UUID(int=7))
    if lower == "source":
        return "${path:title}"
    if lower == "modelpackagearnlist":
        return f"arn:aws:sagemaker:{REGION}:{account}:model-package/nothing-here/1"
    if lower in ("artifactarn", "sourcearn", "destinationarn"):
        return f"arn:aws:sagemaker:{REGION}:{account}:artifact/0000"
    if lower == "trackingserverarn":
        return f"arn:aws:sagemaker:{REGION}:{account}:mlflow-tracking-server/nothing-here"
    if lower == "mlflowid":
        return "0" * 32
    if lower in ("pipelinearn", "pipelineexecutionarn"):
        execution = "/execution/nothing-here" if "execution" in lower else ""
        return f"arn:aws:sagemaker:{REGION}:{account}:pipeline/nothing-here{execution}"
    if lower == "callbacktoken":
        return "0" * 10
    if shape.name == "ResourceIdMaxLen1600":
        return "endpoint/nothing-here/variant/nothing-here"
    if lower.endswith("arn"):
        return f"arn:aws:sagemaker:{REGION}:{account}:training-job/nothing-here"
    if lower == "copysource":
        return "a-bucket-of-nobody-here/key"
    if lower == "bucket":
        return "a-bucket-of-nobody-here"
    if lower in ("s3uri", "artifactstoreuri", "s3outputpath", "modeldataurl", "configuri"):
        return "s3://a-bucket-of-nobody-here/x"
    if lower in ("accountid",):
        return account
    if lower == "keyid":
        return f"arn:aws:kms:{REGION}:{account}:key/{uuid.UUID(int=7)}"
    if lower == "targetkeyid":
        return str(uuid.UUID(int=7))
    if lower == "aliasname":
        return "alias/nothing-here"
    if lower in ("parentid", "sourceparentid", "destinationparentid", "rootid"):
        return "r-zzzz"
    if lower == "organizationalunitid":
        return "ou-zzzz-zzzzzzzz"
    if lower == "policyid":
        return "p-zzzzzzzz"
    if lower == "resourceid" and shape.name == "String":
        return f"arn:aws:cloudtrail:{REGION}:{account}:trail/nothing-here"
    if lower in ("targetid", "childid", "resourceid"):
        return account
    if lower == "versionid":
        return "v1"
    if lower == "createaccountrequestid":
        return "car-" + "0" * 32
    if lower == "statuscode":
        return "200"
    if lower == "handshakeid":
        return "h-" + "0" * 32
    if lower == "email":
        return "nobody@example.com"
    if lower == "uploadid" and "{8}" in str(shape.metadata.get("pattern", "")):
        return str(uuid.UUID(int=7))
    if lower in ("layerdigest", "layerdigests"):
        return "sha256:" + "0" * 64
    if lower == "accesskeyid":
        return "AKIAZZZZZZZZZZZZZZZZ"
    low = shape.metadata.get("min", 1)
    return "nothing-here" if low <= 12 else "x" * low


@functools.cache
def _model(service: str) -> botocore.model.ServiceModel:
    return botocore.model.ServiceModel(_LOADER.load_service_model(service, "service-2"), service)


_CLIENTS: dict[tuple[str, str, Keys | None, bool], Any] = {}


def _client(running: Running, service: str, keys: Keys | None, spoil: bool) -> Any:
    """A client that does not sign, signs, or signs and spoils it; making one takes longer than a call."""

    def capture(request: Any, **_: Any) -> Any:
        if keys is None:
            for header in ("Authorization", "X-Amz-Security-Token"):
                request.headers.pop(header, None)
        elif spoil and "Authorization" in request.headers:
            # An operation that needs no signature is refused for what it brings instead.
            held = request.headers["Authorization"]
            head, _, signature = (held if isinstance(held, str) else held.decode()).rpartition("Signature=")
            del request.headers["Authorization"]
            request.headers["Authorization"] = f"{head}Signature={signature[::-1]}"

    known = (running.url, service, keys, spoil)
    if known not in _CLIENTS:
        _CLIENTS[known] = running.client(service, keys, fresh=True)
        _CLIENTS[known].meta.events.register_last("before-send", capture)
    return _CLIENTS[known]


def send(
    running: Running, service: str, operation: str, keys: Keys | None, account: str, *, spoil: bool = False
) -> tuple[int, str, str]:
    """The operation as a client would send it, signed by `keys` or not at all; status, error code and request id."""
    shape = _model(service).operation_model(operation).input_shape
    given = example(shape, "", account) if shape is not None else {}
    client = _client(running, service, keys, spoil)
    method = botocore.xform_name(operation)
    try:
        answer = getattr(client, method)(**given)
    except botocore.exceptions.ClientError as error:
        meta = error.response["ResponseMetadata"]
        # S3 answers whoever did not sign, in its own words.
        id = meta.get("RequestId") or meta["HTTPHeaders"].get("x-amz-request-id", "")
        return meta["HTTPStatusCode"], error.response["Error"]["Code"], id
    meta = answer["ResponseMetadata"]
    code = answer["Errors"][0]["Code"] if (service, operation) in BY_KEY and "Deleted" not in answer else ""
    return meta["HTTPStatusCode"], code, meta.get("RequestId", "")


def recorded(running: Running, request_id: str) -> dict[str, Any] | None:
    """The refusal in the platform's own record (any account), by request id."""
    import sqlite3

    with sqlite3.connect(f"file:{running.data / 'bastide.db'}?mode=ro", uri=True) as db:
        found = db.execute(
            "SELECT body FROM event WHERE request_id=?1 UNION ALL SELECT body FROM event_new WHERE request_id=?1",
            (request_id,),
        ).fetchone()
    db.close()
    return json.loads(found[0]) if found else None


BY_KEY = {("s3", "DeleteObjects")}
"""Who signed is answered key by key: the call succeeds, and each key that may not be deleted is an error in its answer."""
OPEN = {("sso-oidc", "RegisterClient")}
"""Whoever comes is answered, and gets nothing by it: a client's registration stands for no person."""
UNSIGNED = {
    (kind.service, one.name)
    for service in SERVICES
    for kind in service.kinds
    for one in kind.operations
    if one.identify
}
CLOSED = [one for one in OPERATIONS if one not in OPEN]


def refused(running: Running, found: tuple[int, str, str], service: str, operation: str) -> None:
    status, code, request_id = found
    assert code in _REFUSALS, f"{service}:{operation} answered {status} {code or 'success'}"
    record = recorded(running, request_id)
    assert record is not None, f"{service}:{operation} left no record of its refusal"
    asked = record["additionalEventData"]["bastide"]["questions"]
    assert record["eventName"]
    if (service, operation) in BY_KEY and status == 200:
        assert asked and not any(one["verdict"] == "Allowed" for one in asked)
    else:
        assert record["errorCode"]


@pytest.fixture(scope="module")
def somebody(platform: Running) -> Account:
    return platform.account()


@pytest.fixture(scope="module")
def nobody_special(platform: Running) -> Keys:
    """A user of another account without any policy."""
    other = platform.account()
    iam = other.client("iam")
    iam.create_user(UserName="nobody")
    key = iam.create_access_key(UserName="nobody")["AccessKey"]
    return Keys(key["AccessKeyId"], key["SecretAccessKey"])


@pytest.fixture(scope="module")
def powerful_neighbour(platform: Running) -> Account:
    return platform.account()


AS_S3 = {("sagemaker-metrics", "BatchPutMetrics")}
"""A PUT that no signature gives to a service is S3's: a bucket that cannot have such a name."""


@pytest.mark.control("IAM-01")
@pytest.mark.parametrize(("service", "operation"), [one for one in CLOSED if one not in AS_S3])
def test_unsigned(platform: Running, somebody: Account, service: str, operation: str) -> None:
    refused(platform, send(platform, service, operation, None, somebody.id), service, operation)


@pytest.mark.control("IAM-01")
@pytest.mark.parametrize(("service", "operation"), [one for one in CLOSED if one not in UNSIGNED])
def test_wrongly_signed(platform: Running, somebody: Account, service: str, operation: str) -> None:
    refused(platform, send(platform, service, operation, somebody.keys, somebody.id, spoil=True), service, operation)


@pytest.mark.control("IAM-01")
@pytest.mark.parametrize(("service", "operation"), CLOSED)
def test_a_key_nobody_gave(platform: Running, somebody: Account, service: str, operation: str) -> None:
    forged = Keys("AKIAFORGEDFORGEDFORG", "forged" * 6)
    refused(platform, send(platform, service, operation, forged, somebody.id), service, operation)


@pytest.mark.control("IAM-01")
@pytest.mark.parametrize(("service", "operation"), [one for one in CLOSED if one not in NEEDLESS])
def test_without_any_permission(
    platform: Running, somebody: Account, nobody_special: Keys, service: str, operation: str
) -> None:
    refused(platform, send(platform, service, operation, nobody_special, somebody.id), service, operation)


def _names(service: str, operation: str, account: str) -> bool:
    """Whether the example of an operation names something of that account."""
    model = _model(service).operation_model(operation)
    if model.input_shape is None:
        return False
    return account in json.dumps(example(model.input_shape, "", account), default=str)


_OWN = {("iam", f"{verb}{noun}Policy") for verb in ("Attach", "Detach") for noun in ("User", "Group", "Role")} | {
    ("iam", f"{verb}MFADevice") for verb in ("Enable", "Deactivate", "Resync", "Get")
}
"""They are about an entity of the caller's own account, and only mention the ARN of a policy or a device."""
_OWN |= {("ssm", f"{verb}Resource") for verb in ("AddTagsTo", "RemoveTagsFrom", "ListTagsFor")}
"""Here a ResourceId is a name in the caller's own account, not an account."""
_OWN |= {("events", "PutTargets"), ("events", "ListRuleNamesByTarget")}
"""They are about a rule of the caller's own account, and only mention a target; what may be one, the stories show."""
_OWN |= {
    ("cloudformation", f"{verb}StackInstance{more}")
    for verb, more in (("Describe", ""), ("Create", "s"), ("Update", "s"))
}
_OWN |= {("cloudformation", "DeleteStackInstances"), ("cloudformation", "UpdateStackSet")}
"""They are about a stack set of the caller's own account, and only mention the accounts that it reaches."""
_OWN |= {
    ("servicecatalog", f"{verb}{noun}")
    for verb in ("Associate", "Disassociate")
    for noun in ("PrincipalWithPortfolio", "PrincipalFromPortfolio", "TagOptionWithResource", "TagOptionFromResource")
}
"""They are about a portfolio or product of the caller's own account; a ResourceId is an id in it."""
_OWN |= {(service, name) for service, name in OPERATIONS if service == "apigateway"}
"""No id tells whose an API is; that another account's is not to be had, its stories show."""
_OWN |= {("codecommit", f"{verb}RepositoryTriggers") for verb in ("Put", "Test")}
"""They are about a repository of the caller's own account, and only mention a destination, whose policy decides."""
_OWN |= {("codedeploy", "GetDeploymentTarget"), ("codedeploy", "BatchGetDeploymentTargets")}
"""They are about a deployment of the caller's own account, whose target is a function's alias."""
ACROSS = [one for one in OPERATIONS if _names(*one, "999988887777") and one not in NEEDLESS | _OWN]


@pytest.mark.control("ACC-01")
@pytest.mark.parametrize(("service", "operation"), ACROSS)
def test_the_administrator_of_a_neighbour_account(
    platform: Running, somebody: Account, powerful_neighbour: Account, service: str, operation: str
) -> None:
    refused(platform, send(platform, service, operation, powerful_neighbour.keys, somebody.id), service, operation)


@pytest.mark.control("IAM-01")
@pytest.mark.parametrize("operation", INSIDE, ids=lambda one: f"{one.service}:{one.name}")
def test_what_is_inside_is_no_operation_of_the_api(platform: Running, somebody: Account, operation: Any) -> None:
    """Who may do anything does not reach it by a signed request: only its own protocol, or another service, does."""
    from tests.guard.test_bad_input import ask

    prefix = _model(operation.service).metadata["targetPrefix"]
    headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": f"{prefix}.{operation.name}"}
    body = json.dumps({"repositoryName": "name"}).encode()
    status, _, answer = ask(platform, somebody.keys, operation.service, "POST", "/", body, headers)
    assert (status, json.loads(answer)["__type"].rpartition("#")[2]) == (400, "UnknownOperationException")
