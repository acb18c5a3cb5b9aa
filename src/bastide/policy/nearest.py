"""The nearest changes that would have allowed a refused request, and who may make each.

A refusal has one reason at a time; each is taken away in turn, the smallest way first: another value in the request, then
a word in a policy. Every step is put to the evaluator, and only steps that take it further are told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from bastide.policy.decide import Attached, Decision, Layers, Request, decide
from bastide.policy.documents import Document, Form, Statement
from bastide.policy.explain import concerns, covers, in_order, meets, names
from bastide.policy.variables import Value

_STEPS: Final = 8


@dataclass(frozen=True, slots=True)
class Change:
    """One change. who: "caller" changes the request; else the layer whose policies have to say otherwise.

    text: what to change. source: the policy, "" if any of the layer will do.
    """

    who: str
    text: str
    source: str = ""


def nearest(request: Request, layers: Layers) -> list[Change] | None:
    """Changes that together allow the request, in the order of what refuses it; None if none were found."""
    found: list[Change] = []
    for _ in range(_STEPS):
        decision = decide(request, layers)
        if decision.allowed:
            return found
        step = _step(request, layers, decision)
        if step is None:
            return None
        change, request, layers = step
        found.append(change)
    return None


_Step = tuple[Change, Request, Layers]


def _step(request: Request, layers: Layers, decision: Decision) -> _Step | None:
    if decision.verdict == "ExplicitlyDenied":
        return _past_a_deny(request, layers, decision)
    by_request = _into_an_allow(request, layers, decision)
    return by_request if by_request is not None else _another_allow(request, layers, decision)


# Explicit denies


def _past_a_deny(request: Request, layers: Layers, decision: Decision) -> _Step | None:
    for layer, _, attached in in_order(layers):
        if layer != decision.layer or attached.source != decision.source:
            continue
        statement = attached.document.statements[decision.statement or 0]
        label = statement.sid or f"number {statement.index}"
        for condition, held in zip(statement.conditions, meets(attached.document, statement, request), strict=True):
            if not held:
                break
            if not is_the_callers(condition.key):
                continue
            for text, context in _ways_out(condition.operator, condition.key, condition.wanted, request):
                other = replace(request, context=context)
                if not _denies(attached.document, statement, other):
                    words = f"{text}: the statement {label} of {attached.source} denies otherwise"
                    return Change("caller", words), other, layers
        without = Attached(_without(attached.document, statement.index), attached.source)
        changed = _replaced(layers, attached, without)
        after = decide(request, changed)
        if (after.layer, after.source, after.statement) == (decision.layer, decision.source, decision.statement):
            return None
        text = f"take {request.action} on {request.resource} out of the statement {label} of {attached.source}"
        return Change(layer, text, attached.source), request, changed
    return None


def _denies(document: Document, statement: Statement, request: Request) -> bool:
    return (
        concerns(statement, request.action)
        and names(document, statement, request, False)
        and covers(document, statement, request)
        and all(meets(document, statement, request))
    )


def _ways_out(
    operator: str, key: str, wanted: tuple[str, ...], request: Request
) -> list[tuple[str, Mapping[str, Value]]]:
    """Contexts in which a condition that holds might not, with what that asks of the caller."""
    name = key.lower()
    rest = {one: value for one, value in request.context.items() if one != name}
    base = operator.rpartition(":")[2].removesuffix("IfExists")
    if base == "Null":
        if "true" in [one.lower() for one in wanted]:
            return [(parameter(request.action, key), {**rest, name: "given"})]
        return [(f"leave out what fills {key}", rest)]
    several = isinstance(request.context.get(name), tuple)
    if base == "Bool":
        opposite = "false" if "true" in [one.lower() for one in wanted] else "true"
        return [(f"{parameter(request.action, key)} = {opposite}", {**rest, name: opposite})]
    found: list[tuple[str, Mapping[str, Value]]] = []
    if "Not" in base:
        values = " or ".join(wanted)
        for one in wanted:
            example = one.split("/")[0] if base == "NotIpAddress" else one.replace("*", "").replace("?", "x")
            value: Value = (example,) if several or operator.startswith("For") else example
            found.append((f"{parameter(request.action, key)} = {values}", {**rest, name: value}))
        return found
    found.append((f"leave out what fills {key}", rest))
    found.append((f"{parameter(request.action, key)}, other than {' or '.join(wanted)}", {**rest, name: "other"}))
    return found


# Missing allows


def _into_an_allow(request: Request, layers: Layers, decision: Decision) -> _Step | None:
    """An Allow of the layer that would apply if the caller asked with other values of keys that it fills."""
    for layer, _, attached in in_order(layers):
        if layer != decision.layer:
            continue
        for statement in attached.document.statements:
            if statement.deny or not (
                concerns(statement, request.action)
                and names(attached.document, statement, request, False)
                and covers(attached.document, statement, request)
            ):
                continue
            other, told = request, []
            for condition, held in zip(statement.conditions, meets(attached.document, statement, request), strict=True):
                if held or not is_the_callers(condition.key):
                    continue
                value = condition.wanted[0].split("/")[0] if "IpAddress" in condition.operator else condition.wanted[0]
                if "Null" in condition.operator or "$" in value or "Not" in condition.operator:
                    continue
                told.append(f"{parameter(request.action, condition.key)} = {' or '.join(condition.wanted)}")
                other = replace(other, context={**other.context, condition.key.lower(): value})
            if told and all(meets(attached.document, statement, other)):
                label = statement.sid or f"number {statement.index}"
                words = f"{'; '.join(told)}: the statement {label} of {attached.source} then allows it"
                return Change("caller", words), other, layers
    return None


def _another_allow(request: Request, layers: Layers, decision: Decision) -> _Step | None:
    """One more Allow in the layer that has none."""
    what = f"{request.action} on {request.resource}"
    role = request.principal.principal_arn or request.principal.arn
    layer = decision.layer
    if layer == "scp":
        for number, level in enumerate(layers.scps):
            if not decide(request, _only(level)).allowed:
                levels = [*layers.scps]
                levels[number] = [*level, _allowing(request, Form.SCP)]
                where = "the root" if number == 0 else f"level {number} below the root"
                text = f"allow {what} by a service control policy at {where}"
                return Change(layer, text), request, replace(layers, scps=levels)
        return None
    if layer == "identity":
        more = [*layers.identity, _allowing(request, Form.IDENTITY)]
        return Change(layer, f"add {what} to a policy of {role}"), request, replace(layers, identity=more)
    if layer == "boundary":
        source = decision.source or ""
        text = f"add {what} to the permissions boundary {source}"
        wider = _wider(layers.boundary, request, Form.BOUNDARY)
        return Change(layer, text, source), request, replace(layers, boundary=wider)
    if layer == "session":
        text = f"start the session with session policies that allow {what}, or with none"
        return (
            Change(layer, text),
            request,
            replace(layers, session=[*(layers.session or ()), _allowing(request, Form.SESSION)]),
        )
    if layer == "endpoint":
        source = decision.source or ""
        wider = _wider(layers.endpoint, request, Form.ENDPOINT)
        return (
            Change(layer, f"allow {what} by the policy of the VPC endpoint {source}", source),
            request,
            replace(layers, endpoint=wider),
        )
    who = "sts:AssumeRole for " if layer == "trust" else ""
    text = f"allow {who}{request.principal.arn or 'anonymous'} {request.action} by the policy of {request.resource}"
    form = layers.resource.document.form if layers.resource is not None else Form.RESOURCE
    wider = _wider(layers.resource, request, form)
    return Change(layer, text, decision.source or request.resource), request, replace(layers, resource=wider)


def _only(level: Any) -> Layers:
    return Layers(tuple(level), None, None, None, (), ())


_NAMING: Final = frozenset({Form.RESOURCE, Form.KEY, Form.TRUST, Form.ENDPOINT})


def _statement(request: Request, form: Form) -> dict[str, Any]:
    found: dict[str, Any] = {"Effect": "Allow", "Action": request.action}
    if form is not Form.TRUST:
        found["Resource"] = request.resource.replace("${", "$?") if request.resource.startswith("arn:") else "*"
    if form in _NAMING:
        found["Principal"] = "*"
    return found


def _allowing(request: Request, form: Form) -> Attached:
    source = {"Version": "2012-10-17", "Statement": _statement(request, form)}
    return Attached(Document.parse(source, form), "the change")


def _wider(attached: Attached | None, request: Request, form: Form) -> Attached:
    if attached is None:
        return _allowing(request, form)
    more = [*(written(one) for one in attached.document.statements), _statement(request, form)]
    for one in more:
        one.pop("Sid", None)
    source = {"Version": attached.document.version, "Statement": more}
    return Attached(Document.parse(source, form), attached.source)


def _without(document: Document, number: int) -> Document:
    """The document with one statement made to match nothing; the others keep their places."""
    statements = []
    for one in document.statements:
        source = written(one)
        if one.index == number:
            source.pop("NotAction", None)
            source["Action"] = "sts:Nothing"  # which every form may name
        statements.append(source)
    return Document.parse({"Version": document.version, "Statement": statements}, document.form)


def _replaced(layers: Layers, old: Attached, new: Attached) -> Layers:
    def several(policies: Any) -> tuple[Attached, ...]:
        return tuple(new if one is old else one for one in policies)

    return replace(
        layers,
        identity=several(layers.identity),
        boundary=new if layers.boundary is old else layers.boundary,
        session=None if layers.session is None else several(layers.session),
        resource=new if layers.resource is old else layers.resource,
        scps=[several(level) for level in layers.scps],
        rcps=[several(level) for level in layers.rcps],
        endpoint=new if layers.endpoint is old else layers.endpoint,
    )


def written(statement: Statement) -> dict[str, Any]:
    """A statement as JSON again, from its elements as they were written."""
    found: dict[str, Any] = {}
    if statement.sid:
        found["Sid"] = statement.sid
    found["Effect"] = "Deny" if statement.deny else "Allow"
    if statement.principals is not None:
        element = statement.principals
        told = element if isinstance(element, str) else {kind: list(names) for kind, names in element.items()}
        found["NotPrincipal" if statement.not_principal else "Principal"] = told
    found["NotAction" if statement.not_action else "Action"] = _plain(statement.actions)
    if statement.resources is not None:
        found["NotResource" if statement.not_resource else "Resource"] = _plain(statement.resources)
    for one in statement.conditions:
        found.setdefault("Condition", {}).setdefault(one.operator, {})[one.key] = _plain(one.wanted)
    return found


def _plain(texts: tuple[str, ...]) -> str | list[str]:
    return texts[0] if len(texts) == 1 else list(texts)


# What fills a key

_PARAMETERS: Final = {
    "sagemaker:InterContainerTrafficEncryption": "EnableInterContainerTrafficEncryption",
    "sagemaker:NetworkIsolation": "EnableNetworkIsolation",
    "sagemaker:DirectInternetAccess": "DirectInternetAccess",
    "sagemaker:RootAccess": "RootAccess",
    "sagemaker:AppNetworkAccessType": "AppNetworkAccessType",
    "sagemaker:OutputKmsKey": "OutputDataConfig.KmsKeyId",
    "sagemaker:ModelApprovalStatus": "ModelApprovalStatus",
    "sagemaker:TargetModel": "TargetModel",
    "s3:x-amz-server-side-encryption": "ServerSideEncryption",
    "s3:x-amz-server-side-encryption-aws-kms-key-id": "SSEKMSKeyId",
    "s3:prefix": "Prefix",
    "s3:x-amz-acl": "ACL",
    "sts:ExternalId": "ExternalId",
    "sts:RoleSessionName": "RoleSessionName",
    "sts:SourceIdentity": "SourceIdentity",
    "kms:EncryptionContext": "EncryptionContext",
}
_BY_ACTION: Final = {
    ("sagemaker:volumekmskey", "createtrainingjob"): "ResourceConfig.VolumeKmsKeyId",
    ("sagemaker:volumekmskey", "createprocessingjob"): "ProcessingResources.ClusterConfig.VolumeKmsKeyId",
    ("sagemaker:volumekmskey", "createtransformjob"): "TransformResources.VolumeKmsKeyId",
    ("sagemaker:volumekmskey", "createhyperparametertuningjob"): "TrainingJobDefinition.ResourceConfig.VolumeKmsKeyId",
    ("sagemaker:volumekmskey", "createendpointconfig"): "KmsKeyId",
    ("sagemaker:volumekmskey", "createnotebookinstance"): "KmsKeyId",
    ("sagemaker:volumekmskey", "createdomain"): "KmsKeyId",
    ("sagemaker:vpcsubnets", "createprocessingjob"): "NetworkConfig.VpcConfig.Subnets",
    ("sagemaker:vpcsecuritygroupids", "createprocessingjob"): "NetworkConfig.VpcConfig.SecurityGroupIds",
    ("sagemaker:networkisolation", "createprocessingjob"): "NetworkConfig.EnableNetworkIsolation",
    ("sagemaker:intercontainertrafficencryption", "createprocessingjob"): (
        "NetworkConfig.EnableInterContainerTrafficEncryption"
    ),
    ("sagemaker:vpcsubnets", "createnotebookinstance"): "SubnetId",
    ("sagemaker:vpcsecuritygroupids", "createnotebookinstance"): "SecurityGroupIds",
    ("sagemaker:outputkmskey", "createprocessingjob"): "ProcessingOutputConfig.KmsKeyId",
    ("sagemaker:outputkmskey", "createtransformjob"): "TransformOutput.KmsKeyId",
    ("sagemaker:instancetypes", "createtrainingjob"): "ResourceConfig.InstanceType",
    ("sagemaker:instancetypes", "createprocessingjob"): "ProcessingResources.ClusterConfig.InstanceType",
    ("sagemaker:instancetypes", "createendpointconfig"): "ProductionVariants.InstanceType",
    ("sagemaker:instancetypes", "createnotebookinstance"): "InstanceType",
}  # fmt: skip
_OTHERS: Final = {
    "sagemaker:vpcsubnets": "VpcConfig.Subnets",
    "sagemaker:vpcsecuritygroupids": "VpcConfig.SecurityGroupIds",
    "sagemaker:instancetypes": "the instance type",
    "sagemaker:volumekmskey": "VolumeKmsKeyId",
}
_CIRCUMSTANCES: Final = {
    "aws:sourceip": "call from an address",
    "aws:vpcsourceip": "call from an address of the network",
    "aws:sourcevpc": "call through an endpoint of the VPC",
    "aws:sourcevpce": "call through the VPC endpoint",
    "aws:securetransport": "call over TLS, aws:SecureTransport",
    "aws:multifactorauthpresent": "sign in with a second factor, aws:MultiFactorAuthPresent",
    "aws:requestedregion": "call in the region",
    "aws:viaawsservice": "call through an AWS service, aws:ViaAWSService",
}
_FIXED: Final = (
    "aws:principal", "aws:userid", "aws:username", "aws:resource", "aws:current", "aws:epoch", "aws:called",
    "aws:sourcearn", "aws:sourceaccount", "aws:sourceorg", "aws:tokenissue", "aws:federatedprovider",
)  # fmt: skip


def is_the_callers(key: str) -> bool:
    """Whether the one who asks can give a key another value; who one is and whose the resource is stay as they are."""
    name = key.lower()
    return not name.startswith(_FIXED) and ":resourcetag/" not in name and ":existingobjecttag/" not in name


def parameter(action: str, key: str) -> str:
    """What of a request fills a condition key, in words: ``pass KmsKeyId (sagemaker:VolumeKmsKey)``."""
    name, operation = key.lower(), action.partition(":")[2].lower()
    if name in _CIRCUMSTANCES:
        return _CIRCUMSTANCES[name]
    if name.startswith("aws:requesttag/"):
        return f"tag it with {key.partition('/')[2]} ({key})"
    known = _BY_ACTION.get((name, operation)) or _OTHERS.get(name)
    if known is None:
        known = next((value for one, value in _PARAMETERS.items() if one.lower() == name), None)
    return f"pass {known} ({key})" if known is not None else f"ask with {key}"
