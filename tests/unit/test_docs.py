"""The walks in docs/ name files and names that exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_STEP = re.compile(r"^\| [^|]+ \| `([^`]+)` \|(?: `([^`]+)`)? ?\|$", re.MULTILINE)


_WALKS = [
    "request.md",
    "job.md",
    "network.md",
    "access.md",
    "tuning.md",
    "debugger.md",
    "functions.md",
    "pipelines.md",
    "landing.md",
]


@pytest.mark.parametrize("page", _WALKS)
def test_every_step_names_a_file_and_a_name_in_it(page: str) -> None:
    steps = _STEP.findall((ROOT / "docs" / page).read_text())
    assert len(steps) >= 8
    for file, name in steps:
        text = (ROOT / file).read_text()
        assert not name or re.search(rf"\b{name}\b", text), f"{page}: `{name}` is not in {file}"


def test_documents_point_to_files_that_exist() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for found in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / found).exists(), f"{page.name} links to {found}, which is not there"


def test_every_make_target_of_the_readme_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`make ([a-z]+)", (ROOT / "README.md").read_text())):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"the README names `make {target}`"


def test_locks_carry_no_index_address() -> None:
    for lock in [*ROOT.glob("requirements*.lock"), *(ROOT / "src").rglob("*.lock"), *(ROOT / "tests").rglob("*.lock")]:
        text = lock.read_text()
        assert "--hash=sha256:" in text, lock
        assert "index-url" not in text and "://" not in text, lock


def test_the_pages_of_the_services_are_those_of_the_registry() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "docs.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
