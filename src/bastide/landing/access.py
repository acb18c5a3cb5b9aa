"""Who may do what in a landing zone: decided by the policy engine from templates alone, before anything stands.

Ids that only a deployment gives are made up, always the same ones, so that two landing
zones can be compared.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Final

from bastide.engines.templates import Declared, Unknown, checked, resolve
from bastide.landing import imagery
from bastide.landing.blueprint import MANAGEMENT, Blueprint
from bastide.landing.guardrails import guardrails, packed
from bastide.landing.rendering import Stack
from bastide.landing.words import account_word, filled, known, renamed, roles, sets, source, words
from bastide.policy import Attached, Decision, Document, Form, Layers, Named, Principal, Request, context, decide
from bastide.policy.prove import Proof, Scope, Situation, search

_ADMINISTRATOR: Final = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}
EVERYTHING: Final = Attached(Document.parse(_ADMINISTRATOR, Form.IDENTITY), "AdministratorAccess")
_FULL: Final = Attached(Document.parse(_ADMINISTRATOR, Form.SCP), "FullAWSAccess")
_STRANGER: Final = "999999999999"
_FORMS: Final = {
    "bucket": Form.RESOURCE, "key": Form.KEY, "repository": Form.RESOURCE, "group": Form.RESOURCE,
    "domain": Form.RESOURCE, "index": Form.RESOURCE,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Actor:
    """Somebody who asks. name: as the package's data call it; account: by name, "" outside of the landing zone."""

    name: str
    account: str
    principal: Principal
    identity: tuple[Attached, ...]

    @property
    def shown(self) -> str:
        """For people."""
        return f"{self.name} in {self.account}" if self.account else self.name


@dataclass(frozen=True, slots=True)
class Policy:
    """The policy of a resource. arn: of the resource; kind: bucket, key, repository, group or trust."""

    kind: str
    arn: str
    account: str
    attached: Attached


@dataclass(frozen=True, slots=True)
class Step:
    """Something that is to be possible, or not, because of one statement.

    source, sid: the statement; empty where several statements allow it together. allowed: what is to be decided.
    """

    actor: tuple[str, str]
    action: str
    resource: str
    context: Mapping[str, Any]
    allowed: bool
    source: str = ""
    sid: str = ""
    absent: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """For people."""
        return f"{self.action} on {self.resource}"


@dataclass(frozen=True, slots=True)
class Claim:
    """What somebody cannot do, whatever they ask."""

    actor: tuple[str, str]
    what: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]


