"""Documents and requests that nobody meant well: the work stays in proportion, and what is refused is refused clearly.

Work is counted (calls of Python functions, searches for a piece of a pattern), not timed.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from re import _parser  # type: ignore[attr-defined]
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bastide.domain import Refused
from bastide.policy import Attached, Document, Form, Layers, Request, context, decide, matching
from bastide.policy.conditions import _DATE, _EPOCH, _KEY, _NUMBER
from bastide.policy.documents import _ACTION, LARGEST
from bastide.policy.principals import _ENTITY, _PROVIDER, _SERVICE
from bastide.policy.variables import template
from tests.unit.policy.asking import HOME, OBJECT, USER, allow, document

Json = dict[str, Any]


def calls(work: Callable[[], object]) -> int:
    """How many calls of Python functions some work takes."""
    count = 0

    def seen(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(seen)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def refused(source: Any, form: Form = Form.IDENTITY) -> str:
    with pytest.raises(Refused) as caught:
        Document.parse(source, form)
    assert caught.value.code == "MalformedPolicyDocument"
    assert len(caught.value.message) < 1000
    assert caught.value.message.isascii()
    return caught.value.message


def policies(*statements: Json, form: Form = Form.IDENTITY) -> Layers:
    held = Attached(Document.parse(document(*statements), form, max_bytes=2**30), "hostile")
    everything = Attached(Document.parse(document(allow()), Form.IDENTITY), "all")
    if form is Form.IDENTITY:
        return Layers((held,), None, None, None, (), ())
    return Layers((everything,), None, None, held, (), ())


def asked(resource: str = OBJECT, **keys: Any) -> Request:
    return Request(USER, "s3:GetObject", resource, HOME, context({f"aws:{key}": one for key, one in keys.items()}))


@pytest.mark.parametrize("form", list(Form))
def test_ten_megabytes_are_refused_unread(form: Form) -> None:
    text = document(*[allow("s3:GetObject", f"arn:aws:s3:::{index}/*") for index in range(130_000)])
    assert len(text) > 10_000_000
    assert calls(lambda: refused(text, form)) < 100
    assert f"longer than {LARGEST} bytes" in refused(text, form)
    assert "longer than" in refused(text.encode(), form)


@pytest.mark.parametrize(
    "deep",
    [
        "[" * 60_000,
        '{"Statement":' * 9_000,
        '{"Version":"2012-10-17","Statement":[{"Condition":' + '{"StringEquals":' * 5_000 + "1" + "}" * 5_001 + "]}",
        '{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":' + "[" * 900 + "]" * 900 + "}}",
    ],
    ids=["lists", "objects", "conditions", "actions"],
)
def test_deep_nesting_is_refused(deep: str) -> None:
    refused(deep)


@pytest.mark.parametrize("kind", ["statements", "actions", "resources", "values", "conditions", "principals", "names"])
def test_checking_and_deciding_take_work_in_proportion_to_the_document(kind: str) -> None:
    def statements(size: int) -> list[Json]:
        numbers = range(size)
        return {
            "statements": [allow("s3:*", f"arn:aws:s3:::*{index}*", Sid=f"S{index}") for index in numbers],
            "actions": [allow([f"s3:*{index}*" for index in numbers])],
            "resources": [allow("*", [f"arn:aws:s3:::*{index}*a*" for index in numbers])],
            "values": [allow(Condition={"StringLike": {"aws:a": [f"*{index}*" for index in numbers]}})],
            "conditions": [allow(Condition={"StringLike": {f"aws:a{index}": "*x*" for index in numbers}})],
            "principals": [allow(Principal={"AWS": f"arn:aws:iam::{HOME}:user/u{index}"}) for index in numbers],
            "names": [allow(Principal={"AWS": [f"arn:aws:iam::{HOME}:user/u{index}" for index in numbers]})],
        }[kind]

    form = Form.RESOURCE if kind in ("principals", "names") else Form.IDENTITY
    keys = {f"a{index}": "y" for index in range(40)} | {"a": "y"}

    def work(size: int) -> int:
        made = statements(size)
        return calls(
            lambda: [decide(asked("arn:aws:s3:::" + "a" * 500, **keys), policies(*made, form=form)) for _ in "ab"]
        )

    small, large = work(100), work(400)
    assert large < 4.6 * small, "four times the document is four times the work"


@pytest.mark.parametrize(
    "wanted", ["*a" * 600 + "b", "*a?" * 400 + "b", "a*" * 600 + "b", "*?" * 600 + "b", "?" * 900 + "b"]
)
@pytest.mark.parametrize("place", ["resource", "value", "action"])
def test_many_wildcards_take_a_search_a_piece(wanted: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    searches = 0
    find, stands = matching._find, matching._stands

    def counted(search: Callable[..., Any]) -> Callable[..., Any]:
        def one(*arguments: Any) -> Any:
            nonlocal searches
            searches += 1
            return search(*arguments)

        return one

    monkeypatch.setattr(matching, "_find", counted(find))
    monkeypatch.setattr(matching, "_stands", counted(stands))
    text = "a" * 4000
    statement = {
        "resource": allow("s3:*", f"arn:aws:s3:::{wanted}"),
        "value": allow(Condition={"StringLike": {"aws:userid": [wanted, "${aws:username}" + wanted]}}),
        "action": allow(f"s3:{wanted}"),
    }[place]
    held = policies(*[statement] * 30)
    request = asked(f"arn:aws:s3:::{text}", userid=text, username="a")
    request.action = f"s3:{text}"
    assert not decide(request, held).allowed
    assert searches <= 30 * 2 * (wanted.count("*") + 2)


def test_no_piece_of_a_pattern_repeats_anything() -> None:
    """A piece is of fixed width, so that its regular expression never goes back over what it has read."""
    pieces: list[re.Pattern[str]] = []
    compiled = re.compile
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matching.re, "compile", lambda *given: pieces.append(compiled(*given)) or pieces[-1])
        for wanted in ("a?b*c?", "*?+?(x)*", "??*[a-z]?{9,}*.?"):
            matching.plain_pattern(template(wanted, "", variables=False, wildcards=True))
    assert len(pieces) >= 5
    for piece in pieces:
        assert (
            _parser.parse(piece.pattern, piece.flags).getwidth()[0]
            == _parser.parse(piece.pattern, piece.flags).getwidth()[1]
        )


LONG = 100_000


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (_SERVICE, "a." * LONG + "!"), (_SERVICE, "a-" * LONG), (_SERVICE, "." * LONG), (_PROVIDER, "a." * LONG + "!"),
        (_PROVIDER, "arn:aws" + "-" * LONG), (_ENTITY, f"arn:aws:sts::{HOME}:assumed-role/" + "a" * LONG),
        (_KEY, "a/" * LONG + "!"), (_KEY, "a:" + "b" * LONG + "\n"), (_KEY, "a:" + "/" * LONG + "\n"),
        (_ACTION, "a-" * LONG), (_ACTION, "a:" + "b" * LONG + " "), (_NUMBER, "1" * LONG), (_DATE, "2" * LONG),
        (_EPOCH, "1." * LONG),
    ],
)  # fmt: skip
def test_no_form_of_a_name_is_slow_to_refuse(form: re.Pattern[str], text: str) -> None:
    """With time that grows with the square these would take minutes, longer than the whole suite may."""
    assert form.fullmatch(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "${${aws:username}}", "${aws:${aws:username}}", "${aws:username, '${aws:userid}'}", "${" * 5000, "${aws:username",
        "${}", "${ }", "${:}", "${aws:username,}", "${aws:username, 'a', 'b'}", "${aws:username}${",
        "${aws:user\u200bname}", "${**}", "${aws:a b}",
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", ["resource", "value"])
def test_variables_are_not_nested_and_end(text: str, place: str) -> None:
    if place == "resource":
        statement = allow("s3:*", f"arn:aws:s3:::{text}")
    else:
        statement = allow(Condition={"StringLike": {"aws:userid": text}})
    refused(document(statement))


def test_what_a_variable_brings_is_not_looked_into_again() -> None:
    held = policies(allow("s3:*", "arn:aws:s3:::${aws:username}"))
    assert not decide(asked("arn:aws:s3:::ann", username="${aws:userid}", userid="ann"), held).allowed
    assert decide(asked("arn:aws:s3:::${aws:userid}", username="${aws:userid}", userid="ann"), held).allowed


@pytest.mark.parametrize(
    ("statement", "form"),
    [
        (allow("\u04553:GetObject"), Form.IDENTITY),
        (allow("s3\uff1aGetObject"), Form.IDENTITY),
        (allow("s3:Get\u041ebject"), Form.IDENTITY),
        (allow("s3:GetObject\u200b"), Form.IDENTITY),
        (allow("\uff0a"), Form.IDENTITY),
        (allow("*", "\uff0a"), Form.IDENTITY),
        (allow("*", "\u0430rn:aws:s3:::b"), Form.IDENTITY),
        ({**allow(), "Effect": "\u0410llow"}, Form.IDENTITY),
        ({**allow(), "\u0415ffect": "Deny"}, Form.IDENTITY),
        (allow(Condition={"String\u0415quals": {"aws:username": "x"}}), Form.IDENTITY),
        (allow(Condition={"StringEquals": {"aws:u\u0455ername": "x"}}), Form.IDENTITY),
        (allow(Condition={"StringEquals": {"\u0430ws:username": "x"}}), Form.IDENTITY),
        (allow(Condition={"NumericEquals": {"s3:max-keys": "\u0661"}}), Form.IDENTITY),
        (allow(Condition={"Bool": {"aws:SecureTransport": "tru\u0435"}}), Form.IDENTITY),
        (allow(Condition={"IpAddress": {"aws:SourceIp": "\uff11\uff10.0.0.1"}}), Form.IDENTITY),
        (allow(Principal={"AWS": "\uff11" * 12}), Form.RESOURCE),
        (allow(Principal={"AWS": "\uff0a"}), Form.RESOURCE),
        (allow(Principal={"Service": "s\u0430gemaker.amazonaws.com"}), Form.RESOURCE),
        (allow(Principal={"AWS": f"arn:aws:iam::{HOME}:user/\u0430nn"}), Form.RESOURCE),
    ],
)
def test_letters_that_look_alike_are_not_the_same(statement: Json, form: Form) -> None:
    refused(json.dumps({"Version": "2012-10-17", "Statement": statement}, ensure_ascii=False), form)


def test_values_that_look_alike_do_not_match() -> None:
    held = policies(
        allow("s3:*", "arn:aws:s3:::bucket/*", Condition={"StringEqualsIgnoreCase": {"aws:username": "scope"}}),
    )
    assert decide(asked("arn:aws:s3:::bucket/x", username="SCOPE"), held).allowed
    assert not decide(asked("arn:aws:s3:::bucket/x", username="\u0455cope"), held).allowed
    assert not decide(asked("arn:aws:s3:::buc\u212aet/x", username="scope"), held).allowed


TEXTS = st.text(max_size=30) | st.sampled_from(
    (
        "",
        "*",
        "arn:",
        "arn:aws:s3:::x",
        "::::::",
        "\x00",
        "${aws:username}",
        "\ud800",
        "0",
        "1e400",
        "nan",
        "::",
        "10.0.0.0/8",
    )
)
KEYS = st.sampled_from(("username", "SourceIp", "CurrentTime", "SecureTransport", "PrincipalArn", "n", "TagKeys"))
CONDITIONS = {
    "StringLike": {"aws:username": ["*a*", "${aws:n}"]},
    "StringNotEqualsIgnoreCase": {"aws:username": "A"},
    "IpAddressIfExists": {"aws:SourceIp": ["10.0.0.0/8", "2001:db8::/32"]},
    "DateLessThanIfExists": {"aws:CurrentTime": "2026-01-01"},
    "BoolIfExists": {"aws:SecureTransport": "true"},
    "ArnLikeIfExists": {"aws:PrincipalArn": ["arn:aws:iam::*:role/*", "arn:${aws:n}"]},
    "NumericLessThanIfExists": {"aws:n": "10"},
    "BinaryEqualsIfExists": {"aws:n": "eA=="},
    "ForAllValues:StringNotLike": {"aws:TagKeys": ["*"]},
}
EACH = [
    {"Effect": effect, "Action": "*", "Resource": ["arn:aws:s3:::${aws:n}*", "arn:*"], "Condition": {operator: block}}
    for effect in ("Allow", "Deny")
    for operator, block in CONDITIONS.items()
]


@given(TEXTS, TEXTS, st.dictionaries(KEYS, TEXTS | st.lists(TEXTS, max_size=3)))
@example("", "", {})
def test_whatever_is_asked_is_decided(action: str, resource: str, keys: Json) -> None:
    held = policies(*EACH)
    request = Request(USER, action, resource, HOME, context({f"aws:{key}": one for key, one in keys.items()}))
    decisions = {decide(request, held) for _ in range(30)}
    assert len(decisions) == 1, "the same as long as the statements are tried and when they have become a function"
