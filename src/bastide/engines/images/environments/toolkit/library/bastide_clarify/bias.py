"""Bias metrics: the developer guide's "clarify-measure-data-bias" and "clarify-measure-post-training-bias".

Facet d is the group that the values of a facet name, a all others; 1 is the positive outcome. Where the guide leaves
something open (0 / 0, an empty group, which columns hold categories), it is as AWS's open library of the metrics has it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from bastide_monitor import Unfit
from bastide_monitor.columns import label_of

from bastide_clarify.table import Column

UNIQUE = 0.05
"""The share of distinct values from which on whole numbers are no categories."""
NEIGHBOURS, FEW = 5, 9


class Undefined(Exception):  # noqa: N818
    """A metric cannot be computed of this data."""


@dataclass
class Groups:
    """What metrics are computed of. d, y, guess: whether each record is of the group, positive, predicted to be.

    group: the subgroup of each record. rest: the features beside the facet, None if some are no numbers.
    """

    d: Any
    y: Any
    guess: Any | None = None
    group: list[str | None] | None = None
    rest: Callable[[], Any | None] | None = None

    def both(self) -> tuple[Any, Any]:
        """Masks of a and d; raises Undefined if one is empty."""
        if not self.d.any():
            raise Undefined("Facet set is empty")
        if self.d.all():
            raise Undefined("Negated facet set is empty")
        return ~self.d, self.d

    def predicted(self) -> Any:
        """The predictions."""
        assert self.guess is not None
        return self.guess

    def errors(self, mask: Any) -> tuple[int, int, int, int]:
        """TP, TN, FP and FN within a mask."""
        y, guess = self.y[mask], self.predicted()[mask]
        return int((y & guess).sum()), int((~y & ~guess).sum()), int((~y & guess).sum()), int((y & ~guess).sum())


def _over(part: float, whole: float) -> float:
    if whole == 0:
        return 0.0 if part == 0 else math.copysign(math.inf, part)
    return part / whole


def _apart(one: float, other: float) -> float:
    return 0.0 if one == other else one - other  # also of two infinities


def _ci(of: Groups) -> float:
    a, d = of.both()
    return float(a.sum() - d.sum()) / len(d)


def _dpl(of: Groups) -> float:
    a, d = of.both()
    return float(of.y[a].mean() - of.y[d].mean())


def _shares(of: Groups) -> tuple[Any, Any]:
    """The distributions of outcomes, of those that both have."""
    a, d = of.both()
    pa, pd = (np.array([1 - of.y[one].mean(), of.y[one].mean()]) for one in (a, d))
    common = (pa > 0) & (pd > 0)
    if not common.any():
        raise Undefined("No instance of common facet found, dataset may be too small")
    return pa[common], pd[common]


def _kl(of: Groups) -> float:
    pa, pd = _shares(of)
    return float((pa * np.log(pa / pd)).sum())


def _js(of: Groups) -> float:
    pa, pd = _shares(of)
    mean = (pa + pd) / 2
    return float(((pa * np.log(pa / mean)).sum() + (pd * np.log(pd / mean)).sum()) / 2)


def _lp(of: Groups) -> float:
    pa, pd = _shares(of)
    return float(np.sqrt(((pa - pd) ** 2).sum()))


def _tvd(of: Groups) -> float:
    pa, pd = _shares(of)
    return float(np.abs(pa - pd).sum() / 2)


def _ks(of: Groups) -> float:
    pa, pd = _shares(of)
    return float(np.abs(pa - pd).max())


def _cdd(of: Groups, positive: Any) -> float:
    if of.group is None:
        raise Undefined("Group variable is empty or not provided")
    if not positive.any() or positive.all():
        raise Undefined("No positive labels in set" if not positive.any() else "No negative labels in set")
    names, at = np.unique([str(one) for one in of.group], return_inverse=True)

    def counts(mask: Any) -> Any:
        return np.bincount(at[mask], minlength=len(names))

    def share(part: Any, whole: Any) -> Any:
        return np.divide(part, whole, out=np.zeros(len(names)), where=whole > 0)

    apart = share(counts(~positive & of.d), counts(~positive)) - share(counts(positive & of.d), counts(positive))
    return float((np.bincount(at) * apart).sum() / len(at))


def _dppl(of: Groups) -> float:
    return _dpl(Groups(of.d, of.predicted()))


def _di(of: Groups) -> float:
    a, d = of.both()
    return _over(float(of.predicted()[d].mean()), float(of.predicted()[a].mean()))


def _rate(of: Groups, measure: Callable[[int, int, int, int], float]) -> tuple[float, float]:
    a, d = of.both()
    return measure(*of.errors(a)), measure(*of.errors(d))


def _dca(of: Groups) -> float:
    return _apart(*_rate(of, lambda tp, tn, fp, fn: _over(tp + fn, tp + fp)))


def _dcr(of: Groups) -> float:
    return _apart(*reversed(_rate(of, lambda tp, tn, fp, fn: _over(tn + fp, tn + fn))))


def _rd(of: Groups) -> float:
    return _apart(*_rate(of, lambda tp, tn, fp, fn: _over(tp, tp + fn)))


def _sd(of: Groups) -> float:
    return _apart(*reversed(_rate(of, lambda tp, tn, fp, fn: _over(tn, tn + fp))))


def _dar(of: Groups) -> float:
    return _apart(*_rate(of, lambda tp, tn, fp, fn: _over(tp, tp + fp)))


def _drr(of: Groups) -> float:
    return _apart(*reversed(_rate(of, lambda tp, tn, fp, fn: _over(tn, tn + fn))))


def _ad(of: Groups) -> float:
    return _apart(*_rate(of, lambda tp, tn, fp, fn: _over(tp + tn, tp + tn + fp + fn)))


def _te(of: Groups) -> float:
    return _apart(*reversed(_rate(of, lambda tp, tn, fp, fn: _over(fn, fp))))


def _ft(of: Groups) -> float:
    """Of d those who are favoured and would not be in a, less the others, by the nearest neighbours in a."""
    from scipy.spatial import cKDTree  # noqa: PLC0415 only who asks for it waits for it

    a, d = of.both()
    features = of.rest() if of.rest is not None else None
    if features is None:
        raise Undefined("FlipTest does not support non-numeric columns")
    count = NEIGHBOURS if a.sum() > FEW else 1
    _, near = cKDTree(features[a]).query(features[d], k=[*range(1, count + 1)])
    elsewhere = of.predicted()[a][near].mean(axis=1) > 0.5
    here = of.predicted()[d]
    return float(((here & ~elsewhere).sum() - (~here & elsewhere).sum()) / d.sum())


def _ge(of: Groups) -> float:
    benefit = of.predicted().astype(float) - of.y + 1
    mean = benefit.mean()
    if not mean:
        raise Undefined("All predictions are false negatives")
    return float((((benefit / mean) ** 2).mean() - 1) / 2)


PRE: Mapping[str, tuple[str, Callable[[Groups], float]]] = {
    "CDDL": ("Conditional Demographic Disparity in Labels (CDDL)", lambda of: _cdd(of, of.y)),
    "CI": ("Class Imbalance (CI)", _ci),
    "DPL": ("Difference in Positive Proportions in Labels (DPL)", _dpl),
    "JS": ("Jensen-Shannon Divergence (JS)", _js),
    "KL": ("Kullback-Liebler Divergence (KL)", _kl),
    "KS": ("Kolmogorov-Smirnov Distance (KS)", _ks),
    "LP": ("L-p Norm (LP)", _lp),
    "TVD": ("Total Variation Distance (TVD)", _tvd),
}
POST: Mapping[str, tuple[str, Callable[[Groups], float]]] = {
    "AD": ("Accuracy Difference (AD)", _ad),
    "CDDPL": ("Conditional Demographic Disparity in Predicted Labels (CDDPL)", lambda of: _cdd(of, of.predicted())),
    "DAR": ("Difference in Acceptance Rates (DAR)", _dar),
    "DCA": ("Difference in Conditional Acceptance (DCA)", _dca),
    "DCR": ("Difference in Conditional Rejection (DCR)", _dcr),
    "DI": ("Disparate Impact (DI)", _di),
    "DPPL": ("Difference in Positive Proportions in Predicted Labels (DPPL)", _dppl),
    "DRR": ("Difference in Rejection Rates (DRR)", _drr),
    "FT": ("Flip Test (FT)", _ft),
    "GE": ("Generalized Entropy (GE)", _ge),
    "RD": ("Recall Difference (RD)", _rd),
    "SD": ("Specificity Difference (SD)", _sd),
    "TE": ("Treatment Equality (TE)", _te),
}


def chosen(told: Any, known: Mapping[str, Any], what: str) -> list[str]:
    """The metrics that are asked for, in order. Raises Unfit."""
    if told in (None, "all", ["all"]):
        return list(known)
    if not isinstance(told, list) or not set(map(str, told)) <= set(known):
        raise Unfit(f'{what}.methods is "all" or a list of {", ".join(known)}.')
    return [one for one in known if one in told]


def measured(of: Groups, names: list[str], known: Mapping[str, tuple[str, Callable[[Groups], float]]]) -> list[Any]:
    """Each metric's name, description and value; null and the error where it cannot be computed."""
    found = []
    for name in names:
        description, measure = known[name]
        one: dict[str, Any] = {"name": name, "description": description}
        try:
            value = measure(of)
            one["value"] = value if math.isfinite(value) else f"{'-' if value < 0 else ''}Infinity"
        except Undefined as why:
            one |= {"value": None, "error": str(why)}
        found.append(one)
    return found


