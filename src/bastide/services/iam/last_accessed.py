"""Which services an entity's policies let it use, and when it last used them.

Source: IAM API reference, "GenerateServiceLastAccessedDetails" and "ListPoliciesGrantingServiceAccess"; IAM User Guide,
"Refine permissions in AWS using last accessed information". A service counts as permitted if a statement of Allow speaks
of it; denies, boundaries and the organisation's policies are not weighed, as AWS does not weigh them either.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

from bastide.domain import MICROS, Arn, Refused
from bastide.kernel import Ask, Asked, Authorised, Kind, Output, anything
from bastide.protocol import codec
from bastide.services.iam import attachment
from bastide.services.iam.attachment import Held
from bastide.services.iam.entity import Entity, no_entity, sliced
from bastide.services.iam.group import GROUP, MEMBER, groups_of
from bastide.services.iam.last_use import LastUse, Use
from bastide.services.iam.policy import USE, text_of
from bastide.services.iam.policy_use import used_by
from bastide.services.iam.role import ROLE
from bastide.services.iam.user import USER
from bastide.store import Row, Transaction, View

JOB: Final = "iam:LastAccessedJob"
_KEPT: Final = 24 * 3600 * MICROS
"""How long a job's answer is there to be fetched."""
_FEW: Final = 20
ADVISOR = Kind("LastAccessedJob", service="iam", arn="access-advisor/{}", global_=True, tags=False)
_KINDS: Final[Mapping[str, Entity]] = {"user": USER, "group": GROUP, "role": ROLE}


def _arn(asked: Asked) -> Iterable[str]:
    return (str(asked.input["Arn"]),)


def _invalid(arn: str) -> Refused:
    return Refused("InvalidInput", f"Invalid Entity Arn: {arn} does not clearly define entity type and name.")


def _entity(a: Authorised, view: View, text: str) -> Row | None:
    """The user, group or role of an ARN, None for a policy; raises Refused (InvalidInput, NoSuchEntity)."""
    try:
        arn = Arn.parse(text)
    except ValueError:
        raise _invalid(text) from None
    if arn.service != "iam" or arn.type not in (*_KINDS, "policy"):
        raise _invalid(text)
    if arn.type == "policy":
        if text_of(view, a.account, text) is None:
            raise no_entity(f"Policy {text} was not found.")
        return None
    kind = _KINDS[arn.type]
    name = arn.resource.rpartition("/")[2]
    row = kind.held(view, a.account, name) if arn.account == a.account else None
    if row is None or row.doc["Arn"] != text:
        raise no_entity(kind.told_missing.format(name=name))
    return row


def _policies(view: View, row: Row) -> list[Held]:
    found = attachment.held(view, row)
    if row.kind == USER.key:
        for group in groups_of(view, row):
            found += attachment.held(view, group)
    return found


@lru_cache(1024)
def _granted(text: str) -> tuple[frozenset[str], tuple[frozenset[str], ...]]:
    """The services whose actions a policy's statements of Allow name, ``*`` for all; and for each statement that names
    what it does not allow, the services that are left out whole."""
    document = json.loads(text)
    listed = document["Statement"]
    named: set[str] = set()
    but: list[frozenset[str]] = []
    for statement in listed if isinstance(listed, list) else [listed]:
        if statement["Effect"] != "Allow":
            continue
        actions = statement.get("Action", statement.get("NotAction"))
        patterns = [str(one).lower() for one in ([actions] if isinstance(actions, str) else actions)]
        if "Action" in statement:
            named.update(one.partition(":")[0] for one in patterns)
        else:
            but.append(frozenset(one.partition(":")[0] for one in patterns if one == "*" or one.endswith(":*")))
    return frozenset(named), tuple(but)


def _grants(text: str, service: str) -> bool:
    named, but = _granted(text)
    return bool(named & {"*", service}) or any(not left & {"*", service} for left in but)


def _services(a: Authorised) -> dict[str, str]:
    """The services that there are, by their prefix in policies, and their names."""
    found = {
        service.prefix: str(codec(name).model.metadata["serviceFullName"])
        for name, service in sorted(a.calls.registry.services.items(), reverse=True)
    }
    return dict(sorted(found.items()))


def _below(view: View, prefix: str, kind: str, account: str) -> Iterator[Row]:
    after = ""
    while rows := view.scan(kind, account, "", prefix=prefix, after=after, limit=500):
        yield from rows
        after = rows[-1].name


def _members(view: View, group: Row) -> Iterator[Row]:
    for pair in _below(view, f"{GROUP.id_of(group)}/", MEMBER, group.account):
        user = view.get(USER.key, group.account, "", pair.name.partition("/")[2])
        if user is not None:
            yield user


def _users_of(view: View, account: str, row: Row | None, arn: str) -> dict[str, Row]:
    """Who can have used what an entity or a policy permits: users and roles by unique id."""
    entities = (
        [row]
        if row is not None
        else [
            one
            for use in _below(view, f"{arn} PermissionsPolicy ", USE, account)
            if (one := used_by(view, use)) is not None
        ]
    )
    found: dict[str, Row] = {}
    for one in entities:
        for who in _members(view, one) if one.kind == GROUP.key else (one,):
            found[str(who.doc["UserId" if who.kind == USER.key else "RoleId"])] = who
    return found