@dataclass
class Landscape:
    """The policies of a landing zone, as they stand once its templates are deployed."""

    region: str
    tags: tuple[str, ...]
    instances: Mapping[str, tuple[str, ...]]
    values: dict[str, str] = field(default_factory=dict)
    actors: dict[tuple[str, str], Actor] = field(default_factory=dict)
    policies: dict[str, Policy] = field(default_factory=dict)
    """By ARN of the resource."""
    parents: dict[str, str] = field(default_factory=dict)
    """The unit above a unit or an account, by ids that were made up."""
    guards: dict[str, dict[str, list[Attached]]] = field(default_factory=dict)
    """Service and resource control policies, by type and unit."""
    raw: dict[str, Any] = field(default_factory=dict)
    """Every document as it was written, by the name of its source."""

    # -- who ---------------------------------------------------------------------------------------------------------------

    def account_id(self, name: str) -> str:
        """An account's made up id."""
        return self.values[account_word(name)]

    def account_name(self, id_: str) -> str:
        """An account's name; "" for one that is not of the landing zone."""
        return next((name for name in _names(self) if self.values[account_word(name)] == id_), "")

    def actor(self, name: str, account: str) -> Actor:
        """Somebody by name; raises KeyError. account: where, or where the question is from."""
        if (name, account) in self.actors:
            return self.actors[name, account]
        id_ = self.values.get(account_word(account), _STRANGER)
        arn = f"arn:aws:iam::{id_}"
        if name == "root":
            return Actor(name, account, Principal("Root", id_, f"{arn}:root", f"{arn}:root"), ())
        if name in ("administrator", "deployer"):
            role = "Administrator" if name == "administrator" else "OrganizationAccountAccessRole"
            return Actor(name, account, _session(id_, f"{arn}:role/{role}", role), (EVERYTHING,))
        if name == "stranger":
            role = f"arn:aws:iam::{_STRANGER}:role/Stranger"
            return Actor(name, "", _session(_STRANGER, role, "Stranger"), (EVERYTHING,))
        if name.endswith(".amazonaws.com"):
            return Actor(name, "", Principal("Service", None, name), ())
        found = [one for one in self.actors.values() if one.name == name or one.name.startswith(f"{name}-")]
        found.sort(key=lambda one: (one.account != account, one.name, one.account))
        if not found:
            raise KeyError(f"nobody is named {name}")
        return found[0]

    # -- decisions ---------------------------------------------------------------------------------------------------------

    def ask(self, actor: Actor, step: Step, without: tuple[str, str] | None = None, *, alone: bool = False) -> Decision:
        """The decision on a step.

        without: a statement, by source and Sid, that is thought away. alone: so are all guardrails and resource policies
        but the step's own source: what several policies refuse, each of them has to refuse by itself.
        """
        layers, owner = self.layers(actor, step.action, step.resource)
        if alone:
            layers = _alone(layers, step.source)
        if without is not None:
            layers = self._thought_away(layers, *without)
        held = self.context(actor, owner, step.action) | {
            key.lower(): one for key, one in context(step.context).items()
        }
        for name in step.absent:
            held.pop(name.lower(), None)
        return decide(Request(actor.principal, step.action, step.resource, owner, held), layers)

    def context(self, actor: Actor, owner: str | None, action: str) -> dict[str, Any]:
        """What a well-behaved request brings."""
        who = actor.principal
        is_service = who.kind == "Service"
        keys: dict[str, Any] = {
            "aws:SecureTransport": "true",
            "aws:RequestedRegion": self.region,
            "aws:ViaAWSService": "false",
            "aws:PrincipalIsAWSService": "true" if is_service else "false",
            "aws:ResourceAccount": owner or who.account or "",
            "s3:x-amz-server-side-encryption": "aws:kms",
            "sagemaker:VolumeKmsKey": "key",
            "sagemaker:VpcSubnets": ["subnet-1"],
            "sagemaker:VpcSecurityGroupIds": ["sg-1"],
            "sagemaker:NetworkIsolation": "true",
            "sagemaker:InterContainerTrafficEncryption": "true",
            "sagemaker:DirectInternetAccess": "Disabled",
            "sagemaker:RootAccess": "Disabled",
            "sagemaker:AppNetworkAccessType": "VpcOnly",
            "sagemaker:InstanceTypes": [self._instance(action)],
            **{f"aws:RequestTag/{tag}": "x" for tag in self.tags},
            **{f"{kind}/{tag}": "x" for kind in ("aws:ResourceTag", "s3:ExistingObjectTag") for tag in self.tags},
        }
        if (owner or who.account) != _STRANGER:
            keys["aws:ResourceOrgID"] = self.values["OrganizationId"]
        if not is_service:
            keys["aws:PrincipalArn"] = who.principal_arn or who.arn
            keys["aws:PrincipalAccount"] = who.account or ""
            if who.account != _STRANGER:
                keys["aws:PrincipalOrgID"] = self.values["OrganizationId"]
        return context(keys)

    def _instance(self, action: str) -> str:
        """An instance type that is allowed for what is made."""
        if "Notebook" in action:
            return self.instances["notebooks"][0]
        return self.instances["apps" if re.search("App|Domain|Space|UserProfile", action) else "jobs"][0]

    def layers(self, actor: Actor, action: str, resource: str) -> tuple[Layers, str | None]:
        """The policies in force, and the id of the resource's account."""
        policy = self.policy_of(action, resource)
        owner = policy.account if policy is not None else _account_of(resource) or actor.principal.account
        layers = Layers(
            actor.identity, None, None, policy.attached if policy is not None else None,
            self._levels("scp", actor.principal.account, full=True), self._levels("rcp", owner, full=False),
            resource_kind=policy.kind if policy is not None and policy.kind in ("key", "trust") else "",
        )  # fmt: skip
        return layers, owner

    def policy_of(self, action: str, resource: str) -> Policy | None:
        """The policy of the resource that a question is about."""
        kind, _, verb = action.partition(":")
        if kind == "s3":
            return self.policies.get(resource.partition("/")[0])
        if kind == "sts" and verb.startswith("AssumeRole"):
            return self.policies.get(f"trust {resource}")
        if kind == "sagemaker" and ":model-package" in resource:
            head, _, rest = resource.partition(":model-package")
            name = rest.removeprefix("-group").removeprefix("/").partition("/")[0]
            return self.policies.get(f"{head}:model-package-group/{name}")
        return self.policies.get(resource)

    def _levels(self, type_: str, account: str | None, *, full: bool) -> list[list[Attached]]:
        """A level for the root, each unit on the way, and the account; none outside and for the management account."""
        if account is None or account not in self.parents:
            return []
        path, at = [], self.parents[account]
        while at in self.parents:
            path.append(at)
            at = self.parents[at]
        nothing = [_FULL] if full else []
        held = self.guards.get(type_, {})
        return [nothing, *([*nothing, *held.get(unit, ())] for unit in reversed(path)), nothing]

    def _thought_away(self, layers: Layers, name: str, sid: str) -> Layers:
        def less(one: Attached) -> Attached:
            return self._less(name, sid, one.document.form) if one.source == name else one

        return replace(
            layers,
            identity=tuple(less(one) for one in layers.identity),
            resource=None if layers.resource is None else less(layers.resource),
            scps=[[less(one) for one in level] for level in layers.scps],
            rcps=[[less(one) for one in level] for level in layers.rcps],
        )

    def _less(self, name: str, sid: str, form: Form) -> Attached:
        kept = [one for one in self.raw[name]["Statement"] if one.get("Sid") != sid]
        assert len(kept) < len(self.raw[name]["Statement"]), f"{name} has no statement {sid}"
        nothing = {"Sid": "Nothing", "Effect": "Deny", "Action": "sts:Nothing", "Resource": "*"}
        if form in (Form.RESOURCE, Form.KEY, Form.TRUST, Form.RCP):
            nothing["Principal"] = "*"
        if form is Form.TRUST:
            del nothing["Resource"]
        return Attached(Document.parse({"Version": "2012-10-17", "Statement": [*kept, nothing]}, form), name)

    # -- proofs ------------------------------------------------------------------------------------------------------------

    def prove(self, claim: Claim) -> Proof:
        """Whether a claim holds for every request; needs z3. Raises Unavailable without it."""
        actor = self.actor(*claim.actor)
        bare, _ = self.layers(actor, "none:None", "none")
        found = [Situation("its own policies", actor.principal, bare, actor.principal.account)]
        for one in self.policies.values():
            # Between accounts the actor's own policies are needed anyway; within one those of a resource that names the
            # actor are enough.
            if one.account == actor.principal.account and _names_it(one, actor.principal):
                layers = replace(bare, resource=one.attached, resource_kind="key" if one.kind == "key" else "")
                found.append(Situation(one.attached.source, actor.principal, layers, one.account))
        who = self.context(actor, None, "")
        fixed: dict[str, str | tuple[str, ...] | None] = {
            key: who[key]
            for key in ("aws:principalarn", "aws:principalaccount", "aws:principalisawsservice")
            if key in who
        }
        scope = Scope(claim.actions, claim.resources, context=fixed)
        # Guardrails only take away: what holds without them holds with them, and is proved sooner.
        sooner = search([replace(one, layers=replace(one.layers, scps=(), rcps=())) for one in found], scope)
        return sooner if sooner.outcome == "proved" else search(found, scope)


