"""Documents of the type Automation, and their versions.

Source: Systems Manager API Reference, "CreateDocument" and its like.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson
import yaml

from bastide.domain import Refused, tag_list, tag_map
from bastide.engines import templates
from bastide.engines.templates import text
from bastide.kernel import Ask, Asked, Authorised, Kind, Output, anything, pages
from bastide.services.ssm import runbook
from bastide.store import Row, Transaction, View

DOCUMENT: Final = Kind(
    "Document", service="ssm", arn="document/{}", named_by="Name",
    missing=("InvalidDocument", "The document {name} does not exist in your account.", 400),
    taken=("DocumentAlreadyExists", "The document {name} exists already.", 400),
)  # fmt: skip
VERSION: Final = "ssm:DocumentVersion"
"""Rows of versions, named ``NAME:0000000001``."""
_NAME: Final = re.compile(r"[a-zA-Z0-9_\-.]{3,128}")
_RESERVED: Final = ("aws", "amazon", "amzn")
_MOST_BYTES: Final = 65_536
_MOST_VERSIONS: Final = 1000
_PAGE: Final = 50
_MOST_TAGS: Final = 50
_TYPE: Final = {"ssm:DocumentType": lambda _: "Automation"}
"""There are no others."""


def _this(asked: Asked) -> Iterable[str]:
    given = str(asked.input["Name"])
    return (given if given.startswith("arn:") else DOCUMENT.arn(asked.call.account, asked.call.region, given),)


def _ask(operation: str) -> list[Ask]:
    return [Ask(f"ssm:{operation}", _this, given=_TYPE)]


def found(view: View, account: str, region: str, given: str) -> Row:
    """A document by name or ARN; raises InvalidDocument."""
    owner, where, name = DOCUMENT.locate(given, account, region)
    if owner != account:
        raise Refused("InvalidDocument", "Documents of other accounts are not shared in Bastide yet.")
    return DOCUMENT.find(view, account, where, name)


def version(view: View, row: Row, given: str | None) -> Row:
    """A version of a document: by number, ``$LATEST``, or the default one; raises InvalidDocumentVersion."""
    wanted = {"$LATEST": row.doc["latest"], "$DEFAULT": row.doc["default"], None: row.doc["default"]}.get(given, given)
    number = str(wanted)
    held = view.get(VERSION, row.account, row.region, _version(row.name, int(number))) if number.isdecimal() else None
    if held is None:
        raise Refused("InvalidDocumentVersion", f"The document {row.name} has no version {number[:16]}.")
    return held


def _version(name: str, number: int) -> str:
    return f"{name}:{number:010d}"


def _refuse(given: Mapping[str, Any], *names: str) -> None:
    for name in names:
        if given.get(name):
            raise Refused("ValidationException", f"{name} is not supported by Bastide yet; please leave it out.")


def _content(given: Mapping[str, Any]) -> dict[str, Any]:
    content = str(given["Content"])
    if len(content.encode()) > _MOST_BYTES:
        raise Refused("MaxDocumentSizeExceeded", f"A document has at most {_MOST_BYTES} bytes.")
    if given.get("DocumentFormat") == "TEXT":
        raise runbook.wrong("DocumentFormat: runbooks are JSON or YAML.")
    runbook.read(content)
    return {"content": content, "format": given.get("DocumentFormat") or "JSON"}


def _described(row: Row, held: Row, *, status: str = "Active") -> Output:
    raw = runbook.read(held.doc["content"])
    parameters = []
    for name, one in (raw.get("parameters") or {}).items():
        told = {"Name": name, "Type": "StringList" if one["type"] in ("StringList",) else "String"}
        if one.get("description"):
            told["Description"] = text(one["description"])
        if "default" in one:
            default = one["default"]
            told["DefaultValue"] = default if isinstance(default, str) else orjson.dumps(default).decode()
        parameters.append(told)
    told_: Output = {
        "Hash": hashlib.sha256(held.doc["content"].encode()).hexdigest(), "HashType": "Sha256", "Name": row.name,
        "Owner": row.account, "CreatedDate": held.created, "Status": status, "DocumentVersion": str(held.doc["number"]),
        "Parameters": parameters, "PlatformTypes": ["Windows", "Linux", "MacOS"], "DocumentType": "Automation",
        "SchemaVersion": runbook.SCHEMA, "LatestVersion": str(row.doc["latest"]),
        "DefaultVersion": str(row.doc["default"]), "DocumentFormat": held.doc["format"], "Tags": tag_list(row.tags),
    }  # fmt: skip
    for member, value in (("Description", raw.get("description")), ("TargetType", held.doc.get("TargetType"))):
        if value:
            told_[member] = text(value)
    return told_


@DOCUMENT.operation(
    "CreateDocument",
    asks=[
        *_ask("CreateDocument"),
        Ask("ssm:AddTagsToResource", _this, given=_TYPE, when=lambda asked: bool(asked.input.get("Tags"))),
    ],
)
def create(a: Authorised, tx: Transaction) -> Output:
    given = a.input
    _refuse(given, "Requires", "Attachments", "VersionName", "DisplayName")
    name = given["Name"]
    if not _NAME.fullmatch(name) or name.lower().startswith(_RESERVED):
        raise Refused(
            "ValidationException", "Name has 3 to 128 letters, digits, _ - and ., and begins with no name of AWS's."
        )
    if given.get("DocumentType") != "Automation":
        raise runbook.wrong(
            "DocumentType: Bastide has documents of the type Automation, and no managed nodes for others."
        )
    tags = tag_map(given.get("Tags"))
    if len(tags) > _MOST_TAGS:
        raise Refused("TooManyTagsError", f"A document may have {_MOST_TAGS} tags at most.")
    doc = {"latest": 1, "default": 1}
    content = {**_content(given), "number": 1, "TargetType": given.get("TargetType") or ""}
    row = DOCUMENT.create(a, tx, name, doc, status="Active", tags=tags)
    held = Row(VERSION, a.account, a.region, _version(name, 1), content)
    tx.insert(held, event=a.operation.name, request_id=a.request.id)
    held.created = tx.now
    return {"DocumentDescription": _described(row, held, status="Creating")}


@DOCUMENT.operation("UpdateDocument", asks=_ask("UpdateDocument"))
def update(a: Authorised, tx: Transaction) -> Output:
    given = a.input
    _refuse(given, "Attachments", "VersionName", "DisplayName")
    row = found(tx, a.account, a.region, given["Name"])
    version(tx, row, given.get("DocumentVersion") or "$LATEST")
    latest = version(tx, row, "$LATEST")
    content = _content(given)
    if content["content"] == latest.doc["content"]:
        raise Refused("DuplicateDocumentContent", "The content is that of the latest version.")
    if row.doc["latest"] >= _MOST_VERSIONS:
        raise Refused("DocumentVersionLimitExceeded", f"A document has at most {_MOST_VERSIONS} versions.")
    row.doc["latest"] += 1
    number = row.doc["latest"]
    target = given.get("TargetType") or latest.doc.get("TargetType") or ""
    held = Row(
        VERSION,
        row.account,
        row.region,
        _version(row.name, number),
        {**content, "number": number, "TargetType": target},
    )
    tx.insert(held, event=a.operation.name, request_id=a.request.id)
    held.created = tx.now
    DOCUMENT.change(tx, row, a.operation.name, a.request.id)
    return {"DocumentDescription": _described(row, held, status="Updating")}


@DOCUMENT.operation("UpdateDocumentDefaultVersion", asks=_ask("UpdateDocumentDefaultVersion"))
def set_default(a: Authorised, tx: Transaction) -> Output:
    row = found(tx, a.account, a.region, a.input["Name"])
    row.doc["default"] = version(tx, row, a.input["DocumentVersion"]).doc["number"]
    DOCUMENT.change(tx, row, a.operation.name, a.request.id)
    return {"Description": {"Name": row.name, "DefaultVersion": str(row.doc["default"])}}


@DOCUMENT.operation("DeleteDocument", asks=_ask("DeleteDocument"))
def delete(a: Authorised, tx: Transaction) -> Output:
    _refuse(a.input, "VersionName")
    row = found(tx, a.account, a.region, a.input["Name"])
    if a.input.get("DocumentVersion"):
        held = version(tx, row, a.input["DocumentVersion"])
        if held.doc["number"] in (row.doc["default"], row.doc["latest"]):
            raise Refused("InvalidDocumentOperation", "The default version and the latest one stay.")
        tx.delete(held, event=a.operation.name, request_id=a.request.id)
        return {}
    while versions := tx.scan(VERSION, row.account, row.region, prefix=f"{row.name}:", limit=100):
        for one in versions:
            tx.delete(one, keep=False)
    DOCUMENT.remove(tx, row, a.operation.name, a.request.id)
    return {}


@DOCUMENT.reads("DescribeDocument", asks=_ask("DescribeDocument"))
def describe(a: Authorised, view: View) -> Output:
    _refuse(a.input, "VersionName")
    row = found(view, a.account, a.region, a.input["Name"])
    return {"Document": _described(row, version(view, row, a.input.get("DocumentVersion")))}


@DOCUMENT.reads("GetDocument", asks=_ask("GetDocument"))
def get(a: Authorised, view: View) -> Output:
    _refuse(a.input, "VersionName")
    row = found(view, a.account, a.region, a.input["Name"])
    held = version(view, row, a.input.get("DocumentVersion"))
    wanted = a.input.get("DocumentFormat") or held.doc["format"]
    content = held.doc["content"]
    if wanted != held.doc["format"]:
        raw = templates.parse(content)
        content = orjson.dumps(raw).decode() if wanted == "JSON" else yaml.safe_dump(raw, sort_keys=False)
    return {
        "Name": row.name, "CreatedDate": held.created, "DocumentVersion": str(held.doc["number"]), "Status": "Active",
        "Content": content, "DocumentType": "Automation", "DocumentFormat": wanted,
    }  # fmt: skip


@DOCUMENT.reads("ListDocumentVersions", asks=_ask("ListDocumentVersions"))
def versions(a: Authorised, view: View) -> Output:
    row = found(view, a.account, a.region, a.input["Name"])
    limit = int(a.input.get("MaxResults") or _PAGE)
    after = pages.position(a, a.input.get("NextToken"))
    rows = view.scan(VERSION, row.account, row.region, prefix=f"{row.name}:", after=after, limit=limit + 1)
    told = [
        {
            "Name": row.name, "DocumentVersion": str(one.doc["number"]), "CreatedDate": one.created,
            "IsDefaultVersion": one.doc["number"] == row.doc["default"], "DocumentFormat": one.doc["format"],
            "Status": "Active",
        }
        for one in rows[:limit]
    ]  # fmt: skip
    return {
        "DocumentVersions": told,
        **({"NextToken": pages.seal(a, rows[limit - 1].name)} if len(rows) > limit else {}),
    }


def _wanted(a: Authorised, row: Row) -> bool:
    """Whether a list's filters let a document through; raises InvalidFilterKey."""
    for one in a.input.get("Filters") or ():
        key, values = one["Key"], one.get("Values") or []
        if key == "Owner":
            fits = any(value in ("Self", "All", "Private", row.account) for value in values)
        elif key == "DocumentType":
            fits = "Automation" in values
        elif key == "Name":
            fits = any(row.name.startswith(value) for value in values)
        elif key == "PlatformTypes":
            fits = True
        elif key.startswith("tag:"):
            fits = row.tags.get(key[4:]) in values
        else:
            raise Refused(
                "InvalidFilterKey", f"{key[:64]} is no filter: Owner, DocumentType, Name, PlatformTypes, tag:KEY."
            )
        if not fits:
            return False
    return True


@DOCUMENT.reads("ListDocuments", asks=[Ask("ssm:ListDocuments", anything)])
def listed(a: Authorised, view: View) -> Output:
    _refuse(a.input, "DocumentFilterList")
    limit = int(a.input.get("MaxResults") or _PAGE)
    after = pages.position(a, a.input.get("NextToken"))
    rows = view.scan(DOCUMENT.key, a.account, a.region, after=after, limit=limit + 1)
    told = []
    for row in rows[:limit]:
        if _wanted(a, row):
            whole = _described(row, version(view, row, None))
            names = ("Name", "CreatedDate", "Owner", "PlatformTypes", "DocumentVersion", "DocumentType", "SchemaVersion",
                     "DocumentFormat", "TargetType", "Tags")  # fmt: skip
            told.append({name: whole[name] for name in names if name in whole})
    more = {"NextToken": pages.seal(a, rows[limit - 1].name)} if len(rows) > limit else {}
    return {"DocumentIdentifiers": told, **more}
