"""Laws of what is proposed: it lies in its range, the way back is the way there, a scale is a scale, a grid is whole."""

from __future__ import annotations

import asyncio
import itertools
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bastide.engines.tuning import Observation, Parameter, Space, count_of, propose

PLACES = st.floats(0, 1)
SEEDS = st.integers(0, 2**40)
ENDS = st.floats(-1e6, 1e6, allow_subnormal=False)
ORDERS = st.floats(1e-6, 1e6)


@st.composite
def parameters(draw: st.DrawFn) -> Parameter:
    kind = draw(
        st.sampled_from(["Linear", "Logarithmic", "ReverseLogarithmic", "Integer", "Log integer", "Categorical"])
    )
    if kind == "Categorical":
        return Parameter("c", "Categorical", values=tuple(draw(st.lists(st.text(max_size=3), min_size=1, unique=True))))
    if kind == "Integer":
        low = draw(st.integers(-1000, 1000))
        return Parameter.of("i", "Integer", str(low), str(low + draw(st.integers(1, 1000))), "Linear")
    if kind == "Log integer":
        low = draw(st.integers(1, 1000))
        return Parameter.of("i", "Integer", str(low), str(low + draw(st.integers(1, 100_000))), "Logarithmic")
    numbers = {"Linear": ENDS, "Logarithmic": ORDERS, "ReverseLogarithmic": st.floats(0, 0.999999)}[kind]
    low, high = sorted([draw(numbers), draw(numbers)])
    assume(high - low > 1e-9 * max(1.0, abs(high)))
    return Parameter.of("x", "Continuous", repr(low), repr(high), kind)


@given(parameters(), PLACES)
def test_every_place_is_a_value_of_the_range_and_is_found_again(parameter: Parameter, place: float) -> None:
    text = parameter.text(place)
    if parameter.type == "Categorical":
        assert text in parameter.values
    else:
        assert parameter.low <= float(text) <= parameter.high
        assert parameter.type == "Continuous" or text == str(int(text))
    back = parameter.place(text)
    assert back is not None
    again = parameter.text(back)
    assert again == text or math.isclose(float(again), float(text), rel_tol=1e-6, abs_tol=1e-9)


@given(parameters())
def test_both_ends_belong_to_the_range(parameter: Parameter) -> None:
    if parameter.type == "Categorical":
        assert {parameter.text((n + 0.5) / len(parameter.values)) for n in range(len(parameter.values))} == set(
            parameter.values
        )
        return
    for place, end in ((0.0, parameter.low), (1.0, parameter.high)):
        assert math.isclose(float(parameter.text(place)), end, rel_tol=1e-9, abs_tol=1e-9)


@given(ORDERS, st.floats(2, 1e6), PLACES, PLACES)
def test_equal_steps_are_equal_factors_on_a_logarithmic_scale(
    low: float, factor: float, first: float, step: float
) -> None:
    parameter = Parameter.of("x", "Continuous", repr(low), repr(low * factor), "Logarithmic")
    step *= (1 - first) / 2
    a, b, c = (float(parameter.text(first + step * turn)) for turn in range(3))
    assert math.isclose(b / a, c / b, rel_tol=1e-9)
    assert math.isclose(b / a, factor**step, rel_tol=1e-9)


@given(st.floats(0, 0.9), PLACES, PLACES)
def test_equal_steps_are_equal_factors_of_what_is_left_on_a_reverse_one(low: float, first: float, step: float) -> None:
    parameter = Parameter.of("x", "Continuous", repr(low), "0.9999", "ReverseLogarithmic")
    step *= (1 - first) / 2
    a, b, c = (1 - float(parameter.text(first + step * turn)) for turn in range(3))
    assert math.isclose(b / a, c / b, rel_tol=1e-6)


def test_whole_numbers_are_equally_likely() -> None:
    parameter = Parameter.of("i", "Integer", "1", "4", "Linear")
    found = [parameter.text((n + 0.5) / 4000) for n in range(4000)]
    assert {text: found.count(text) for text in "1234"} == dict.fromkeys("1234", 1000)


def test_auto_is_logarithmic_for_ranges_of_many_orders_of_magnitude() -> None:
    assert Parameter.of("x", "Continuous", "0.0001", "1").scaling == "Logarithmic"
    assert Parameter.of("x", "Continuous", "0", "1").scaling == "Linear"
    assert Parameter.of("x", "Continuous", "1", "10").scaling == "Linear"


@pytest.mark.parametrize(
    ("type", "low", "high", "scaling"),
    [
        ("Continuous", "a", "1", "Auto"),
        ("Integer", "0.5", "1", "Auto"),
        ("Continuous", "1", "1", "Auto"),
        ("Continuous", "nan", "1", "Auto"),
        ("Continuous", "0", "inf", "Auto"),
        ("Continuous", "0", "1", "Logarithmic"),
        ("Continuous", "0", "1", "ReverseLogarithmic"),
        ("Integer", "0", "1", "ReverseLogarithmic"),
        ("Integer", "0", str(2**60), "Auto"),
    ],
)
def test_ranges_that_are_none(type: str, low: str, high: str, scaling: str) -> None:
    with pytest.raises(ValueError, match="p"):
        Parameter.of("p", type, low, high, scaling)  # type: ignore[arg-type]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), SEEDS)
def test_a_grid_is_every_combination_once(sizes: list[int], seed: int) -> None:
    space = Space(
        [Parameter(f"p{n}", "Categorical", values=tuple(map(str, range(size)))) for n, size in enumerate(sizes)]
    )
    found = [
        tuple(asyncio.run(propose("Grid", space, seed, number, (), minimise=True)).values())
        for number in range(count_of(space))
    ]
    assert sorted(found) == sorted(itertools.product(*(map(str, range(size)) for size in sizes)))


@given(parameters(), SEEDS, st.integers(0, 20))
def test_the_same_seed_proposes_the_same(parameter: Parameter, seed: int, count: int) -> None:
    space = Space([parameter])

    def proposals() -> list[dict[str, str]]:
        made: list[Observation] = []
        for number in range(count):
            values = asyncio.run(propose("Random", space, seed, number, made, minimise=True))
            made.append(Observation(values))
        return [dict(one.values) for one in made]

    first = proposals()
    assert proposals() == first
    if parameter.type != "Categorical" or len(parameter.values) >= count * 20:
        distinct = {str(one) for one in first}
        room = parameter.type == "Continuous" or parameter.high - parameter.low > count * 20
        assert not room or len(distinct) == count