def _names_it(policy: Policy, who: Principal) -> bool:
    """Whether an Allow of a resource's policy names somebody, and not only the account."""
    return policy.kind != "trust" and any(
        not one.deny and one.chosen is not None and one.chosen(who, False) > Named.ACCOUNT
        for one in policy.attached.document.statements
    )


def _alone(layers: Layers, name: str) -> Layers:
    def kept(level: Iterable[Attached]) -> list[Attached]:
        return [one for one in level if one.source in (name, _FULL.source)]

    own = layers.resource is not None and layers.resource.source == name
    return replace(
        layers,
        resource=layers.resource if own else None,
        resource_kind=layers.resource_kind if own else "",
        scps=[kept(level) for level in layers.scps],
        rcps=[kept(level) for level in layers.rcps],
    )


def _session(account: str, role: str, name: str) -> Principal:
    return Principal("AssumedRole", account, f"arn:aws:sts::{account}:assumed-role/{name}/somebody", role)


def _account_of(arn: str) -> str | None:
    parts = arn.split(":")
    return parts[4] if len(parts) > 5 and parts[4] else None


# -- from templates --------------------------------------------------------------------------------------------------------


@lru_cache(4096)
def _parsed(text: str, form: Form) -> Document:
    return Document.parse(text, form)


def made_up(names: Iterable[str]) -> dict[str, str]:
    """Ids for accounts and for the organisation, always the same for the same names."""
    found = {
        account_word(name): f"{100000000001 + index:012d}" for index, name in enumerate(sorted({*names, MANAGEMENT}))
    }
    return found | {
        "OrganizationId": "o-landing000", "RootId": "r-land", "IdentityStoreId": "d-0000000000",
        "IdentityCenterArn": "arn:aws:sso:::instance/ssoins-0000000000000000",
    }  # fmt: skip


