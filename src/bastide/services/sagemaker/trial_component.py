"""Trial components: what one step of a trial was given and what came out, reported by a person or read off from a job.

What the service wrote on a job's component, nobody else changes or takes away; people may add to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Ask, Asked, Authorised, Output, anything, fill, tags_of
from bastide.protocol import codec
from bastide.services.sagemaker import statistic
from bastide.services.sagemaker.asking import tagging
from bastide.services.sagemaker.experiment import EXPERIMENT, experimental
from bastide.services.sagemaker.listing import listed
from bastide.services.sagemaker.model_package_group import who
from bastide.services.sagemaker.relation import COMPONENTS, SOURCES, TRIALS
from bastide.services.sagemaker.trial import TRIAL
from bastide.store import Row, Transaction, View

TRIAL_COMPONENT: Final = experimental("TrialComponent", "experiment-trial-component")
METRIC_KEY: Final = "sagemaker:TrialComponentMetric"
"""Rows ``COMPONENT|METRIC`` with a statistic; the values themselves are lines of `series`."""
MAPS: Final = ("Parameters", "InputArtifacts", "OutputArtifacts")
JOBS_OWN: Final = ("-aws-training-job", "-aws-processing-job", "-aws-transform-job")
"""How the names end of the components that jobs make themselves; clients look them up by name."""
_FIXED: Final = ("Status", "StartTime", "EndTime")
_MOST_ENTRIES: Final = 300
_MOST_COMPONENTS: Final = 10_000
_MOST_METRICS: Final = 1000


def series(account: str, region: str, component: str, metric: str) -> str:
    """The stream that keeps a metric's values."""
    return f"metric:{account}:{region}:{component}|{metric}"


@TRIAL_COMPONENT.operation(
    "CreateTrialComponent",
    asks=[
        Ask("sagemaker:CreateTrialComponent", TRIAL_COMPONENT.this),
        tagging(TRIAL_COMPONENT, "CreateTrialComponent"),
    ],
)
def create(a: Authorised, tx: Transaction) -> Output:
    name = a.input["TrialComponentName"]
    if name.endswith(JOBS_OWN):
        raise Refused(
            "ValidationException", f"Names that end in {' or '.join(JOBS_OWN)} are kept for what jobs record."
        )
    doc = {key: value for key, value in a.input.items() if key not in ("TrialComponentName", "Tags")}
    for member in MAPS:
        _bounded(member, doc.setdefault(member, {}))
    doc["DisplayName"] = doc.get("DisplayName") or name
    doc["CreatedBy"] = who(a)
    TRIAL_COMPONENT.create(a, tx, name, doc, tags=tags_of(a))
    return {"TrialComponentArn": TRIAL_COMPONENT.arn(a.account, a.region, name)}


def _bounded(member: str, held: dict[str, Any]) -> None:
    if len(held) > _MOST_ENTRIES:
        raise Refused("ValidationException", f"{member} may have at most {_MOST_ENTRIES} entries.")


def metrics(view: View, row: Row) -> list[dict[str, Any]]:
    """The summaries of a component's metrics."""
    prefix = f"{row.name}|"
    source = (row.doc.get("Source") or {}).get("SourceArn") or TRIAL_COMPONENT.arn(row.account, row.region, row.name)
    found = view.scan(METRIC_KEY, row.account, row.region, prefix=prefix, limit=_MOST_METRICS)
    return [statistic.summary(one.name[len(prefix) :], source, one.doc) for one in found]


