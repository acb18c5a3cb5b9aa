"""The record: one entry a call, in CloudTrail's shape, with what the decision saw beside it.

Source: CloudTrail User Guide, "CloudTrail record contents". Under ``additionalEventData.bastide`` stand the questions
that were asked, with the whole request context, so that an entry can be decided again under another policy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import orjson

from bastide.domain import Arn, Refused, iso, new_id, timed_id
from bastide.kernel.call import Call, Question
from bastide.kernel.identity import Caller, Session
from bastide.protocol import codec
from bastide.store import Event

HIDDEN = "HIDDEN_DUE_TO_SECURITY_REASONS"
_SECRET_MEMBERS = frozenset(
    {
        "SecretAccessKey", "SessionToken", "Plaintext", "CiphertextForRecipient", "Password", "NewPassword",
        "OldPassword", "SecretString", "SecretBinary", "SSECustomerKey", "CopySourceSSECustomerKey", "AuthorizationToken",
        "AuthorizedUrl", "PrivateKey", "ImportToken", "WebIdentityToken", "SAMLAssertion", "TokenCode",
        "AuthenticationCode1", "AuthenticationCode2", "Base32StringSeed", "QRCodePNG", "AddPrivateKey",
        "ContextAssertion", "ParameterValue", "TemplateBody", "deviceCode", "userCode", "verificationUriComplete", "code",
        "MessageBody", "MessageAttributes", "MessageSystemAttributes", "ReceiptHandle",
    }
)  # fmt: skip
_CONTENT_MEMBERS = frozenset({"logEvents"})
"""What is content, not a parameter: lines of logs are for who may read logs, not for who reads the record."""
_LONGEST = 2000
_DEEPEST = 12

_Shown = Callable[[Any], Any]


@cache
def _shown(service: str, operation: str, output: bool) -> _Shown:
    """A function that turns an input or output into what the record may show."""
    held = codec(service).operations[operation]
    shape = held.output_shape if output else held.input_shape
    if shape is None:
        return lambda _: None
    known: dict[str, _Shown] = {}
    return _shown_shape(shape, known, 0)


def _shown_shape(shape: Any, known: dict[str, _Shown], depth: int) -> _Shown:
    if depth > _DEEPEST:
        return lambda _: "..."
    if shape.metadata.get("sensitive") or getattr(shape, "is_document_type", False):
        return lambda _: HIDDEN  # nobody knows what a document holds
    kind = shape.type_name
    if kind == "structure":
        members: dict[str, tuple[str, _Shown]] = {}
        for name, below in shape.members.items():
            if name in _SECRET_MEMBERS:
                shown: _Shown = lambda _: HIDDEN  # noqa: E731
            elif name in _CONTENT_MEMBERS:
                shown = _counted
            else:
                shown = _shown_shape(below, known, depth + 1)
            members[name] = (name[:1].lower() + name[1:], shown)

        def structure(value: Any) -> Any:
            found = {}
            for name, one in value.items():
                if one is not None and name in members:
                    label, show = members[name]
                    found[label] = show(one)
            return found

        return structure
    if kind == "list":
        each = _shown_shape(shape.member, known, depth + 1)
        return lambda value: [each(one) for one in value]
    if kind == "map":
        of = _shown_shape(shape.value, known, depth + 1)
        return lambda value: {str(key): of(one) for key, one in value.items()}
    if kind == "blob":
        return lambda value: f"<{len(value)} bytes>" if isinstance(value, bytes) else "<stream>"
    if kind == "timestamp":
        return lambda value: iso(value) if isinstance(value, int) else str(value)
    if kind == "string":
        return lambda value: value if len(value) <= _LONGEST else value[:_LONGEST] + "..."
    return lambda value: value


def _counted(value: Any) -> str:
    return f"<{len(value)} entries>"


def identity(caller: Caller) -> dict[str, Any]:
    """CloudTrail's userIdentity."""
    if caller.kind == "Service":
        return {"type": "AWSService", "invokedBy": caller.arn}
    if caller.kind == "Federated":
        kind = "SAMLUser" if ":saml-provider/" in caller.arn else "WebIdentityUser"
        return {"type": kind, "principalId": caller.user_id, "userName": caller.name, "identityProvider": caller.arn}
    if caller.kind == "IdentityCenterUser":
        return {"type": "IdentityCenterUser", "accountId": caller.account, "onBehalfOf": {"userId": caller.user_id}}
    if caller.kind == "Anonymous":
        return {"type": "Unknown", "principalId": "ANONYMOUS_PRINCIPAL", "accountId": "ANONYMOUS_PRINCIPAL"}
    known: dict[str, Any] = {
        "type": "IAMUser" if caller.kind == "User" else caller.kind,
        "principalId": caller.user_id,
        "arn": caller.arn,
        "accountId": caller.account,
        "accessKeyId": caller.access_key,
    }
    if caller.kind == "User":
        known["userName"] = caller.name
    session = caller.session
    if session is not None and session.kind != "role":
        known["sessionContext"] = {"attributes": _attributes(session)}
        if session.kind == "federated":
            known["sessionContext"]["sessionIssuer"] = {
                "type": "IAMUser",
                "principalId": session.role_id,
                "arn": session.role,
                "accountId": session.account,
                "userName": session.role.rpartition("/")[2],
            }
    elif session is not None:
        known["sessionContext"] = {
            "sessionIssuer": {
                "type": "Role",
                "principalId": session.role_id,
                "arn": session.role,
                "accountId": session.account,
                "userName": session.role.rpartition("/")[2],
            },
            "attributes": _attributes(session),
        }
        if session.provider:
            known["sessionContext"]["webIdFederationData"] = {"federatedProvider": session.provider}
        if session.source_identity:
            known["sessionContext"]["sourceIdentity"] = session.source_identity
    return known


