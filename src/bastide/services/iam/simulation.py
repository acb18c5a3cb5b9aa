"""The policy simulator: the policy engine asked without doing anything.

Source: IAM API reference, "SimulatePrincipalPolicy" and "SimulateCustomPolicy"; IAM User Guide, "IAM policy testing with
the IAM policy simulator". The decision is made by the very function that guards calls: for a principal under its own
policies, its groups', its boundary and the organisation's service control policies; otherwise under the policies that the
call brings. Condition keys beside those of the principal come from the call. As in AWS's simulator, resource control
policies are not weighed. Every pair of action and resource is a result of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bastide import policy
from bastide.domain import MICROS, Arn, Refused, iso
from bastide.kernel import Ask, Asked, Authorised, Caller, Output, anything
from bastide.policy import Attached, Context, Document, Finding, Form, Layers
from bastide.services.iam import attachment
from bastide.services.iam.attachment import Held
from bastide.services.iam.entity import Entity, no_entity, sliced
from bastide.services.iam.group import GROUP, groups_of
from bastide.services.iam.managed import MANAGED
from bastide.services.iam.policy import POLICY, policy_name, text_of
from bastide.services.iam.positions import statements
from bastide.services.iam.role import LINKED, ROLE
from bastide.services.iam.user import USER
from bastide.store import Row, View

_DECISIONS: Final = {"Allowed": "allowed", "ExplicitlyDenied": "explicitDeny", "ImplicitlyDenied": "implicitDeny"}
_ALIKE: Final = {"identity", "resource", "trust"}
"""Layers whose statements are shown as matched; SCPs and boundaries have members of their own."""
_KINDS: Final[Mapping[str, Entity]] = {"user": USER, "group": GROUP, "role": ROLE}
_VPC: Final = ("instance", "image", "security-group", "network-interface")
_HANDLING: Final = {
    "EC2-VPC-InstanceStore": _VPC,
    "EC2-VPC-InstanceStore-Subnet": (*_VPC, "subnet"),
    "EC2-VPC-EBS": (*_VPC, "volume"),
    "EC2-VPC-EBS-Subnet": (*_VPC, "subnet", "volume"),
}
"""Scenarios and the types of resources that each needs."""


def _invalid(message: str) -> Refused:
    return Refused("InvalidInput", message)


def _source(asked: Asked) -> Iterable[str]:
    return (str(asked.input["PolicySourceArn"]),)


def _arn(text: str) -> Arn:
    try:
        return Arn.parse(text)
    except ValueError:
        raise _invalid(f"Invalid Entity Arn: {text} does not clearly define entity type and name.") from None


def _named(text: str) -> Arn:
    """The ARN of a user, group or role."""
    arn = _arn(text)
    if arn.service != "iam" or arn.type not in _KINDS:
        raise _invalid(f"Invalid Entity Arn: {text} does not clearly define entity type and name.")
    return arn


def _entity(a: Authorised, view: View) -> Row:
    """Whose policies are simulated."""
    text = str(a.input["PolicySourceArn"])
    arn = _named(text)
    kind, name = _KINDS[arn.type], arn.resource.rpartition("/")[2]
    row = kind.held(view, a.account, name) if arn.account == a.account else None
    if row is None or row.doc["Arn"] != text:
        raise no_entity(kind.told_missing.format(name=name))
    return row


@dataclass(slots=True)
class _Simulated:
    """What a simulation is made of. who: whom a resource's policy sees asking; layers: without a resource's policy;
    held, texts: the policies by the name that decisions give them, and their texts."""

    who: policy.Principal
    context: Context
    layers: Layers
    held: dict[str, Held]
    texts: dict[str, str]


# -- what is simulated -------------------------------------------------------------------------------------------------


def _asking(a: Authorised, source: Row | None) -> policy.Principal:
    """CallerArn, otherwise the source itself."""
    text = a.input.get("CallerArn")
    if not text and source is None:
        if a.input.get("ResourcePolicy"):
            raise _invalid("CallerArn is required with a ResourcePolicy.")
        return policy.Principal("User", a.account, "", "")
    text = str(text or (source.doc["Arn"] if source is not None else ""))
    arn = _named(text)
    return policy.Principal("Role" if arn.type == "role" else "User", arn.account, text, text)


def _context(a: Authorised, view: View, who: policy.Principal, source: Row | None) -> Context:
    """What the principal brings by itself, then what the call gives."""
    keys: dict[str, str | tuple[str, ...]] = {
        "aws:currenttime": iso(a.now),
        "aws:epochtime": str(a.now // MICROS),
        "aws:principalaccount": who.account or "",
    }
    if who.arn:
        keys["aws:principalarn"] = who.arn
        keys["aws:principaltype"] = "User" if who.kind == "User" else "AssumedRole"
    if source is not None and who.arn == source.doc["Arn"] and source.kind != GROUP.key:
        keys["aws:userid"] = str(source.doc["UserId" if source.kind == USER.key else "RoleId"])
        for key, value in source.tags.items():
            keys[f"aws:principaltag/{key.lower()}"] = value
    if who.arn and _arn(who.arn).type == "user":
        keys["aws:username"] = who.arn.rpartition("/")[2]
    place = a.calls.organisation.place(view, who.account or "")
    if place is not None:
        keys["aws:principalorgid"] = place[0]
        keys["aws:principalorgpaths"] = (place[1],)
    for entry in a.input.get("ContextEntries") or ():
        values = tuple(str(one) for one in entry.get("ContextKeyValues") or ())
        kind = str(entry.get("ContextKeyType") or "string")
        if not entry.get("ContextKeyName") or not values:
            raise _invalid("A context entry needs a name and a value.")
        many = kind.endswith("List")
        if not many and len(values) > 1:
            raise _invalid(f"{entry['ContextKeyName']} has several values but is of the type {kind}.")
        keys[str(entry["ContextKeyName"]).lower()] = values if many else values[0]
    return keys


def _listed(texts: Iterable[str], form: Form, name: str) -> Iterator[tuple[Attached, str]]:
    """Policies of the call as they are attached, with their texts; raises Refused (InvalidInput) for what is none."""
    for number, text in enumerate(texts, 1):
        try:
            yield Attached(Document.parse(text, form), f"{name}.{number}"), text
        except Refused as refused:
            raise _invalid(f"{name}.{number}: {refused.message}") from None


def _given(a: Authorised) -> tuple[list[Attached], Attached | None, dict[str, str]]:
    """Policies, boundary and texts that the call brings."""
    texts: dict[str, str] = {}
    identity: list[Attached] = []
    for attached, text in _listed(a.input.get("PolicyInputList") or (), Form.IDENTITY, "PolicyInputList"):
        identity.append(attached)
        texts[attached.source] = text
    limits = a.input.get("PermissionsBoundaryPolicyInputList") or ()
    if len(limits) > 1:
        raise _invalid("PermissionsBoundaryPolicyInputList takes one policy.")
    boundary = None
    for attached, _ in _listed(limits, Form.BOUNDARY, "PermissionsBoundaryPolicyInputList"):
        boundary = attached
    return identity, boundary, texts


def _layers(identity: Sequence[Attached], boundary: Attached | None, scps: Sequence[Sequence[Attached]]) -> Layers:
    return Layers(identity=identity, boundary=boundary, session=None, resource=None, scps=scps, rcps=())


def _of_principal(a: Authorised, view: View) -> _Simulated:
    row = _entity(a, view)
    who = _asking(a, row)
    out = _excluded(a.input.get("PolicyExclusionList") or ())
    own = attachment.held(view, row)
    if row.kind == USER.key:
        for group in groups_of(view, row):
            own += attachment.held(view, group)
    if row.kind == GROUP.key:
        identity: Sequence[Attached] = [
            Attached(Document.parse_cached(one.text, Form.IDENTITY), one.source) for one in own if one.text is not None
        ]
        bound: Attached | None = None
    else:
        arn = str(row.doc["Arn"])
        kind, id, name = (
            ("User", "UserId", "UserName") if row.kind == USER.key else ("AssumedRole", "RoleId", "RoleName")
        )
        source = Caller(kind, row.account, arn, arn, row.doc[id], row.doc[name], tags=row.tags)  # type: ignore[arg-type]
        identity, bound = a.calls.directory.policies(view, source)
    held = {one.source: one for one in own}
    identity = [one for one in identity if one.source not in held or not out.policy(held[one.source])]
    if bound is not None and out.boundary(bound.source):
        bound = None
    # Neither a group nor a service-linked role is bound by the organisation.
    free = row.kind == GROUP.key or str(row.doc["Path"]).startswith(LINKED)
    scps: Sequence[Sequence[Attached]] = () if free else a.calls.organisation.scps(view, row.account)
    if out.types & {"scp"}:
        scps = ()
    elif out.arns:
        scps = [[one for one in level if not out.arn(one.source)] for level in scps]
    more, boundary, texts = _given(a)
    texts |= {one.source: one.text for one in own if one.text is not None}
    layers = _layers([*identity, *more], boundary or bound, scps)
    return _Simulated(who, _context(a, view, who, row), layers, held, texts)


def _of_texts(a: Authorised, view: View) -> _Simulated:
    who = _asking(a, None)
    identity, boundary, texts = _given(a)
    scps = [
        [one for one, _ in _listed(level.get("ServiceControlPolicyInputList") or (), Form.SCP, f"Level.{number}")]
        for number, level in enumerate(a.input.get("OrderedOrganizationPolicyInputList") or (), 1)
    ]
    return _Simulated(who, _context(a, view, who, None), _layers(identity, boundary, scps), {}, texts)


# -- what is left out --------------------------------------------------------------------------------------------------


def _like(pattern: str) -> Callable[[str], bool]:
    """The test of a pattern with at most one ``*`` and any number of ``?``; raises Refused (InvalidInput)."""
    if pattern.count("*") > 1:
        raise _invalid(f"{pattern} has more than one *.")
    found = re.compile(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."))
    return lambda text: found.fullmatch(text) is not None


@dataclass(slots=True)
class _Excluded:
    types: set[str]
    arns: list[Callable[[str], bool]]
    inline: list[tuple[str, str, Callable[[str], bool]]]

    def arn(self, arn: str) -> bool:
        return any(matches(arn) for matches in self.arns)

    def boundary(self, arn: str) -> bool:
        return "permission-boundary" in self.types or self.arn(arn)

    def policy(self, one: Held) -> bool:
        if one.arn:
            return ("aws-managed" if one.arn in MANAGED else "user-managed") in self.types or self.arn(one.arn)
        kind, name = _owner_of(one)
        return "inline" in self.types or any(
            policy == one.name and owner == kind and matches(name) for policy, owner, matches in self.inline
        )


def _excluded(listed: Iterable[Mapping[str, Any]]) -> _Excluded:
    found = _Excluded(set(), [], [])
    for one in listed:
        if one.get("PolicyType"):
            found.types.add(str(one["PolicyType"]))
        elif one.get("PolicyArn"):
            text = str(one["PolicyArn"])
            arn = _arn(text)
            if any(char in text[: len(text) - len(arn.resource)] for char in "*?"):
                raise _invalid(f"{text} has a wildcard outside of the name.")
            found.arns.append(_like(text))
        elif one.get("InlinePolicyIdentifier"):
            inline = one["InlinePolicyIdentifier"]
            found.inline.append(
                (str(inline["PolicyName"]), str(inline["AttachmentType"]), _like(str(inline["AttachmentName"])))
            )
        else:
            raise _invalid("A policy identifier names a type, an ARN or an inline policy.")
    return found


def _owner_of(one: Held) -> tuple[str, str]:
    kind = one.owner.kind.partition(":")[2]
    return kind.lower(), str(one.owner.doc[f"{kind}Name"])


# -- what is said ------------------------------------------------------------------------------------------------------


def _origin(simulated: _Simulated, source: str, layer: str) -> tuple[str, str]:
    """SourcePolicyId and SourcePolicyType of a policy."""
    if layer != "identity":
        return source, "resource"
    one = simulated.held.get(source)
    if one is None:
        return source, "none"
    if one.arn:
        return policy_name(one.arn), "IAM Policy"  # so AWS answers, whatever its reference lists
    kind, name = _owner_of(one)
    return f"{kind}_{name}_{one.name}", kind


def _matched(simulated: _Simulated, finding: Finding, statement: int) -> Output:
    id, kind = _origin(simulated, finding.source, finding.layer)
    found: Output = {"SourcePolicyId": id, "SourcePolicyType": kind}
    text = simulated.texts.get(finding.source)
    if text is not None:
        for name, (line, column) in zip(("StartPosition", "EndPosition"), statements(text)[statement], strict=True):
            found[name] = {"Line": line, "Column": column + 1}  # behind the bracket, as AWS counts
    return found


def _by_organisation(findings: Sequence[Finding], levels: int) -> bool:
    allowed = set()
    for finding in findings:
        if finding.layer == "scp":
            if finding.verdict == "ExplicitlyDenied":
                return False
            if finding.verdict == "Allowed":
                allowed.add(finding.level)
    return len(allowed) == levels


def _together(verdicts: Sequence[str]) -> str:
    for verdict in ("ExplicitlyDenied", "Allowed"):
        if verdict in verdicts:
            return _DECISIONS[verdict]
    return "implicitDeny"


def _across(findings: Sequence[Finding], bounded: bool) -> dict[str, str]:
    """EvalDecisionDetails: what each type of policy says by itself."""
    said = {
        "Identity-based policy": _together([one.verdict for one in findings if one.layer == "identity"]),
        "Resource-based policy": _together([one.verdict for one in findings if one.layer in ("resource", "trust")]),
    }
    if bounded:
        said["Permissions boundary"] = _together([one.verdict for one in findings if one.layer == "boundary"])
    return said


def _result(simulated: _Simulated, asked: policy.Request, layers: Layers) -> Output:
    decision = policy.decide(asked, layers)
    findings = policy.explain(asked, layers)
    effect = "Deny" if decision.verdict == "ExplicitlyDenied" else "Allow"
    matched: list[Output] = []
    missing: set[str] = set()
    for finding in findings:
        if finding.layer == "scp":
            continue
        for statement in finding.statements:
            if statement.principal and statement.resource:
                missing |= {one.key for one in statement.conditions if one.seen is None}
            if finding.layer in _ALIKE and statement.applied and statement.effect == effect:
                matched.append(_matched(simulated, finding, statement.statement))
    told: Output = {
        "MatchedStatements": matched if decision.verdict != "ImplicitlyDenied" else [],
        "MissingContextValues": sorted(missing),
    }
    if layers.boundary is not None:
        [verdict] = [finding.verdict for finding in findings if finding.layer == "boundary"]
        told["PermissionsBoundaryDecisionDetail"] = {"AllowedByPermissionsBoundary": verdict == "Allowed"}
    if asked.resource != "*":
        across = asked.resource_account not in (None, asked.principal.account)
        told["EvalDecisionDetails"] = _across(findings, layers.boundary is not None) if across else {}
    said = _DECISIONS[decision.verdict]
    output: Output = {
        "EvalActionName": asked.action,
        "EvalResourceName": asked.resource,
        "EvalDecision": said,
        **told,
    }
    if asked.resource != "*":
        specific = {key: value for key, value in told.items() if key != "EvalDecisionDetails" or value}
        output["ResourceSpecificResults"] = [
            {"EvalResourceName": asked.resource, "EvalResourceDecision": said, **specific}
        ]
    if layers.scps:
        output["OrganizationsDecisionDetail"] = {"AllowedByOrganizations": _by_organisation(findings, len(layers.scps))}
    return output


_STRICT: Final = ("explicitDeny", "implicitDeny", "allowed")


def _whole(action: str, results: Sequence[Output]) -> Output:
    """One result of a scenario, in which an action needs all of its resources."""
    decision = min((str(one["EvalDecision"]) for one in results), key=_STRICT.index)
    deciding = [one for one in results if one["EvalDecision"] == decision]
    matched: list[Output] = []
    for one in deciding:
        matched += [statement for statement in one["MatchedStatements"] if statement not in matched]
    output: Output = {
        "EvalActionName": action,
        "EvalResourceName": "*",
        "EvalDecision": decision,
        "MatchedStatements": matched,
        "MissingContextValues": sorted({key for one in results for key in one["MissingContextValues"]}),
        "ResourceSpecificResults": [part for one in results for part in one["ResourceSpecificResults"]],
    }
    for member, inside in (
        ("OrganizationsDecisionDetail", "AllowedByOrganizations"),
        ("PermissionsBoundaryDecisionDetail", "AllowedByPermissionsBoundary"),
    ):
        if member in results[0]:
            output[member] = {inside: all(one[member][inside] for one in results)}
    return output


# -- resources ---------------------------------------------------------------------------------------------------------


def _kind(action: str) -> str:
    """The kind of resource that ResourcePolicy would belong to."""
    return {"kms": "key", "sts": "trust"}.get(action.partition(":")[0].lower(), "")


def _resource(a: Authorised, kind: str) -> Attached | None:
    """ResourcePolicy; without it the simulator tells what the principal's own policies say."""
    text = a.input.get("ResourcePolicy")
    if not text:
        return None
    form = {"key": Form.KEY, "trust": Form.TRUST}.get(kind, Form.RESOURCE)
    try:
        return Attached(Document.parse(str(text), form), "ResourcePolicy")
    except Refused as refused:
        raise _invalid(f"ResourcePolicy: {refused.message}") from None