@ADVISOR.operation("GenerateServiceLastAccessedDetails", asks=[Ask("iam:GenerateServiceLastAccessedDetails", _arn)])
def generate(a: Authorised, tx: Transaction) -> Output:
    """Worked off at once, so the job that AWS works off later has been completed when it is answered."""
    if a.input.get("Granularity") == "ACTION_LEVEL":
        raise Refused("InvalidInput", "Granularity ACTION_LEVEL is not supported by Bastide yet.")
    arn = str(a.input["Arn"])
    row = _entity(a, tx, arn)
    texts = [one.text for one in _policies(tx, row)] if row is not None else [text_of(tx, a.account, arn)]
    last = a.engine(LastUse)
    used: dict[str, list[tuple[Use, Row]]] = {}
    for id, who in _users_of(tx, a.account, row, arn).items():
        for service, use in last.by_service(tx, a.account, id).items():
            used.setdefault(service, []).append((use, who))
    found: list[Output] = []
    entities: dict[str, list[Output]] = {}
    for service, name in _services(a).items():
        if not any(text is not None and _grants(text, service) for text in texts):
            continue
        told: Output = {
            "ServiceName": name,
            "ServiceNamespace": service,
            "TotalAuthenticatedEntities": len(used.get(service, ())),
        }
        if used.get(service):
            newest = sorted(used[service], key=lambda one: -one[0].at)
            use, by = newest[0]
            told |= {
                "LastAuthenticated": use.at,
                "LastAuthenticatedEntity": str(by.doc["Arn"]),
                "LastAuthenticatedRegion": use.region,
            }
            entities[service] = [_who(who, one) for one, who in newest]
        found.append(told)
    for old in tx.scan(JOB, a.account, "", order="created", created_to=a.now - _KEPT, limit=_FEW):
        tx.delete(old, keep=False)
    id = str(uuid.uuid4())
    tx.insert(
        Row(
            JOB, a.account, "", id, {"by": a.caller.principal_arn, "found": found, "entities": entities}, created=a.now
        ),
        keep=False,
    )
    return {"JobId": id}


def _who(row: Row, use: Use) -> Output:
    kind = USER if row.kind == USER.key else ROLE
    return {
        "EntityInfo": {
            "Arn": row.doc["Arn"],
            "Name": row.doc[kind.named_by],
            "Type": kind.name.upper(),
            "Id": kind.id_of(row),
            "Path": row.doc["Path"],
        },
        "LastAuthenticated": use.at,
    }


def _job(a: Authorised, view: View) -> Row:
    """The job, for the principal that began it only (IAM API reference, "GetServiceLastAccessedDetails")."""
    row = view.get(JOB, a.account, "", str(a.input["JobId"]))
    if row is None or row.doc["by"] != a.caller.principal_arn:
        raise no_entity(f"Job {a.input['JobId']} cannot be found.")
    return row


@ADVISOR.reads("GetServiceLastAccessedDetails", asks=[Ask("iam:GetServiceLastAccessedDetails", anything)])
def details(a: Authorised, view: View) -> Output:
    row = _job(a, view)
    return {
        "JobStatus": "COMPLETED",
        "JobType": "SERVICE_LEVEL",
        "JobCreationDate": row.created,
        "JobCompletionDate": row.created,
        **sliced(a, "ServicesLastAccessed", row.doc["found"]),
    }


@ADVISOR.reads(
    "GetServiceLastAccessedDetailsWithEntities", asks=[Ask("iam:GetServiceLastAccessedDetailsWithEntities", anything)]
)
def entities(a: Authorised, view: View) -> Output:
    row = _job(a, view)
    service = str(a.input["ServiceNamespace"]).lower()
    return {
        "JobStatus": "COMPLETED",
        "JobCreationDate": row.created,
        "JobCompletionDate": row.created,
        **sliced(a, "EntityDetailsList", row.doc["entities"].get(service, ())),
    }


def _told(one: Held) -> dict[str, Any]:
    if one.arn:
        return {"PolicyName": one.name, "PolicyType": "MANAGED", "PolicyArn": one.arn}
    kind = {USER.key: USER, GROUP.key: GROUP, ROLE.key: ROLE}[one.owner.kind]
    return {
        "PolicyName": one.name,
        "PolicyType": "INLINE",
        "EntityType": kind.name.upper(),
        "EntityName": one.owner.doc[kind.named_by],
    }


@ADVISOR.reads("ListPoliciesGrantingServiceAccess", asks=[Ask("iam:ListPoliciesGrantingServiceAccess", _arn)])
def granting(a: Authorised, view: View) -> Output:
    arn = str(a.input["Arn"])
    row = _entity(a, view, arn)
    if row is None:
        raise _invalid(arn)
    held = _policies(view, row)
    found = [
        {
            "ServiceNamespace": service,
            "Policies": [_told(one) for one in held if one.text is not None and _grants(one.text, service.lower())],
        }
        for service in dict.fromkeys(str(one) for one in a.input["ServiceNamespaces"])
    ]
    return sliced(a, "PoliciesGrantingServiceAccess", found)
