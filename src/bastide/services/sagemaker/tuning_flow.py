"""How a tuning job runs: it proposes, launches, watches and stops training jobs until there is enough.

`search` goes round until the end is reached, `settle` ends what still runs. All that a decision needs is in rows (the
trials, see `tuning_trial`, and the training jobs), so either step may be repeated from its beginning by whoever comes after
a crash. What a running training job told of its objective so far is in the process that runs it, and begins anew with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Sequence
from typing import Any, Final

from bastide.domain import MICROS, Refused
from bastide.engines.tuning import (
    Hyperband,
    Observation,
    Optimiser,
    OptimiserError,
    converged,
    count_of,
    median_rule,
    not_improving,
    propose,
)
from bastide.engines.workflow import Failed, Flow, Run, Step, reach
from bastide.kernel import Calls, Output, service_caller
from bastide.kernel.regular import tags_shown
from bastide.services.sagemaker import tuning_trial
from bastide.services.sagemaker.session import SAGEMAKER
from bastide.services.sagemaker.training_flow import TrainingFlow
from bastide.services.sagemaker.training_job import TRAINING_JOB
from bastide.services.sagemaker.tuning_definition import (
    child,
    definitions,
    epochs,
    minimises,
    objective,
    request,
    space,
)
from bastide.services.sagemaker.tuning_job import MOST, TUNING_JOB, parents_of
from bastide.store import Row, Transaction

_log = logging.getLogger("bastide.sagemaker")

_LOOK_SECONDS: Final = 0.3
"""How often running trials are judged."""
_SLOW_SECONDS: Final = 30.0
_WITHOUT_OBJECTIVE: Final = 5
_CHANGED: Final = "HyperParameterTuningJobStateChange"


class TuningFlow:
    """The flow of tuning jobs. training: the flow that runs their training jobs, in this process."""

    name = "tuning"

    def __init__(self, calls: Calls, training: TrainingFlow) -> None:
        self.calls = calls
        self.training = training

    def flow(self) -> Flow:
        """The flow."""
        return Flow(self.name, [Step("search", self.search), Step("settle", self.settle, always=True)])

    # -- rows --------------------------------------------------------------------------------------------------------------

    def _row(self, run: Run) -> Row:
        with self.calls.store.reading() as view:
            return TUNING_JOB.find(view, run.state["account"], run.state["region"], run.state["name"])

    def _trials(self, run: Run, row: Row) -> list[Row]:
        """All trials, as this process knows them."""
        if "trials" not in run.held:
            with self.calls.store.reading() as view:
                run.held["trials"] = list(tuning_trial.every(view, row))
        found: list[Row] = run.held["trials"]
        return found

    def _running(self, run: Run, row: Row) -> list[Row]:
        return [one for one in self._trials(run, row) if "status" not in one.doc]

    def _job(self, row: Row, trial: Row) -> Row | None:
        with self.calls.store.reading() as view:
            return TRAINING_JOB.get(view, row.account, row.region, trial.doc["job"])

    @staticmethod
    def _arn(row: Row) -> str:
        return TUNING_JOB.arn(row.account, row.region, row.name)

    async def _act(self, row: Row, operation: str, given: dict[str, Any]) -> Output:
        """SageMaker by itself, for this tuning job: nobody's permissions but what training jobs trust it with."""
        caller = service_caller(SAGEMAKER, row.account, self._arn(row))
        return await self.calls.act(caller, "sagemaker", operation, given, region=row.region, source=SAGEMAKER)

    # -- the steps ---------------------------------------------------------------------------------------------------------

    async def search(self, run: Run) -> dict[str, Any]:
        """Goes round until there is enough; what then ends the tuning job."""
        run.held.pop("trials", None)
        while True:
            row = self._row(run)
            if run.asked("stop") or row.status == "Stopping":
                return {"ending": "Stopped", "reason": ""}
            row = await self._take(run, row)
            if (ending := self._over(run, row)) is not None:
                return ending
            await self._prune(run, row)
            await self._fill(run, row)
            await self._wait(run, row)

    async def settle(self, run: Run) -> dict[str, Any]:
        """Ends what still runs, and the tuning job when nothing does."""
        run.held.pop("trials", None)
        while True:
            row = await self._take(run, self._row(run))
            running = self._running(run, row)
            if not running:
                break
            for trial in running:
                job = self._job(row, trial)
                if job is None:
                    await self.calls.store.write(lambda tx, trial=trial: tx.delete(trial, keep=False))  # type: ignore[misc]
                    run.held["trials"].remove(trial)
                elif job.status == "InProgress":
                    await self._stop(row, trial)
            await self._wait(run, row, stoppable=False)
        failure = run.failure
        ending, reason = run.state.get("ending", "Failed"), run.state.get("reason", "")
        if failure is not None:
            ending = "Failed"
            internal = "InternalServerError: We encountered an internal error. Please try again."
            reason = f"{failure.code}: {failure.message}" if failure.foreseen else internal
        now = run.clock()

        def work(tx: Transaction) -> None:
            found = TUNING_JOB.find(tx, run.state["account"], run.state["region"], run.state["name"])
            if found.status in tuning_trial.OVER:
                return
            if ending == "Failed":
                found.doc["FailureReason"] = reason[:1024]
            found.status = ending
            found.doc["HyperParameterTuningEndTime"] = now
            self._count(tx, found, [one.doc for one in tuning_trial.every(tx, found)], now)
            TUNING_JOB.change(tx, found, _CHANGED)

        run.also(work)
        return {"ended": now}

    # -- what a round does -------------------------------------------------------------------------------------------------

    async def _take(self, run: Run, row: Row) -> Row:
        """Writes down what ended."""
        ended = [
            (trial, job)
            for trial in self._running(run, row)
            if (job := self._job(row, trial)) is not None and job.status in tuning_trial.OVER
        ]
        if not ended:
            return row
        every = definitions(row.doc)

        def work(tx: Transaction) -> Row:
            found = TUNING_JOB.find(tx, row.account, row.region, row.name)
            for trial, job in ended:
                known = tuning_trial.get(tx, row, trial.doc["number"])
                assert known is not None
                metric = objective(row.doc, every[trial.doc["definition"]])["MetricName"]
                tuning_trial.ended(known.doc, job, metric)
                tuning_trial.save(tx, known)
                trial.doc, trial.generation = known.doc, known.generation
            self._count(tx, found, [one.doc for one in self._trials(run, row)], tx.now)
            TUNING_JOB.change(tx, found, _CHANGED)
            return found

        taken = await self.calls.store.write(work)
        reach("tuning/take:after")
        return taken

    def _count(self, tx: Transaction, row: Row, trials: Sequence[dict[str, Any]], now: int) -> None:
        """Counters and the best trial, from all of them."""
        doc = row.doc
        every = definitions(doc)
        statuses = {"Completed": "Completed", "Failed": "NonRetryableError", "Stopped": "Stopped"}
        counters = dict.fromkeys(doc["TrainingJobStatusCounters"], 0)
        aims = dict.fromkeys(doc["ObjectiveStatusCounters"], 0)
        for trial in trials:
            counters[statuses.get(trial.get("status", ""), "InProgress")] += 1
            aims[tuning_trial.status_of(trial)] += 1
        doc["TrainingJobStatusCounters"], doc["ObjectiveStatusCounters"] = counters, aims
        doc["ConsumedResources"] = {"RuntimeInSeconds": max(0, (now - row.created) // MICROS)}
        sign = 1.0 if minimises(doc, every[0]) else -1.0
        # Values of another metric, or of one that is to go the other way, cannot be compared.
        alike = [objective(doc, one) == objective(doc, every[0]) for one in every]
        rivals = [one for one in trials if tuning_trial.candidate(one) and alike[one["definition"]]]
        if not rivals:
            return
        best = min(rivals, key=lambda one: (sign * one["value"], one["number"]))
        told = tuning_trial.summary(tx, row, every[best["definition"]], best)
        doc["BestTrainingJob"] = told
        if (doc.get("WarmStartConfig") or {}).get("WarmStartType") == "IdenticalDataAndAlgorithm":
            doc["OverallBestTrainingJob"] = self._overall(tx, row, best, sign) or told
        series = _values(trials)
        minimise = sign > 0
        doc["TuningJobCompletionDetails"] = {
            **(doc.get("TuningJobCompletionDetails") or {}),
            "NumberOfTrainingJobsObjectiveNotImproving": not_improving(series, minimise=minimise),
        }
        if converged(series, minimise=minimise):
            doc["TuningJobCompletionDetails"].setdefault("ConvergenceDetectedTime", now)

    @staticmethod
    def _overall(tx: Transaction, row: Row, best: dict[str, Any], sign: float) -> dict[str, Any]:
        """The best of the parents' trials, if it is better than ours; empty otherwise, or when the parent is gone."""
        for one in sorted(parents_of(tx, row), key=lambda one: sign * one["value"]):
            if sign * one["value"] >= sign * best["value"]:
                break
            parent = TUNING_JOB.get(tx, row.account, row.region, one["tuning"])
            trial = tuning_trial.get(tx, parent, one["number"]) if parent is not None else None
            if parent is not None and trial is not None and tuning_trial.candidate(trial.doc):
                return tuning_trial.summary(tx, parent, definitions(parent.doc)[0], trial.doc)
        return {}

    def _over(self, run: Run, row: Row) -> dict[str, Any] | None:
        """How the tuning job ends now; None if it goes on."""
        config, doc = row.doc["HyperParameterTuningJobConfig"], row.doc
        trials = [one.doc for one in self._trials(run, row)]
        over = [one for one in trials if "status" in one]
        told = [one for one in over if one.get("value") is not None]
        limits = config["ResourceLimits"]
        done = {"ending": "Completed", "reason": ""}
        if len(over) >= int(limits.get("MaxNumberOfTrainingJobs") or MOST):
            if any(one["status"] != "Failed" for one in over):
                return done if told else _without_objective(len(over))
            text = f"No training job succeeded before MaxNumberOfTrainingJobs ({len(over)}) was reached. "
            return {
                "ending": "Failed",
                "reason": f"{text}The last failure: {over[-1].get('reason', '')}"[:1024],
            }
        ran = [one for one in over if one["status"] == "Completed"]
        if not told and len(ran) >= _WITHOUT_OBJECTIVE:
            return _without_objective(len(ran))
        most = limits.get("MaxRuntimeInSeconds")
        if most and run.clock() >= row.created + int(most) * MICROS:
            return done if told else {"ending": "Failed", "reason": "No training job succeeded in MaxRuntimeInSeconds."}
        criteria = config.get("TuningJobCompletionCriteria") or {}
        details = doc.get("TuningJobCompletionDetails") or {}
        patience = (criteria.get("BestObjectiveNotImproving") or {}).get("MaxNumberOfTrainingJobsNotImproving")
        if patience and details.get("NumberOfTrainingJobsObjectiveNotImproving", 0) >= patience:
            return done
        wanted = (criteria.get("ConvergenceDetected") or {}).get("CompleteOnConvergence") == "Enabled"
        if wanted and "ConvergenceDetectedTime" in details:
            return done
        target = criteria.get("TargetObjectiveMetricValue")
        if target is not None and "BestTrainingJob" in doc:
            best = doc["BestTrainingJob"]["FinalHyperParameterTuningJobObjectiveMetric"]["Value"]
            if (best <= target) if minimises(doc, definitions(doc)[0]) else (best >= target):
                return done
        return None

    @staticmethod
    def _judges(row: Row) -> bool:
        config: dict[str, str] = row.doc["HyperParameterTuningJobConfig"]
        return "Hyperband" in config["Strategy"] or config.get("TrainingJobEarlyStoppingType", "Off") == "Auto"

    def _course(self, row: Row, trial: Row) -> Sequence[float]:
        """What a trial told so far."""
        if "course" in trial.doc:
            found: Sequence[float] = trial.doc["course"]
            return found
        metrics = self.training.live.get(TRAINING_JOB.arn(row.account, row.region, trial.doc["job"]))
        return () if metrics is None else metrics.course

    async def _prune(self, run: Run, row: Row) -> None:
        """Stops trials that are not worth going on with."""
        if not self._judges(row):
            return
        every = definitions(row.doc)
        hyperband = row.doc["HyperParameterTuningJobConfig"]["Strategy"] == "Hyperband"
        trials = self._trials(run, row)
        for trial in self._running(run, row):
            if trial.doc.get("stopped"):
                await self._stop(row, trial)
                continue
            course = self._course(row, trial)
            if not course:
                continue
            which = trial.doc["definition"]
            minimise = minimises(row.doc, every[which])
            others = [one for one in trials if one is not trial and one.doc["definition"] == which]
            verdict = ""
            if hyperband:
                rule = Hyperband(*epochs(row.doc, every[which]))
                if rule.done(course):
                    verdict = "resource"
                elif rule.weak(
                    trial.doc["number"],
                    course,
                    [(one.doc["number"], self._course(row, one)) for one in others],
                    minimise=minimise,
                ):
                    verdict = "early"
            elif median_rule(course, [one.doc["course"] for one in others if "course" in one.doc], minimise=minimise):
                verdict = "early"
            if not verdict:
                continue

            def work(tx: Transaction, trial: Row = trial, verdict: str = verdict) -> None:
                known = tuning_trial.get(tx, row, trial.doc["number"])
                assert known is not None
                known.doc["stopped"] = verdict
                tuning_trial.save(tx, known)
                trial.doc, trial.generation = known.doc, known.generation

            await self.calls.store.write(work)
            await self._stop(row, trial)

    async def _stop(self, row: Row, trial: Row) -> None:
        job = self._job(row, trial)
        if job is None or job.status != "InProgress":
            return
        with contextlib.suppress(Refused):  # it has just ended
            await self._act(row, "StopTrainingJob", {"TrainingJobName": job.name})

    async def _fill(self, run: Run, row: Row) -> None:
        """Launches what was proposed, and proposes what there is room for."""
        limits = row.doc["HyperParameterTuningJobConfig"]["ResourceLimits"]
        for trial in self._running(run, row):
            if self._job(row, trial) is None and not await self._launch(run, row, trial):
                return
        while (
            len(self._running(run, row)) < int(limits["MaxParallelTrainingJobs"])
            and len(self._trials(run, row)) < int(limits.get("MaxNumberOfTrainingJobs") or MOST)
            and not run.asked("stop")
        ):
            trial = await self._propose(run, row)
            if not await self._launch(run, row, trial):
                return

    async def _propose(self, run: Run, row: Row) -> Row:
        """The next trial, on the disk."""
        doc = row.doc
        config, every = doc["HyperParameterTuningJobConfig"], definitions(doc)
        trials = self._trials(run, row)
        number = len(trials)
        which, within = _turn(doc, number)
        with self.calls.store.reading() as view:
            parents = parents_of(view, row) if doc.get("WarmStartConfig") else []
        earlier = [Observation(one["values"], one["value"]) for one in parents]
        earlier += [
            Observation(one.doc["values"], one.doc.get("value"), "status" not in one.doc)
            for one in trials
            if one.doc["definition"] == which
        ]
        try:
            values = await propose(
                config["Strategy"],
                space(doc, every[which]),
                self._seed(row) + which,
                within,
                earlier,
                minimise=minimises(doc, every[which]),
                optimiser=self.calls.engine(Optimiser),
            )
        except OptimiserError as error:
            _log.error("no proposal for %s: %s", run.id, error)
            raise
        told = {
            "number": number,
            "job": child(row.name, row.created, number),
            "definition": which,
            "values": values,
        }

        def work(tx: Transaction) -> Row:
            made = tuning_trial.add(tx, row, number, told)
            found = TUNING_JOB.find(tx, row.account, row.region, row.name)
            self._count(tx, found, [*(one.doc for one in trials), told], tx.now)
            TUNING_JOB.change(tx, found, _CHANGED)
            return made

        made = await self.calls.store.write(work)
        trials.append(made)
        reach("tuning/propose:after")
        return made

    @staticmethod
    def _seed(row: Row) -> int:
        """The request's, or one that is this tuning job's own."""
        given = row.doc["HyperParameterTuningJobConfig"].get("RandomSeed")
        if given is not None:
            return int(given)
        return int.from_bytes(hashlib.sha256(f"{row.name}/{row.created}".encode()).digest()[:6], "big")

    async def _launch(self, run: Run, row: Row, trial: Row) -> bool:
        """Makes the trial's training job. False if there is no room for it before another one ends; raises Failed."""
        definition = definitions(row.doc)[trial.doc["definition"]]
        given = request(row.doc, definition, trial.doc["job"], trial.doc["values"], tags_shown(row))
        try:
            await self._act(row, "CreateTrainingJob", given)
        except Refused as refused:
            job = self._job(row, trial)
            if job is not None and job.doc.get("TuningJobArn") == self._arn(row):
                return True
            others = any(one is not trial for one in self._running(run, row))
            if refused.code == "ResourceLimitExceeded" and others:
                return False
            raise Failed(refused.code, f"The training job {trial.doc['job']} was refused: {refused.message}") from None
        reach("tuning/launch:after")
        return True

    async def _wait(self, run: Run, row: Row, *, stoppable: bool = True) -> None:
        """Until something ended, or it is time to look."""
        seconds = _LOOK_SECONDS if self._judges(row) or not stoppable else _SLOW_SECONDS
        most = row.doc["HyperParameterTuningJobConfig"]["ResourceLimits"].get("MaxRuntimeInSeconds")
        if most:
            left = (row.created + int(most) * MICROS - run.clock()) / MICROS
            seconds = min(seconds, max(left, _LOOK_SECONDS))
        names = [trial.doc["job"] for trial in self._running(run, row)] + (["stop"] if stoppable else [])
        waiting = [asyncio.ensure_future(run.signalled(name)) for name in names]
        if not waiting:
            return
        try:
            await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waiting:
                one.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)


def _turn(doc: dict[str, Any], number: int) -> tuple[int, int]:
    """Which definition a trial is of, and its number among that one's: they take turns, but for a grid, which goes through
    one after the other."""
    every = definitions(doc)
    if doc["HyperParameterTuningJobConfig"]["Strategy"] != "Grid":
        return number % len(every), number // len(every)
    for which, definition in enumerate(every):
        count = count_of(space(doc, definition))
        if number < count:
            return which, number
        number -= count
    raise AssertionError("the grid has fewer combinations")


def _values(trials: Sequence[dict[str, Any]]) -> list[float]:
    return [one["value"] for one in trials if tuning_trial.candidate(one)]


def _without_objective(count: int) -> dict[str, Any]:
    return {
        "ending": "Failed",
        "reason": f"No objective metrics found after running {count} training jobs. Please ensure that the algorithm is "
        "emitting the objective metric as defined by the regular expression provided.",
    }
