"""Search: one account's resources of a kind by what they say of themselves.

Source: API Reference, Search, SearchExpression, Filter, NestedFilters, VisibilityConditions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from bastide.domain import MICROS, Refused
from bastide.kernel import Ask, Asked, Authorised, Kind, Output, anything, fill, fills, pages
from bastide.kernel.regular import tags_shown
from bastide.protocol import codec
from bastide.services.sagemaker.trial_component import TRIAL_COMPONENT, metrics, parents
from bastide.store import Row, View

SEARCH: Final = Kind("Search", service="sagemaker", arn="search/{}", named_by="Resource", tags=False)
"""Not a noun: what the operations hang on."""

_KINDS: Final = {"ExperimentTrial": "Trial", "ExperimentTrialComponent": "TrialComponent"}
_MOST_EXAMINED: Final = 1000
_MOST_SORTED: Final = 10_000
_DEEPEST: Final = 8
_PARAMETER: Final = "TrialComponentParameterValue"
_STATISTICS: Final = ("Count", "Min", "Max", "Avg", "Last", "StdDev")


@dataclass(frozen=True, slots=True)
class _Resource:
    """What is searched: its noun, the member of a SearchRecord, and the shape whose members can be named."""

    kind: Kind
    member: str
    shape: Any
    inner: str = ""

    def record(self, view: View, row: Row) -> dict[str, Any]:
        """A SearchRecord."""
        found = fill(self.kind, self.shape, row)
        if "Tags" in self.shape.members and row.tags:
            found["Tags"] = tags_shown(row)
        if self.kind is TRIAL_COMPONENT:
            found |= {"Metrics": metrics(view, row), "Parents": parents(view, row)}
        return {self.member: {self.inner: found} if self.inner else found}


def _resource(a: Authorised) -> _Resource:
    """Whatever noun there is that a SearchRecord can hold."""
    given = a.input["Resource"]
    name = _KINDS.get(given, given)
    record = codec("sagemaker").operations["Search"].output_shape.members["Results"].member
    for kind in a.calls.registry.services["sagemaker"].kinds:
        if kind.name == name and name in record.members:
            shape, inner = record.members[name], ""
            if name == "Model":  # what the model dashboard shows of one
                shape, inner = shape.members["Model"], "Model"
            return _Resource(kind, name, shape, inner)
    raise Refused("ValidationException", f"Resource {given} is not supported by Bastide yet.")


# -- what a resource says under a property's name ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Looked:
    """A row, and what it says of itself."""

    resource: _Resource
    view: View
    row: Row

    def values(self, name: str) -> Iterator[Any]:
        """What stands under a property's name, lists walked through; times as datetimes."""
        top, _, rest = name.partition(".")
        members = self.resource.shape.members
        # The SDK's documentation sorts by `metrics.NAME.max` and `parameters.NAME`.
        top = next((one for one in ("Tags", "Metrics", *members) if one.lower() == top.lower()), top)
        if top == "Tags":
            if not rest:
                yield from self.row.tags
            elif rest in self.row.tags:
                yield self.row.tags[rest]
        elif top == "Metrics":
            yield from self._metrics(rest)
        elif top not in members:
            raise Refused("ValidationException", f"Unknown property name: {name}")
        elif top == "Parents":
            yield from _walk(members[top], parents(self.view, self.row), rest.split(".") if rest else [])
        else:
            value = fill(self.resource.kind, _Only(top, members[top]), self.row).get(top)
            yield from _walk(members[top], value, rest.split(".") if rest else [])

    def elements(self, name: str) -> list[tuple[Any, Any]]:
        """The elements of a list property, each with its shape."""
        shape: Any = self.resource.shape
        here: Any = None
        for number, part in enumerate(name.split(".")):
            if shape.type_name != "structure" or part not in shape.members:
                raise Refused("ValidationException", f"Unknown property name: {name}")
            shape = shape.members[part]
            if number == 0:
                here = fill(self.resource.kind, _Only(part, shape), self.row).get(part)
            else:
                here = here.get(part) if isinstance(here, dict) else None
        if self.resource.kind is TRIAL_COMPONENT and name == "Parents":
            here = parents(self.view, self.row)
        if shape.type_name != "list":
            raise Refused("ValidationException", f"{name} is no list: NestedPropertyName names one.")
        return [(shape.member, one) for one in here or ()]

    def _metrics(self, rest: str) -> Iterator[float]:
        name, _, last = rest.rpartition(".")
        asked = next((one for one in _STATISTICS if one.lower() == last.lower()), "")
        metric, statistic = (name, asked) if name and asked else (rest, "Last")
        if self.resource.kind is TRIAL_COMPONENT:
            yield from (one[statistic] for one in metrics(self.view, self.row) if one["MetricName"] == metric)
        else:
            for one in self.row.doc.get("FinalMetricDataList") or ():
                if one["MetricName"] == rest:
                    yield one["Value"]


