"""The one instance of IAM Identity Center that an organisation has, and what its nouns have in common.

It exists as soon as the organisation does, belongs to the management account, answers in every region alike, and its ids
follow from the organisation's. Rows stand under no account, as those of Organizations do.
Source: IAM Identity Center API reference; Service Authorization Reference, "AWS IAM Identity Center" and "AWS Identity
Store" (the resources that each action is about).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bastide.domain import Arn, Refused, Tags, tag_list, tag_map
from bastide.kernel import Ask, Asked, Authorised, Facts, Kind, Output, anything, pages
from bastide.kernel.kind import Handler
from bastide.policy import Attached, Document, Form
from bastide.store import Row, Transaction, View

PRINCIPAL: Final = "sso.amazonaws.com"
"""The service as which Identity Center acts by itself."""
_ORGANISATION: Final = "organizations:Organization"
_DELEGATED: Final = "organizations:DelegatedAdministrator"
"""Rows ``ACCOUNT/SERVICE`` of Organizations."""
_MOST_TAGS: Final = 50
_PAGE: Final = 100


@dataclass(frozen=True, slots=True)
class Instance:
    """account: the management account. id: ``ssoins-...``. store: the identity store's id, ``d-...``."""

    account: str
    id: str
    store: str

    @property
    def arn(self) -> str:
        """The instance's ARN, which names no account."""
        return f"arn:aws:sso:::instance/{self.id}"

    @property
    def store_arn(self) -> str:
        """The identity store's ARN."""
        return f"arn:aws:identitystore::{self.account}:identitystore/{self.store}"

    @property
    def start_url(self) -> str:
        """The access portal's address as AWS has it; clients only name it, nobody goes there."""
        return f"https://{self.store}.awsapps.com/start"


def instance(view: View) -> Instance | None:
    """The organisation's instance; None while there is no organisation."""

    def load() -> Instance | None:
        found = view.scan(_ORGANISATION, "", "", limit=1)
        if not found:
            return None
        told = hashlib.sha256(f"identity center of {found[0].name}".encode()).hexdigest()
        return Instance(found[0].doc["MasterAccountId"], f"ssoins-{told[:16]}", f"d-{told[16:26]}")

    return view.memo("identity-center:instance", ((_ORGANISATION, ""),), load)


class Noun(Kind):
    """A kind whose rows stand under account ""."""

    def __init__(self, name: str, *, service: str, arn: str = "", arn_service: str = "") -> None:
        super().__init__(
            name, service=service, arn=arn or f"{name}/{{}}", arn_service=arn_service or service, arn_account=False
        )

    def row(self, view: View, name: str) -> Row | None:
        """The row, or None."""
        return view.get(self.key, "", "", name)

    def put(self, a: Authorised, tx: Transaction, name: str, doc: dict[str, Any], tags: Tags | None = None) -> Row:
        """A new row."""
        row = Row(self.key, "", "", name, doc, tags=tags or {}, created=a.now, modified=a.now)
        tx.insert(row, event=a.operation.name, request_id=a.request.id)
        return row

    def save(self, a: Authorised, tx: Transaction, row: Row) -> None:
        """Writes a changed row; raises Refused if somebody was faster."""
        row.modified = a.now
        self.change(tx, row, a.operation.name, a.request.id)

    def drop(self, a: Authorised, tx: Transaction, row: Row) -> None:
        """Removes a row."""
        self.remove(tx, row, a.operation.name, a.request.id)

    def _emit(self, tx: Transaction, row: Row, event: str, request_id: str) -> None:
        """Nothing: what follows from a change is asked of the rows, when it is asked."""


INSTANCE: Final = Noun("Instance", service="sso-admin", arn="instance/{}", arn_service="sso")
_SETTINGS: Final = "sso-admin:Settings"
"""Rows by instance: its tags, its name, its attributes for access control."""


# -- refusals ----------------------------------------------------------------------------------------------------------


def missing(message: str) -> Refused:
    """ResourceNotFoundException."""
    return Refused("ResourceNotFoundException", message, 400)


def invalid(message: str) -> Refused:
    """ValidationException."""
    return Refused("ValidationException", message, 400)


def conflict(message: str) -> Refused:
    """ConflictException."""
    return Refused("ConflictException", message, 400)


def denied(a: Authorised) -> Refused:
    """What a member account is told that asks what only the management account may."""
    return Refused("AccessDeniedException", f"User: {a.caller.arn} is not authorized to administer this instance.", 400)


