"""Reading parameters: one, several, below a path, their history, and their descriptions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Ask, Asked, Authorised, Output, anything, pages
from bastide.services.ssm.parameter import (
    PARAMETER,
    VERSION,
    address,
    arn,
    described,
    expired,
    found,
    legal,
    not_found,
    shown,
    these,
    this,
    version_of,
)
from bastide.services.ssm.secret import read, referenced
from bastide.store import Row, View

_MOST_EXAMINED: Final = 1000
"""Rows a filtered page looks at before it hands out a token instead."""
Keeps = Callable[[Row], bool]


def _chosen(view: View, row: Row, selector: str) -> dict[str, Any]:
    """The version that a selector means; raises ParameterVersionNotFound."""
    if not selector:
        return row.doc
    text = selector[1:]
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else row.doc["labels"].get(text)
    doc = version_of(view, row, number) if number is not None else None
    if doc is None:
        raise Refused(
            "ParameterVersionNotFound",
            f"Systems Manager could not find version {text} of {row.name}. Verify the version and try again.",
        )
    return doc


@PARAMETER.reads("GetParameter", asks=[Ask("ssm:GetParameter", this)])
def get(a: Authorised, view: View) -> Output:
    return {"Parameter": _read(a, view, str(a.input["Name"]))}


def _read(a: Authorised, view: View, name: str) -> Output:
    """The parameter of a name; a slash before a name without any is none. Raises Refused as `found` does."""
    if referenced(name):
        return read(a, view, name)
    bare = name.startswith("/") and name.count("/") == 1
    try:
        row, selector = found(a, view, name)
    except Refused as refused:
        if not bare or refused.code != "ParameterNotFound":
            raise
        row, selector = found(a, view, name[1:])
    if row.account != a.account:
        raise not_found()
    doc = _chosen(view, row, selector)
    told = shown(a, view, row, doc, decrypt=bool(a.input.get("WithDecryption")), selector=selector)
    return {**told, "Name": name.partition(":")[0]} if bare else told


@PARAMETER.reads("GetParameters", asks=[Ask("ssm:GetParameters", these)])
def several(a: Authorised, view: View) -> Output:
    told: list[Output] = []
    invalid: list[str] = []
    for name in a.input["Names"]:
        try:
            told.append(_read(a, view, str(name)))
        except Refused as refused:
            if refused.code not in ("ParameterNotFound", "ParameterVersionNotFound", "ValidationException"):
                raise
            invalid.append(name)
    return {"Parameters": told, "InvalidParameters": invalid}


@PARAMETER.reads("GetParameterHistory", asks=[Ask("ssm:GetParameterHistory", this)])
def history(a: Authorised, view: View) -> Output:
    row, selector = found(a, view, a.input["Name"])
    if selector or row.account != a.account:
        raise not_found()
    size = int(a.input.get("MaxResults") or 50)
    after = pages.position(a, a.input.get("NextToken"), code="InvalidNextToken")
    earlier = view.scan(VERSION, row.account, row.region, prefix=f"{row.name}:", after=after, limit=size + 1)
    told = [_version(a, view, row, one.doc) for one in earlier[:size]]
    if len(earlier) > size:
        return {"Parameters": told, "NextToken": pages.seal(a, earlier[size - 1].name)}
    if len(told) == size:
        return {"Parameters": told, "NextToken": pages.seal(a, f"{row.name}:~")}
    return {"Parameters": [*told, _version(a, view, row, row.doc)]}


def _version(a: Authorised, view: View, row: Row, doc: dict[str, Any]) -> Output:
    value = shown(a, view, row, doc, decrypt=bool(a.input.get("WithDecryption")))["Value"]
    labels = sorted(label for label, version in row.doc["labels"].items() if version == doc["Version"])
    return {**described(row, doc), "Value": value, "Labels": labels}


# -- below a path ------------------------------------------------------------------------------------------------------


def _below(asked: Asked) -> Iterable[str]:
    return (address(asked, str(asked.input["Path"])),)


@PARAMETER.reads(
    "GetParametersByPath",
    asks=[
        Ask(
            "ssm:GetParametersByPath",
            _below,
            given={"ssm:Recursive": lambda asked: "true" if asked.input.get("Recursive") else "false"},
        )
    ],
)
def by_path(a: Authorised, view: View) -> Output:
    path = str(a.input["Path"])
    if not path.startswith("/"):
        raise Refused(
            "ValidationException",
            "The parameter doesn't meet the parameter name requirements. The parameter name must begin with a forward "
            'slash "/".',
        )
    if path != "/":
        legal(path.rstrip("/"))
    prefix = path.rstrip("/") + "/"
    recursive = bool(a.input.get("Recursive"))
    keeps = _keeps(a.input.get("ParameterFilters") or (), ("Type", "KeyId", "Label"))
    label = next((one["Values"] for one in a.input.get("ParameterFilters") or () if one["Key"] == "Label"), None)
    rows, token = _walk(a, view, int(a.input.get("MaxResults") or 10), prefix, keeps, deep=recursive)
    decrypt = bool(a.input.get("WithDecryption"))
    told = []
    for row in rows:
        for selector in [f":{one}" for one in label if one in row.doc["labels"]] if label else [""]:
            doc = _chosen(view, row, selector)
            told.append(shown(a, view, row, doc, decrypt=decrypt, selector=selector))
    return {"Parameters": told, "NextToken": token}


def _walk(
    a: Authorised, view: View, size: int, prefix: str, keeps: Keeps, *, deep: bool = True
) -> tuple[list[Row], str | None]:
    """A page of the parameters below a prefix in order of name. deep: also those further down than one level; where not,
    a sub-hierarchy is stepped over whole, so that the page costs what it shows."""
    found_: list[Row] = []
    after = pages.position(a, a.input.get("NextToken"), code="InvalidNextToken")
    examined = 0
    while examined < _MOST_EXAMINED:
        rows = view.scan(PARAMETER.key, a.account, a.region, prefix=prefix, after=after, limit=size + 1)
        for row in rows:
            if len(found_) == size:
                return found_, pages.seal(a, after)
            examined += 1
            inner = row.name[len(prefix) :]
            if not deep and "/" in inner:
                after = f"{prefix}{inner.partition('/')[0]}/~"  # behind every name a parameter can have there
                break
            after = row.name
            if not expired(row, a.now) and keeps(row):
                found_.append(row)
        else:
            if len(rows) <= size:
                return found_, None
    return found_, pages.seal(a, after)


# -- descriptions ------------------------------------------------------------------------------------------------------

_OPTIONS: Final = ("Equals", "BeginsWith", "Contains")


def _keeps(filters: Iterable[dict[str, Any]], known: tuple[str, ...]) -> Keeps:
    """A test for rows; raises InvalidFilterKey, InvalidFilterOption, InvalidFilterValue."""
    tests: list[Keeps] = []
    for one in filters:
        key, option, values = (
            str(one["Key"]),
            str(one.get("Option") or "Equals"),
            [str(v) for v in one.get("Values") or ()],
        )
        if key not in known and not (key.startswith("tag:") and "tag:" in known):
            raise Refused("InvalidFilterKey", f"The filter key {key} is not valid. Valid keys: {', '.join(known)}.")
        if key == "Path":
            _path_options(option, values)
            tests.append(_path_test(option == "Recursive", values))
            continue
        if (
            option not in _OPTIONS
            or (option == "Contains" and key != "Name")
            or (key == "Label" and option != "Equals")
        ):
            raise Refused("InvalidFilterOption", f"The filter option {option} is not valid for {key}.")
        if not values and not key.startswith("tag:"):
            raise Refused("InvalidFilterValue", f"The filter {key} needs a value.")
        tests.append(_test(key, option, values))
    return lambda row: all(test(row) for test in tests)


def _path_options(option: str, values: list[str]) -> None:
    if option not in ("Recursive", "OneLevel", "Equals"):
        raise Refused("InvalidFilterOption", "The filter Path has the options Recursive and OneLevel.")
    if not values or not all(value.startswith("/") for value in values):
        raise Refused("InvalidFilterValue", "The filter Path needs paths that begin with a slash.")


def _path_test(recursive: bool, values: list[str]) -> Keeps:
    prefixes = [value.rstrip("/") + "/" for value in values]

    def below(name: str, prefix: str) -> bool:
        return name.startswith(prefix) and (recursive or "/" not in name[len(prefix) :])

    return lambda row: any(below(row.name, prefix) for prefix in prefixes)


def _test(key: str, option: str, values: list[str]) -> Keeps:
    def seen(row: Row) -> list[str]:
        if key == "Label":
            return list(row.doc["labels"])
        if key.startswith("tag:"):
            tag = row.tags.get(key[4:])
            return [] if tag is None else [tag]
        if key == "Name":
            return [row.name, row.name.removeprefix("/")]
        value = row.doc.get(key)
        return [] if value is None else [str(value)]

    def test(row: Row) -> bool:
        texts = seen(row)
        if not values:
            return bool(texts)
        if option == "Equals":
            return any(text in values for text in texts)
        if option == "BeginsWith":
            return any(text.startswith(value) for text in texts for value in values)
        return any(value in text for text in texts for value in values)

    return test


@PARAMETER.reads("DescribeParameters", asks=[Ask("ssm:DescribeParameters", anything)])
def describe(a: Authorised, view: View) -> Output:
    if a.input.get("Shared"):
        raise Refused("ValidationException", "Shared parameters are not supported by Bastide yet.")
    if a.input.get("Filters") and a.input.get("ParameterFilters"):
        raise Refused("ValidationException", "You can use either Filters or ParameterFilters in a single request.")
    old = [
        {**one, "Option": "BeginsWith" if one["Key"] == "Name" else "Equals"} for one in a.input.get("Filters") or ()
    ]
    filters = a.input.get("ParameterFilters") or old
    keeps = _keeps(filters, ("Name", "Type", "KeyId", "Path", "Label", "Tier", "DataType", "tag:"))
    rows, token = _walk(a, view, int(a.input.get("MaxResults") or 50), "", keeps)
    told = [{**described(row, row.doc), "ARN": arn(row.account, row.region, row.name)} for row in rows]
    return {"Parameters": told, "NextToken": token}
