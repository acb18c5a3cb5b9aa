"""Lifecycle policies: which images of a repository expire.

All rules look at all images first; then they are applied in order of their priority, and an image that a rule speaks of is
left alone by the rules behind it. What a list of images refers to stays as long as the list; what is about an image
(signatures, SBOMs) goes with it and is not counted. Source: Amazon ECR User Guide, "Examples of lifecycle policies",
"Lifecycle policy properties in Amazon ECR".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bastide.domain import MICROS, Refused
from bastide.kernel import Ask, Authorised, Output, pages
from bastide.services.ecr.repository import (
    IMAGE,
    LIFECYCLES,
    PREVIEW,
    REPOSITORY,
    arn_of,
    enlisted,
    named,
    rows_of,
    this,
    unlisted,
    wildcard,
)
from bastide.store import Row, Transaction, View

_DAY: Final = 24 * 3600 * MICROS
_MOST_RULES: Final = 50
_MOST_WILDCARDS: Final = 4
_RULE: Final = frozenset({"rulePriority", "description", "selection", "action"})
_SELECTION: Final = frozenset(
    {"tagStatus", "tagPrefixList", "tagPatternList", "countType", "countUnit", "countNumber", "storageClass"}
)


@dataclass(frozen=True, slots=True)
class Rule:
    """prefixes, patterns: all of which some tag of an image has to fit. count: of images that stay, or of days."""

    priority: int
    status: str
    prefixes: tuple[str, ...]
    patterns: tuple[str, ...]
    by_age: bool
    count: int

    def speaks_of(self, tags: Sequence[str]) -> bool:
        """Whether an image with these tags is one of the rule's."""
        if self.status == "untagged":
            return not tags
        if self.status == "any":
            return True
        if not tags:
            return False
        return all(any(tag.startswith(prefix) for tag in tags) for prefix in self.prefixes) and all(
            any(wildcard(pattern).fullmatch(tag) for tag in tags) for pattern in self.patterns
        )


def _fault(message: str) -> Refused:
    return Refused(
        "InvalidParameterException",
        f"Invalid parameter at 'LifecyclePolicyText' failed to satisfy constraint: 'Lifecycle policy validation failure': "
        f"{message}",
    )


def parsed(text: str) -> list[Rule]:
    """The rules of a policy, the first to be applied first; raises InvalidParameterException."""
    try:
        told = json.loads(text)
    except ValueError:
        raise _fault("it is not JSON") from None
    rules = told.get("rules") if isinstance(told, dict) else None
    if not isinstance(rules, list) or not 1 <= len(rules) <= _MOST_RULES or set(told) != {"rules"}:
        raise _fault(f"it has `rules`, 1 to {_MOST_RULES} of them, and nothing else")
    found = sorted((_rule(one) for one in rules), key=lambda one: one.priority)
    if len({one.priority for one in found}) < len(found):
        raise _fault("every rule has a rulePriority of its own")
    everything = [one for one in found if one.status == "any"]
    if len(everything) > 1 or (everything and everything[0] is not found[-1]):
        raise _fault("one rule has the tagStatus any, and the highest rulePriority")
    if len([one for one in found if one.status == "untagged"]) > 1:
        raise _fault("one rule has the tagStatus untagged")
    return found


