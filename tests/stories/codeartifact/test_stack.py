"""A shared services account's package repositories from a template."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.platform import Account
from tests.stories.cloudformation.stacks import Stacks, template


def _resources(word: str, policy: dict[str, Any]) -> dict[str, Any]:
    tags = [{"Key": "team", "Value": word}]
    domain = {"Fn::GetAtt": "Domain.Name"}
    return {
        "Domain": {
            "Type": "AWS::CodeArtifact::Domain",
            "Properties": {"DomainName": "shared", "PermissionsPolicyDocument": policy, "Tags": tags},
        },
        "Own": {
            "Type": "AWS::CodeArtifact::Repository",
            "Properties": {"DomainName": domain, "RepositoryName": "own", "Description": word, "Tags": tags},
        },
        "All": {
            "Type": "AWS::CodeArtifact::Repository",
            "Properties": {
                "DomainName": domain, "RepositoryName": "all",
                "Upstreams": [{"Fn::GetAtt": "Own.Name"}] if word == "one" else [],
                "PermissionsPolicyDocument": policy,
            },
        },
        "House": {
            "Type": "AWS::CodeArtifact::PackageGroup",
            "Properties": {
                "DomainName": domain, "Pattern": "/pypi//house*", "Description": word,
                "OriginConfiguration": {
                    "Restrictions": {
                        "ExternalUpstream": {"RestrictionMode": "BLOCK"},
                        "InternalUpstream": {"RestrictionMode": "INHERIT"},
                        "Publish": {
                            "RestrictionMode": "ALLOW_SPECIFIC_REPOSITORIES", "Repositories": [{"Fn::GetAtt": "Own.Name"}],
                        },
                    }
                },
            },
        },
    }  # fmt: skip


def test_packages_from_a_template(account: Account, neighbour: Account) -> None:
    stacks, client = Stacks(account), account.client("codeartifact")
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": f"arn:aws:iam::{neighbour.id}:root"},
                "Action": "codeartifact:GetAuthorizationToken",
                "Resource": "*",
            }
        ],
    }
    told = stacks.create("packages", template(_resources("one", policy)))
    assert told["StackStatus"] == "CREATE_COMPLETE", stacks.client.describe_stack_events(StackName="packages")
    made = client.describe_repository(domain="shared", repository="all")["repository"]
    assert [one["repositoryName"] for one in made["upstreams"]] == ["own"]
    group = client.describe_package_group(domain="shared", packageGroup="/pypi//house*")["packageGroup"]
    assert group["originConfiguration"]["restrictions"]["EXTERNAL_UPSTREAM"]["mode"] == "BLOCK"
    held = client.get_domain_permissions_policy(domain="shared")["policy"]
    assert json.loads(held["document"]) == policy
    arn = client.describe_domain(domain="shared")["domain"]["arn"]
    assert {"key": "team", "value": "one"} in client.list_tags_for_resource(resourceArn=arn)["tags"]

    told = stacks.update("packages", template(_resources("two", policy)))
    assert told["StackStatus"] == "UPDATE_COMPLETE", told
    assert client.describe_repository(domain="shared", repository="all")["repository"]["upstreams"] == []
    assert client.describe_repository(domain="shared", repository="own")["repository"]["description"] == "two"
    assert stacks.delete("packages")["StackStatus"] == "DELETE_COMPLETE"
    assert client.list_domains()["domains"] == []


def test_a_connection_to_what_is_not_there_fails_the_stack(account: Account) -> None:
    stacks = Stacks(account)
    resources = _resources("one", {"Version": "2012-10-17", "Statement": []})
    properties = {"DomainName": {"Fn::GetAtt": "Domain.Name"}, "RepositoryName": "own"}
    properties["ExternalConnections"] = ["public:npmjs"]
    domain = {"Type": "AWS::CodeArtifact::Domain", "Properties": {"DomainName": "shared"}}
    resources = {"Domain": domain, "Own": {"Type": "AWS::CodeArtifact::Repository", "Properties": properties}}
    told = stacks.create("refused", template(resources))
    assert told["StackStatus"] == "ROLLBACK_COMPLETE"
    events = stacks.client.describe_stack_events(StackName="refused")["StackEvents"]
    assert any("externalConnection is public:pypi" in one.get("ResourceStatusReason", "") for one in events)
    with pytest.raises(account.client("codeartifact").exceptions.ResourceNotFoundException):
        account.client("codeartifact").describe_domain(domain="shared")
