"""Records as tables: what a channel or a request holds, in each of the documented formats."""

from __future__ import annotations

import io
import json
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.datasets import load_svmlight_file

from bastide_algorithms import Unfit, recordio

CSV, RECORDIO, LIBSVM = "text/csv", "application/x-recordio-protobuf", "text/libsvm"
JSON, LINES, PARQUET = "application/json", "application/jsonlines", "application/x-parquet"
_SAME = {
    "text/x-libsvm": LIBSVM,
    "libsvm": LIBSVM,
    "csv": CSV,
    "text/plain": CSV,
    "parquet": PARQUET,
    "application/vnd.apache.parquet": PARQUET,
    "application/x-jsonlines": LINES,
}


def told(content_type: str) -> tuple[str, dict[str, str]]:
    """A content type in the spelling used here, and its parameters."""
    kind, *rest = [part.strip() for part in content_type.split(";")]
    options = dict(part.lower().split("=", 1) for part in rest if "=" in part)
    kind = kind.lower()
    return _SAME.get(kind, kind), {name.strip(): value.strip() for name, value in options.items()}


@dataclass
class Table:
    """features: (records, columns), of an array or a sparse matrix in rows. labels, weights, groups: (records,)."""

    features: Any
    labels: Any = None
    weights: Any = None
    groups: Any = None

    def __len__(self) -> int:
        return int(self.features.shape[0])

    @property
    def width(self) -> int:
        """How many columns."""
        return int(self.features.shape[1])

    def dense(self, width: int | None = None) -> np.ndarray[Any, Any]:
        """The features as an array of float64. Raises Unfit for missing values and another number of columns."""
        if width is not None and self.width != width:
            raise Unfit(f"the records have {self.width} features, not {width}")
        found = self.features.toarray() if sparse.issparse(self.features) else np.asarray(self.features, np.float64)
        if not np.isfinite(found).all():
            raise Unfit("the data has values that are missing or infinite")
        # In rows, as everybody's arrays are: sums in another order end in other digits.
        return np.ascontiguousarray(found, np.float64)


@dataclass
class Rules:
    """How to read what does not say it itself."""

    labels: bool = True
    weights: bool = False
    default: str = RECORDIO
    formats: tuple[str, ...] = field(default=(CSV, RECORDIO))


def parse(data: bytes, content_type: str, rules: Rules) -> Table:
    """A table of one file or request. Raises Unfit."""
    kind, options = told(content_type or rules.default)
    if kind not in rules.formats:
        raise Unfit(f"The content type {kind} is not read; there are {', '.join(rules.formats)}.")
    if not data.strip():
        raise Unfit("There is no data.")
    try:
        if kind == CSV:
            return _csv(data, options, rules)
        if kind == LIBSVM:
            return _libsvm(data)
        if kind == PARQUET:
            return _labelled(pd.read_parquet(io.BytesIO(data)).to_numpy(np.float64), rules)
        if kind == RECORDIO:
            return _records(recordio.read(data), rules)
        return _json(data, kind)
    except Unfit:
        raise
    except Exception as error:
        raise Unfit(f"The data cannot be read as {kind}: {type(error).__name__}: {str(error)[:200]}") from None


def _labelled(values: np.ndarray[Any, Any], rules: Rules, size: int = 1) -> Table:
    if values.ndim != 2:
        raise Unfit("the data is no table")
    labels = weights = None
    if rules.labels and size:
        labels, values = values[:, 0], values[:, 1:]
    if rules.weights:
        weights, values = values[:, 0], values[:, 1:]
    if not values.shape[1]:
        raise Unfit("the records have no features beside their label")
    return Table(values, labels, weights)


def _csv(data: bytes, options: dict[str, str], rules: Rules) -> Table:
    first = data[:65536].decode("utf-8", "replace").splitlines()[0]
    delimiter = max((",", "\t", " ", ";", "|"), key=first.count) if "," not in first else ","
    read = pd.read_csv(io.BytesIO(data), header=None, sep=delimiter, dtype=str, skipinitialspace=True)
    try:
        values = read.astype(np.float64).to_numpy()
    except ValueError as error:
        raise Unfit(f"text/csv holds numbers and no header: {error}") from None
    size = options.get("label_size", "1")
    if size not in ("0", "1"):
        raise Unfit("label_size is 0 or 1")
    return _labelled(values, rules, int(size))