def _rule(told: Any) -> Rule:
    if not isinstance(told, dict) or not set(told) <= _RULE or not isinstance(told.get("selection"), dict):
        raise _fault(f"a rule has {', '.join(sorted(_RULE))}, and nothing else")
    selection, action = told["selection"], told.get("action")
    if not set(selection) <= _SELECTION:
        raise _fault(f"a selection has {', '.join(sorted(_SELECTION))}, and nothing else")
    if action != {"type": "expire"} or selection.get("storageClass", "standard") != "standard":
        raise _fault("the action is {'type': 'expire'}; images are not archived by Bastide")
    priority, count = told.get("rulePriority"), selection.get("countNumber")
    for name, number in (("rulePriority", priority), ("countNumber", count)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise _fault(f"{name} is a number from 1 on")
    status, way = selection.get("tagStatus"), selection.get("countType")
    prefixes, patterns = selection.get("tagPrefixList") or (), selection.get("tagPatternList") or ()
    if status not in ("tagged", "untagged", "any"):
        raise _fault("tagStatus is tagged, untagged or any")
    if (status == "tagged") != (bool(prefixes) != bool(patterns)) or (status != "tagged" and (prefixes or patterns)):
        raise _fault("a selection has tagPrefixList or tagPatternList where tagStatus is tagged, and neither otherwise")
    for one in (*prefixes, *patterns):
        if not isinstance(one, str) or not one or len(one) > 300 or (patterns and one.count("*") > _MOST_WILDCARDS):
            raise _fault(f"prefixes and patterns are texts, a pattern with {_MOST_WILDCARDS} wildcards at most")
    if way not in ("imageCountMoreThan", "sinceImagePushed"):
        raise _fault("countType is imageCountMoreThan or sinceImagePushed; when images are pulled is not recorded")
    if (way == "sinceImagePushed") != (selection.get("countUnit") == "days") or (
        way == "imageCountMoreThan" and "countUnit" in selection
    ):
        raise _fault("countUnit is days where countType is sinceImagePushed, and is absent otherwise")
    return Rule(
        int(priority or 0), status, tuple(prefixes), tuple(patterns), way == "sinceImagePushed", int(count or 0)
    )


def expiring(rules: Sequence[Rule], images: Sequence[Row], now: int) -> dict[str, int]:
    """The images that expire, by the names of their rows, with the priority of the rule that says so."""
    counted = [one for one in images if not one.doc.get("subject")]
    listed = {digest for one in counted for digest in one.doc["children"]}
    claimed: set[str] = set()
    found: dict[str, int] = {}
    for rule in rules:
        mine = sorted(
            (one for one in counted if rule.speaks_of(one.doc["tags"])),
            key=lambda one: (-one.doc["pushed"], one.name),
        )
        aged = [one for one in mine if one.doc["pushed"] <= now - rule.count * _DAY]
        late = aged if rule.by_age else mine[rule.count :]
        for one in late:
            if one.name not in claimed and one.name.rpartition("@")[2] not in listed:
                found[one.name] = rule.priority
        claimed.update(one.name for one in mine)
    return found


# -- the policy ----------------------------------------------------------------------------------------------------------


def _told(row: Row, text: str) -> dict[str, Any]:
    return {"registryId": row.account, "repositoryName": row.name, "lifecyclePolicyText": text}


def _held(row: Row) -> str:
    text = row.doc.get("lifecycle")
    if not text:
        raise Refused(
            "LifecyclePolicyNotFoundException",
            f"Lifecycle policy does not exist for the repository with name '{row.name}' in the registry with id "
            f"'{row.account}'",
        )
    return str(text)


@REPOSITORY.operation("PutLifecyclePolicy", asks=[Ask("ecr:PutLifecyclePolicy", this)])
def put(a: Authorised, tx: Transaction) -> Output:
    row, text = named(a, tx), str(a.input["lifecyclePolicyText"])
    parsed(text)
    row.doc["lifecycle"] = text
    row.doc.pop("evaluated", None)
    REPOSITORY.change(tx, row, a.operation.name, a.request.id)
    enlisted(tx, LIFECYCLES, arn_of(row))
    return _told(row, text)


@REPOSITORY.reads("GetLifecyclePolicy", asks=[Ask("ecr:GetLifecyclePolicy", this)])
def get(a: Authorised, view: View) -> Output:
    row = named(a, view)
    told = _told(row, _held(row))
    return {**told, "lastEvaluatedAt": row.doc["evaluated"]} if row.doc.get("evaluated") else told


@REPOSITORY.operation("DeleteLifecyclePolicy", asks=[Ask("ecr:DeleteLifecyclePolicy", this)])
def delete(a: Authorised, tx: Transaction) -> Output:
    output, row = get(a, tx), named(a, tx)
    del row.doc["lifecycle"]
    row.doc.pop("evaluated", None)
    REPOSITORY.change(tx, row, a.operation.name, a.request.id)
    unlisted(tx, LIFECYCLES, arn_of(row))
    return output


# -- its preview ---------------------------------------------------------------------------------------------------------


@PREVIEW.operation("StartLifecyclePolicyPreview", asks=[Ask("ecr:StartLifecyclePolicyPreview", this)])
def start_preview(a: Authorised, tx: Transaction) -> Output:
    repository = named(a, tx)
    text = str(a.input.get("lifecyclePolicyText") or _held(repository))
    found = expiring(parsed(text), rows_of(tx, IMAGE, repository), a.now)
    doc = {"text": text, "found": found}
    row = PREVIEW.get(tx, repository.account, repository.region, repository.name)
    if row is None:
        tx.insert(Row(PREVIEW.key, repository.account, repository.region, repository.name, doc), keep=False)
    else:
        row.doc = doc
        PREVIEW.change(tx, row, a.operation.name)
    return {**_told(repository, text), "status": "COMPLETE"}


@PREVIEW.reads("GetLifecyclePolicyPreview", asks=[Ask("ecr:GetLifecyclePolicyPreview", this)])
def get_preview(a: Authorised, view: View) -> Output:
    repository = named(a, view)
    row = PREVIEW.get(view, repository.account, repository.region, repository.name)
    if row is None:
        raise Refused(
            "LifecyclePolicyPreviewNotFoundException",
            f"Lifecycle policy preview does not exist for the repository with name '{repository.name}' in the registry "
            f"with id '{repository.account}'",
        )
    wanted, limit = a.input.get("imageIds"), min(int(a.input.get("maxResults") or 100), 1000)
    status = (a.input.get("filter") or {}).get("tagStatus") or "ANY"
    images = {one.name: one for one in rows_of(view, IMAGE, repository)}
    shown = []
    for name in sorted(row.doc["found"]):
        image = images.get(name)
        if image is not None and _asked(image, wanted, status):
            shown.append(_result(image, row.doc["found"][name]))
    begin = pages.position(a, a.input.get("nextToken"), code="InvalidParameterException") or 0
    token = pages.seal(a, begin + limit) if begin + limit < len(shown) else None
    return {
        **_told(repository, row.doc["text"]),
        "status": "COMPLETE",
        "previewResults": shown[begin : begin + limit],
        "summary": {"expiringImageTotalCount": len(row.doc["found"])},
        "nextToken": token,
    }


def _asked(image: Row, wanted: Any, status: str) -> bool:
    if status != "ANY" and bool(image.doc["tags"]) != (status == "TAGGED"):
        return False
    if not wanted:
        return True
    digest = image.name.rpartition("@")[2]
    return any(one.get("imageDigest") == digest or one.get("imageTag") in image.doc["tags"] for one in wanted)


def _result(image: Row, priority: int) -> Mapping[str, Any]:
    return {
        "imageTags": list(image.doc["tags"]),
        "imageDigest": image.name.rpartition("@")[2],
        "imagePushedAt": image.doc["pushed"],
        "action": {"type": "EXPIRE"},
        "appliedRulePriority": priority,
    }