def _attributes(session: Session) -> dict[str, str]:
    return {"creationDate": iso(session.issued), "mfaAuthenticated": "true" if session.mfa else "false"}


def entries(
    call: Call,
    event_source: str,
    home: str,
    *,
    questions: Sequence[Question] = (),
    touched: Sequence[str] = (),
    output: Mapping[str, Any] | None = None,
    refused: Refused | None = None,
) -> list[Event]:
    """The entries of one call: one for the caller's account and, if it was allowed, one for each account whose
    resource was used. `home` is the account that keeps what belongs to no known account."""
    operation, caller, request = call.operation, call.caller, call.request
    category = "Data" if operation.data else "Management"
    resources = list(dict.fromkeys([q.resource for q in questions if q.resource != "*"] + list(touched)))
    record: dict[str, Any] = {
        "eventVersion": "1.11",
        "userIdentity": identity(caller),
        "eventTime": iso(request.at),
        "eventSource": event_source,
        "eventName": operation.event_name or operation.name,
        "awsRegion": call.region or "us-east-1",
        "sourceIPAddress": request.source_ip,
        "userAgent": request.user_agent,
        "requestParameters": _safely(operation.service, operation.name, False, call.input),
        "responseElements": _safely(operation.service, operation.name, True, output)
        if output is not None and (operation.mutates or operation.tells) and not operation.data
        else None,
        "requestID": request.id,
        "readOnly": operation.read_only,
        "eventType": "AwsApiCall",
        "managementEvent": not operation.data,
        "eventCategory": category,
        "resources": [_resource(arn) for arn in resources],
    }
    if request.via:
        record["userIdentity"]["invokedBy"] = request.via[-1]
    elif request.vpce:
        record["vpcEndpointId"] = request.vpce
    if refused is not None:
        record["errorCode"] = refused.code
        record["errorMessage"] = refused.message
        kept = refused.kept.get("questions")
        if kept:
            questions = kept
            record["resources"] = [_resource(q.resource) for q in kept if q.resource != "*"]
            resources = [q.resource for q in kept if q.resource != "*"]
    if request.tls:
        record["tlsDetails"] = {"tlsVersion": request.tls, "clientProvidedHostHeader": request.host}
    record["additionalEventData"] = {**call.told, "bastide": {"questions": [_question(one) for one in questions]}}
    recipients = [caller.account] if caller.account else []
    for question in questions:
        # Of a call that is answered key by key, some questions may be answered no.
        allowed = (refused is None and question.verdict == "Allowed") or caller.kind == "Anonymous"
        if allowed and question.account and question.account not in recipients:
            recipients.append(question.account)
    shared = new_id() if len(recipients) > 1 else None
    found = []
    for account in recipients or [home]:
        record["eventID"] = timed_id(request.at)
        record["recipientAccountId"] = account
        if shared is not None:
            record["sharedEventID"] = shared
        found.append(
            Event(
                account, request.at, record["eventID"], record["eventName"], event_source, caller.name, caller.access_key,
                operation.read_only, category, refused.code if refused is not None else "", request.id, _names(resources),
                orjson.dumps(record, default=str),
            )
        )  # fmt: skip
    return found


def _names(resources: Sequence[str]) -> tuple[str, ...]:
    """What a lookup by resource may ask for: the ARN, or the name at its end."""
    names = [arn.rpartition("/")[2] or arn for arn in resources]
    return tuple(dict.fromkeys([*resources, *(name.rpartition(":")[2] for name in names)]))


def _safely(service: str, operation: str, output: bool, value: Mapping[str, Any] | None) -> Any:
    if not value:
        return None
    try:
        return _shown(service, operation, output)(value) or None
    except (AttributeError, TypeError, ValueError):
        return "<not shown: it does not have the model's shape>"


def _question(question: Question) -> dict[str, Any]:
    told: dict[str, Any] = {
        "action": question.action,
        "resource": question.resource,
        "account": question.account,
        "verdict": question.verdict,
        "context": question.context,
    }
    if question.layer:
        told["layer"] = question.layer
    if question.source:
        told["policy"] = question.source
    if question.statement is not None:
        told["statement"] = question.statement
    if question.sid:
        told["sid"] = question.sid
    return told


_TYPES = {
    ("s3", "object"): "AWS::S3::Object",
    ("s3", "bucket"): "AWS::S3::Bucket",
    ("kms", "key"): "AWS::KMS::Key",
    ("iam", "role"): "AWS::IAM::Role",
    ("iam", "user"): "AWS::IAM::User",
    ("iam", "policy"): "AWS::IAM::Policy",
}


@cache
def resource_type(service: str, kind: str) -> str:
    """The CloudFormation-like type name that LookupEvents shows: ``AWS::SageMaker::TrainingJob``."""
    found = _TYPES.get((service, kind))
    if found is not None:
        return found
    names = {"sagemaker": "SageMaker", "logs": "Logs", "organizations": "Organizations", "sts": "STS"}
    return f"AWS::{names.get(service, service.upper())}::{''.join(part.capitalize() for part in kind.split('-'))}"


def _resource(text: str) -> dict[str, str]:
    try:
        arn = Arn.parse(text)
    except ValueError:
        return {"ARN": text}
    kind = ("object" if "/" in arn.resource else "bucket") if arn.service == "s3" else arn.type
    told = {"ARN": text, "type": resource_type(arn.service, kind)}
    if arn.account:
        told["accountId"] = arn.account
    return told
