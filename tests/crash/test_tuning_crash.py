"""The platform is killed wherever a tuning job stands: no trial is launched twice, no result is lost, and what is searched
is what an undisturbed run searches."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.platform import Account, Running
from tests.stories.sagemaker.conftest import Workshop, workshop_of
from tests.stories.sagemaker.test_tuning import config, definition, trials, tune, tuned

SHORT = ["tuning/propose:after", "tuning/launch:after", "tuning/take:after", "tuning/settle:before"]
LONG = [
    "tuning/search:before",
    "tuning/search:after",
    "tuning/settle:after",
    "training/watch:before",
    "training/settle:after",
]
"""Only in `make crash`."""
POINTS = [*SHORT, *(LONG if "BASTIDE_CRASH_ROUNDS" in os.environ else ())]


@pytest.fixture(scope="module")
def crashing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A platform of its own, for it is to die."""
    running = Running(tmp_path_factory.mktemp("crash") / "data")
    running.start()
    running.found()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def member(crashing: Running) -> Account:
    return crashing.account()


@pytest.fixture(scope="module")
def workshop(member: Account) -> Workshop:
    return workshop_of(member)


@pytest.fixture(scope="module")
def defined(workshop: Workshop) -> dict[str, Any]:
    return definition(workshop)


def _searched(workshop: Workshop, name: str) -> dict[str, Any]:
    done = tuned(workshop, name)
    assert done["HyperParameterTuningJobStatus"] == "Completed", done.get("FailureReason")
    every = trials(workshop, name)
    pages = workshop.sagemaker.get_paginator("list_training_jobs").paginate(NameContains=name)
    jobs = [one["TrainingJobName"] for page in pages for one in page["TrainingJobSummaries"]]
    assert sorted(jobs) == [one["TrainingJobName"] for one in every], "a training job that is no trial"
    assert done["TrainingJobStatusCounters"]["Completed"] == len(every)
    return {
        "values": [one["TunedHyperParameters"] for one in every],
        "found": [one["FinalHyperParameterTuningJobObjectiveMetric"]["Value"] for one in every],
        "best": done["BestTrainingJob"]["TunedHyperParameters"],
    }


@pytest.fixture(scope="module")
def undisturbed(workshop: Workshop, defined: dict[str, Any]) -> dict[str, Any]:
    # One after the other: then what is known when something is proposed does not hang on which job is faster.
    return _searched(workshop, tune(workshop, config("Bayesian", 2, 1, RandomSeed=3), defined))


@pytest.mark.parametrize("point", POINTS)
def test_what_is_searched_is_what_an_undisturbed_run_searches(
    crashing: Running,
    member: Account,
    workshop: Workshop,
    defined: dict[str, Any],
    undisturbed: dict[str, Any],
    point: str,
) -> None:
    crashing.stop()
    crashing.launch(BASTIDE_TEST_KILL_AT=point)
    workshop.sagemaker = member.client("sagemaker")
    name = tune(workshop, config("Bayesian", 2, 1, RandomSeed=3), defined)
    assert crashing.process is not None
    assert crashing.process.wait(30) == -9
    crashing.kill()
    crashing.launch()
    workshop.sagemaker = member.client("sagemaker")
    assert _searched(workshop, name) == undisturbed
