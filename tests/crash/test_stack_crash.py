"""The platform is killed before and after every step and call of a stack's life; nothing is made twice or left behind."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest
from botocore.exceptions import ConnectionError as NoAnswer
from botocore.exceptions import HTTPClientError

from tests.platform import Account, Running
from tests.stories.cloudformation.stacks import Stacks, nobody, parameter, template
from tests.stories.servicecatalog.catalog import USER, Catalog, Person
from tests.stories.servicecatalog.catalog import template as product_template

STEPS = ("make", "publish", "undo", "clean", "settle")
LONG = [f"stack/{step}:{when}" for step in STEPS for when in ("before", "after")]
SSM = "stack/AWS::SSM::Parameter"
KMS = "stack/AWS::KMS::Key"
CALLS = [
    f"{KMS}/create/CreateKey:before",
    f"{KMS}/create/CreateKey:after",
    f"{KMS}/create/EnableKeyRotation:before",
    f"{KMS}/create/EnableKeyRotation:after",
    f"{KMS}/create:made",
    f"{SSM}/create/PutParameter:after",
]
UPDATES = [f"{SSM}/update/PutParameter:before", f"{SSM}/update/PutParameter:after", f"{SSM}/update:made"]
UNDONE = [f"{SSM}/undo/PutParameter:before", f"{SSM}/undo/PutParameter:after"]
GONE = [f"{SSM}/delete/DeleteParameter:after", f"{KMS}/delete/ScheduleKeyDeletion:after"]
WHOLE = "BASTIDE_CRASH_ROUNDS" in os.environ


def _points(short: str, *long: str) -> list[str]:
    """All of them in the long form (`make crash`), else the one between an effect and its note."""
    return list(dict.fromkeys([short, *long])) if WHOLE else [short]


@pytest.fixture(scope="module")
def crashing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A platform of its own, for it is to die."""
    running = Running(tmp_path_factory.mktemp("crash") / "data")
    running.start()
    running.found()
    yield running
    running.stop()


@pytest.fixture(autouse=True)
def running(crashing: Running) -> None:
    """A test that failed costs none of the others."""
    if crashing.process is None or crashing.process.poll() is not None:
        crashing.kill()
        crashing.launch()


@pytest.fixture(scope="module")
def member(crashing: Running) -> Account:
    return crashing.account()


KEY = {"Type": "AWS::KMS::Key", "Properties": {"EnableKeyRotation": True}}
FIRST = {"K": KEY, "A": parameter({"Ref": "K"}), "N": parameter("n", DependsOn="A")}


def _armed(crashing: Running, member: Account, point: str) -> Stacks:
    crashing.stop()
    crashing.launch(BASTIDE_TEST_KILL_AT=point)
    return Stacks(member)


def _again(crashing: Running, member: Account) -> Stacks:
    assert crashing.process is not None
    assert crashing.process.wait(30) == -9
    crashing.kill()
    crashing.launch()
    return Stacks(member)


def _keys(member: Account) -> set[str]:
    kms = member.client("kms")
    found = {one["KeyId"] for one in kms.list_keys(Limit=1000)["Keys"]}
    return {
        one
        for one in found
        if (held := kms.describe_key(KeyId=one)["KeyMetadata"])["KeyManager"] == "CUSTOMER"
        and held["KeyState"] == "Enabled"
    }


def _clear(stacks: Stacks, name: str) -> None:
    assert stacks.delete(name)["StackStatus"] == "DELETE_COMPLETE"
    assert not _keys(stacks.account)
    assert not stacks.ssm.describe_parameters()["Parameters"]


@pytest.mark.parametrize("point", _points(CALLS[1], *(one for one in LONG if "undo" not in one), *CALLS))
def test_a_creation_is_that_of_an_undisturbed_run(crashing: Running, member: Account, point: str) -> None:
    stacks = _armed(crashing, member, point)
    with contextlib.suppress(NoAnswer, HTTPClientError):  # it may die before it answers
        stacks.client.create_stack(StackName="s", TemplateBody=template(FIRST))
    stacks = _again(crashing, member)
    assert stacks.settled("s")["StackStatus"] == "CREATE_COMPLETE", stacks.story("s")
    physical = stacks.physical("s")
    assert _keys(member) == {physical["K"]}
    assert stacks.value(physical["A"]) == physical["K"]
    versions = stacks.ssm.get_parameter_history(Name=physical["N"])["Parameters"]
    assert [one["Value"] for one in versions] == ["n"]
    made = [one for one in stacks.story("s") if one[1] == "CREATE_COMPLETE"]
    assert len(made) == len(set(made)) == 4
    _clear(stacks, "s")


