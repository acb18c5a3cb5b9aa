"""The data that is analysed: columns of text, and which of them are what."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from bastide_monitor import Unfit
from bastide_monitor.columns import MOST_COLUMNS, text_of
from bastide_monitor.paths import Attribute
from bastide_monitor.records import Dataset, cells, files, lines, parsed

CSV, JSON_LINES, PARQUET = "text/csv", "application/jsonlines", "application/x-parquet"


class Column:
    """Values by record; None where one is missing."""

    def __init__(self, name: str, values: list[str | None]) -> None:
        self.name = name
        self.values = values
        self._numbers: Any = None

    @property
    def numbers(self) -> Any | None:
        """The values as numbers, NaN where one is missing; None if one is no number."""
        if self._numbers is None:
            try:
                found = np.array([np.nan if one is None else float(one) for one in self.values])
                self._numbers = found if not np.isinf(found).any() and not np.isnan(found).all() else ()
            except ValueError:
                self._numbers = ()
        return None if isinstance(self._numbers, tuple) else self._numbers


class Table:
    """Columns of the same length, in order."""

    def __init__(self, names: list[str], rows: Iterable[Iterable[Any]]) -> None:
        if len(set(names)) < len(names):
            raise Unfit("Two columns have the same name.")
        if len(names) > MOST_COLUMNS:
            raise Unfit(f"The dataset has more than {MOST_COLUMNS} columns.")
        held: list[list[str | None]] = [[] for _ in names]
        for row in rows:
            values = [text_of(one) for one in row]
            if len(values) != len(names):
                raise Unfit(f"A record has {len(values)} values and there are {len(names)} headers.")
            for column, value in zip(held, values, strict=True):
                column.append(value)
        self.columns = {name: Column(name, values) for name, values in zip(names, held, strict=True)}

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())).values) if self.columns else 0

    @property
    def names(self) -> list[str]:
        """Of the columns."""
        return list(self.columns)

    def column(self, told: Any, what: str) -> Column:
        """The column of a name or number. Raises Unfit."""
        names = self.names
        if isinstance(told, int) and not isinstance(told, bool) and 0 <= told < len(names):
            return self.columns[names[told]]
        if str(told) in self.columns:
            return self.columns[str(told)]
        if str(told).isdigit() and int(told) < len(names):
            return self.columns[names[int(told)]]
        raise Unfit(f"{what}: there is no column {str(told)[:100]!r}; there are {', '.join(names)[:300]}.")


def _numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def named(rows: list[list[str]], headers: list[str] | None) -> Table:
    """Rows of CSV. Without headers the first row is some if none of it is a number, else columns are `column_0`, ..."""
    if headers is None and rows and not any(_numeric(one) for one in rows[0]):
        headers = [one.strip() for one in rows[0]]
    if headers is not None and rows and [one.strip() for one in rows[0]] == headers:
        rows = rows[1:]
    if headers is None:
        headers = [f"column_{number}" for number in range(len(rows[0]) if rows else 0)]
    return Table(headers, rows)


def read(folder: Path, config: dict[str, Any]) -> Table:
    """A dataset of one of the formats. Raises Unfit."""
    kind, headers = config.get("dataset_type", CSV), config.get("headers")
    if headers is not None and not (isinstance(headers, list) and all(isinstance(one, str) for one in headers)):
        raise Unfit("headers is a list of names.")
    paths = files(folder)
    if not paths:
        raise Unfit("There is no data: the dataset has no files.")
    if kind == CSV:
        tables = [named(list(cells(lines(path), path.name)), headers) for path in paths]
        found = tables[0]
        for one in tables[1:]:
            if one.names != found.names:
                raise Unfit("The files of the dataset have different columns.")
            for name, column in one.columns.items():
                found.columns[name].values.extend(column.values)
    elif kind == JSON_LINES:
        found = json_lines(paths, config, headers)
    elif kind == PARQUET:
        names: list[str] = []
        rows: list[tuple[Any, ...]] = []
        for parts, _ in Dataset(folder, {"parquet": {}}).pieces():
            names = names or list(parts)
            if list(parts) != names:
                raise Unfit("The files of the dataset have different columns.")
            rows += zip(*parts.values(), strict=True)
        found = Table(headers or names, rows)
    else:
        raise Unfit(f"dataset_type is {CSV}, {JSON_LINES} or {PARQUET} here, not {str(kind)[:100]!r}.")
    if not len(found):
        raise Unfit("There is no data: the dataset has no records.")
    return found


def json_lines(paths: list[Path], config: dict[str, Any], headers: list[str] | None) -> Table:
    """Features, then the label and the predicted label where they are asked for. Raises Unfit."""
    if not config.get("features"):
        raise Unfit("features is needed for application/jsonlines.")
    features = Attribute("features", str(config["features"]))
    further = [Attribute(one, str(config[one])) for one in ("label", "predicted_label") if config.get(one) is not None]
    rows = []
    for path in paths:
        for number, line in enumerate(lines(path), 1):
            if line.strip():
                told = parsed(line, f"Line {number} of {path.name}")
                found = features.within(told)
                rows.append([*(found if isinstance(found, list) else [found]), *(one.within(told) for one in further)])
    width = len(rows[0]) - len(further) if rows else 0
    names = headers or [*(f"column_{one}" for one in range(width)), *(one.name for one in further)]
    table = Table(names, rows)
    # From here on they are columns, as in every other format.
    for at, one in enumerate(further):
        config[one.name] = names[width + at]
    return table