_ACCOUNT: Final = re.compile(r"[0-9]{12}")


def _owner(a: Authorised, resource: str, default: str | None) -> str | None:
    """The account of a resource: its ARN's, otherwise ResourceOwner, otherwise the caller's."""
    if not a.input.get("ResourcePolicy"):
        return None
    given = str(a.input.get("ResourceOwner") or "")
    if given and not _ACCOUNT.fullmatch(given):
        given = _arn(given).account
        if not _ACCOUNT.fullmatch(given):
            raise _invalid("ResourceOwner must be an account ID.")
    try:
        named = Arn.parse(resource).account
    except ValueError:
        named = ""
    return named if _ACCOUNT.fullmatch(named) else given or default


def _scenario(a: Authorised, resources: Sequence[str]) -> bool:
    """Whether a scenario is asked for; raises Refused (InvalidInput) if a resource that it needs is missing."""
    option = a.input.get("ResourceHandlingOption")
    if not option:
        return False
    needed = _HANDLING.get(str(option))
    if needed is None:
        raise _invalid(f"ResourceHandlingOption must be one of {', '.join(_HANDLING)}.")
    there = {_arn(one).type for one in resources if one != "*"}
    missing = [type for type in needed if type not in there]
    if missing:
        raise _invalid(f"The scenario {option} needs resources of the types {', '.join(missing)} in ResourceArns.")
    return True


