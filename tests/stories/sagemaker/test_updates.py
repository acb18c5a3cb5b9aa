"""Endpoints change while they answer: no call fails, and what goes wrong leaves what was."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.stories.sagemaker.conftest import Workshop
from tests.stories.sagemaker.serving import config, container, model, serve, until, variant


class Load:
    """Callers that never pause."""

    def __init__(self, invoke: Callable[..., bytes], callers: int) -> None:
        self.answers: list[tuple[float, bytes]] = []
        self.errors: list[str] = []
        self._invoke = invoke
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(number,)) for number in range(callers)]

    def _call(self, number: int) -> None:
        while not self._over.is_set():
            try:
                # One of them asks for what takes long: it is under way when its server is to go.
                began = time.monotonic()
                self.answers.append((began, self._invoke(b"nap" if number == 0 else b"")[:1]))
            except Exception as error:
                self.errors.append(repr(error))

    def seen(self) -> set[bytes]:
        """Who answers the next dozen calls that begin."""
        since, before = time.monotonic(), len(self.answers)
        while sum(began >= since for began, _ in self.answers[before:]) < 12:
            assert time.monotonic() < since + 60
            time.sleep(0.02)
        return {answer for began, answer in self.answers[before:] if began >= since}

    @contextmanager
    def running(self) -> Iterator[Load]:
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._over.set()
            for thread in self._threads:
                thread.join()


def _blue_green(kind: str, **more: Any) -> dict[str, Any]:
    routing = {"Type": kind, "WaitIntervalInSeconds": 2, **more}
    return {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing, "TerminationWaitInSeconds": 0}}


@pytest.mark.control("EXP-17", lacking="containers of your own")
def test_no_call_fails_while_an_endpoint_changes_in_every_way(workshop: Workshop) -> None:
    for name in ("A", "B"):
        config(workshop, model(workshop, name, container(workshop, name)), variant(name))
    client = workshop.sagemaker
    invoke = serve(workshop, "A")
    half = {"Type": "CAPACITY_PERCENT", "Value": 50}

    def update(name: str, **more: Any) -> dict[str, Any]:
        client.update_endpoint(EndpointName="e", EndpointConfigName=name, **more)
        pending = client.describe_endpoint(EndpointName="e")
        if pending["EndpointStatus"] == "Updating":
            assert pending["PendingDeploymentSummary"]["EndpointConfigName"] == name
        return workshop.endpoint("e", "InService")

    def resize(count: int) -> None:
        desired = [{"VariantName": "AllTraffic", "DesiredInstanceCount": count}]
        client.update_endpoint_weights_and_capacities(EndpointName="e", DesiredWeightsAndCapacities=desired)
        assert workshop.endpoint("e", "InService")["ProductionVariants"][0]["CurrentInstanceCount"] == count

    with Load(invoke, 4).running() as load:
        assert load.seen() == {b"A"}
        update("B")
        assert load.seen() == {b"B"}
        resize(2)
        linear = _blue_green("LINEAR", LinearStepSize=half, WaitIntervalInSeconds=0)
        found = update("A", DeploymentConfig=linear, RetainAllVariantProperties=True)
        assert found["LastDeploymentConfig"] == linear and found["ProductionVariants"][0]["CurrentInstanceCount"] == 2
        found = update("B", RetainDeploymentConfig=True)
        assert found["LastDeploymentConfig"] == linear and found["ProductionVariants"][0]["CurrentInstanceCount"] == 1
        resize(2)
        canary = _blue_green("CANARY", CanarySize=half)
        client.update_endpoint(EndpointName="e", EndpointConfigName="A", DeploymentConfig=canary)
        until(lambda: load.seen() == {b"A", b"B"})
        assert client.describe_endpoint(EndpointName="e")["EndpointStatus"] == "Updating"
        workshop.endpoint("e", "InService")
        rolling = {"RollingUpdatePolicy": {"MaximumBatchSize": half, "WaitIntervalInSeconds": 0}}
        kept = [{"VariantPropertyType": "DesiredInstanceCount"}]
        more = {"RetainAllVariantProperties": True, "ExcludeRetainedVariantProperties": kept}
        found = update("B", DeploymentConfig=rolling, **more)
        assert found["ProductionVariants"][0]["CurrentInstanceCount"] == 1
        assert load.seen() == {b"B"}
    assert load.errors == []


def test_an_update_that_fails_leaves_who_answered(workshop: Workshop) -> None:
    for name in ("A", "B"):
        config(workshop, model(workshop, name, container(workshop, name)), variant(name))
    config(workshop, model(workshop, "dead", container(workshop, "D", b"raise ValueError")), variant("dead"))
    client = workshop.sagemaker
    invoke = serve(workshop, "A")
    with pytest.raises(ClientError, match="CanarySize"):
        client.update_endpoint(EndpointName="e", EndpointConfigName="B", DeploymentConfig=_blue_green("CANARY"))
    with Load(invoke, 2).running() as load:
        client.update_endpoint(EndpointName="e", EndpointConfigName="dead")
        found = workshop.endpoint("e", "InService")
        assert found["EndpointConfigName"] == "A" and "ping health check" in found["FailureReason"]
        assert "PendingDeploymentSummary" not in found
        assert load.seen() == {b"A"}
        client.update_endpoint(EndpointName="e", EndpointConfigName="B")
        assert workshop.endpoint("e", "InService").get("FailureReason") is None
        assert load.seen() == {b"B"}
    assert load.errors == []