def measured(tx: Transaction, row: Row, metric: str, values: Iterable[tuple[int, int | None, float]]) -> bool:
    """Adds values (when, step, value) to a metric of a component; False where it has too many metrics already."""
    name = f"{row.name}|{metric}"
    held = tx.get(METRIC_KEY, row.account, row.region, name)
    if held is None:
        here = tx.scan(METRIC_KEY, row.account, row.region, prefix=f"{row.name}|", limit=_MOST_METRICS)
        if len(here) >= _MOST_METRICS:
            return False
    doc = None if held is None else held.doc
    lines = []
    for at, step, value in values:
        doc = statistic.added(doc, value, at)
        lines.append((at, f"{'' if step is None else step} {value!r}"))
    if doc is not None:
        write(tx, row, metric, doc, held)
        tx.append_log(series(row.account, row.region, row.name, metric), lines)
    return True


def write(tx: Transaction, row: Row, metric: str, doc: dict[str, Any], held: Row | None = None) -> None:
    """Keeps the statistic of a metric."""
    if held is None:
        tx.insert(Row(METRIC_KEY, row.account, row.region, f"{row.name}|{metric}", doc), keep=False)
    else:
        held.doc = doc
        tx.update(held, keep=False)


@TRIAL_COMPONENT.reads(
    "DescribeTrialComponent", asks=[Ask("sagemaker:DescribeTrialComponent", TRIAL_COMPONENT.this)]
)  # fmt: skip
def describe(a: Authorised, view: View) -> Output:
    return described(view, TRIAL_COMPONENT.named(a, view))


def described(view: View, row: Row) -> Output:
    """All of a component."""
    found = fill(TRIAL_COMPONENT, codec("sagemaker").operations["DescribeTrialComponent"].output_shape, row)
    found["Metrics"] = metrics(view, row)
    if row.doc.get("Source"):
        found["Sources"] = [row.doc["Source"]]
    return found


@TRIAL_COMPONENT.reads("ListTrialComponents", asks=[Ask("sagemaker:ListTrialComponents", anything)])
def every(a: Authorised, view: View) -> Output:
    given = a.input
    asked = [name for name in ("ExperimentName", "TrialName", "SourceArn") if given.get(name)]
    if len(asked) > 1:
        raise Refused("ValidationException", f"A list is of one of {' and '.join(asked)}, not of several.")
    among = None
    if given.get("SourceArn"):
        among = SOURCES.rights(view, a.account, a.region, given["SourceArn"].lower())
    elif given.get("TrialName"):
        among = COMPONENTS.rights(
            view, a.account, a.region, TRIAL.find(view, a.account, a.region, given["TrialName"]).name
        )
    elif given.get("ExperimentName"):
        experiment = EXPERIMENT.find(view, a.account, a.region, given["ExperimentName"]).name
        found: set[str] = set()
        for trial in TRIALS.rights(view, a.account, a.region, experiment):
            found.update(COMPONENTS.rights(view, a.account, a.region, trial))
        among = sorted(found)
    return listed(
        a, view, TRIAL_COMPONENT, among=among,
        show=lambda row: {"TrialComponentSource": row.doc["Source"]} if row.doc.get("Source") else {},
    )  # fmt: skip


@TRIAL_COMPONENT.operation("UpdateTrialComponent", asks=[Ask("sagemaker:UpdateTrialComponent", TRIAL_COMPONENT.this)])
def update(a: Authorised, tx: Transaction) -> Output:
    given = a.input
    row = TRIAL_COMPONENT.named(a, tx)
    doc, own = row.doc, row.doc.get("_own")
    fixed = [member for member in _FIXED if given.get(member)]
    if own is not None and fixed:
        raise Refused("ValidationException", f"{fixed[0]} of {row.name} is its job's: it was read off from the run.")
    doc |= {member: given[member] for member in ("DisplayName", *fixed) if given.get(member)}
    for member in MAPS:
        held = dict(doc.get(member) or {})
        added, removed = given.get(member) or {}, given.get(f"{member}ToRemove") or ()
        touched = sorted({*added, *removed} & set((own or {}).get(member) or ()))
        if touched:
            raise Refused(
                "ValidationException",
                f"{member}.{touched[0]} of {row.name} was read off from its job and cannot be changed. Please choose "
                "another name for what you add.",
            )
        held.update(added)
        for key in removed:
            held.pop(key, None)
        _bounded(member, held)
        doc[member] = held
    doc["LastModifiedBy"] = who(a)
    TRIAL_COMPONENT.change(tx, row, a.operation.name, a.request.id)
    return {"TrialComponentArn": TRIAL_COMPONENT.arn(row.account, row.region, row.name)}


