"""Functions, their versions and aliases, layers and mappings: how they are named, kept and found.

Source: AWS Lambda API Reference; Service Authorization Reference, "Actions, resources, and condition keys for AWS Lambda".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from bastide.domain import MICROS, Arn, Instant, Refused
from bastide.kernel import Asked, Authorised, Facts, Kind
from bastide.policy import Attached, Document, Form
from bastide.store import Row, View

PRINCIPAL: Final = "lambda.amazonaws.com"
LATEST: Final = "$LATEST"

FUNCTION: Final = Kind(
    "Function",
    service="lambda",
    arn="function:{}",
    named_by="FunctionName",
    states=("Pending", "Active", "Failed"),
    missing=("ResourceNotFoundException", "Function not found: {arn}", 404),
    taken=("ResourceConflictException", "Function already exist: {name}", 409),
)
"""A row's `doc` is the configuration of ``$LATEST``; what begins with ``_`` is ours."""
LAYER: Final = Kind("Layer", service="lambda", arn="layer:{}", named_by="LayerName", tags=False)
"""Rows ``NAME`` with the number of the newest version."""
MAPPING: Final = Kind(
    "EventSourceMapping",
    service="lambda",
    arn="event-source-mapping:{}",
    named_by="UUID",
    missing=("ResourceNotFoundException", "The resource you requested does not exist.", 404),
)
VERSION: Final = "lambda:Version"
"""Rows ``NAME:0000000001``: published versions, as FUNCTION's."""
ALIAS: Final = "lambda:Alias"
"""Rows ``NAME:ALIAS``."""
LAYER_VERSION: Final = "lambda:LayerVersion"
"""Rows ``NAME:0000000001``."""
HOLDER: Final = "lambda:Holder"
"""Rows of no account, ``ACCOUNT|REGION``: where there are functions and layers."""

_FUNCTION: Final = re.compile(
    r"(?:arn:aws:lambda:(?P<region>[a-z0-9-]+):(?=[0-9]{12}:function:))?(?:(?P<account>[0-9]{12}):)?(?:function:)?"
    r"(?P<name>[A-Za-z0-9_-]{1,64})(?::(?P<qualifier>\$LATEST|[A-Za-z0-9_-]{1,128}))?"
)
_NUMBER: Final = re.compile(r"[0-9]+")


def invalid(message: str) -> Refused:
    """InvalidParameterValueException."""
    return Refused("InvalidParameterValueException", message, 400)


def missing(arn: str) -> Refused:
    """ResourceNotFoundException."""
    return Refused("ResourceNotFoundException", f"Function not found: {arn}", 404)


@dataclass(frozen=True, slots=True)
class Named:
    """What a call names. qualifier: a version, an alias, ``$LATEST``; empty for none."""

    account: str
    region: str
    name: str
    qualifier: str = ""

    @property
    def function(self) -> str:
        """The function's ARN, without a qualifier."""
        return FUNCTION.arn(self.account, self.region, self.name)

    @property
    def arn(self) -> str:
        """The ARN as it was named."""
        return f"{self.function}:{self.qualifier}" if self.qualifier else self.function


def read(given: str, account: str, region: str, qualifier: str | None = None) -> Named:
    """What a name, a partial or a whole ARN means; raises InvalidParameterValueException."""
    match = _FUNCTION.fullmatch(given)
    if match is None:
        raise invalid(f"`{given[:200]}` is neither the name nor the ARN of a function.")
    held = match["qualifier"] or ""
    if held and qualifier and held != qualifier:
        raise invalid("The derived qualifier from the function name does not match the specified qualifier.")
    if match["region"] and match["region"] != region:
        raise Refused(
            "ResourceNotFoundException",
            f"Functions from '{match['region']}' are not reachable in this region ('{region}')",
            404,
        )
    return Named(match["account"] or account, region, match["name"], qualifier or held)


def named(a: Authorised) -> Named:
    """What a call names."""
    return read(str(a.input["FunctionName"]), a.account, a.region, a.input.get("Qualifier"))


def _about(asked: Asked, *, qualified: bool) -> Iterable[str]:
    found = read(str(asked.input["FunctionName"]), asked.call.account, asked.call.region, asked.input.get("Qualifier"))
    return (found.arn if qualified else found.function,)


def this(asked: Asked) -> Iterable[str]:
    """The ARN of the function that a call names."""
    return _about(asked, qualified=False)


