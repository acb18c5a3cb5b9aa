"""The policies that AWS brings: every one can be decided by, none is a stand-in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bastide.policy import Document, Form
from bastide.services.iam import managed
from bastide.services.iam.managed import ADMINISTRATOR, MANAGED
from bastide.services.iam.service_linked import SERVICES

EVERYTHING = {ADMINISTRATOR}
WHOLE_BUT = {"arn:aws:iam::aws:policy/PowerUserAccess"}


def test_every_document_can_be_decided_by() -> None:
    for one in MANAGED.values():
        Document.parse(one.document, Form.IDENTITY)
        Document.parse(one.document, Form.BOUNDARY)


def test_only_the_administrator_may_do_everything() -> None:
    for arn, one in MANAGED.items():
        document = json.loads(one.document)
        for statement in document["Statement"]:
            if statement["Effect"] == "Allow":
                actions = statement.get("Action", ())
                listed = [actions] if isinstance(actions, str) else actions
                assert ("*" in listed) == (arn in EVERYTHING), arn
                assert "NotAction" not in statement or arn in WHOLE_BUT, arn


def test_the_index_and_the_files_agree() -> None:
    folder = Path(managed.__file__).parent
    files = {path.stem for path in folder.glob("*.json")} - {"index"}
    assert files == {one.name for one in MANAGED.values()}
    assert len({one.id for one in MANAGED.values()}) == len(MANAGED)
    for one in MANAGED.values():
        assert one.created <= one.updated and one.version.startswith("v")


def test_documents_are_read_when_they_are_asked_for() -> None:
    fresh = managed._index()
    assert all("document" not in vars(one) for one in fresh.values())
    assert '"sagemaker:Describe*"' in fresh["arn:aws:iam::aws:policy/AmazonSageMakerReadOnly"].document


@pytest.mark.parametrize("service", SERVICES)
def test_the_policy_of_every_service_linked_role_is_there(service: str) -> None:
    held = MANAGED[f"arn:aws:iam::aws:policy/aws-service-role/{SERVICES[service].policy}"]
    assert held.of_service