def _libsvm(data: bytes) -> Table:
    # Columns are numbered as they are written, as XGBoost does; data without an index 0 has an empty first column.
    features, labels, groups = load_svmlight_file(io.BytesIO(data), zero_based=True, query_id=True)
    return Table(features, labels, groups=groups if len(groups) and groups.any() else None)


def _records(records: Iterable[recordio.Record], rules: Rules) -> Table:
    rows, labels = [], []
    for one in records:
        tensor = one.features.get("values") or next(iter(one.features.values()), None)
        if tensor is None:
            raise Unfit("a record has no features")
        rows.append(tensor)
        label = one.label.get("values") or next(iter(one.label.values()), None)
        if label is not None and len(label.values):
            labels.append(float(label.values[0]))
    if rules.labels and labels and len(labels) != len(rows):
        raise Unfit("some records have labels and others have none")
    return Table(_stacked(rows), np.array(labels) if rules.labels and labels else None)


def _stacked(rows: list[recordio.Tensor]) -> Any:
    width = max(one.width() for one in rows)
    if all(one.keys is None for one in rows):
        if any(len(one.values) != width for one in rows):
            raise Unfit("the records have different numbers of features")
        return np.stack([one.values.astype(np.float64) for one in rows])
    columns = [np.arange(len(one.values)) if one.keys is None else one.keys for one in rows]
    ends = np.cumsum([0, *(len(one.values) for one in rows)])
    values = np.concatenate([one.values.astype(np.float64) for one in rows])
    return sparse.csr_matrix((values, np.concatenate(columns), ends), shape=(len(rows), width))


def _json(data: bytes, kind: str) -> Table:
    """``{"instances": [{"features": [...]}]}`` or records a line; features in AWS's three spellings."""
    if kind == LINES:
        instances = [json.loads(line) for line in data.decode().splitlines() if line.strip()]
    else:
        instances = json.loads(data)["instances"]
    rows = []
    for one in instances:
        given = one.get("features") or one["data"]["features"] if isinstance(one, dict) else one
        if isinstance(given, dict) and "keys" in given:
            keys = np.array(given["keys"], np.int64)
            values = np.array(given["values"], np.float64)
            shape = tuple(int(size) for size in given.get("shape") or ())
            if len(keys) != len(values) or keys.min(initial=0) < 0 or (shape and keys.max(initial=-1) >= shape[-1]):
                raise Unfit("a sparse record has as many keys as values, within its shape")
            rows.append(recordio.Tensor(values, keys, shape))
        else:
            listed = given["values"] if isinstance(given, dict) else given
            rows.append(recordio.Tensor(np.array(listed, np.float64).reshape(-1)))
    if not rows:
        raise Unfit("there are no instances")
    return Table(_stacked(rows))


def contents(folder: Path) -> list[bytes]:
    """The files of a channel, by name; of a stream (``<channel>_0``) what it holds."""
    pipe = folder.with_name(f"{folder.name}_0")
    if not folder.is_dir() and pipe.exists() and stat.S_ISFIFO(pipe.stat().st_mode):
        return [pipe.read_bytes()]
    found = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith((".", "_")))
    return [content for p in found if (content := p.read_bytes())]


def channel(folder: Path, content_type: str, rules: Rules) -> Table:
    """A channel as one table. Raises Unfit."""
    parts = [parse(one, content_type, rules) for one in contents(folder)]
    if not parts:
        raise Unfit(f"The channel {folder.name} holds no data.")
    if len(parts) == 1:
        return parts[0]
    width = max(one.width for one in parts)
    if any(sparse.issparse(one.features) for one in parts):
        features: Any = sparse.vstack([widened(one.features, width) for one in parts], format="csr")
    else:
        if any(one.width != width for one in parts):
            raise Unfit(f"The files of the channel {folder.name} have different numbers of columns.")
        features = np.concatenate([one.features for one in parts])
    rest = []
    for name in ("labels", "weights", "groups"):
        every = [getattr(one, name) for one in parts]
        if any(one is None for one in every) and any(one is not None for one in every):
            raise Unfit(f"Some files of the channel {folder.name} have {name} and others have none.")
        rest.append(None if every[0] is None else np.concatenate(every))
    return Table(features, *rest)


def widened(features: Any, width: int) -> Any:
    """With empty columns up to a width; what is wider stays."""
    missing = width - features.shape[1]
    if missing <= 0:
        return features
    return sparse.hstack([sparse.csr_matrix(features), sparse.csr_matrix((features.shape[0], missing))], format="csr")