# -- whose it is -------------------------------------------------------------------------------------------------------


def administers(view: View, here: Instance, account: str) -> bool:
    """Whether an account is the instance's owner, or its delegated administrator."""
    return account == here.account or view.get(_DELEGATED, "", "", f"{account}/{PRINCIPAL}") is not None


def managed(a: Authorised, view: View) -> Instance:
    """The instance, if its owner or delegated administrator calls and names it; raises Refused for anybody else and any
    other."""
    found = instance(view)
    if found is None or not administers(view, found, a.account):
        raise denied(a)
    given = a.input.get("InstanceArn")
    if given is not None and given != found.arn:
        raise missing(f"Instance {given} not found.")
    return found


def in_center(work: Callable[[Authorised, Any, Instance], Output]) -> Handler:
    """A handler for the owner alone; it is given the instance."""
    return lambda a, view: work(a, view, managed(a, view))


def _delegation(view: View) -> Attached | None:
    """What lets delegated administrators in, as far as their own policies do."""
    rows = view.scan("organizations:DelegatedService", "", "", prefix=f"{PRINCIPAL}/", limit=10)
    if not rows:
        return None
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": [row.name.rpartition("/")[2] for row in rows]},
        "Action": ["sso:*", "identitystore:*"],
        "Resource": "*",
    }
    document = {"Version": "2012-10-17", "Statement": [statement]}
    return Attached(Document.parse(document, Form.RESOURCE), f"delegated administrators of {PRINCIPAL}")


def facts(view: View, arn: Arn, action: str) -> Facts | None:
    """Everything belongs to the management account, which may delegate; a permission set has tags, and so has the
    instance."""
    found = instance(view)
    if found is None:
        return None
    kind = {"permissionSet": "sso-admin:PermissionSet", "instance": _SETTINGS}.get(arn.type, "")

    def load() -> Facts:
        row = view.get(kind, "", "", arn.resource.rpartition("/")[2]) if kind else None
        return Facts(found.account, row.tags if row is not None else {}, _delegation(view), type=arn.type)

    scopes = ((kind, ""), (_ORGANISATION, ""), ("organizations:DelegatedService", ""))
    return view.memo(("identity-center:facts", str(arn)), scopes, load)


# -- questions ---------------------------------------------------------------------------------------------------------


def _account(asked: Asked) -> Iterable[str]:
    given = asked.input.get("TargetId") or asked.input.get("AccountId")
    return () if given is None else (f"arn:aws:sso:::account/{given}",)


def _named(member: str) -> Callable[[Asked], Iterable[str]]:
    return lambda asked: (str(asked.input[member]),) if asked.input.get(member) else ()


_ABOUT: Final = {"instance": _named("InstanceArn"), "set": _named("PermissionSetArn"), "account": _account}


def ask(action: str, *about: str) -> list[Ask]:
    """The questions of an sso-admin operation about any of instance, set and account."""
    return [Ask(f"sso:{action}", _ABOUT[one]) for one in about or ("instance",)]


# -- pages, tags -------------------------------------------------------------------------------------------------------


def paged(
    a: Authorised,
    view: View,
    kind: str,
    member: str,
    show: Callable[[Row], Any],
    *,
    prefix: str = "",
    wanted: Callable[[Row], bool] = lambda row: True,
) -> Output:
    """A page of rows in the order of their names."""
    size = int(a.input.get("MaxResults") or _PAGE)
    after = pages.position(a, a.input.get("NextToken"))
    found: list[Any] = []
    examined = 0
    while True:
        rows = view.scan(kind, "", "", prefix=prefix, after=after, limit=size + 1)
        for row in rows:
            if len(found) == size or examined >= 10 * _PAGE:
                return {member: found, "NextToken": pages.seal(a, after)}
            after = row.name
            examined += 1
            if wanted(row):
                found.append(show(row))
        if len(rows) <= size:
            return {member: found}


def sliced(a: Authorised, member: str, found: Sequence[Any]) -> Output:
    """A page of a list that is at hand whole."""
    start = int(pages.position(a, a.input.get("NextToken")) or 0)
    end = start + int(a.input.get("MaxResults") or _PAGE)
    output: Output = {member: list(found[start:end])}
    if end < len(found):
        output["NextToken"] = pages.seal(a, end)
    return output