@dataclass(frozen=True, slots=True)
class _Only:
    """A shape of one member, so that no more is looked up."""

    name: str
    shape: Any

    @property
    def members(self) -> dict[str, Any]:
        return {self.name: self.shape}


def _walk(shape: Any, value: Any, parts: list[str]) -> Iterator[Any]:
    if value is None:
        return
    if shape.type_name == "list":
        for one in value:
            yield from _walk(shape.member, one, parts)
    elif shape.type_name == "map":
        if not parts:
            yield from value
        # A key may have dots of its own.
        for length in range(len(parts), 0, -1):
            key = ".".join(parts[:length])
            if key in value:
                yield from _walk(shape.value, value[key], parts[length:])
                return
    elif shape.type_name == "structure":
        if not parts:
            # A parameter is its value, in whichever member that stands.
            yield from value.values() if shape.name == _PARAMETER else (value,)
        elif parts[0] in shape.members and parts[0] in value:
            yield from _walk(shape.members[parts[0]], value[parts[0]], parts[1:])
    elif not parts:
        yield datetime.fromtimestamp(value / MICROS, UTC) if shape.type_name == "timestamp" else value


# -- expressions -------------------------------------------------------------------------------------------------------

_Test = Callable[[_Looked], bool]


def _equal(value: Any, wanted: str) -> bool:
    if isinstance(value, bool):
        return wanted.lower() == str(value).lower()
    placed = _placed(value, wanted)
    return str(value) == wanted if placed is None else placed == 0


def _placed(value: Any, wanted: str) -> int | None:
    """Where a value stands beside the filter's text: before (-1), at (0), behind (1); None if they have no order."""
    other: Any
    try:
        if isinstance(value, datetime):
            other = datetime.fromisoformat(wanted)
            other = other if other.tzinfo else other.replace(tzinfo=UTC)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            other = float(wanted)
        else:
            return None
    except ValueError:
        raise Refused("ValidationException", f"`{wanted[:200]}` cannot be compared with a number or a time.") from None
    return int(value > other) - int(value < other)


_ORDERS: Final[Mapping[str, tuple[int, ...]]] = {
    "GreaterThan": (1,),
    "GreaterThanOrEqualTo": (0, 1),
    "LessThan": (-1,),
    "LessThanOrEqualTo": (-1, 0),
}


def _fits(operator: str, wanted: str | None, values: Iterable[Any]) -> bool:
    every = list(values)
    if operator == "Exists":
        return bool(every)
    if operator == "NotExists":
        return not every
    if wanted is None:
        raise Refused("ValidationException", f"A filter with {operator} needs a Value.")
    if operator == "Equals":
        return any(_equal(one, wanted) for one in every)
    if operator == "NotEquals":
        return not any(_equal(one, wanted) for one in every)
    if operator == "Contains":
        return any(wanted in str(one) for one in every)
    if operator == "In":
        return any(_equal(one, part.strip()) for one in every for part in wanted.split(","))
    placed = [_placed(one, wanted) for one in every]
    if any(one is None for one in placed):
        raise Refused("ValidationException", f"{operator} is for numbers and times.")
    return any(one in _ORDERS[operator] for one in placed)


