"""The platform is killed while a product is launched and removed: one stack is made, and the record ends as it should."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest
from botocore.exceptions import ConnectionError as NoAnswer
from botocore.exceptions import HTTPClientError

from tests.platform import Running
from tests.stories.servicecatalog.catalog import USER, Catalog, Person, template

FLOW = "servicecatalog-record"
WHOLE = "BASTIDE_CRASH_ROUNDS" in os.environ
POINTS = [f"{FLOW}/PROVISION_PRODUCT:asked"]
"""Between the stack and its note; the long form (`make crash`) has all."""
if WHOLE:
    POINTS += [f"{FLOW}/{step}:{when}" for step in ("ask", "settle", "end") for when in ("before", "after")]


@pytest.fixture(scope="module")
def crashing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A platform of its own, for it is to die."""
    running = Running(tmp_path_factory.mktemp("crash") / "data")
    running.start()
    running.found()
    yield running
    running.stop()


@pytest.mark.control("SSV-02", lacking="there are no notebooks")
def test_a_launch_is_that_of_an_undisturbed_run(crashing: Running) -> None:
    account = crashing.account()
    catalog = Catalog(account)
    portfolio = catalog.portfolio()
    product, version = catalog.product(template(), portfolio)
    catalog.constrain(portfolio, product, "LAUNCH", {"RoleArn": catalog.launch_role()})
    catalog.principal(portfolio, account.role("Scientist", USER))
    given = {
        "ProductId": product, "ProvisioningArtifactId": version, "ProvisionedProductName": "risk",
        "ProvisioningParameters": [{"Key": "Name", "Value": "risk"}], "ProvisionToken": "once",
    }  # fmt: skip
    for point in POINTS:
        crashing.stop()
        crashing.launch(BASTIDE_TEST_KILL_AT=point)
        with contextlib.suppress(NoAnswer, HTTPClientError):
            Person(account, account.as_role("Scientist")).client.provision_product(
                **given | {"ProvisionToken": point.replace("/", "-").replace(":", "-")}
            )
        assert crashing.process is not None and crashing.process.wait(60) == -9
        crashing.kill()
        crashing.launch()
        person = Person(account, account.as_role("Scientist"))
        [record] = [
            one
            for one in person.client.list_record_history()["RecordDetails"]
            if one["RecordType"] == "PROVISION_PRODUCT"
        ][:1]
        told = person.settled(record["RecordId"])
        assert told["RecordDetail"]["Status"] == "SUCCEEDED", told
        stacks = account.client("cloudformation").list_stacks(StackStatusFilter=["CREATE_COMPLETE"])["StackSummaries"]
        assert len(stacks) == 1
        asked = person.client.terminate_provisioned_product(ProvisionedProductName="risk")
        assert person.settled(asked["RecordDetail"]["RecordId"])["RecordDetail"]["Status"] == "SUCCEEDED"
        assert not account.client("sagemaker").list_model_package_groups()["ModelPackageGroupSummaryList"]