@dataclass
class Rule:
    """Which values of a column are meant: some, or those above a threshold. shown: as reports have it."""

    values: frozenset[str] | None
    above: float
    shown: str

    def mask(self, column: Column, what: str) -> Any:
        """The records whose values are meant. Raises Unfit."""
        if self.values is not None:
            return np.array([one is not None and label_of(one) in self.values for one in column.values])
        numbers = column.numbers
        if numbers is None:
            raise Unfit(f"{what}: the column {column.name} does not hold numbers, and {self.above} is a threshold.")
        return numbers > self.above


def categories(column: Column, values: list[Any]) -> bool:
    """Whether a column holds categories: text, whole numbers that recur, or what several values are asked of."""
    numbers = column.numbers
    if numbers is None or len(values) > 1:
        return True
    there = numbers[~np.isnan(numbers)]
    if not np.equal(np.mod(there, 1), 0).all():
        return False
    distinct = len(np.unique(there))
    return distinct <= 2 or distinct / len(there) < UNIQUE


def rule(column: Column, told: Any, what: str) -> Rule:
    """What `value_or_threshold` or `label_values_or_threshold` means for a column. Raises Unfit."""
    values = told if isinstance(told, list) else [told]
    if not values:
        raise Unfit(f"{what} is empty.")
    if categories(column, values):
        return Rule(frozenset(label_of(str(one)) for one in values), 0.0, ",".join(map(str, values)))
    try:
        above = float(values[0])
    except (TypeError, ValueError):
        raise Unfit(f"{what}: {str(values[0])[:100]!r} is no threshold of the numbers of {column.name}.") from None
    most = float(np.nanmax(column.numbers))
    whole = isinstance(values[0], int) and most.is_integer()
    edges = (int(above), int(most)) if whole else (above, most)
    return Rule(None, above, f"({edges[0]}, {edges[1]}]")


def rules(column: Column, told: Any, what: str) -> list[Rule]:
    """The groups of a facet: the one that is asked for, or each of its values."""
    if told not in (None, [], ""):
        return [rule(column, told, what)]
    if not categories(column, []):
        raise Unfit(f"{what} is needed: the facet {column.name} holds numbers.")
    seen = sorted({label_of(one) for one in column.values if one is not None})
    if len(seen) > 100:
        raise Unfit(f"{what} is needed: the facet {column.name} has more than 100 values.")
    return [Rule(frozenset([one]), 0.0, one) for one in seen]