def _filter(given: dict[str, Any]) -> _Test:
    name, operator, value = given["Name"], given.get("Operator", "Equals"), given.get("Value")
    return lambda looked: _fits(operator, value, looked.values(name))


def _nested(given: dict[str, Any]) -> _Test:
    name = given["NestedPropertyName"]
    wanted = []
    for one in given["Filters"]:
        if not one["Name"].startswith(f"{name}."):
            raise Refused("ValidationException", f"{one['Name']} is not below the nested property {name}.")
        parts = one["Name"].removeprefix(f"{name}.").split(".")
        wanted.append((parts, one.get("Operator", "Equals"), one.get("Value")))

    def test(looked: _Looked) -> bool:
        return any(
            all(_fits(operator, value, _walk(shape, one, parts)) for parts, operator, value in wanted)
            for shape, one in looked.elements(name)
        )

    return test


def _expression(given: dict[str, Any], depth: int = 0) -> _Test:
    if depth > _DEEPEST:
        raise Refused("ValidationException", f"SubExpressions may stand {_DEEPEST} deep at most.")
    tests = [
        *(_filter(one) for one in given.get("Filters") or ()),
        *(_nested(one) for one in given.get("NestedFilters") or ()),
        *(_expression(one, depth + 1) for one in given.get("SubExpressions") or ()),
    ]
    if given.get("Operator") == "Or" and tests:
        return lambda looked: any(test(looked) for test in tests)
    return lambda looked: all(test(looked) for test in tests)


# -- the walk ----------------------------------------------------------------------------------------------------------


def _few(resource: _Resource, view: View, account: str, region: str, given: dict[str, Any]) -> list[Row] | None:
    """The only rows that can fit, where a filter that must hold names the resource or a tag; None: any can."""
    if given.get("Operator") == "Or":
        return None
    for one in given.get("Filters") or ():
        if one.get("Operator", "Equals") != "Equals" or one.get("Value") is None:
            continue
        if one["Name"] == f"{resource.kind.name}Name" and resource.kind.named_by == one["Name"]:
            row = resource.kind.get(view, account, region, one["Value"])
            return [] if row is None else [row]
        if one["Name"].startswith("Tags."):
            key = one["Name"].removeprefix("Tags.")
            return view.tagged(resource.kind.key, account, region, key=key, value=one["Value"], limit=_MOST_SORTED)
    return None


def _visible(given: Iterable[dict[str, Any]]) -> list[tuple[str, str]]:
    found = []
    for one in given:
        key = str(one.get("Key") or "")
        if not key.startswith("Tags.") or not key.removeprefix("Tags."):
            raise Refused("ValidationException", "The key of a visibility condition is Tags.<key>.")
        found.append((key.removeprefix("Tags."), str(one.get("Value") or "")))
    return found


@fills("sagemaker:SearchVisibilityCondition/${FilterKey}")
def _conditions(asked: Asked) -> dict[str, str]:
    """A policy names a tag that results have with one value, or not at all: ``Tags.<key>/EqualsIfExists``."""
    given = asked.input.get("VisibilityConditions") or ()
    return {
        f"sagemaker:SearchVisibilityCondition/{one.get('Key')}/EqualsIfExists": str(one.get("Value") or "")
        for one in given
    }