def new_tags(a: Authorised, before: Tags | None = None) -> Tags:
    """The tags that a call brings, put over those from before."""
    tags = {**(before or {}), **tag_map(a.input.get("Tags"))}
    if len(tags) > _MOST_TAGS:
        raise Refused("ServiceQuotaExceededException", f"A resource may have at most {_MOST_TAGS} tags.")
    return tags


# -- the instance itself -----------------------------------------------------------------------------------------------


def settings(view: View, here: Instance) -> Row | None:
    """The row of what was set on the instance, or None."""
    return view.get(_SETTINGS, "", "", here.id)


def set_(a: Authorised, tx: Transaction, here: Instance, change: Callable[[Row], None]) -> None:
    """Changes the instance's settings."""
    row = settings(tx, here)
    if row is None:
        row = Row(_SETTINGS, "", "", here.id, {}, created=a.now, modified=a.now)
        change(row)
        tx.insert(row, event=a.operation.name, request_id=a.request.id)
        return
    change(row)
    INSTANCE.save(a, tx, row)


def _shown(view: View, here: Instance) -> Output:
    row = settings(view, here)
    organisation = view.scan(_ORGANISATION, "", "", limit=1)[0]
    found: Output = {
        "InstanceArn": here.arn,
        "IdentityStoreId": here.store,
        "IdentityStoreArn": here.store_arn,
        "OwnerAccountId": here.account,
        "CreatedDate": organisation.created,
        "Status": "ACTIVE",
    }
    if row is not None and row.doc.get("Name"):
        found["Name"] = row.doc["Name"]
    return found


@INSTANCE.reads("ListInstances", asks=[Ask("sso:ListInstances", anything)])
def list_instances(a: Authorised, view: View) -> Output:
    """The organisation's instance, to every account of it: AWS shows it to members too."""
    here = instance(view)
    known = here is not None and (
        a.account == here.account or view.get("organizations:Account", "", "", a.account) is not None
    )
    return sliced(a, "Instances", [_shown(view, here)] if here is not None and known else [])


def _describe(a: Authorised, view: View, here: Instance) -> Output:
    return _shown(view, here)


def _update(a: Authorised, tx: Transaction, here: Instance) -> Output:
    if any(a.input.get(one) is not None for one in a.input if one not in ("InstanceArn", "Name")):
        raise invalid("Of an instance, only the name can be changed here.")
    set_(a, tx, here, lambda row: row.doc.update(Name=a.input.get("Name") or ""))
    return {}


INSTANCE.reads("DescribeInstance", asks=ask("DescribeInstance"))(in_center(_describe))
INSTANCE.operation("UpdateInstance", asks=ask("UpdateInstance"))(in_center(_update))


# -- attributes for access control -------------------------------------------------------------------------------------

_PATH: Final = re.compile(r"\$\{path:([^{}]+)\}")
_ENTERPRISE: Final = "aws:identitystore:enterprise"
_PRIMARY: Final = re.compile(r"(emails|phoneNumbers|addresses)\[primary eq true\]\.(\w+)")


def _attributes(a: Authorised) -> list[dict[str, Any]]:
    given = a.input["InstanceAccessControlAttributeConfiguration"]["AccessControlAttributes"]
    keys = [str(one["Key"]).lower() for one in given]
    if len(set(keys)) != len(keys):
        raise invalid("Duplicate attribute keys found.")
    for one in given:
        if str(one["Key"]).lower().startswith("aws:"):
            raise invalid(f"The attribute key {one['Key']} begins with the reserved prefix aws:.")
        for source in one["Value"]["Source"]:
            if not _PATH.fullmatch(source):
                raise invalid(f"The attribute source {source} is not of the form ${{path:...}}.")
    return [{"Key": one["Key"], "Value": {"Source": list(one["Value"]["Source"])}} for one in given]


def _create_attributes(a: Authorised, tx: Transaction, here: Instance) -> Output:
    held = settings(tx, here)
    if held is not None and "attributes" in held.doc:
        raise conflict("The instance has a configuration of attributes for access control already.")
    found = _attributes(a)
    set_(a, tx, here, lambda row: row.doc.update(attributes=found))
    return {}


def _held_attributes(view: View, here: Instance) -> list[dict[str, Any]]:
    row = settings(view, here)
    if row is None or "attributes" not in row.doc:
        raise missing("The instance has no configuration of attributes for access control.")
    return list(row.doc["attributes"])


def _update_attributes(a: Authorised, tx: Transaction, here: Instance) -> Output:
    _held_attributes(tx, here)
    found = _attributes(a)
    set_(a, tx, here, lambda row: row.doc.update(attributes=found))
    return {}


