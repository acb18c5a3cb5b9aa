"""The platform is killed at every step of a deployment: it goes on, and the alias and the topic are told each thing once.

At length in `make crash`; in the tests that CI runs a deployment is what functions check when the platform dies
(`test_functions_crash`).
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator

import botocore.exceptions
import pytest

from tests.moved import until
from tests.platform import Running
from tests.stories.codedeploy.test_deployments import Site

POINTS = [
    *(
        f"codedeploy/{phase}:before"
        for phase in ("begin", "BeforeAllowTraffic", "AllowTraffic", "AfterAllowTraffic", "end")
    ),
    "codedeploy/hook:asked",
    "codedeploy/shift:after",
]


@pytest.fixture(scope="module")
def crashing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("crash") / "data")
    running.start()
    running.found()
    yield running
    running.stop()


if "BASTIDE_CRASH_ROUNDS" in os.environ:

    @pytest.fixture(scope="module")
    def site(crashing: Running) -> Site:
        return Site(crashing.account())

    @pytest.mark.parametrize("ends", ["good", "bad"])
    @pytest.mark.parametrize("point", POINTS)
    def test_a_deployment_goes_on(crashing: Running, site: Site, point: str, ends: str) -> None:
        group = f"g-{uuid.uuid4().hex[:8]}"
        back = {"enabled": True, "events": ["DEPLOYMENT_FAILURE"]}
        site.group(group, "CodeDeployDefault.LambdaAllAtOnce", autoRollbackConfiguration=back)
        crashing.stop()
        crashing.launch(BASTIDE_TEST_KILL_AT=point)
        site.again()
        with contextlib.suppress(botocore.exceptions.HTTPClientError, botocore.exceptions.ConnectionError):
            site.deploy(
                group, [{"BeforeAllowTraffic": "CodeDeployHook_good"}, {"AfterAllowTraffic": f"CodeDeployHook_{ends}"}]
            )
        assert crashing.process is not None
        if (point, ends) != ("codedeploy/end:before", "bad"):  # a failure does not come there; its rollback does
            assert crashing.process.wait(60) == -9
        crashing.kill()
        crashing.launch()
        site.again()
        given = {"applicationName": "app", "deploymentGroupName": group}
        ids = until(lambda: site.client.list_deployments(**given)["deployments"])
        told = site.over(ids[-1])
        if ends == "good":
            assert (told["status"], site.alias(group)) == ("Succeeded", ("2", {}))
            assert len(ids) == 1
            return
        assert told["errorInformation"]["code"] == "HOOK_EXECUTION_FAILURE"
        assert site.over(told["rollbackInfo"]["rollbackDeploymentId"])["status"] == "Succeeded"
        assert site.alias(group) == ("1", {})
        assert len(site.client.list_deployments(**given)["deployments"]) == 2
