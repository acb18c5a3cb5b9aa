"""The order of tests: in each process what takes long comes first, and what is quick last, where others may take it over.

xdist's worksteal deals the tests out in equal runs, one a process, and who has none left takes from the end of another's.
A module with much to set up costs it once in each process that has a test of it; so such modules stand where nobody takes
from, whole, and as much of them in each process as in the others.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Sequence

import pytest

LONG = {
    "tests/attack/test_hostile_images.py": 17,
    "tests/cluster/": 60,
    "tests/conformance/test_asl.py": 24,
    "tests/crash/": 120,
    "tests/guard/test_page_cost.py": 30,
    "tests/power/": 30,
    "tests/sdk/": 170,
    "tests/stories/artifacts/test_platform.py": 87,
    "tests/stories/backup/": 69,
    "tests/stories/clients/test_aws_cli.py": 34,
    "tests/stories/clients/test_data_tools.py": 31,
    "tests/stories/cloudformation/test_acting.py": 37,
    "tests/stories/cloudformation/test_stack_set.py": 19,
    "tests/stories/codeartifact/test_python.py": 72,
    "tests/stories/codeartifact/test_sources.py": 37,
    "tests/stories/codebuild/": 60,
    "tests/stories/codedeploy/": 30,
    "tests/stories/codepipeline/": 60,
    "tests/stories/commands/test_policy_tools.py": 57,
    "tests/stories/commands/test_reproduce.py": 118,
    "tests/stories/demo/": 100,
    "tests/stories/ec2/test_endpoints.py": 73,
    "tests/stories/ec2/test_guardrails.py": 33,
    "tests/stories/ec2/test_package_endpoints.py": 47,
    "tests/stories/ec2/test_registry_endpoints.py": 83,
    "tests/stories/ec2/test_transit.py": 74,
    "tests/stories/identity_center/test_sign_in.py": 34,
    "tests/stories/kms/test_root_keys.py": 54,
    "tests/stories/landing/test_age.py": 30,
    "tests/stories/landing/test_beginning_and_end.py": 50,
    "tests/stories/landing/test_chain.py": 60,
    "tests/stories/landing/test_delivery.py": 50,
    "tests/stories/landing/test_imagery.py": 110,
    "tests/stories/landing/test_pipelines.py": 40,
    "tests/stories/landing/test_zone.py": 65,
    "tests/stories/lambda_/": 60,
    "tests/stories/sagemaker/test_algorithms.py": 87,
    "tests/stories/sagemaker/test_endpoint_restarts.py": 22,
    "tests/stories/sagemaker/test_guarded_updates.py": 37,
    "tests/stories/sagemaker/test_hosting_faults.py": 21,
    "tests/stories/sagemaker/test_monitor": 35,
    "tests/stories/sagemaker/test_scaling_over_time.py": 28,
    "tests/stories/sagemaker/test_tracking.py": 100,
    "tests/stories/sagemaker/test_transform.py": 42,
    "tests/stories/sagemaker/test_tuning.py": 25,
    "tests/stories/sagemaker/test_volumes.py": 66,
    "tests/stories/states/test_executions.py": 25,
    "tests/stories/upgrade/": 44,
    "tests/stories/verify/": 66,
    "tests/unit/artifacts/": 40,
    "tests/unit/images/test_algorithms_inside.py": 40,
    "tests/unit/landing/": 40,
}
"""Files and folders, and roughly how many seconds they take where four tests run at a time on two processors."""
QUICK = ("tests/unit/", "tests/guard/", "tests/laws/", "tests/conformance/")


def arranged(items: Sequence[pytest.Item], processes: int) -> list[pytest.Item]:
    """All of them, for so many processes. The same in each of these: they have to agree on it."""
    long: dict[str, list[pytest.Item]] = {}
    stories, quick, places = [], [], tuple(LONG)
    for item in items:
        nodeid = item.nodeid
        if nodeid.startswith(places):
            long.setdefault(next(one for one in places if nodeid.startswith(one)), []).append(item)
        else:
            (quick if nodeid.startswith(QUICK) else stories).append(item)
    heap = [(0, number) for number in range(processes)]
    first: list[list[pytest.Item]] = [[] for _ in range(processes)]
    for where in sorted(long, key=lambda one: (-LONG[one], one)):
        seconds, number = heapq.heappop(heap)
        first[number] += long[where]
        heapq.heappush(heap, (seconds + LONG[where], number))
    cuts = [number * len(stories) // processes for number in range(processes + 1)]
    made: list[pytest.Item] = []
    left = len(items)
    for number in range(processes):
        size = left // (processes - number)  # as xdist deals them out
        left -= size
        run = first[number] + stories[cuts[number] : cuts[number + 1]]
        room = max(0, size - len(run))
        made += run + quick[:room]
        quick = quick[room:]
    return made + quick


def processes() -> int:
    """How many run at a time."""
    return int(os.environ.get("PYTEST_XDIST_WORKER_COUNT") or 1)