@SEARCH.reads("Search", asks=[Ask("sagemaker:Search", anything, more=_conditions)])
def search(a: Authorised, view: View) -> Output:
    given = a.input
    if given.get("CrossAccountFilterOption", "SameAccount") != "SameAccount":
        raise Refused("ValidationException", "CrossAccountFilterOption CrossAccount is not supported by Bastide yet.")
    resource = _resource(a)
    wanted = given.get("SearchExpression") or {}
    test = _expression(wanted)
    must = _visible(given.get("VisibilityConditions") or ())
    limit = int(given.get("MaxResults") or 100)
    backwards = given.get("SortOrder", "Descending") == "Descending"
    after = pages.position(a, given.get("NextToken"))

    def fits(row: Row) -> bool:
        return all(row.tags.get(key, value) == value for key, value in must) and test(_Looked(resource, view, row))

    by = given.get("SortBy") or "LastModifiedTime"
    few = _few(resource, view, a.account, a.region, wanted)
    if few is None and by == "CreationTime":
        rows, token = _walked(a, view, resource, fits, limit, backwards, after)
        return {"Results": [resource.record(view, row) for row in rows], "NextToken": token}
    if few is None:
        few = view.scan(resource.kind.key, a.account, a.region, order="created", limit=_MOST_SORTED + 1)
    if len(few) > _MOST_SORTED:
        raise Refused(
            "ValidationException",
            f"There are more than {_MOST_SORTED} resources to sort. Please sort by CreationTime, or name the resource or "
            "a tag of it.",
        )
    if by not in ("LastModifiedTime", "CreationTime"):
        list(_Looked(resource, view, few[0]).values(by) if few else ())  # refuses what no property is
    keyed = sorted(
        ((_key(resource, view, row, by), row.name, row) for row in few if fits(row)),
        key=lambda one: (one[0], one[1]),
        reverse=backwards,
    )
    start = int(after or 0)
    rows = [one[2] for one in keyed[start : start + limit]]
    token = pages.seal(a, start + limit) if len(keyed) > start + limit else None
    return {"Results": [resource.record(view, row) for row in rows], "NextToken": token}


def _key(resource: _Resource, view: View, row: Row, by: str) -> tuple[int, float, str]:
    """Numbers and times before texts; who says nothing comes before all."""
    if by == "LastModifiedTime":
        return (1, float(row.modified), "")
    if by == "CreationTime":
        return (1, float(row.created), "")
    value = next(_Looked(resource, view, row).values(by), None)
    if value is None:
        return (0, 0.0, "")
    if isinstance(value, datetime):
        return (1, value.timestamp(), "")
    if isinstance(value, int | float):
        return (1, float(value), "")
    return (2, 0.0, str(value))


def _walked(
    a: Authorised, view: View, resource: _Resource, fits: Callable[[Row], bool], limit: int, backwards: bool, after: Any
) -> tuple[list[Row], str | None]:
    """A page in order of creation: its cost is that of the rows it passes, and bounded."""
    found: list[Row] = []
    examined = 0
    while True:
        rows = view.scan(
            resource.kind.key, a.account, a.region, order="created", descending=backwards,
            after=tuple(after) if after else None, limit=limit + 1,
        )  # fmt: skip
        for row in rows:
            if len(found) == limit or examined >= _MOST_EXAMINED:
                return found, pages.seal(a, after)
            examined += 1
            after = [row.created, row.name]
            if fits(row):
                found.append(row)
        if len(rows) <= limit:
            return found, None


@SEARCH.reads("GetSearchSuggestions", asks=[Ask("sagemaker:GetSearchSuggestions", anything)])
def suggestions(a: Authorised, view: View) -> Output:
    resource = _resource(a)
    hint = ((a.input.get("SuggestionQuery") or {}).get("PropertyNameQuery") or {}).get("PropertyNameHint", "")
    names = set(_names(resource.shape, 0))
    names |= {f"Tags.{key}" for key in view.tag_keys(a.account, a.region, limit=100)}
    for row in view.scan(resource.kind.key, a.account, a.region, order="created", descending=True, limit=20):
        names |= {f"HyperParameters.{key}" for key in row.doc.get("HyperParameters") or ()}
        names |= {f"Parameters.{key}" for key in row.doc.get("Parameters") or ()}
        names |= {f"Metrics.{one['MetricName']}" for one in row.doc.get("FinalMetricDataList") or ()}
    fitting = sorted(name for name in names if name.lower().startswith(hint.lower()))
    return {"PropertyNameSuggestions": [{"PropertyName": name} for name in fitting[:10]]}


def _names(shape: Any, depth: int) -> Iterator[str]:
    """Names of properties as the model has them."""
    for name, one in shape.members.items():
        while one.type_name == "list":
            one = one.member  # noqa: PLW2901 - what the list is of
        if one.type_name == "structure" and depth < 4:
            yield from (f"{name}.{below}" for below in _names(one, depth + 1))
        elif one.type_name != "map":
            yield name
