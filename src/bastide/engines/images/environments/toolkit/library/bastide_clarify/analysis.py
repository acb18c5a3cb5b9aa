"""An analysis as its configuration asks for it. Developer guide, "clarify-processing-job-configure-analysis"."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from bastide_monitor import Unfit
from bastide_monitor.columns import text_of
from bastide_monitor.job import Job, say
from bastide_monitor.records import cells

from bastide_clarify import bias, kernel_shap, report, table
from bastide_clarify.predictor import Predictor, value_of
from bastide_clarify.table import Table

METHODS = ("pre_training_bias", "post_training_bias", "shap", "pdp", "report")
_LEFT_OUT = (
    "dataset_uri",
    "facet_dataset_uri",
    "predicted_label_dataset_uri",
    "time_series_data_config",
    "segment_config",
)
_NO_SHAP = ("text_config", "image_config", "features_to_explain")
MOST_GRID = 1_000


def whole(told: dict[str, Any], name: str, default: int, most: int = 1_000_000) -> int:
    """A whole number of the configuration. Raises Unfit."""
    found = told.get(name.rpartition(".")[2])
    if found is None:
        return default
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found <= most:
        raise Unfit(f"{name} is a whole number up to {most}.")
    return found or default


class Analysis:
    """config: the configuration. data: the dataset. session: makes a predictor of its part of the configuration."""

    def __init__(self, config: dict[str, Any], data: Table, session: Callable[[dict[str, Any]], Predictor]) -> None:
        self.config = config
        self.data = data
        self.methods: dict[str, Any] = config.get("methods") or {}
        self._session = session
        self._open = ExitStack()
        self._held: Predictor | None = None
        self.result: dict[str, Any] = {"version": "1.0"}
        self.local: tuple[list[str], Any] | None = None
        self.computed: list[list[Any]] | None = None
        """A baseline that was not given."""

    # -- columns -------------------------------------------------------------------------------------------------------

    def _column(self, name: str) -> table.Column | None:
        told = self.config.get(name)
        return None if told is None else self.data.column(told, name)

    def features(self) -> list[str]:
        """The columns that a model gets."""
        out = [self._column(one) for one in ("label", "predicted_label", "joinsource_name_or_index")]
        out += [self.data.column(one, "excluded_columns") for one in self.config.get("excluded_columns") or ()]
        names = {one.name for one in out if one is not None}
        found = [one for one in self.data.names if one not in names]
        if not found:
            raise Unfit("The dataset has no features.")
        return found

    def _rows(self) -> list[list[Any]]:
        return [list(one) for one in zip(*(self.data.columns[name].values for name in self.features()), strict=True)]

    def predictor(self) -> Predictor:
        """The model, asked when it is needed. Raises Unfit."""
        if self._held is None:
            told = self.config.get("predictor")
            if not isinstance(told, dict):
                raise Unfit("predictor is needed: the analysis asks for predictions, and the dataset has none.")
            self._held = self._open.enter_context(self._session(told).open())
        return self._held

    # -- what is asked for ---------------------------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        """`analysis.json`. Raises Unfit."""
        unknown = sorted(set(self.methods) - set(METHODS))
        if unknown or not set(self.methods) - {"report"}:
            raise Unfit(
                f"methods is an object of some of {', '.join(METHODS)}; {', '.join(unknown) or 'nothing'} is not there."
            )
        for name, told in self.methods.items():
            if not isinstance(told, dict):
                raise Unfit(f"methods.{name} is not an object.")
        for name in ("features", "excluded_columns"):
            of = (self.methods.get("pdp") or {}) if name == "features" else self.config
            if of.get(name) is not None and not isinstance(of[name], list):
                raise Unfit(f"{name} is a list of columns.")
        with self._open:
            for stage in ("pre_training", "post_training"):
                if f"{stage}_bias" in self.methods:
                    self.result[f"{stage}_bias_metrics"] = self._bias(stage)
            if "shap" in self.methods:
                self.result.setdefault("explanations", {})["kernel_shap"] = self._shap()
            if "pdp" in self.methods:
                self.result.setdefault("explanations", {})["pdp"] = self._pdp()
            if self._held is not None:
                say(f"The model was asked {self._held.asked} times")
        return self.result

    def _bias(self, stage: str) -> dict[str, Any]:
        label = self._column("label")
        if label is None or self.config.get("label_values_or_threshold") in (None, []):
            raise Unfit("label and label_values_or_threshold are needed for bias metrics.")
        facets = self.config.get("facet")
        if not isinstance(facets, list) or not facets or not all(isinstance(one, dict) for one in facets):
            raise Unfit("facet is a list of objects with name_or_index, needed for bias metrics.")
        positive = bias.rule(label, self.config["label_values_or_threshold"], "label_values_or_threshold")
        y, guess = positive.mask(label, "label"), None
        known = bias.PRE
        if stage == "post_training":
            known = bias.POST
            guess = positive.mask(self._predicted(positive), "predicted_label")
        names = bias.chosen(self.methods[f"{stage}_bias"].get("methods"), known, f"{stage}_bias")
        group = self._column("group_variable")
        found: dict[str, Any] = {}
        for one in facets:
            facet = self.data.column(one.get("name_or_index"), "facet")
            groups = found.setdefault(facet.name, [])
            for rule in bias.rules(facet, one.get("value_or_threshold"), "facet.value_or_threshold"):

                def rest(name: str = facet.name) -> Any | None:
                    columns = [self.data.columns[each].numbers for each in self.features() if each != name]
                    if not columns or any(each is None or np.isnan(each).any() for each in columns):
                        return None
                    return np.column_stack(columns)

                of = bias.Groups(rule.mask(facet, "facet"), y, guess, group.values if group else None, rest)
                groups.append({"value_or_threshold": rule.shown, "metrics": bias.measured(of, names, known)})
        return {"label": label.name, "label_value_or_threshold": positive.shown, "facets": found}

    def _predicted(self, positive: bias.Rule) -> table.Column:
        there = self._column("predicted_label")
        told = self.config.get("probability_threshold")
        if told is not None and not isinstance(told, (int, float)):
            raise Unfit("probability_threshold is a number.")
        # What is held against a threshold of its own stays a score, unless it is said to become a label.
        threshold = None if positive.values is None and told is None else 0.5 if told is None else float(told)
        if there is not None:
            numbers = there.numbers
            if told is None or numbers is None:
                return there
            return table.Column(there.name, ["1" if one > threshold else "0" for one in numbers])
        return table.Column("predicted_label", self.predictor().labels(self._rows(), threshold))

    def _shap(self) -> dict[str, Any]:
        told = self.methods["shap"]
        for name in _NO_SHAP:
            if told.get(name):
                raise Unfit(f"shap.{name} is not there: features of tables are explained.")
        how = str(told.get("agg_method") or "mean_abs")
        if how not in kernel_shap.AGGREGATES:
            raise Unfit(f"shap.agg_method is {', '.join(kernel_shap.AGGREGATES)}.")
        names, rows, predictor = self.features(), self._rows(), self.predictor()
        values, expected = kernel_shap.explain(
            rows,
            self._baseline(told, names),
            predictor.scores,
            whole(told, "shap.num_samples", 0) or None,
            whole(told, "shap.seed", 0),
            kernel_shap.logit if told.get("use_logit") else lambda scores: scores,
        )
        labels = predictor.headers or []
        labels = labels if len(labels) == len(expected) else [f"label{one}" for one in range(len(expected))]
        if told.get("save_local_shap_values"):
            header = [f"{name}_{label}" for label in labels for name in names]
            self.local = header, np.concatenate([values[:, :, at] for at in range(len(labels))], axis=1)
        found = kernel_shap.AGGREGATES[how](values)
        return {
            label: {
                "global_shap_values": dict(zip(names, map(float, found[:, at]), strict=True)),
                "expected_value": float(expected[at]),
            }
            for at, label in enumerate(labels)
        }

    def _baseline(self, told: dict[str, Any], names: list[str]) -> list[list[Any]]:
        given = told.get("baseline")
        if isinstance(given, str) and given:
            text = self.predictor().fetch(given)
            given = list(cells(text.splitlines(), given))
            if given and [one.strip() for one in given[0]] == names:
                given = given[1:]
        if given:
            if not isinstance(given, list):
                raise Unfit("shap.baseline is a list of records, or the S3 URI of one.")
            rows = [next(iter(one.values())) if isinstance(one, dict) and len(one) == 1 else one for one in given]
            if any(not isinstance(one, list) or len(one) != len(names) for one in rows):
                raise Unfit(f"Each record of shap.baseline has {len(names)} values, of {', '.join(names)[:300]}.")
            for row in rows:
                for one in row:
                    text_of(one)
            return rows
        self.computed = self._clustered(whole(told, "shap.num_clusters", 1), names, whole(told, "shap.seed", 0))
        return self.computed

    def _clustered(self, count: int, names: list[str], seed: int) -> list[list[Any]]:
        """Of each cluster of the numbers the mean, and the most frequent of what is no number."""
        columns = [self.data.columns[name] for name in names]
        numbers = [one.numbers for one in columns if one.numbers is not None]
        at = np.zeros(len(self.data), int)
        if count > 1 and numbers:
            from scipy.cluster.vq import kmeans2, whiten  # noqa: PLC0415 only who asks for it waits for it

            filled = np.column_stack([np.where(np.isnan(one), np.nanmean(one), one) for one in numbers])
            filled = filled[:, filled.std(axis=0) > 0]
            if filled.shape[1]:
                at = kmeans2(whiten(filled), min(count, len(filled)), minit="++", rng=np.random.default_rng(seed))[1]
        found = []
        for cluster in np.unique(at):
            row: list[Any] = []
            for one in columns:
                if one.numbers is not None:
                    here = one.numbers[at == cluster]
                    row.append(float(np.nanmean(here)) if not np.isnan(here).all() else float(np.nanmean(one.numbers)))
                else:
                    seen = Counter(one.values[each] for each in np.flatnonzero(at == cluster))
                    row.append(seen.most_common(1)[0][0])
            found.append(row)
        return found

    def _pdp(self) -> list[dict[str, Any]]:
        told, names, rows = self.methods["pdp"], self.features(), self._rows()
        wanted = [self.data.column(one, "pdp.features").name for one in told.get("features") or ()]
        if other := [one for one in wanted if one not in names]:
            raise Unfit(f"pdp.features: {other[0]} is no feature.")
        if not wanted:
            shap = self.result.get("explanations", {}).get("kernel_shap")
            if not shap:
                raise Unfit("pdp.features is needed where shap is not asked for.")
            sums = {name: sum(abs(one["global_shap_values"][name]) for one in shap.values()) for name in names}
            wanted = sorted(names, key=lambda one: -sums[one])[: whole(told, "pdp.top_k_features", 10)]
        resolution = whole(told, "pdp.grid_resolution", 15, MOST_GRID)
        return [self._dependence(name, names.index(name), rows, resolution) for name in wanted]

    def _dependence(self, name: str, at: int, rows: list[list[Any]], resolution: int) -> dict[str, Any]:
        column = self.data.columns[name]
        values: list[Any]
        if not bias.categories(column, []):
            there = column.numbers[~np.isnan(column.numbers)]
            counts, edges = np.histogram(there, resolution)
            values, kind = ((edges[:-1] + edges[1:]) / 2).tolist(), "numerical"
        else:
            seen = dict(sorted(Counter(one for one in column.values if one is not None).items()))
            values, kind = [*seen], "categorical"
            if len(values) > MOST_GRID:
                why = "PDP can only be computed for numerical or categorical columns"
                return {"feature_name": name, "data_type": "free_text", "error": why}
            counts = np.array([*seen.values()])
        means = []
        for value in values:
            scores = self.predictor().scores([[*row[:at], value, *row[at + 1 :]] for row in rows])
            means.append(scores.mean(axis=0))
        return {
            "feature_name": name,
            "data_type": kind,
            "feature_values": [value_of(one) for one in values],
            "model_predictions": np.array(means).T.tolist(),
            "data_distribution": (counts / counts.sum()).tolist(),
        }


def config_of(job: Job) -> tuple[dict[str, Any], dict[str, Path]]:
    """The configuration, and where the job's inputs and outputs lie. Raises Unfit."""
    base = job.base / "processing" / "input"
    places = {"analysis_config": base / "config", "dataset": base / "data"}
    told = job.json(job.base / "config" / "processingjobconfig.json") or {}
    for one in told.get("ProcessingInputs") or ():
        if one.get("InputName") in places:
            places[one["InputName"]] = job.base / one["S3Input"]["LocalPath"].removeprefix("/opt/ml/")
    found = [one for one in sorted(places["analysis_config"].glob("*")) if one.is_file()]
    if len(found) != 1:
        raise Unfit("The input analysis_config has to be one file.")
    config = job.json(found[0])
    if not isinstance(config, dict):
        raise Unfit("The analysis configuration is not a JSON object.")
    for name in _LEFT_OUT:
        if config.get(name):
            raise Unfit(f"{name} of the analysis configuration is not there: bring the data as the input dataset.")
    if not isinstance(config.get("methods", {}), dict):
        raise Unfit("methods of the analysis configuration is not an object.")
    if str(config.get("version", "1.0")) != "1.0":
        raise Unfit("version of the analysis configuration is 1.0.")
    return config, places