@pytest.mark.parametrize("point", _points(UNDONE[1], *(one for one in LONG if "publish" not in one), *UPDATES, *UNDONE))
def test_an_update_that_fails_ends_where_it_began(crashing: Running, member: Account, point: str) -> None:
    stacks = Stacks(member)
    stacks.create("s", template(FIRST))
    before = stacks.physical("s")
    stacks = _armed(crashing, member, point)
    worse = {**FIRST, "N": parameter("changed", DependsOn="A"), "B": nobody("N")}
    ask = {"StackName": "s", "TemplateBody": template(worse), "Capabilities": ["CAPABILITY_IAM"]}
    with contextlib.suppress(NoAnswer, HTTPClientError):  # it may die before it answers
        stacks.client.update_stack(**ask)
    stacks = _again(crashing, member)
    assert stacks.settled("s")["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE", stacks.story("s")
    assert stacks.physical("s") == before
    versions = stacks.ssm.get_parameter_history(Name=before["N"])["Parameters"]
    assert [one["Value"] for one in versions] == ["n", "changed", "n"]
    _clear(stacks, "s")


@pytest.mark.parametrize("point", _points(GONE[1], *(one for one in LONG if "clean" in one or "settle" in one), *GONE))
def test_a_deletion_leaves_nothing(crashing: Running, member: Account, point: str) -> None:
    stacks = Stacks(member)
    stacks.create("s", template(FIRST))
    id = stacks.get("s")["StackId"]
    stacks = _armed(crashing, member, point)
    with contextlib.suppress(NoAnswer, HTTPClientError):  # it may die before it answers
        stacks.client.delete_stack(StackName="s")
    stacks = _again(crashing, member)
    assert stacks.settled(id)["StackStatus"] == "DELETE_COMPLETE", stacks.story(id)
    assert not _keys(member)
    assert not stacks.ssm.describe_parameters()["Parameters"]


LAUNCH = "servicecatalog-record"
RECORDS = [f"{LAUNCH}/{step}:{when}" for step in ("ask", "settle", "end") for when in ("before", "after")]


@pytest.fixture(scope="module")
def launched(crashing: Running) -> tuple[Account, dict[str, str]]:
    """An account whose scientists may launch a product; what they ask for."""
    account = crashing.account()
    catalog = Catalog(account)
    portfolio = catalog.portfolio()
    product, version = catalog.product(product_template(), portfolio)
    catalog.constrain(portfolio, product, "LAUNCH", {"RoleArn": catalog.launch_role()})
    catalog.principal(portfolio, account.role("Scientist", USER))
    return account, {"ProductId": product, "ProvisioningArtifactId": version, "ProvisionedProductName": "risk"}


@pytest.mark.control("SSV-02")
@pytest.mark.parametrize("point", _points(f"{LAUNCH}/PROVISION_PRODUCT:asked", *RECORDS))
def test_a_launch_of_a_product_is_that_of_an_undisturbed_run(
    crashing: Running, launched: tuple[Account, dict[str, str]], point: str
) -> None:
    account, given = launched
    _armed(crashing, account, point)
    with contextlib.suppress(NoAnswer, HTTPClientError):
        Person(account, account.as_role("Scientist")).client.provision_product(
            **given, ProvisioningParameters=[{"Key": "Name", "Value": "risk"}]
        )
    _again(crashing, account)
    person = Person(account, account.as_role("Scientist"))
    record = person.client.list_record_history()["RecordDetails"][0]
    assert person.settled(record["RecordId"])["RecordDetail"]["Status"] == "SUCCEEDED"
    stacks = account.client("cloudformation").list_stacks(StackStatusFilter=["CREATE_COMPLETE"])["StackSummaries"]
    assert len(stacks) == 1
    asked = person.client.terminate_provisioned_product(ProvisionedProductName="risk")
    assert person.settled(asked["RecordDetail"]["RecordId"])["RecordDetail"]["Status"] == "SUCCEEDED"
    assert not account.client("sagemaker").list_model_package_groups()["ModelPackageGroupSummaryList"]