def this_qualified(asked: Asked) -> Iterable[str]:
    """The same with the qualifier that it names, if it names one."""
    return _about(asked, qualified=True)


def find(view: View, what: Named) -> Row:
    """A function's row; raises ResourceNotFoundException."""
    row = FUNCTION.get(view, what.account, what.region, what.name)
    if row is None:
        raise missing(what.arn)
    return row


def version_key(name: str, number: str | int) -> str:
    """Of a published version's row: so that they stand in order."""
    return f"{name}:{int(number):010d}"


def version_row(view: View, what: Named, number: str) -> Row | None:
    """A published version."""
    if not _NUMBER.fullmatch(number) or len(number) > 10:
        return None
    return view.get(VERSION, what.account, what.region, version_key(what.name, number))


def alias_row(view: View, what: Named, name: str) -> Row | None:
    """An alias."""
    return view.get(ALIAS, what.account, what.region, f"{what.name}:{name}")


def is_number(text: str) -> bool:
    """Whether a qualifier is a version's."""
    return _NUMBER.fullmatch(text) is not None


def resolved(view: View, what: Named) -> tuple[Row, dict[str, Any], str]:
    """The function's row, and the configuration and the version that a name means now; of an alias the version that it
    points to. Raises ResourceNotFoundException."""
    row = find(view, what)
    wanted = what.qualifier
    if wanted in ("", LATEST):
        return row, row.doc, LATEST
    if not is_number(wanted):
        alias = alias_row(view, what, wanted)
        if alias is None:
            raise missing(what.arn)
        wanted = str(alias.doc["FunctionVersion"])
        if wanted == LATEST:
            return row, row.doc, LATEST
    held = version_row(view, what, wanted)
    if held is None:
        raise missing(what.arn)
    return row, held.doc, wanted


def rows_of(view: View, kind: str, what: Named) -> list[Row]:
    """All versions or aliases of a function."""
    found: list[Row] = []
    after: str | None = None
    while True:
        rows = view.scan(kind, what.account, what.region, prefix=f"{what.name}:", after=after, limit=500)
        found += rows
        if len(rows) < 500:
            return found
        after = rows[-1].name


def facts(view: View, arn: Arn, _: str) -> Facts | None:
    """Whose a function, a version, an alias or a layer's version is, its tags and its policy."""
    kind, _, rest = arn.resource.partition(":")
    name, _, qualifier = rest.partition(":")
    if kind == "function":
        row = FUNCTION.get(view, arn.account, arn.region, name)
        if row is None:
            return Facts(arn.account, type="Function")
        return _facts(row, (row.doc.get("_policies") or {}).get(qualifier), str(arn), row.tags)
    if kind == "layer" and is_number(qualifier):
        row = view.get(LAYER_VERSION, arn.account, arn.region, version_key(name, qualifier))
        if row is None:
            return Facts(arn.account, type="LayerVersion")
        return _facts(row, row.doc.get("_policy"), str(arn), {})
    return None


def _facts(row: Row, held: dict[str, Any] | None, where: str, tags: dict[str, str]) -> Facts:
    if not held:
        return Facts(row.account, tags, type="Function")
    policy = Attached(Document.parse_cached(held["text"], Form.RESOURCE), f"policy of {where}")
    return Facts(row.account, tags, policy, type="Function", text=held["text"], principals=held["principals"])


def archives(doc: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What is kept of the archives that a configuration, or a layer's version, is made of; of an image none."""
    return [one["_code"] for one in (doc, *(doc.get("Layers") or ())) if one.get("_code")]


def own_archive(doc: Mapping[str, Any]) -> set[str]:
    """The id of a configuration's own archive; of an image none."""
    return {doc["_code"]["id"]} if doc.get("_code") else set()


def told_time(at: Instant) -> str:
    """A time as Lambda writes it: ``2026-01-01T00:00:00.000+0000``."""
    told = datetime.fromtimestamp(at // MICROS, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{told}.{at % MICROS // 1000:03d}+0000"


def matches(given: str | None, held: str) -> None:
    """Raises PreconditionFailedException for a RevisionId that is not the newest."""
    if given and given != held:
        raise Refused(
            "PreconditionFailedException",
            "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to "
            "retrieve the latest Revision Id",
            412,
        )


def limit_of(a: Authorised, most: int = 50) -> int:
    """How many a page of a list has."""
    return min(int(a.input.get("MaxItems") or most), most)


def positive(asked: Asked, member: str) -> str:
    """A number of the input as text."""
    return str(int(asked.input.get(member) or 0))
