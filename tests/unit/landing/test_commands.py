"""The commands that need no platform."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from bastide.commands.cli import cli
from bastide.landing.blueprint import default, guardrail_names, parse
from bastide.landing.proactive import RULES
from bastide.landing.rendering import rendered


def _run(*words: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(cli, ["landing", *words], env={"COLUMNS": "250"})
    return done.exit_code, done.stdout, done.stderr


def test_a_file_to_begin_with_and_its_templates(tmp_path: Path) -> None:
    file, folder = tmp_path / "landing.yaml", tmp_path / "templates"
    nowhere = ("--data", str(tmp_path / "nowhere"))
    assert _run("init", str(file), *nowhere)[0] == 0
    code, _, why = _run("init", str(file), *nowhere)
    assert code == 1 and "--force writes over it" in why
    assert _run("init", str(file), "--force", *nowhere)[0] == 0
    code, told, _ = _run("render", str(file), str(folder))
    assert code == 0
    written = [json.loads(path.read_text()) for path in sorted(folder.iterdir())]
    assert written == [one.template for one in rendered(parse(default()))] and len(told.splitlines()) == len(written)


def test_an_example_for_a_team(tmp_path: Path) -> None:
    file = tmp_path / "landing.yaml"
    _run("init", str(file), "--data", str(tmp_path / "nowhere"))
    code, _, why = _run("example", str(file), "nobody", str(tmp_path / "code"))
    assert code == 1 and "there is no team nobody; there are mortgage" in why
    code, told, _ = _run("example", str(file), "mortgage", str(tmp_path / "code"))
    assert code == 0 and len(told.splitlines()) == 4
    tags = json.loads((tmp_path / "code" / "serve.json").read_text())["Tags"]
    assert tags == {"owner": "mortgage", "environment": "production", "project": "mortgage"}
    assert "<" not in (tmp_path / "code" / "serve.yaml").read_text().replace("Value<", "")


def test_rules_are_listed_those_that_are_off_too(tmp_path: Path) -> None:
    file = tmp_path / "landing.yaml"
    code, told, _ = _run("rules", str(file))
    assert code == 0 and all(name in told for name in (*guardrail_names(), *RULES))
    _run("init", str(file), "--data", str(tmp_path / "nowhere"))
    file.write_text(file.read_text().replace("guardrails: {}", "guardrails: {vpc-only: off}"))
    told = _run("rules", str(file))[1]
    assert [line.split("│")[2].strip() for line in told.splitlines() if " vpc-only " in line] == ["off"]


def test_what_cannot_be_read_is_told_in_a_sentence(tmp_path: Path) -> None:
    code, _, why = _run("plan", str(tmp_path / "none.yaml"), "--data", str(tmp_path))
    assert code == 1 and "none.yaml: cannot be read" in why
    for command in ("init", "plan", "apply", "drift", "destroy", "render", "rules"):
        code, told, _ = _run(command, "--help")
        assert code == 0 and "Usage:" in told