def _simulate(a: Authorised, simulated: _Simulated) -> Output:
    resources = [str(one) for one in a.input.get("ResourceArns") or ["*"]]
    actions = [str(one) for one in a.input["ActionNames"]]
    who, layers = simulated.who, simulated.layers
    scenario = _scenario(a, resources)
    policies: dict[str, Attached | None] = {}
    if a.input.get("ResourcePolicy"):
        simulated.texts["ResourcePolicy"] = str(a.input["ResourcePolicy"])

    def one(action: str, resource: str) -> Output:
        kind = _kind(action)
        if kind not in policies:
            policies[kind] = _resource(a, kind)
        held = policies[kind]
        bound = Layers(
            identity=layers.identity,
            boundary=layers.boundary,
            session=None,
            resource=held,
            scps=layers.scps,
            rcps=(),
            resource_kind=kind if held is not None else "",
        )
        asked = policy.Request(who, action, resource, _owner(a, resource, who.account), simulated.context)
        return _result(simulated, asked, bound)

    if scenario:
        output = sliced(a, "EvaluationResults", actions)
        output["EvaluationResults"] = [
            _whole(action, [one(action, resource) for resource in resources]) for action in output["EvaluationResults"]
        ]
        return output
    # Pairs by number: all of them at once may be hundreds of millions.
    output = sliced(a, "EvaluationResults", range(len(actions) * len(resources)))
    output["EvaluationResults"] = [
        one(actions[number // len(resources)], resources[number % len(resources)])
        for number in output["EvaluationResults"]
    ]
    return output


@POLICY.reads("SimulatePrincipalPolicy", asks=[Ask("iam:SimulatePrincipalPolicy", _source)])
def simulate(a: Authorised, view: View) -> Output:
    return _simulate(a, _of_principal(a, view))


@POLICY.reads("SimulateCustomPolicy", asks=[Ask("iam:SimulateCustomPolicy", anything)])
def simulate_custom(a: Authorised, view: View) -> Output:
    return _simulate(a, _of_texts(a, view))


# -- context keys ------------------------------------------------------------------------------------------------------

_VARIABLE: Final = re.compile(r"\$\{\s*([^\s,{}]+)\s*(?:,[^}]*)?\}")


def _texts(value: Any) -> Iterator[str]:
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, str):
            yield one


def _keys(text: str) -> Iterator[str]:
    """The context keys that a checked policy speaks of, in conditions and in variables."""
    document = json.loads(text)
    listed = document["Statement"]
    variables = document.get("Version") == "2012-10-17"
    for statement in listed if isinstance(listed, list) else [listed]:
        places = [one for name in ("Resource", "NotResource") for one in _texts(statement.get(name))]
        for block in (statement.get("Condition") or {}).values():
            for key, value in block.items():
                yield key
                places += _texts(value)
        if variables:
            for place in places:
                yield from (name for name in _VARIABLE.findall(place) if name not in ("*", "?", "$"))


def _context_keys(texts: Iterable[str]) -> Output:
    found: dict[str, str] = {}
    for text in texts:
        for key in _keys(text):
            found.setdefault(key.lower(), key)
    return {"ContextKeyNames": list(found.values())}


@POLICY.reads("GetContextKeysForCustomPolicy", asks=[Ask("iam:GetContextKeysForCustomPolicy", anything)])
def custom_keys(a: Authorised, view: View) -> Output:
    given = _listed(a.input["PolicyInputList"], Form.IDENTITY, "PolicyInputList")
    return _context_keys(text for _, text in given)


@POLICY.reads("GetContextKeysForPrincipalPolicy", asks=[Ask("iam:GetContextKeysForPrincipalPolicy", _source)])
def principal_keys(a: Authorised, view: View) -> Output:
    row = _entity(a, view)
    held = attachment.held(view, row)
    if row.kind == USER.key:
        for group in groups_of(view, row):
            held += attachment.held(view, group)
    texts = [one.text for one in held if one.text is not None]
    boundary = text_of(view, a.account, row.doc["boundary"]) if row.doc.get("boundary") else None
    if boundary is not None:
        texts.append(boundary)
    texts += [text for _, text in _listed(a.input.get("PolicyInputList") or (), Form.IDENTITY, "PolicyInputList")]
    return _context_keys(texts)
