"""Search over what there is: filters, nesting, order, pages, and what a policy lets somebody see."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import Account, allow
from tests.stories.sagemaker.conftest import Workshop


def _is(name: str, operator: str = "Equals", value: str | None = None) -> dict[str, Any]:
    return {"Name": name, "Operator": operator, **({} if value is None else {"Value": value})}


def _names(
    client: Any, expression: dict[str, Any], resource: str = "ExperimentTrialComponent", **more: Any
) -> list[str]:
    member, name = {
        "ExperimentTrialComponent": ("TrialComponent", "TrialComponentName"),
        "TrainingJob": ("TrainingJob", "TrainingJobName"),
        "Experiment": ("Experiment", "ExperimentName"),
    }[resource]
    found = client.search(Resource=resource, SearchExpression=expression, **more)["Results"]
    return [one[member][name] for one in found]


@pytest.fixture
def components(account: Account) -> Any:
    client = account.client("sagemaker")
    client.create_experiment(ExperimentName="e")
    client.create_trial(TrialName="t", ExperimentName="e")
    for number in range(5):
        name = f"c{number}"
        client.create_trial_component(
            TrialComponentName=name,
            Parameters={"lr": {"NumberValue": number / 10}, "a.b": {"StringValue": f"v{number}"}},
            Tags=[{"Key": "team", "Value": "red" if number % 2 else "blue"}] if number < 4 else [],
        )
        if number < 2:
            client.associate_trial_component(TrialComponentName=name, TrialName="t")
    return client


def test_every_operator_and_how_they_combine(components: Any) -> None:
    cases: list[tuple[list[str], dict[str, Any]]] = [
        (["c4", "c3"], {"Filters": [_is("Parameters.lr.NumberValue", "GreaterThan", "0.2")]}),
        (["c4", "c3", "c2"], {"Filters": [_is("Parameters.lr.NumberValue", "GreaterThanOrEqualTo", "0.2")]}),
        (["c0"], {"Filters": [_is("Parameters.lr.NumberValue", "LessThan", "0.1")]}),
        (["c1", "c0"], {"Filters": [_is("Parameters.lr.NumberValue", "LessThanOrEqualTo", "0.1")]}),
        (["c3"], {"Filters": [_is("Parameters.a.b.StringValue", value="v3")]}),
        (["c4", "c2", "c1", "c0"], {"Filters": [_is("TrialComponentName", "NotEquals", "c3")]}),
        (["c3", "c1"], {"Filters": [_is("TrialComponentName", "In", "c1, c3,x")]}),
        (["c3", "c1"], {"Filters": [_is("Tags.team", value="red")]}),
        (["c4"], {"Filters": [_is("Tags.team", "NotExists")]}),
        (["c3", "c2", "c1", "c0"], {"Filters": [_is("Tags.team", "Exists")]}),
        (["c1", "c0"], {"Filters": [_is("Parents.ExperimentName", value="e")]}),
        (["c1"], {"Filters": [_is("TrialComponentName", value="c1"), _is("Parents.TrialName", value="t")]}),
        ([], {"Filters": [_is("TrialComponentName", value="c3"), _is("Parents.TrialName", value="t")]}),
        (
            ["c1", "c0"],
            {
                "NestedFilters": [
                    {
                        "NestedPropertyName": "Parents",
                        "Filters": [
                            _is("Parents.TrialName", value="t"),
                            _is("Parents.ExperimentName", "Contains", "e"),
                        ],
                    }
                ]
            },
        ),
        (
            ["c4", "c0"],
            {
                "Operator": "Or",
                "Filters": [_is("TrialComponentName", value="c0"), _is("TrialComponentName", value="c4")],
            },
        ),
        (
            ["c3"],
            {
                "Filters": [_is("Tags.team", value="red")],
                "SubExpressions": [
                    {"Operator": "Or", "Filters": [_is("DisplayName", value="c3"), _is("DisplayName", value="c0")]}
                ],
            },
        ),
    ]
    for wanted, expression in cases:
        assert _names(components, expression) == wanted, expression
    past = (datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)).isoformat()
    assert len(_names(components, {"Filters": [_is("CreationTime", "GreaterThan", past)]})) == 5
    assert _names(components, {"Filters": [_is("CreationTime", "LessThan", past)]}) == []
    for wrong, words in (
        (_is("NoSuchThing", value="x"), "Unknown property name"),
        (_is("CreationTime", "GreaterThan", "yesterday"), "cannot be compared"),
        (_is("TrialComponentName", "GreaterThan", "x"), "numbers and times"),
        (_is("TrialComponentName", "Equals"), "needs a Value"),
    ):
        with pytest.raises(ClientError, match=words):
            _names(components, {"Filters": [wrong]})
    with pytest.raises(ClientError, match="not supported by Bastide"):
        components.search(Resource="Image")


@pytest.mark.parametrize("order", ["CreationTime", "LastModifiedTime", "Parameters.lr.NumberValue"])
def test_pages_follow_the_order(components: Any, order: str) -> None:
    pager = components.get_paginator("search")
    for way in ("Ascending", "Descending"):
        found: list[str] = []
        sizes = []
        for page in pager.paginate(
            Resource="ExperimentTrialComponent", SortBy=order, SortOrder=way, PaginationConfig={"PageSize": 2}
        ):
            found += [one["TrialComponent"]["TrialComponentName"] for one in page["Results"]]
            sizes.append(len(page["Results"]))
        assert found == sorted(found, reverse=way == "Descending") and len(found) == 5
        assert max(sizes) == 2


def test_a_policy_bounds_what_a_search_shows(account: Account, components: Any) -> None:
    key = "sagemaker:SearchVisibilityCondition/Tags.team/EqualsIfExists"
    policy = allow("sagemaker:Search", Condition={"StringEquals": {key: "red"}})
    account.role("Red", policy)
    client = account.client("sagemaker", account.as_role("Red"))
    with pytest.raises(ClientError, match="not authorized"):
        _names(client, {})
    with pytest.raises(ClientError, match="not authorized"):
        _names(client, {}, VisibilityConditions=[{"Key": "Tags.team", "Value": "blue"}])
    # What has no such tag is in it, too, as AWS documents it.
    assert _names(client, {}, VisibilityConditions=[{"Key": "Tags.team", "Value": "red"}]) == ["c4", "c3", "c1"]
    with pytest.raises(ClientError, match=r"Tags\.<key>"):
        _names(components, {}, VisibilityConditions=[{"Key": "Name", "Value": "red"}])


@pytest.mark.control("LIN-05")
def test_a_job_is_found_by_what_it_was_given_and_what_it_reached(workshop: Workshop) -> None:
    client = workshop.sagemaker
    name = workshop.train("print('acc=0.9')", Tags=[{"Key": "team", "Value": "red"}])
    other = workshop.train("print('acc=0.4')")
    for one in (name, other):
        assert workshop.trained(one)["TrainingJobStatus"] == "Completed"
    good = _is("Metrics.acc", "GreaterThan", "0.5")
    assert _names(client, {"Filters": [good, _is("HyperParameters.lr", value="0.1")]}, "TrainingJob") == [name]
    assert _names(client, {"Filters": [_is("Tags.team", value="red")]}, "TrainingJob") == [name]
    nested = {
        "NestedPropertyName": "InputDataConfig",
        "Filters": [
            _is("InputDataConfig.ChannelName", value="train"),
            _is("InputDataConfig.DataSource.S3DataSource.S3Uri", "Contains", workshop.bucket),
        ],
    }
    assert set(_names(client, {"NestedFilters": [nested]}, "TrainingJob")) == {name, other}
    nested["Filters"][0]["Value"] = "validation"
    assert _names(client, {"NestedFilters": [nested]}, "TrainingJob") == []
    [found] = client.search(Resource="TrainingJob", SearchExpression={"Filters": [_is("TrainingJobName", value=name)]})[
        "Results"
    ]
    assert found["TrainingJob"]["TrainingJobArn"].endswith(name) and found["TrainingJob"]["Tags"]
    assert found["TrainingJob"]["FinalMetricDataList"][0]["Value"] == pytest.approx(0.9)
    best = client.search(
        Resource="ExperimentTrialComponent",
        SearchExpression={"Filters": [_is("Metrics.acc.Max", "GreaterThan", "0.5")]},
    )["Results"]
    assert [one["TrialComponent"]["TrialComponentName"] for one in best] == [f"{name}-aws-training-job"]
    # As the SDK's documentation writes them.
    alike = client.search(Resource="ExperimentTrialComponent", SortBy="metrics.acc.max", SortOrder="Ascending")[
        "Results"
    ]
    assert [one["TrialComponent"]["TrialComponentName"].partition("-aws-")[0] for one in alike] == [other, name]
    given = {"Filters": [_is("parameters.lr", value="0.1"), _is("metrics.acc.max", "LessThan", "0.5")]}
    assert _names(client, given, "ExperimentTrialComponent") == [f"{other}-aws-training-job"]
    hints = client.get_search_suggestions(
        Resource="TrainingJob", SuggestionQuery={"PropertyNameQuery": {"PropertyNameHint": "HyperParameters.l"}}
    )["PropertyNameSuggestions"]
    assert hints == [{"PropertyName": "HyperParameters.lr"}]


def test_models_groups_and_endpoints_are_searched_alike(account: Account) -> None:
    client = account.client("sagemaker")
    client.create_model_package_group(ModelPackageGroupName="g", Tags=[{"Key": "team", "Value": "red"}])
    wanted = {"Filters": [_is("ModelPackageGroupName", value="g")]}
    [found] = client.search(Resource="ModelPackageGroup", SearchExpression=wanted)["Results"]
    assert found["ModelPackageGroup"]["ModelPackageGroupStatus"] == "Completed"
    for resource in ("Model", "Endpoint", "ModelPackage", "Experiment", "ExperimentTrial"):
        assert client.search(Resource=resource)["Results"] == []
