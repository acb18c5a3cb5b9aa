"""Model cards: versions that stay, and a status that moves."""

from __future__ import annotations

import json

import pytest
from botocore.exceptions import ClientError

from tests.platform import Account, allow


def test_a_card_grows_by_versions_and_none_is_rewritten(account: Account) -> None:
    client = account.client("sagemaker")
    first, second = json.dumps({"model_overview": {}}), json.dumps({"intended_uses": {"purpose": "credit"}})
    tags = [{"Key": "team", "Value": "red"}]
    arn = client.create_model_card(ModelCardName="c", Content=first, ModelCardStatus="Draft", Tags=tags)["ModelCardArn"]
    assert arn == f"arn:aws:sagemaker:us-east-1:{account.id}:model-card/c"
    with pytest.raises(client.exceptions.ConflictException):
        client.create_model_card(ModelCardName="c", Content=first, ModelCardStatus="Draft")
    for wrong in ("no json", "[]"):
        with pytest.raises(ClientError, match="JSON object"):
            client.create_model_card(ModelCardName="d", Content=wrong, ModelCardStatus="Draft")
    with pytest.raises(ClientError, match="SecurityConfig"):
        client.create_model_card(
            ModelCardName="d", Content=first, ModelCardStatus="Draft", SecurityConfig={"KmsKeyId": "alias/x"}
        )
    client.update_model_card(ModelCardName="c", ModelCardStatus="PendingReview")
    client.update_model_card(ModelCardName="c", Content=second)
    with pytest.raises(ClientError, match="single call"):
        client.update_model_card(ModelCardName="c", Content=first, ModelCardStatus="Approved")
    found = client.describe_model_card(ModelCardName="c")
    assert (found["ModelCardVersion"], found["Content"], found["ModelCardStatus"]) == (2, second, "PendingReview")
    assert found["LastModifiedBy"]["IamIdentity"]["Arn"]
    old = client.describe_model_card(ModelCardName="c", ModelCardVersion=1)
    assert (old["ModelCardVersion"], old["Content"]) == (1, first)
    with pytest.raises(client.exceptions.ResourceNotFound):
        client.describe_model_card(ModelCardName="c", ModelCardVersion=3)
    listed = client.list_model_card_versions(ModelCardName="c", MaxResults=1)
    rest = client.list_model_card_versions(ModelCardName="c", MaxResults=1, NextToken=listed["NextToken"])
    both = listed["ModelCardVersionSummaryList"] + rest["ModelCardVersionSummaryList"]
    assert [one["ModelCardVersion"] for one in both] == [1, 2]
    assert client.list_model_cards(ModelCardStatus="Approved")["ModelCardSummaries"] == []
    [summary] = client.list_model_cards(NameContains="c")["ModelCardSummaries"]
    assert summary["ModelCardArn"] == arn
    [hit] = client.search(
        Resource="ModelCard", SearchExpression={"Filters": [{"Name": "ModelCardStatus", "Value": "PendingReview"}]}
    )["Results"]
    assert hit["ModelCard"]["ModelCardVersion"] == 2
    client.update_model_card(ModelCardName="c", ModelCardStatus="Archived")
    with pytest.raises(ClientError, match="is archived"):
        client.update_model_card(ModelCardName="c", Content=first)
    account.role("Reader", allow("sagemaker:DescribeModelCard"))
    reader = account.client("sagemaker", account.as_role("Reader"))
    assert reader.describe_model_card(ModelCardName="c")["ModelCardStatus"] == "Archived"
    with pytest.raises(ClientError, match="not authorized"):
        reader.update_model_card(ModelCardName="c", ModelCardStatus="Approved")
    client.delete_model_card(ModelCardName="c")
    with pytest.raises(client.exceptions.ResourceNotFound):
        client.describe_model_card(ModelCardName="c")
