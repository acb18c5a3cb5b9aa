"""The groups that a package belongs to are found by how its path begins, whatever their number: the same as by looking at
all of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bastide.services.codeartifact import group
from bastide.services.codeartifact.noun import GROUP, group_name
from bastide.store import Row

WORDS = st.text("ab-.", min_size=0, max_size=4)
PATHS = st.builds(
    "/{}/{}/{}".format, st.sampled_from(("pypi", "generic")), WORDS, st.text("ab-.", min_size=1, max_size=6)
)
PATTERNS = st.builds(
    lambda path, cut, how: path[: max(1, cut)] + how, PATHS, st.integers(1, 20), st.sampled_from("*~$")
)


@given(st.sets(PATTERNS, max_size=12), PATHS, st.sampled_from("*~$"))
def test_a_packages_groups_are_all_that_cover_it(patterns: set[str], path: str, kind: str) -> None:
    rows = {one: Row(GROUP.key, "1", "r", group_name("d", one), {}) for one in {"/*", *patterns}}
    found = [group.group_pattern(row) for row in group._chain(rows, path, kind)]
    covering = [one for one in rows if group.covers(one, path, kind)]
    assert found == sorted(covering, key=lambda one: (len(one), "*~$".index(one[-1])), reverse=True)
