"""Laws of API Gateway's paths: what is asked about is what is called, and the most exact resource answers."""

from __future__ import annotations

from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from bastide.protocol.calling import _place, is_call
from bastide.protocol.head import Head
from bastide.services.apigateway.calling import _rank, _variables
from bastide.services.servicecatalog.paths import _matches

PART = st.text(min_size=1, max_size=6).filter(lambda one: "/" not in one)
PARTS = st.lists(PART, min_size=1, max_size=5)
WORD = st.text("abc*?", min_size=1, max_size=6)


@given(PARTS)
def test_a_path_comes_as_it_was_written(parts: list[str]) -> None:
    path = "/" + "/".join(parts)
    try:
        raw = quote(path)
    except UnicodeEncodeError:  # half of a pair cannot be written
        return
    for head in (
        Head("GET", f"/restapis/abc/prod/_user_request_{raw}".encode(), [], {}, "localhost"),
        Head("GET", f"/prod{raw}".encode(), [], {}, "abc.execute-api.us-east-1.amazonaws.com"),
    ):
        assert is_call(head.host, head.raw_path)
        assert _place(head) == ("abc", "prod", path)


@given(PARTS, st.integers(0, 4))
def test_variables_put_back_are_the_path(parts: list[str], at: int) -> None:
    at = min(at, len(parts) - 1)
    plain = [one if "{" not in one and not one.endswith("}") else "x" for one in parts]
    one = "/" + "/".join([*plain[:at], "{v}", *plain[at + 1 :]])
    rest = "/" + "/".join([*plain[:at], "{v+}"])
    assert _variables(one, plain) == {"v": plain[at]}
    assert _variables(rest, plain) == {"v": "/".join(plain[at:])}
    exact = "/" + "/".join(plain)
    assert _variables(exact, plain) == {}
    assert _variables(exact, [*plain, "more"]) is None and _variables(exact, plain[:-1]) is None
    assert min((exact, one, rest), key=_rank) == exact
    assert _rank(one) < _rank(rest)


@given(WORD, WORD)
def test_a_principal_pattern_names_no_account_and_no_other_kind(pattern: str, name: str) -> None:
    own = f"arn:aws:iam::111122223333:role/{name}"
    found = _matches(f"arn:aws:iam:::role/{pattern}", own)
    assert found == _matches(f"arn:aws:iam:::role/{pattern}", own.replace("111122223333", "444455556666"))
    assert not _matches(f"arn:aws:iam:::user/{pattern}", own)
    assert _matches("arn:aws:iam:::role/*", own)
    if not set(pattern) & set("*?"):
        assert found == (pattern == name)