def landscape(stacks: Iterable[Stack], blueprint: Blueprint, names: Iterable[str] = ()) -> Landscape:
    """What stands once the stacks are deployed. names: accounts that need an id beside those of the blueprint."""
    stacks = sorted(stacks, key=lambda one: one.phase)
    found = Landscape(blueprint.region, blueprint.required_tags, blueprint.instances)
    found.values |= made_up([*blueprint.accounts, *(one.account for one in stacks), *names])
    for (
        name,
        one,
    ) in blueprint.accounts.items():  # where the organisation's template says nothing: accounts that existed
        found.parents[found.account_id(name)] = _unit_id(one.unit)
    for stack in stacks:
        _take(found, stack)
    return found


def _unit_id(path: tuple[str, ...]) -> str:
    return "ou-" + "/".join(path)


def _take(found: Landscape, stack: Stack) -> None:
    template = checked(dict(stack.template))
    home = found.account_id(stack.account)
    # The id of a unit is its path, that of an account what was made up for its name.
    units: dict[str, str] = {}

    def physical(logical: str) -> Any:
        one = template.resources[logical]
        if one.type == "AWS::Organizations::OrganizationalUnit":
            if logical not in units:
                parent = resolve(one.properties["ParentId"], scope)
                name = str(resolve(one.properties["Name"], scope))
                units[logical] = f"ou-{name}" if parent == found.values["RootId"] else f"{parent}/{name}"
                found.parents[units[logical]] = parent
            return units[logical]
        if one.type == "AWS::Organizations::Account":
            return found.values.setdefault(account_word(str(resolve(one.properties["AccountName"], scope))), "")
        named = {
            "AWS::IAM::Role": "RoleName",
            "AWS::S3::Bucket": "BucketName",
            "AWS::ECR::Repository": "RepositoryName",
        }
        if one.type in named:
            return resolve(one.properties[named[one.type]], scope)
        return f"{logical}-{home}"

    def attribute(logical: str, name: str) -> Any:
        one = template.resources[logical]
        if one.type == "AWS::KMS::Key":
            return f"arn:aws:kms:{found.region}:{home}:key/{logical}"
        if one.type == "AWS::IAM::Role":
            return _role_arn(resolve(one.properties, scope), home)
        return f"{logical}.{name}"

    values = {**found.values, "AWS::AccountId": home, "AWS::Region": found.region, "AWS::Partition": "aws"}
    zones = [f"{found.region}{letter}" for letter in "abc"]
    scope = template.scope(
        {name: values.get(name, f"no-{name}") for name in {*template.parameters, *values}},
        reference=physical, attribute=attribute, zones=lambda _: zones,
    )  # fmt: skip
    for logical, one in template.active(scope).items():
        if one.type in _TAKEN:
            _resource(found, stack, home, logical, one, resolve(one.properties, scope), physical)
    for name, output in template.section("Outputs").items():
        with contextlib.suppress(Unknown):
            found.values[name] = str(resolve(output["Value"], scope))


_TAKEN: Final = frozenset(
    {
        "AWS::CodeArtifact::Domain", "AWS::CodeArtifact::Repository", "AWS::ECR::Repository", "AWS::IAM::Role",
        "AWS::IAM::RolePolicy", "AWS::KMS::Key", "AWS::Organizations::Account",
        "AWS::Organizations::OrganizationalUnit", "AWS::Organizations::Policy", "AWS::S3::BucketPolicy",
        "AWS::SSO::Assignment", "AWS::SSO::PermissionSet", "AWS::SageMaker::ModelPackageGroup",
    }
)  # fmt: skip


def _role_arn(properties: Mapping[str, Any], account: str) -> str:
    return f"arn:aws:iam::{account}:role{properties.get('Path', '/')}{properties['RoleName']}"


def _attached(found: Landscape, name: str, raw: Any, form: Form) -> Attached:
    document = json.loads(raw) if isinstance(raw, str) else raw
    if isinstance(document["Statement"], dict):
        document = {**document, "Statement": [document["Statement"]]}
    found.raw[name] = document
    return Attached(_parsed(json.dumps(document), form), name)


