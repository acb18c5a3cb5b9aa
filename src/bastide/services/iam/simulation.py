"""SimulatePrincipalPolicy: the policy engine asked without doing anything.

Source: IAM API reference, "SimulatePrincipalPolicy"; IAM User Guide, "IAM policy testing with the IAM policy simulator".
The decision is made by the very function that guards calls, under the principal's own policies, its boundary and the
organisation's policies; condition keys beside those of the principal come from the call.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from bastide import policy
from bastide.domain import MICROS, Arn, Refused, iso
from bastide.kernel import Ask, Asked, Authorised, Caller, Output
from bastide.policy import Attached, Context, Document, Finding, Form, Layers
from bastide.services.iam.entity import no_entity, sliced
from bastide.services.iam.policy import POLICY, policy_name
from bastide.services.iam.role import ROLE
from bastide.services.iam.user import USER
from bastide.store import Row, View

_DECISIONS: Final = {"Allowed": "allowed", "ExplicitlyDenied": "explicitDeny", "ImplicitlyDenied": "implicitDeny"}
_ALIKE: Final = {"identity", "resource", "trust", "session"}
"""Layers whose statements are shown as matched; SCPs and boundaries have members of their own."""


def _invalid(message: str) -> Refused:
    return Refused("InvalidInput", message)


def _source(asked: Asked) -> Iterable[str]:
    return (str(asked.input["PolicySourceArn"]),)


def _arn(text: str, what: str) -> Arn:
    try:
        found = Arn.parse(text)
    except ValueError:
        raise _invalid(f"Invalid Entity Arn: {text} does not clearly define {what}.") from None
    return found


def _principal(a: Authorised, view: View) -> tuple[Caller, Row]:
    """Whose policies are simulated."""
    text = str(a.input["PolicySourceArn"])
    arn = _arn(text, "entity type and name")
    kinds = {"user": USER, "role": ROLE}
    if arn.service != "iam" or arn.type not in kinds:
        raise _invalid(f"Invalid Entity Arn: {text} does not clearly define entity type and name.")
    kind = kinds[arn.type]
    name = arn.resource.rpartition("/")[2]
    row = kind.held(view, a.account, name) if arn.account == a.account else None
    if row is None or row.doc["Arn"] != text:
        raise no_entity(kind.told_missing.format(name=name))
    if kind is USER:
        return Caller("User", arn.account, text, text, row.doc["UserId"], name, tags=row.tags), row
    return Caller("AssumedRole", arn.account, text, text, row.doc["RoleId"], name, tags=row.tags), row


def _asking(a: Authorised, source: Caller) -> policy.Principal:
    """Whom a resource's policy sees asking: CallerArn, otherwise the source itself."""
    text = a.input.get("CallerArn")
    if not text:
        kind: policy.Kind = "User" if source.kind == "User" else "Role"
        return policy.Principal(kind, source.account, source.arn, source.arn)
    arn = _arn(str(text), "a user")
    if arn.service != "iam" or arn.type != "user":
        raise _invalid("CallerArn must be the ARN of a user.")
    return policy.Principal("User", arn.account, str(text), str(text))