def _describe_attributes(a: Authorised, view: View, here: Instance) -> Output:
    found = _held_attributes(view, here)
    return {"Status": "ENABLED", "InstanceAccessControlAttributeConfiguration": {"AccessControlAttributes": found}}


def _delete_attributes(a: Authorised, tx: Transaction, here: Instance) -> Output:
    _held_attributes(tx, here)
    set_(a, tx, here, lambda row: row.doc.pop("attributes"))
    return {}


for _verb, _work in (("Create", _create_attributes), ("Update", _update_attributes), ("Delete", _delete_attributes)):
    _name = f"{_verb}InstanceAccessControlAttributeConfiguration"
    INSTANCE.operation(_name, asks=ask(_name))(in_center(_work))
_name = "DescribeInstanceAccessControlAttributeConfiguration"
INSTANCE.reads(_name, asks=ask(_name))(in_center(_describe_attributes))


def _value(doc: dict[str, Any], path: str) -> str | None:
    """A user's attribute at a path as Identity Center writes it: ``name.givenName``, ``enterprise.department``,
    ``emails[primary eq true].value``."""
    first = _PRIMARY.fullmatch(path)
    here: Any = doc
    if first is not None:
        entries = [one for one in doc.get(_member(first[1]), ()) if one.get("Primary")]
        here = entries[0].get(_member(first[2])) if entries else None
        return here if isinstance(here, str) else None
    parts = path.split(".")
    if parts[0] == "enterprise":
        here = doc.get("Extensions", {}).get(_ENTERPRISE, {})
        parts = parts[1:]
        for part in parts:
            here = here.get(part) if isinstance(here, dict) else None
    else:
        for part in parts:
            here = here.get(_member(part)) if isinstance(here, dict) else None
    return here if isinstance(here, str) else None


def _member(name: str) -> str:
    return name[:1].upper() + name[1:]


def session_tags(view: View, here: Instance, user: Row) -> list[dict[str, str]]:
    """The session tags that a user's attributes become; an attribute that the user lacks becomes none.

    Source: IAM Identity Center User Guide, "Attributes for access control".
    """
    row = settings(view, here)
    found = []
    for one in () if row is None else row.doc.get("attributes", ()):
        path = _PATH.fullmatch(one["Value"]["Source"][0])
        value = _value(user.doc, path[1]) if path is not None else None
        if value:
            found.append({"Key": one["Key"], "Value": value[:256]})
    return found


# -- tags of the instance and of permission sets -----------------------------------------------------------------------


def _tagged(asked: Asked) -> Iterable[str]:
    return (str(asked.input["ResourceArn"]),)


def _taggable(a: Authorised, view: View) -> tuple[Instance, Row | None]:
    here = managed(a, view)
    arn = a.input["ResourceArn"]
    if arn == here.arn:
        return here, settings(view, here)
    prefix = f"arn:aws:sso:::permissionSet/{here.id}/"
    row = view.get("sso-admin:PermissionSet", "", "", arn[len(prefix) :]) if arn.startswith(prefix) else None
    if row is None:
        raise missing(f"{arn} not found.")
    return here, row


def _retag(a: Authorised, tx: Transaction, change: Callable[[Tags], Tags]) -> Output:
    here, row = _taggable(a, tx)
    if row is not None:
        row.tags = change(row.tags)
        INSTANCE.save(a, tx, row)
    else:

        def set_tags(fresh: Row) -> None:
            fresh.tags = change({})

        set_(a, tx, here, set_tags)
    return {}


@INSTANCE.operation("TagResource", asks=[Ask("sso:TagResource", _tagged)])
def tag(a: Authorised, tx: Transaction) -> Output:
    return _retag(a, tx, lambda before: new_tags(a, before))


@INSTANCE.operation("UntagResource", asks=[Ask("sso:UntagResource", _tagged)])
def untag(a: Authorised, tx: Transaction) -> Output:
    gone = set(a.input["TagKeys"])
    return _retag(a, tx, lambda before: {key: value for key, value in before.items() if key not in gone})


@INSTANCE.reads("ListTagsForResource", asks=[Ask("sso:ListTagsForResource", _tagged)])
def tags(a: Authorised, view: View) -> Output:
    _, row = _taggable(a, view)
    return sliced(a, "Tags", tag_list(row.tags if row is not None else {}))