def _resource(
    found: Landscape, stack: Stack, home: str, logical: str, one: Declared, properties: dict[str, Any], physical: Any
) -> None:
    where = stack.account
    region = found.region

    def policy(kind: str, arn: str, raw: Any) -> None:
        found.policies[arn] = Policy(kind, arn, home, _attached(found, f"{logical} in {where}", raw, _FORMS[kind]))

    if one.type == "AWS::IAM::Role":
        arn = _role_arn(properties, home)
        trust = _attached(found, f"trust of {logical} in {where}", properties["AssumeRolePolicyDocument"], Form.TRUST)
        found.policies[f"trust {arn}"] = Policy("trust", arn, home, trust)
        inline = tuple(
            _attached(found, f"{logical} in {where}: {each['PolicyName']}", each["PolicyDocument"], Form.IDENTITY)
            for each in properties.get("Policies", ())
        )
        found.actors[logical, where] = Actor(logical, where, _session(home, arn, properties["RoleName"]), inline)
    elif one.type == "AWS::IAM::RolePolicy":
        for key, actor in found.actors.items():
            if key[1] == where and actor.principal.principal_arn.rpartition("/")[2] == properties["RoleName"]:
                more = _attached(found, actor.shown, properties["PolicyDocument"], Form.IDENTITY)
                found.actors[key] = replace(actor, identity=(*actor.identity, more))
    elif one.type == "AWS::SSO::PermissionSet":
        found.raw[f"set {logical}"] = properties
    elif one.type == "AWS::SSO::Assignment":
        _assigned(found, stack, properties)
    elif one.type == "AWS::S3::BucketPolicy":
        policy("bucket", f"arn:aws:s3:::{properties['Bucket']}", properties["PolicyDocument"])
    elif one.type == "AWS::KMS::Key":
        policy("key", f"arn:aws:kms:{region}:{home}:key/{logical}", properties["KeyPolicy"])
    elif one.type == "AWS::ECR::Repository" and properties.get("RepositoryPolicyText"):
        arn = f"arn:aws:ecr:{region}:{home}:repository/{properties['RepositoryName']}"
        policy("repository", arn, properties["RepositoryPolicyText"])
    elif one.type.startswith("AWS::CodeArtifact::") and properties.get("PermissionsPolicyDocument"):
        head = f"arn:aws:codeartifact:{region}:{home}"
        given = properties["PermissionsPolicyDocument"]
        if one.type.endswith("::Domain"):
            policy("domain", f"{head}:domain/{properties['DomainName']}", given)
        else:
            policy(
                "index",
                f"{head}:repository/{stack.name.partition('-landing-')[0]}/{properties['RepositoryName']}",
                given,
            )
    elif one.type == "AWS::SageMaker::ModelPackageGroup" and properties.get("ModelPackageGroupPolicy"):
        arn = f"arn:aws:sagemaker:{region}:{home}:model-package-group/{properties['ModelPackageGroupName']}"
        policy("group", arn, properties["ModelPackageGroupPolicy"])
    elif one.type == "AWS::Organizations::Account":
        found.parents[physical(logical)] = properties["ParentIds"][0]
    elif one.type == "AWS::Organizations::OrganizationalUnit":
        physical(logical)
    elif one.type == "AWS::Organizations::Policy" and properties["Type"] != "TAG_POLICY":
        short = "scp" if properties["Type"].startswith("SERVICE") else "rcp"
        attached = _attached(found, properties["Name"], properties["Content"], Form(short))
        for target in properties["TargetIds"]:
            found.guards.setdefault(short, {}).setdefault(target, []).append(attached)


def _assigned(found: Landscape, stack: Stack, properties: Mapping[str, Any]) -> None:
    """A permission set in an account is a role there, which AWS names."""
    logical = str(properties["PermissionSetArn"]).partition(".")[0]
    told = found.raw[f"set {logical}"]
    account = str(properties["TargetId"])
    where = found.account_name(account)
    name = f"AWSReservedSSO_{told['Name']}_0123456789abcdef"
    arn = f"arn:aws:iam::{account}:role/aws-reserved/sso.amazonaws.com/{name}"
    identity = _attached(found, told["Name"], told["InlinePolicy"], Form.IDENTITY)
    found.actors[told["Name"], where] = Actor(told["Name"], where, _session(account, arn, name), (identity,))


def _names(found: Landscape) -> Iterator[str]:
    for key in found.values:
        if key.endswith("Account"):
            yield re.sub(r"(?<!^)(?=[A-Z])", "-", key.removesuffix("Account")).lower()


