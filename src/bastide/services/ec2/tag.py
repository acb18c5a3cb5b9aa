"""Tags of all nouns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bastide.domain import Refused
from bastide.kernel import Asked, Authorised, Output, pages
from bastide.services.ec2 import noun
from bastide.services.ec2.noun import Noun, ask, checked_tags, filters
from bastide.services.ec2.nouns import NOUNS, VPC
from bastide.store import Row, Transaction, View


def _noun(id: str) -> Noun:
    """What an id names; raises InvalidID."""
    prefix = id.rpartition("-")[0]
    for one in NOUNS:
        if one.prefix == prefix:
            return one
    raise Refused("InvalidID", f"The ID '{id[:64]}' is not valid")


def _named(asked: Asked) -> Iterable[str]:
    for id in asked.input["Resources"]:
        try:
            found = _noun(str(id))
        except Refused:
            yield "*"  # names nothing, and who may tag anything is told so
        else:
            yield found.arn(asked.call.account, asked.call.region, str(id))


@VPC.does("CreateTags", asks=[ask("CreateTags", _named)])
def create(a: Authorised, tx: Transaction) -> Output:
    pairs = [(str(tag.get("Key") or ""), str(tag.get("Value") or "")) for tag in a.input["Tags"]]
    for id in dict.fromkeys(a.input["Resources"]):
        kind = _noun(id)
        row = kind.held(a, tx, id)
        row.tags = checked_tags(pairs, row.tags)
        kind.save(a, tx, row)
    return {}


@VPC.does("DeleteTags", asks=[ask("DeleteTags", _named)])
def delete(a: Authorised, tx: Transaction) -> Output:
    given: list[dict[str, Any]] | None = a.input.get("Tags")
    for id in dict.fromkeys(a.input["Resources"]):
        kind = _noun(id)
        row = kind.held(a, tx, id)
        if given is None:
            row.tags = {key: value for key, value in row.tags.items() if key.lower().startswith("aws:")}
        for tag in given or ():
            key, value = tag.get("Key"), tag.get("Value")
            if key in row.tags and value in (None, row.tags[key]):
                del row.tags[key]
        kind.save(a, tx, row)
    return {}


@VPC.tells("DescribeTags", asks=[ask("DescribeTags", noun.anything)])
def describe(a: Authorised, view: View) -> Output:
    chosen = filters(
        a,
        {
            "key": noun.doc("Key"), "value": noun.doc("Value"), "resource-id": noun.doc("ResourceId"),
            "resource-type": noun.doc("ResourceType"),
        },
    )  # fmt: skip
    limit = noun.page_size(a)
    number, after = pages.position(a, a.input.get("NextToken"), code="InvalidNextToken") or (0, None)
    found: list[Output] = []
    for at in range(number, len(NOUNS)):
        kind = NOUNS[at]
        while True:
            rows = view.scan(kind.key, a.account, a.region, after=after, limit=200)
            for row in rows:
                tags = [
                    {"Key": key, "Value": value, "ResourceId": row.name, "ResourceType": kind.resource}
                    for key, value in row.tags.items()
                ]
                tags = [tag for tag in tags if chosen(view, Row("", "", "", "", tag))]
                if found and len(found) + len(tags) > limit:
                    return {"Tags": found, "NextToken": pages.seal(a, [at, after])}
                found += tags
                after = row.name
            if len(rows) < 200:
                break
        after = None
    return {"Tags": found}
