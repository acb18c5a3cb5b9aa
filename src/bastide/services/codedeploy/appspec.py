"""AppSpecs of functions, and where revisions lie: read from a stranger's YAML or JSON, bounded, every key known.

Source: CodeDeploy User Guide, "AppSpec file structure", "AppSpec 'resources' section", "AppSpec 'hooks' section".
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Any, Final

import orjson

from bastide.domain import Refused
from bastide.engines import templates
from bastide.services.codedeploy.noun import Doc, invalid

BEFORE: Final = "BeforeAllowTraffic"
ALLOW: Final = "AllowTraffic"
AFTER: Final = "AfterAllowTraffic"
EVENTS: Final = (BEFORE, ALLOW, AFTER)
MOST_BYTES: Final = 102_400
_FUNCTION: Final = re.compile(
    r"(arn:aws:lambda:[a-z0-9-]+:\d{12}:function:)?[A-Za-z0-9_-]{1,140}(:[A-Za-z0-9_$-]{1,128})?"
)
_ALIAS: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
_VERSION: Final = re.compile(r"[0-9]{1,18}")


def wrong(message: str) -> Refused:
    """What is wrong with a revision or its AppSpec."""
    return invalid("InvalidRevision", message)


def located(given: Any) -> Doc:
    """Where a revision lies, or the AppSpec itself; raises Refused for what nothing of Lambda is deployed from."""
    if not given:
        raise invalid("RevisionRequired", "revision is needed.")
    kind = given.get("revisionType")
    if kind == "S3":
        where = given.get("s3Location") or {}
        if not where.get("bucket") or not where.get("key"):
            raise wrong("s3Location has a bucket and a key.")
        if where.get("bundleType") not in ("JSON", "YAML"):
            raise wrong("s3Location.bundleType is JSON or YAML: a deployment of a function is its AppSpec alone.")
        return {"revisionType": kind, "s3Location": dict(where)}
    member = {"String": "string", "AppSpecContent": "appSpecContent"}.get(str(kind))
    if member is None:
        raise wrong("revisionType is S3, String or AppSpecContent; nothing is fetched from GitHub.")
    held = given.get(member) or {}
    content = held.get("content")
    if not content:
        raise wrong(f"{member}.content is the AppSpec.")
    if len(content.encode()) > MOST_BYTES:
        raise wrong(f"The AppSpec has more than {MOST_BYTES} bytes.")
    sha256 = hashlib.sha256(content.encode()).hexdigest()
    if held.get("sha256") and not hmac.compare_digest(str(held["sha256"]).lower(), sha256):
        raise wrong(f"{member}.sha256 is not the SHA-256 of the content.")
    return {"revisionType": kind, member: {"content": content, "sha256": sha256}}


def content(revision: Mapping[str, Any]) -> str | None:
    """The AppSpec that a revision brings itself."""
    held = revision.get("string") or revision.get("appSpecContent")
    return None if held is None else str(held["content"])


def digest(revision: Mapping[str, Any]) -> str:
    """The same for the same revision."""
    return hashlib.sha256(orjson.dumps(revision, option=orjson.OPT_SORT_KEYS)).hexdigest()[:40]


def _one(rows: Any, what: str) -> tuple[str, Any]:
    """The only pair of a list of one mapping, which is how AppSpecs write what has a name."""
    if isinstance(rows, list) and len(rows) == 1:
        rows = rows[0]
    if not isinstance(rows, dict) or len(rows) != 1:
        raise wrong(f"The AppSpec's {what} has exactly one entry.")
    [(name, value)] = rows.items()
    return name, value


def read(text: str) -> Doc:
    """An AppSpec as a deployment needs it: function, alias, current, target, hooks; raises Refused."""
    if len(text.encode("utf-8", "surrogatepass")) > MOST_BYTES:
        raise wrong(f"The AppSpec has more than {MOST_BYTES} bytes.")
    try:
        tree = templates.parse(text)
    except Refused as refused:
        raise wrong(
            f"The AppSpec is not well formed: {refused.message.partition(': ')[2] or refused.message}"
        ) from None
    if not isinstance(tree, dict):
        raise wrong("The AppSpec is a mapping with version, Resources and Hooks.")
    found = {str(name).lower(): value for name, value in tree.items()}
    if str(found.get("version")) not in ("0.0", "0"):
        raise wrong("The AppSpec's version is 0.0.")
    unknown = sorted(set(found) - {"version", "resources", "hooks"})
    if unknown:
        raise wrong(f"The AppSpec of a function has no {unknown[0][:64]}: version, Resources and Hooks.")
    name, resource = _one(found.get("resources"), "Resources")
    if not isinstance(resource, dict) or resource.get("Type") != "AWS::Lambda::Function":
        raise wrong(f"The AppSpec's resource {name[:64]} is of the type AWS::Lambda::Function.")
    return {"name": name[:255], **_properties(resource.get("Properties")), "hooks": _hooks(found.get("hooks"))}


def _properties(given: Any) -> Doc:
    if not isinstance(given, dict):
        raise wrong("The AppSpec's function has Properties: Name, Alias, CurrentVersion, TargetVersion.")
    wanted = {"Name": _FUNCTION, "Alias": _ALIAS, "CurrentVersion": _VERSION, "TargetVersion": _VERSION}
    members = {str(name).lower(): value for name, value in given.items()}
    found = {}
    for name, pattern in wanted.items():
        value = str(members.get(name.lower()) if members.get(name.lower()) is not None else "")
        if not pattern.fullmatch(value):
            raise wrong(f"The AppSpec's {name} is not valid: {value[:64] or 'it is not there'}.")
        found[name] = value
    if found["CurrentVersion"] == found["TargetVersion"]:
        raise wrong("The AppSpec's TargetVersion is its CurrentVersion: there is nothing to shift.")
    return {
        "function": found["Name"], "alias": found["Alias"], "current": found["CurrentVersion"],
        "target": found["TargetVersion"],
    }  # fmt: skip


def _hooks(given: Any) -> dict[str, str]:
    rows = given if isinstance(given, list) else [given] if given else []
    found: dict[str, str] = {}
    for row in rows:
        if not isinstance(row, dict):
            raise wrong("The AppSpec's Hooks are pairs of an event and a function.")
        for name, function in row.items():
            if name not in (BEFORE, AFTER):
                raise wrong(f"The AppSpec's hook {str(name)[:64]} is none of {BEFORE} and {AFTER}.")
            if not isinstance(function, str) or not _FUNCTION.fullmatch(function):
                raise wrong(f"The AppSpec's hook {name} names no function.")
            found[name] = function
    return found


def back(spec: Mapping[str, Any]) -> str:
    """The AppSpec that takes a deployment back."""
    properties = {
        "Name": spec["function"], "Alias": spec["alias"], "CurrentVersion": spec["target"],
        "TargetVersion": spec["current"],
    }  # fmt: skip
    resource = {"Type": "AWS::Lambda::Function", "Properties": properties}
    return orjson.dumps({"version": 0.0, "Resources": [{spec["name"]: resource}]}).decode()
