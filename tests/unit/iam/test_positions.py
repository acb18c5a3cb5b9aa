"""Where statements stand, however the document is written."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bastide.services.iam.positions import statements

TEXTS = st.text(alphabet=st.sampled_from('abc{}[],:"\\ \n\té€'), max_size=12)
STATEMENTS = st.dictionaries(TEXTS, TEXTS | st.lists(TEXTS, max_size=3), max_size=3)


@given(st.lists(STATEMENTS, min_size=1, max_size=4), st.sampled_from([None, 0, 2, 4]), st.booleans(), st.booleans())
def test_what_stands_there_is_the_statement(
    listed: list[dict[str, Any]], indent: int | None, first: bool, single: bool
) -> None:
    held: Any = listed[0] if single else listed
    document = {"Statement": held, "Version": "2012-10-17"} if first else {"Id": "]}", "Statement": held}
    text = json.dumps(document, indent=indent, ensure_ascii=False)
    lines = text.split("\n")
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    found = statements(text)
    assert len(found) == (1 if single else len(listed))
    for ((line, column), (end_line, end_column)), wanted in zip(found, listed, strict=False):
        part = text[starts[line - 1] + column - 1 : starts[end_line - 1] + end_column]
        assert part[0] == "{" and json.loads(part) == wanted


def test_as_aws_counts() -> None:
    # The example of the CLI reference, "simulate-custom-policy", with the list that AWS makes of a single statement.
    text = (
        '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"dynamodb:*","Resource":"*","Condition":'
        '{"DateGreaterThan":{"aws:CurrentTime":"2018-08-16T12:00:00Z"}}}]}'
    )
    assert statements(text) == (((1, 38), (1, 167)),)
