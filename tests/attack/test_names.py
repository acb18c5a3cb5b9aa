"""One resource has one name in every question: spellings that no policy speaks of reach nothing.

A Deny is about an ARN. If another spelling of the ARN found the same row, the Deny would be about nothing: guardrails
(docs/threat-model.md, "an insider who approves", "an administrator of an account") would be words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from botocore.exceptions import ClientError

from bastide.domain import Refused
from bastide.kernel import Kind
from tests.platform import Account, Keys
from tests.stories.servicecatalog.catalog import Catalog, template


def _spellings(arn: str) -> list[str]:
    parts = arn.split(":", 5)
    made = []
    for index, values in ((1, ("aws-cn", "aws-us-gov", "aws-x", "AWS")), (3, ("", "eu-west-9")), (4, ("",))):
        for value in values:
            made.append(":".join([*parts[:index], value, *parts[index + 1 :]]))
    made.append(":".join([*parts[:5], parts[5].upper()]))
    made.append(arn + "/")
    made.append(arn + ":x")
    return made


def _refused(call: Callable[[], Any]) -> None:
    with pytest.raises(ClientError):
        call()


def _bound(account: Account, actions: list[str], arns: list[str]) -> Keys:
    """A session that may do everything but these actions on these ARNs."""
    statements = [
        {"Effect": "Allow", "Action": "*", "Resource": "*"},
        {"Effect": "Deny", "Action": actions, "Resource": arns},
    ]
    account.role("bound", {"Version": "2012-10-17", "Statement": statements})
    return account.as_role("bound")


def test_a_denied_model_version_is_denied_in_every_spelling(account: Account) -> None:
    admin = account.client("sagemaker")
    admin.create_model_package_group(ModelPackageGroupName="prod")
    arn = admin.create_model_package(ModelPackageGroupName="prod")["ModelPackageArn"]
    actions = ["sagemaker:UpdateModelPackage", "sagemaker:DescribeModelPackage", "sagemaker:AddTags"]
    bound = account.client("sagemaker", _bound(account, actions, [arn]), parameter_validation=False)
    for one in [arn, *_spellings(arn)]:
        _refused(lambda one=one: bound.update_model_package(ModelPackageArn=one, ModelApprovalStatus="Approved"))
        _refused(lambda one=one: bound.describe_model_package(ModelPackageName=one))
        _refused(lambda one=one: bound.add_tags(ResourceArn=one, Tags=[{"Key": "a", "Value": "b"}]))
    told = admin.describe_model_package(ModelPackageName=arn)
    assert told["ModelApprovalStatus"] == "PendingManualApproval"
    assert admin.list_tags(ResourceArn=arn)["Tags"] == []


def test_a_denied_trail_is_denied_in_every_spelling(account: Account) -> None:
    bucket = f"trail-{account.id}"
    account.client("s3").create_bucket(Bucket=bucket)
    admin = account.client("cloudtrail")
    arn = admin.create_trail(Name="guard", S3BucketName=bucket)["TrailARN"]
    admin.start_logging(Name=arn)
    bound = account.client("cloudtrail", _bound(account, ["cloudtrail:*"], [arn]), parameter_validation=False)
    for one in [arn, "guard", *_spellings(arn)]:
        _refused(lambda one=one: bound.stop_logging(Name=one))
        _refused(lambda one=one: bound.put_event_selectors(TrailName=one, EventSelectors=[]))
        _refused(lambda one=one: bound.delete_trail(Name=one))
    assert admin.get_trail_status(Name=arn)["IsLogging"] is True


def test_a_denied_log_group_is_denied_in_every_spelling(account: Account) -> None:
    admin = account.client("logs")
    admin.create_log_group(logGroupName="secret")
    admin.create_log_stream(logGroupName="secret", logStreamName="s")
    arn = f"arn:aws:logs:us-east-1:{account.id}:log-group:secret"
    bound = account.client("logs", _bound(account, ["logs:*"], [arn, f"{arn}:*"]), parameter_validation=False)
    tricks = [f"arn:aws:logs:us-east-1:{account.id}:secret", f"{arn}:*", f"{arn}:log-stream:s", f"{arn}:*:*"]
    for one in [arn, *tricks, *_spellings(arn)]:
        _refused(lambda one=one: bound.filter_log_events(logGroupIdentifier=one))
        _refused(lambda one=one: bound.describe_log_streams(logGroupIdentifier=one))
        _refused(lambda one=one: bound.get_log_events(logGroupIdentifier=one, logStreamName="s"))
        _refused(lambda one=one: bound.tag_resource(resourceArn=one, tags={"a": "b"}))
    assert admin.list_tags_for_resource(resourceArn=arn)["tags"] == {}
    assert admin.filter_log_events(logGroupIdentifier=arn)["events"] == []


def test_a_denied_key_is_denied_in_every_spelling(account: Account) -> None:
    admin = account.client("kms")
    arn = admin.create_key()["KeyMetadata"]["Arn"]
    admin.create_alias(AliasName="alias/guarded", TargetKeyId=arn)
    blob = admin.encrypt(KeyId=arn, Plaintext=b"x")["CiphertextBlob"]
    bound = account.client("kms", _bound(account, ["kms:*"], [arn]), parameter_validation=False)
    alias = arn.rpartition(":")[0] + ":alias/guarded"
    for one in [arn, arn.rpartition("/")[2], "alias/guarded", *_spellings(arn), alias, *_spellings(alias)]:
        _refused(lambda one=one: bound.encrypt(KeyId=one, Plaintext=b"x"))
        _refused(lambda one=one: bound.schedule_key_deletion(KeyId=one))
    _refused(lambda: bound.decrypt(CiphertextBlob=blob))
    for forged in (alias, *_spellings(arn)):
        # The key that a ciphertext names stands in the clear in front of it.
        changed = blob[:4] + len(forged).to_bytes(2, "big") + blob[6:10] + forged.encode() + blob[10 + len(arn) :]
        _refused(lambda changed=changed: bound.decrypt(CiphertextBlob=changed))


def test_a_denied_share_is_denied_in_every_spelling(account: Account) -> None:
    admin = account.client("ram")
    arn = admin.create_resource_share(name="guarded")["resourceShare"]["resourceShareArn"]
    bound = account.client("ram", _bound(account, ["ram:*"], [arn]), parameter_validation=False)
    for one in [arn, arn.replace("resource-share/", ""), arn.replace(":ram:", ":ec2:"), *_spellings(arn)]:
        _refused(lambda one=one: bound.update_resource_share(resourceShareArn=one, name="taken"))
        _refused(lambda one=one: bound.tag_resource(resourceShareArn=one, tags=[{"key": "a", "value": "b"}]))
        _refused(lambda one=one: bound.delete_resource_share(resourceShareArn=one))
    [told] = admin.get_resource_shares(resourceOwner="SELF")["resourceShares"]
    assert (told["name"], told["tags"], told["status"]) == ("guarded", [], "ACTIVE")


def test_the_tags_of_a_denied_api_are_denied_in_every_spelling(account: Account) -> None:
    admin = account.client("apigateway")
    arn = f"arn:aws:apigateway:us-east-1::/restapis/{admin.create_rest_api(name='guarded')['id']}"
    denied = [f"arn:aws:apigateway:us-east-1::/tags/{arn}"]
    bound = account.client("apigateway", _bound(account, ["apigateway:*"], denied), parameter_validation=False)
    for one in [arn, quote(arn, safe=""), quote(arn), f"{arn}/x", f"{arn}/", *_spellings(arn)]:
        _refused(lambda one=one: bound.tag_resource(resourceArn=one, tags={"a": "b"}))
        _refused(lambda one=one: bound.get_tags(resourceArn=one))
    assert admin.get_tags(resourceArn=arn)["tags"] == {}


def test_a_denied_product_is_denied_by_its_name(account: Account, neighbour: Account) -> None:
    """Its own, and one of a portfolio that is shared with the account."""
    shared = Catalog(neighbour)
    theirs = shared.portfolio("Shared")
    other, version = shared.product(template(), theirs, name="theirs")
    shared.client.create_portfolio_share(PortfolioId=theirs, AccountId=account.id)
    catalog = Catalog(account)
    catalog.client.accept_portfolio_share(PortfolioId=theirs)
    portfolio = catalog.portfolio(Tags=[{"Key": "dept", "Value": "mortgages"}])
    product, own = catalog.product(template(), portfolio, name="own")
    denied = [f"arn:aws:catalog:us-east-1:{account.id}:product/{one}" for one in (product, other)]
    bound = account.client("servicecatalog", _bound(account, ["servicecatalog:*"], denied))
    for one in (portfolio, theirs):
        catalog.principal(one, f"arn:aws:iam::{account.id}:role/bound")
        catalog.principal(one, f"arn:aws:iam::{account.id}:role/OrganizationAccountAccessRole")
    for id, name, of in ((product, "own", own), (other, "theirs", version)):
        launch = {"ProvisioningArtifactId": of, "ProvisionedProductName": name, "ProvisionToken": name}
        for given in ({"ProductId": id}, {"ProductName": name}):
            _refused(lambda given=given, launch=launch: bound.provision_product(**given, **launch))
            _refused(lambda given=given, of=of: bound.describe_provisioning_parameters(
                ProvisioningArtifactId=of, **given
            ))  # fmt: skip
        assert catalog.client.describe_product(Name=name)["ProductViewSummary"]["ProductId"] == id
        _refused(lambda name=name: bound.describe_product(Name=name))
    _refused(lambda: bound.describe_provisioning_artifact(ProductName="own", ProvisioningArtifactId=own, Verbose=True))
    _refused(lambda: bound.describe_product_as_admin(Name="own"))
    # What is set by the portfolio is nobody's to word otherwise, in any case.
    for key in ("dept", "DEPT"):
        _refused(lambda key=key: catalog.client.provision_product(
            ProductId=product, ProvisioningArtifactId=own, ProvisionedProductName="x", ProvisionToken=f"x{key}",
            ProvisioningParameters=[{"Key": "Name", "Value": "x"}], Tags=[{"Key": key, "Value": "fraud"}],
        ))  # fmt: skip


@pytest.mark.parametrize("given", _spellings("arn:aws:sagemaker:us-east-1:111122223333:widget/w")[:7])
def test_a_kind_takes_its_arn_as_it_writes_it_and_no_other(given: str) -> None:
    kind = Kind("Widget", service="sagemaker", arn="widget/{}")
    if given.split(":")[3] == "eu-west-9":
        assert kind.locate(given, "111122223333", "us-east-1") == ("111122223333", "eu-west-9", "w")
        return
    if given.split(":")[3] == "":
        assert kind.locate(given, "111122223333", "us-east-1")[1] == ""
        return
    with pytest.raises(Refused):
        kind.locate(given, "111122223333", "us-east-1")