def write(job: Job, analysis: Analysis) -> None:
    """The files of the result."""
    job.write("analysis.json", analysis.result)
    how = analysis.methods.get("report") or {}
    name = str(how.get("name") or "report")
    if not name.replace("-", "").replace("_", "").isalnum():
        raise Unfit("report.name is letters, digits, hyphens and underscores.")
    about = f"{len(analysis.data)} records, {len(analysis.features())} features"
    shown = report.page(analysis.result, str(how.get("title") or "SageMaker Analysis Report"), about)
    (job.output / f"{name}.html").write_text(shown, "utf-8")
    (job.output / f"{name}.ipynb").write_text(report.notebook(shown), "utf-8")
    for file, content in (("out.csv", analysis.local), ("baseline.csv", analysis.computed)):
        if content is None:
            continue
        folder = job.output / "explanations_shap"
        folder.mkdir(exist_ok=True)
        with (folder / file).open("w", encoding="utf-8", newline="") as opened:
            out = csv.writer(opened, lineterminator="\n")
            if isinstance(content, tuple):
                out.writerow(content[0])
                out.writerows(content[1].tolist())
            else:
                out.writerow(analysis.features())
                out.writerows(content)


def run(job: Job) -> int | None:
    """A job of its own, or of a monitoring schedule. Raises Unfit."""
    config, places = config_of(job)
    if job.given.get("dataset_format"):
        from bastide_clarify import monitoring  # noqa: PLC0415 it needs this module

        return monitoring.run(job, config)
    data = table.read(places["dataset"], config)
    say(f"{len(data)} records of {len(data.columns)} columns")
    kind = str(config.get("dataset_type", table.CSV))
    analysis = Analysis(config, data, lambda told: Predictor(told, kind))
    found, constraints = analysis.run(), job.document("baseline_constraints")
    write(job, analysis)
    if constraints is None:
        return None
    from bastide_clarify import monitoring  # noqa: PLC0415 it needs this module

    return monitoring.check(job, found, constraints)
