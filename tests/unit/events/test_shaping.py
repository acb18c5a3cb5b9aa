"""What input transformers make of an event, as AWS was recorded."""

from __future__ import annotations

import json

import pytest

from bastide.domain import Refused
from bastide.services.events.shaping import shaped

EVENT = {
    "version": "0", "id": "i", "detail-type": "kind", "source": "s", "account": "1", "time": "t", "region": "r",
    "resources": [], "detail": {"user": "ann", "payload": {"a": "b", "c": 1}, "list": ["x", "y"], "yes": True},
}  # fmt: skip
PATHS = {
    "user": "$.detail.user", "payload": "$.detail.payload", "list": "$.detail.list", "yes": "$.detail.yes",
    "none": "$.detail.none",
}  # fmt: skip


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ('"<user> has <list> and <payload>"', '"ann has [x,y] and {a:b,c:1}"'),
        ('"it is <yes>, <none>."', '"it is true, ."'),
        ('{"at": "users/<user>", "all": <payload>}', '{"at": "users/ann", "all": {"a":"b","c":1}}'),
        ('{"none": <none>}', '{"none": ""}'),
    ],
)
def test_what_a_template_becomes(template: str, text: str) -> None:
    assert shaped(EVENT, {"InputTransformer": {"InputPathsMap": PATHS, "InputTemplate": template}}) == text


def test_the_event_itself_is_compact_and_can_be_told_without_its_detail() -> None:
    assert shaped(EVENT, {}) == json.dumps(EVENT, separators=(",", ":"))
    told = json.loads(shaped(EVENT, {"InputTransformer": {"InputTemplate": '{"e": <aws.events.event>}'}}))["e"]
    assert "detail" not in told and told["detailType"] == "kind"


@pytest.mark.parametrize("template", ['{"a": "<payload>"}', '{"a": "users/<list>"}'])
def test_a_document_that_would_become_none_is_refused(template: str) -> None:
    with pytest.raises(Refused):
        shaped(EVENT, {"InputTransformer": {"InputPathsMap": PATHS, "InputTemplate": template}})
