"""What the management account lets members do: delegated administrators, the delegation policy, trusted services.

A member may call what only the management account may if the delegation policy (PutResourcePolicy) allows it; a delegated
administrator of any service may also read. Both are one resource policy on everything in the organisation, so that the
policy engine decides as it does between any two accounts. Source: Organizations User Guide, "Delegated administrator for
AWS services that work with Organizations", "Delegated administrator for AWS Organizations".
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final

from bastide import policy
from bastide.domain import Refused
from bastide.kernel import Authorised, Output, Question
from bastide.kernel.kind import Handler, each
from bastide.policy import Attached, Document, Form
from bastide.services.organizations.noun import (
    ACCOUNT,
    DELEGATED,
    DELEGATED_FOR,
    ORGANIZATION,
    RESOURCE_POLICY,
    address,
    ask,
    constraint,
    denied,
    invalid,
    membership,
    organisation,
    paged,
    random_id,
    tags_of,
)
from bastide.store import Row, Transaction, View

READABLE: Final = frozenset(
    {
        "DescribeAccount", "DescribeCreateAccountStatus", "DescribeEffectivePolicy", "DescribeHandshake",
        "DescribeOrganizationalUnit", "DescribePolicy", "ListAWSServiceAccessForOrganization", "ListAccounts",
        "ListAccountsForParent", "ListChildren", "ListCreateAccountStatus", "ListDelegatedAdministrators",
        "ListDelegatedServicesForAccount", "ListHandshakesForOrganization", "ListOrganizationalUnitsForParent",
        "ListParents", "ListPolicies", "ListPoliciesForTarget", "ListRoots", "ListTagsForResource",
        "ListTargetsForPolicy",
    }
)  # fmt: skip
"""What a delegated administrator may call beside its own service."""
DELEGABLE: Final = READABLE | {
    "AttachPolicy", "CreatePolicy", "DeletePolicy", "DescribeOrganization", "DescribeResourcePolicy", "DetachPolicy",
    "DisablePolicyType", "EnablePolicyType", "TagResource", "UntagResource", "UpdatePolicy",
}  # fmt: skip
"""What a delegation policy may allow."""
_KEPT: Final = frozenset(
    {
        "CloseAccount", "CreateAccount", "CreateOrganizationalUnit", "DeleteOrganizationalUnit", "DeleteResourcePolicy",
        "DeregisterDelegatedAdministrator", "DisableAWSServiceAccess", "EnableAWSServiceAccess",
        "InviteAccountToOrganization", "MoveAccount", "PutResourcePolicy", "RegisterDelegatedAdministrator",
        "RemoveAccountFromOrganization", "UpdateOrganizationalUnit",
    }
)  # fmt: skip
"""What it may not: a policy that names one of these is refused when it is written."""
_LONGEST: Final = 40_000
_MOST: Final = 3
"""Delegated administrators of one service; AWS says "varies by service"."""
_SERVICE: Final = re.compile(r"[a-z0-9][a-z0-9.-]*\.amazonaws\.com")
_TRUSTED: Final = "organizations:TrustedService"
_EVERYTHING: Final = Attached(
    Document.parse(
        {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}, Form.IDENTITY
    ),
    "the caller's own policies, asked before",
)
_SCOPES: Final = ((RESOURCE_POLICY.key, ""), (DELEGATED, ""), (ORGANIZATION.key, ""))


# -- who may ---------------------------------------------------------------------------------------------------------


def delegation(view: View) -> Attached | None:
    """The resource policy of everything in the organisation; None if nothing is delegated."""
    return view.memo("organizations:delegation", _SCOPES, lambda: _delegation(view))


def _delegation(view: View) -> Attached | None:
    held = organisation(view)
    row = _policy(view)
    administrators = sorted({one.name.partition("/")[0] for one in _registered(view)})
    if held is None or (row is None and not administrators):
        return None
    statements: tuple[policy.Statement, ...] = ()
    if row is not None:
        statements = Document.parse_cached(row.doc["Content"], Form.RESOURCE).statements
    if administrators:
        implied = {
            "Sid": "DelegatedAdministratorsRead",
            "Effect": "Allow",
            "Principal": {"AWS": administrators},
            "Action": [f"organizations:{name}" for name in sorted(READABLE)],
            "Resource": "*",
        }
        statements += Document.parse({"Version": "2012-10-17", "Statement": [implied]}, Form.RESOURCE).statements
    source = row.doc["Arn"] if row is not None else "delegated administrators"
    return Attached(Document(Form.RESOURCE, "2012-10-17", None, statements), source)


def _registered(view: View) -> list[Row]:
    found: list[Row] = []
    after: str | None = None
    while rows := view.scan(DELEGATED, "", "", after=after, limit=500):
        found += rows
        after = rows[-1].name
    return found


def managed(a: Authorised, view: View) -> Row:
    """The organisation, if its management account calls, or a member that was let do this; raises Refused."""
    found = membership(a, view)
    master = found.doc["MasterAccountId"]
    if a.account != master and not (
        a.operation.name in DELEGABLE
        and all(one.account == master or _let(a, view, master, one) for one in a.questions)
    ):
        raise denied()
    return found


def _let(a: Authorised, view: View, master: str, asked: Question) -> bool:
    """Whether the delegation allows what was asked about nothing of the management account."""
    request = policy.Request(a.caller.principal(), asked.action, asked.resource, master, dict(asked.context))
    layers = policy.Layers(
        identity=(_EVERYTHING,), boundary=None, session=None, resource=delegation(view), scps=(), rcps=()
    )
    return policy.decide(request, layers).allowed


def in_management(work: Callable[[Authorised, Any, Row], Output]) -> Handler:
    """A handler for the management account, and for members that were let; it is given the organisation."""
    return lambda a, view: work(a, view, managed(a, view))


# -- the delegation policy -------------------------------------------------------------------------------------------


def _policy(view: View) -> Row | None:
    found = view.scan(RESOURCE_POLICY.key, "", "", limit=1)
    return found[0] if found else None


def _shown(row: Row) -> Output:
    return {"ResourcePolicySummary": {"Id": row.name, "Arn": row.doc["Arn"]}, "Content": row.doc["Content"]}


def _need(view: View) -> Row:
    row = _policy(view)
    if row is None:
        raise Refused("ResourcePolicyNotFoundException", "We can't find a resource policy in the organization.")
    return row


def _content(text: str) -> str:
    if len(text) > _LONGEST:
        raise constraint("You have exceeded the maximum size of a policy.", "POLICY_CONTENT_LIMIT_EXCEEDED")
    try:
        document = Document.parse(text, Form.RESOURCE)
    except Refused as refused:
        raise invalid(
            f"The provided resource policy document is not valid. {refused.message}", "INVALID_RESOURCE_POLICY_JSON"
        ) from None
    if any(not _named(one) for one in _statements(text)):
        raise invalid("Name accounts, users or roles of the organization as principals.", "INVALID_PRINCIPAL")
    for name in sorted(_KEPT):
        if any(not one.deny and one.action(f"organizations:{name}".lower()) for one in document.statements):
            raise invalid(
                f"The provided resource policy document has an action that cannot be delegated: {name}.",
                "UNSUPPORTED_ACTION_IN_RESOURCE_POLICY",
            )
    return text


def _statements(text: str) -> list[dict[str, Any]]:
    found = json.loads(text)["Statement"]
    return found if isinstance(found, list) else [found]


def _named(statement: dict[str, Any]) -> bool:
    """Whether a statement names its principals: everybody would be the management account's own, too, whose
    administrators alone say what they may."""
    principal = statement.get("Principal")
    names = principal.get("AWS", ()) if isinstance(principal, dict) else "*"
    return set(principal or ()) == {"AWS"} and "*" not in ([names] if isinstance(names, str) else names)


def _put(a: Authorised, tx: Transaction, held: Row) -> Output:
    content = _content(a.input["Content"])
    row = _policy(tx)
    if row is None:
        id = random_id("rp-", 8)
        doc = {"Id": id, "Arn": address(held, id), "Content": content}
        row = RESOURCE_POLICY.put(a, tx, id, doc, tags_of(a))
    else:
        row.doc["Content"] = content
        row.tags = tags_of(a, row.tags)
        RESOURCE_POLICY.save(a, tx, row)
    a.touched.append(row.doc["Arn"])
    return {"ResourcePolicy": _shown(row)}


def _describe(a: Authorised, view: View, held: Row) -> Output:
    return {"ResourcePolicy": _shown(_need(view))}


def _delete(a: Authorised, tx: Transaction, held: Row) -> Output:
    RESOURCE_POLICY.drop(a, tx, _need(tx))
    return {}


RESOURCE_POLICY.operation("PutResourcePolicy", asks=ask("PutResourcePolicy"))(in_management(_put))
RESOURCE_POLICY.reads("DescribeResourcePolicy", asks=ask("DescribeResourcePolicy"))(in_management(_describe))
RESOURCE_POLICY.operation("DeleteResourcePolicy", asks=ask("DeleteResourcePolicy"))(in_management(_delete))


# -- trusted services ------------------------------------------------------------------------------------------------


def _service(a: Authorised) -> str:
    name = str(a.input["ServicePrincipal"])
    if not _SERVICE.fullmatch(name):
        raise invalid("You specified an unrecognized service principal.", "UNRECOGNIZED_SERVICE_PRINCIPAL")
    return name


def _enable(a: Authorised, tx: Transaction, held: Row) -> Output:
    name = _service(a)
    if tx.get(_TRUSTED, "", "", name) is None:
        tx.insert(Row(_TRUSTED, "", "", name, {"at": a.now}), event=a.operation.name, request_id=a.request.id)
    return {}


def _disable(a: Authorised, tx: Transaction, held: Row) -> Output:
    name = _service(a)
    if tx.scan(DELEGATED_FOR, "", "", prefix=f"{name}/", limit=1):
        raise constraint(
            "Deregister the delegated administrators of the service first.",
            "DELEGATED_ADMINISTRATOR_EXISTS_FOR_THIS_SERVICE",
        )
    row = tx.get(_TRUSTED, "", "", name)
    if row is not None:
        tx.delete(row, event=a.operation.name, request_id=a.request.id)
    return {}


def _trusted(a: Authorised, view: View, held: Row) -> Output:
    def show(row: Row) -> Output:
        return {"ServicePrincipal": row.name, "DateEnabled": row.doc["at"]}

    return paged(a, view, _TRUSTED, "EnabledServicePrincipals", show)


_PRINCIPAL: Final[dict[str, Any]] = {"organizations__ServicePrincipal": each("ServicePrincipal")}
ORGANIZATION.operation("EnableAWSServiceAccess", asks=ask("EnableAWSServiceAccess", **_PRINCIPAL))(
    in_management(_enable)
)
ORGANIZATION.operation("DisableAWSServiceAccess", asks=ask("DisableAWSServiceAccess", **_PRINCIPAL))(
    in_management(_disable)
)
ORGANIZATION.reads("ListAWSServiceAccessForOrganization", asks=ask("ListAWSServiceAccessForOrganization"))(
    in_management(_trusted)
)


# -- delegated administrators ----------------------------------------------------------------------------------------


def _member(view: View, id: str) -> Row:
    row = ACCOUNT.row(view, id)
    if row is None:
        raise Refused("AccountNotFoundException", "You specified an account that doesn't exist.")
    return row


def _register(a: Authorised, tx: Transaction, held: Row) -> Output:
    row, service = _member(tx, a.input["AccountId"]), _service(a)
    if row.name == held.doc["MasterAccountId"]:
        raise constraint(
            "You cannot register the management account as a delegated administrator.",
            "CANNOT_REGISTER_MASTER_AS_DELEGATED_ADMINISTRATOR",
        )
    if row.status != "ACTIVE":
        raise constraint(
            "You cannot register a suspended account as a delegated administrator.",
            "CANNOT_REGISTER_SUSPENDED_ACCOUNT_AS_DELEGATED_ADMINISTRATOR",
        )
    if tx.get(_TRUSTED, "", "", service) is None:
        raise constraint(
            "Enable the service with EnableAWSServiceAccess before you register a delegated administrator for it.",
            "SERVICE_ACCESS_NOT_ENABLED",
        )
    if tx.get(DELEGATED, "", "", f"{row.name}/{service}") is not None:
        raise Refused(
            "AccountAlreadyRegisteredException",
            "The specified account is already a delegated administrator for this AWS service.",
        )
    if len(tx.scan(DELEGATED_FOR, "", "", prefix=f"{service}/", limit=_MOST)) == _MOST:
        raise constraint(
            "You have registered the maximum number of delegated administrators for this service.",
            "MAX_DELEGATED_ADMINISTRATORS_FOR_SERVICE_LIMIT_EXCEEDED",
        )
    tx.insert(
        Row(DELEGATED, "", "", f"{row.name}/{service}", {"at": a.now}), event=a.operation.name, request_id=a.request.id
    )
    tx.insert(Row(DELEGATED_FOR, "", "", f"{service}/{row.name}", {"at": a.now}), keep=False)
    a.touched.append(row.doc["Arn"])
    return {}


def _deregister(a: Authorised, tx: Transaction, held: Row) -> Output:
    row, service = _member(tx, a.input["AccountId"]), _service(a)
    found = tx.get(DELEGATED, "", "", f"{row.name}/{service}")
    if found is None:
        raise _not_registered()
    tx.delete(found, event=a.operation.name, request_id=a.request.id)
    beside = tx.get(DELEGATED_FOR, "", "", f"{service}/{row.name}")
    if beside is not None:
        tx.delete(beside, keep=False)
    return {}


def _not_registered() -> Refused:
    return Refused(
        "AccountNotRegisteredException", "The specified account is not a delegated administrator for this AWS service."
    )


def _administrators(a: Authorised, view: View, held: Row) -> Output:
    service = a.input.get("ServicePrincipal")

    def show(id: str, at: int) -> Output:
        row = _member(view, id)
        known = {name: row.doc[name] for name in ("Id", "Arn", "Email", "Name", "JoinedMethod", "JoinedTimestamp")}
        return {**known, "Status": row.status, "State": row.status, "DelegationEnabledDate": at}

    if service:
        return paged(
            a,
            view,
            DELEGATED_FOR,
            "DelegatedAdministrators",
            lambda row: show(row.name.rpartition("/")[2], row.doc["at"]),
            prefix=f"{service}/",
        )
    output = paged(a, view, DELEGATED, "DelegatedAdministrators", lambda row: row)
    first: dict[str, int] = {}
    for row in output["DelegatedAdministrators"]:
        id = row.name.partition("/")[0]
        # An account of several services is shown once, with its first row, wherever pages end.
        if view.scan(DELEGATED, "", "", prefix=f"{id}/", limit=1)[0].name == row.name:
            first[id] = row.doc["at"]
    return {**output, "DelegatedAdministrators": [show(id, at) for id, at in first.items()]}


def _services(a: Authorised, view: View, held: Row) -> Output:
    row = _member(view, a.input["AccountId"])
    if not view.scan(DELEGATED, "", "", prefix=f"{row.name}/", limit=1):
        raise _not_registered()

    def show(row: Row) -> Output:
        return {"ServicePrincipal": row.name.partition("/")[2], "DelegationEnabledDate": row.doc["at"]}

    return paged(a, view, DELEGATED, "DelegatedServices", show, prefix=f"{row.name}/")


ACCOUNT.operation(
    "RegisterDelegatedAdministrator", asks=ask("RegisterDelegatedAdministrator", "AccountId", **_PRINCIPAL)
)(in_management(_register))
ACCOUNT.operation(
    "DeregisterDelegatedAdministrator", asks=ask("DeregisterDelegatedAdministrator", "AccountId", **_PRINCIPAL)
)(in_management(_deregister))
ACCOUNT.reads("ListDelegatedAdministrators", asks=ask("ListDelegatedAdministrators", **_PRINCIPAL))(
    in_management(_administrators)
)
ACCOUNT.reads("ListDelegatedServicesForAccount", asks=ask("ListDelegatedServicesForAccount", "AccountId"))(
    in_management(_services)
)