def _context(a: Authorised, view: View, who: policy.Principal, source: Caller) -> Context:
    """What the principal brings by itself, then what the call gives."""
    keys: dict[str, str | tuple[str, ...]] = {
        "aws:currenttime": iso(a.now),
        "aws:epochtime": str(a.now // MICROS),
        "aws:principalarn": who.arn,
        "aws:principalaccount": who.account or "",
        "aws:principaltype": "User" if who.kind == "User" else "AssumedRole",
    }
    if who.arn == source.arn:
        keys["aws:userid"] = source.user_id
        for key, value in source.tags.items():
            keys[f"aws:principaltag/{key.lower()}"] = value
    if who.kind == "User":
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


def _layers(a: Authorised, view: View, source: Caller) -> Layers:
    identity, boundary = a.calls.directory.policies(view, source)
    more = tuple(
        Attached(Document.parse(text, Form.IDENTITY), f"PolicyInputList.{number}")
        for number, text in enumerate(a.input.get("PolicyInputList") or (), 1)
    )
    limits = a.input.get("PermissionsBoundaryPolicyInputList") or ()
    if len(limits) > 1:
        raise _invalid("PermissionsBoundaryPolicyInputList takes one policy.")
    for text in limits:
        boundary = Attached(Document.parse(text, Form.BOUNDARY), "PermissionsBoundaryPolicyInputList.1")
    return Layers(
        identity=(*identity, *more),
        boundary=boundary,
        session=None,
        resource=None,
        scps=a.calls.organisation.scps(view, source.account),
        rcps=(),
    )


def _origin(source: str, layer: str, row: Row) -> tuple[str, str]:
    """SourcePolicyId and SourcePolicyType of a policy."""
    kind = "user" if row.kind == USER.key else "role"
    if layer != "identity":
        return source, "resource"
    if source.startswith("arn:aws:iam::aws:policy/"):
        return policy_name(source), "aws-managed"
    inline = source.partition(" inline policy ")[2]
    if inline:
        return f"{kind}_{row.doc['UserName' if kind == 'user' else 'RoleName']}_{inline}", kind
    return (policy_name(source), "user-managed") if source.startswith("arn:") else (source, "none")


def _by_organisation(findings: Sequence[Finding], levels: int) -> bool:
    allowed = set()
    for finding in findings:
        if finding.layer == "scp":
            if finding.verdict == "ExplicitlyDenied":
                return False
            if finding.verdict == "Allowed":
                allowed.add(finding.level)
    return len(allowed) == levels


def _result(asked: policy.Request, layers: Layers, row: Row) -> Output:
    decision = policy.decide(asked, layers)
    findings = policy.explain(asked, layers)
    effect = "Deny" if decision.verdict == "ExplicitlyDenied" else "Allow"
    matched: list[Output] = []
    missing: set[str] = set()
    for finding in findings:
        for statement in finding.statements:
            if statement.principal and statement.resource:
                missing |= {one.key for one in statement.conditions if one.seen is None}
            if finding.layer in _ALIKE and statement.applied and statement.effect == effect:
                id, kind = _origin(finding.source, finding.layer, row)
                matched.append({"SourcePolicyId": id, "SourcePolicyType": kind})
    shown = matched if decision.verdict != "ImplicitlyDenied" else []
    output: Output = {
        "EvalActionName": asked.action,
        "EvalResourceName": asked.resource,
        "EvalDecision": _DECISIONS[decision.verdict],
        "MatchedStatements": shown,
        "MissingContextValues": sorted(missing),
    }
    if layers.scps:
        allowed = _by_organisation(findings, len(layers.scps))
        output["OrganizationsDecisionDetail"] = {"AllowedByOrganizations": allowed}
    if layers.boundary is not None:
        [verdict] = [finding.verdict for finding in findings if finding.layer == "boundary"]
        output["PermissionsBoundaryDecisionDetail"] = {"AllowedByPermissionsBoundary": verdict == "Allowed"}
    return output


def _resource(a: Authorised, action: str) -> tuple[Attached | None, str]:
    """ResourcePolicy and the kind of resource that it would belong to."""
    text = a.input.get("ResourcePolicy")
    kind = {"kms": "key", "sts": "trust"}.get(action.partition(":")[0].lower(), "")
    if not text:
        # Without the policy of a resource the simulator tells what the principal's own policies say.
        return None, ""
    form = {"key": Form.KEY, "trust": Form.TRUST}.get(kind, Form.RESOURCE)
    return Attached(Document.parse(str(text), form), "ResourcePolicy"), kind


def _owner(a: Authorised, resource: str, default: str | None) -> str | None:
    given = a.input.get("ResourceOwner")
    if given:
        arn = _arn(str(given), "an account")
        return arn.account
    if not a.input.get("ResourcePolicy"):
        return None
    try:
        return Arn.parse(resource).account or default
    except ValueError:
        return default


@POLICY.reads("SimulatePrincipalPolicy", asks=[Ask("iam:SimulatePrincipalPolicy", _source)])
def simulate(a: Authorised, view: View) -> Output:
    for name in ("PolicyExclusionList", "ResourceHandlingOption"):
        if a.input.get(name):
            raise _invalid(f"{name} is not supported by Bastide yet.")
    source, row = _principal(a, view)
    who = _asking(a, source)
    keys = _context(a, view, who, source)
    layers = _layers(a, view, source)
    resources = a.input.get("ResourceArns") or ["*"]
    actions = a.input["ActionNames"]
    # Pairs by number: all of them at once may be hundreds of millions.
    output = sliced(a, "EvaluationResults", range(len(actions) * len(resources)))
    found: list[Any] = []
    for number in output["EvaluationResults"]:
        action, resource = str(actions[number // len(resources)]), str(resources[number % len(resources)])
        held, kind = _resource(a, action)
        bound = Layers(
            identity=layers.identity,
            boundary=layers.boundary,
            session=None,
            resource=held,
            scps=layers.scps,
            rcps=(),
            resource_kind=kind,
        )
        asked = policy.Request(who, action, resource, _owner(a, resource, who.account), keys)
        found.append(_result(asked, bound, row))
    output["EvaluationResults"] = found
    return output