# -- what is to be possible, from the package's data -----------------------------------------------------------------------


def steps(blueprint: Blueprint, found: Landscape) -> Iterator[Step]:
    """Everything that the statements of the landing zone say they are for."""
    for name, account, entry in roles(blueprint):
        for statement in entry["statements"]:
            yield from _steps(found, (name, account), statement, found.actors[name, account].shown)
    for _, name, accounts, entry in sets(blueprint):
        for statement in entry["statements"]:
            yield from _steps(found, (name, accounts[0]), statement, name, accounts)
    given = words(blueprint)
    for name, entry in source("resources").items():
        account = entry["account"]
        told = filled(entry, given, **renamed(account), ThisKeyArn=f"{name}Arn")
        for statement in told["statements"]:
            yield from _steps(found, ("administrator", account), statement, "")
    if "images" in blueprint.delivery:
        where = "shared-services"
        for name, entry in imagery.roles(blueprint):
            for statement in entry["statements"]:
                yield from _steps(found, (name, where), statement, f"{name} in {where}: part")
        for statements in imagery.policies(blueprint):
            for statement in statements:
                yield from _steps(found, ("administrator", where), statement, "")


def _steps(
    found: Landscape, default: tuple[str, str], statement: Mapping[str, Any], name: str, accounts: tuple[str, ...] = ()
) -> Iterator[Step]:
    for word, allowed in (("does", True), ("refuses", False)):
        for one in statement.get(word, ()):
            action, _, resource = one["do"].partition(" ")
            resource = known(resource, found.values)
            who, where = one.get("as", default[0]), one.get("in", default[1])
            if "in" not in one and len(accounts) > 1:
                where = found.account_name(_account_of(resource) or "") or where
            actor = found.actor(who, where) if "as" in one else found.actor(default[0], where)
            policy = found.policy_of(action, resource)
            owner = name or (policy.attached.source if policy is not None else "")
            yield Step(
                (actor.name, actor.account), action, resource, known(one.get("with", {}), found.values), allowed,
                owner, statement["Sid"], tuple(one.get("without", ())),
            )  # fmt: skip


def refusals(blueprint: Blueprint, found: Landscape) -> Iterator[Step]:
    """What the guardrails stop, and what they must not stop: steps whose source is the policy that holds the statement."""
    where = {
        (one.type, statement["Sid"]): one.name for one in packed(blueprint) for statement in one.document["Statement"]
    }
    for guardrail in guardrails(blueprint):
        for statement in guardrail.statements:
            for word, allowed in (("refuses", False), ("lets", True)):
                for one in statement.get(word, ()):
                    action, _, resource = one["do"].partition(" ")
                    resource = known(resource, found.values)
                    account = one.get("in") or found.account_name(_account_of(resource) or "") or "data-science"
                    actor = found.actor(one.get("as", "administrator"), account)
                    yield Step(
                        (actor.name, actor.account), action, resource, known(one.get("with", {}), found.values), allowed,
                        where[guardrail.type, statement["Sid"]], statement["Sid"], tuple(one.get("without", ())),
                    )  # fmt: skip


def claims(blueprint: Blueprint, found: Landscape) -> Iterator[Claim]:
    """What the roles and people of the landing zone cannot do."""
    listed = [(name, account, entry) for name, account, entry in roles(blueprint)]
    listed += [(name, account, entry) for _, name, accounts, entry in sets(blueprint) for account in accounts]
    if "images" in blueprint.delivery:
        listed += [(name, "shared-services", entry) for name, entry in imagery.roles(blueprint)]
    for name, account, entry in listed:
        for one in entry.get("cannot", ()):
            told = known(one, found.values)
            yield Claim((name, account), told["what"], tuple(told["actions"]), tuple(told["resources"]))


# -- two landing zones -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Change:
    """Somebody who may do something now, or may no longer."""

    who: str
    action: str
    resource: str
    gains: bool


def changes(before: Landscape, after: Landscape, asked: Iterable[Step]) -> list[Change]:
    """Who gains and who loses what: each actor of either landing zone is asked each step."""
    questions = {(one.action, one.resource): one for one in asked if one.allowed}
    found = []
    for key in sorted({*before.actors, *after.actors}):
        for step in questions.values():
            was, is_ = (key in world.actors and world.ask(world.actors[key], step).allowed for world in (before, after))
            if was != is_:
                found.append(Change((after if is_ else before).actors[key].shown, step.action, step.resource, is_))
    return found