@TRIAL_COMPONENT.operation("DeleteTrialComponent", asks=[Ask("sagemaker:DeleteTrialComponent", TRIAL_COMPONENT.this)])
def delete(a: Authorised, tx: Transaction) -> Output:
    row = TRIAL_COMPONENT.named(a, tx)
    if "_own" in row.doc:
        raise Refused(
            "ValidationException",
            f"{row.name} is the record of {row.doc['Source']['SourceArn']}: it stays. It can be taken out of trials.",
        )
    if COMPONENTS.lefts(tx, row.account, row.region, row.name, limit=1):
        raise Refused(
            "ValidationException",
            f"The trial component {row.name} is in a trial. Please take it out first (DisassociateTrialComponent).",
        )
    while rows := tx.scan(METRIC_KEY, row.account, row.region, prefix=f"{row.name}|"):
        for one in rows:
            tx.drop_log(series(row.account, row.region, row.name, one.name.partition("|")[2]))
            tx.delete(one, keep=False)
    TRIAL_COMPONENT.remove(tx, row, a.operation.name, a.request.id)
    return {"TrialComponentArn": TRIAL_COMPONENT.arn(row.account, row.region, row.name)}


# -- trials ------------------------------------------------------------------------------------------------------------


def _both(asked: Asked) -> Iterable[str]:
    return (*TRIAL_COMPONENT.this(asked), *TRIAL.this(asked))


def _arns(component: Row, trial: Row) -> Output:
    return {
        "TrialComponentArn": TRIAL_COMPONENT.arn(component.account, component.region, component.name),
        "TrialArn": TRIAL.arn(trial.account, trial.region, trial.name),
    }


@TRIAL_COMPONENT.operation("AssociateTrialComponent", asks=[Ask("sagemaker:AssociateTrialComponent", _both)])
def associate(a: Authorised, tx: Transaction) -> Output:
    component, trial = TRIAL_COMPONENT.named(a, tx), TRIAL.named(a, tx)
    join(tx, trial, component.name)
    return _arns(component, trial)


def join(tx: Transaction, trial: Row, component: str) -> None:
    """Puts a component into a trial; again is no error."""
    here = COMPONENTS.rights(tx, trial.account, trial.region, trial.name, limit=_MOST_COMPONENTS)
    if len(here) >= _MOST_COMPONENTS and component not in here:
        raise Refused("ResourceLimitExceeded", f"The trial {trial.name} has {_MOST_COMPONENTS} components already.")
    COMPONENTS.add(tx, trial.account, trial.region, trial.name, component)


@TRIAL_COMPONENT.operation("DisassociateTrialComponent", asks=[Ask("sagemaker:DisassociateTrialComponent", _both)])
def disassociate(a: Authorised, tx: Transaction) -> Output:
    component, trial = TRIAL_COMPONENT.named(a, tx), TRIAL.named(a, tx)
    if not COMPONENTS.drop(tx, a.account, a.region, trial.name, component.name):
        raise Refused("ResourceNotFound", f"The trial component {component.name} is not in the trial {trial.name}.")
    return _arns(component, trial)


def parents(view: View, row: Row) -> list[dict[str, str]]:
    """Trials that a component is in, and their experiments."""
    found = []
    for name in COMPONENTS.lefts(view, row.account, row.region, row.name):
        trial = TRIAL.get(view, row.account, row.region, name)
        if trial is not None:
            found.append({"TrialName": name, "ExperimentName": trial.doc["ExperimentName"]})
    return found
