"""What images may be built on, and the templates of the hierarchy: linted, valid, and off until it is asked for."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from bastide.landing.access import claims, landscape, steps
from bastide.landing.blueprint import DATA, Faulty, default, parse
from bastide.landing.imagery import roles
from bastide.landing.proactive import violations
from bastide.landing.rendering import INLINE, rendered
from tests.unit.landing.test_least_privilege import breaks

_BASE = "base/debian:v12"


@cache
def _text() -> str:
    """The default with the hierarchy on, and a second base and framework beside."""
    more = '    slim: {from: "public/alpine:3", line: v3}\n  framework:\n    r: {from: "base/slim:v3", line: v4.3}\n'
    return default().replace("  images: off ", "  images: on ").replace("  framework:\n", more)


def _program(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("REGISTRY", "registry.example")
    monkeypatch.setenv("FROM", f"{_BASE} framework/python:v3.11")
    found = importlib.util.spec_from_file_location("imagery", str(DATA / "imagery" / "imagery.py"))
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.mark.control("IMG-01", lacking="the build")
@pytest.mark.parametrize(
    "text",
    [
        "FROM debian:12",
        "FROM $OTHER/base/debian:v12",
        "FROM $REGISTRY/base/debian",
        "FROM $REGISTRY/base/debian:v11",
        "FROM $REGISTRY/base/debian:v12@sha256:00",
        "FROM registry.example/base/debian:v12",
        "FROM base/debian:v12",
        "FROM scratch",
        "FROM --platform=linux/amd64 debian",
        "from debian",
        "FROM \\\n debian",
        "FROM $REGISTRY/base/debian:v12\nFROM debian",
        "FROM $REGISTRY/base/debian:v12 AS one\nFROM two",
        "FROM $REGISTRY/base/debian:v12\nCOPY --from=debian /x /x",
        "FROM $REGISTRY/base/debian:v12\nCOPY --from=1 /x /x",
        "FROM $REGISTRY/base/debian:v12\nRUN --mount=type=bind,from=debian,target=/x true",
        "# escape=`\nFROM $REGISTRY/base/debian:v12",
        "# syntax=evil/frontend\nFROM $REGISTRY/base/debian:v12",
        "FROM $REGISTRY/base/debian:v12\nRUN x \\\n\nFROM debian",
        "RUN true",
        "",
    ],
)
def test_what_is_outside_of_the_hierarchy_is_not_built_on(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="refused: "):
        _program(monkeypatch).stands_on(text)


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("ARG REGISTRY\nFROM $REGISTRY/base/debian:v12\nRUN true", _BASE),
        ("FROM ${REGISTRY}/framework/python:v3.11 AS one", "framework/python:v3.11"),
        ("FROM $REGISTRY/base/debian:v12 AS one\nFROM one\nCOPY --from=one /x /x\nCOPY --from=0 /y /y", _BASE),
        ("FROM $REGISTRY/base/debian:v12 AS a\nFROM $REGISTRY/framework/python:v3.11\nCOPY --from=a /x /x",
         "framework/python:v3.11"),
    ],
)  # fmt: skip
def test_the_last_stage_says_what_an_image_stands_on(text: str, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _program(monkeypatch).stands_on(text) == base


def test_the_templates_are_fine(tmp_path: Path) -> None:
    blueprint = parse(_text())
    stacks = rendered(blueprint)
    landscape(stacks, blueprint)  # every policy is one
    assert violations(stacks, blueprint) == []
    files = []
    for one in stacks:
        if "imagery" in one.name:
            assert len(one.body.encode()) <= INLINE and "bastide" not in one.body.lower()
            files.append(tmp_path / f"{one.name}.json")
            files[-1].write_text(one.body)
    assert len(files) == 4
    lint = [str(Path(sys.executable).with_name("cfn-lint")), *map(str, files)]
    done = subprocess.run(lint, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not [one for one in rendered(parse(default())) if "imagery" in one.name]


def test_who_builds_images_can_do_that_and_nothing_else() -> None:
    """As `test_least_privilege.py` has it: each statement is needed by a step that it names, each claim is proved."""
    blueprint = parse(_text())
    world = landscape(rendered(blueprint), blueprint)
    known = [*roles(blueprint)]
    assert {name for name, _ in known} == {
        "ImagePipeline", "ImageRescanner", "Signatures", "ImageAges", "BuilderBase", "BuilderFramework", "BuilderMortgage"
    }  # fmt: skip
    found = [*steps(blueprint, world)]
    for name, entry in known:
        mine = [one for one in found if one.source == f"{name} in shared-services: part"]
        assert {one.sid for one in mine} == {one["Sid"] for one in entry["statements"]}
        assert [broken for one in mine if (broken := breaks(one, world))] == []
    for name in (*world.policies,):
        if ":repository/public/" in name or ":repository/base/" in name or ":repository/framework/" in name:
            mine = [one for one in found if one.source == world.policies[name].attached.source]
            assert {one.sid for one in mine} == {one["Sid"] for one in world.raw[mine[0].source]["Statement"]}, name
            assert [broken for one in mine if (broken := breaks(one, world))] == []
    mine = [one for one in claims(blueprint, world) if one.actor[0] in {name for name, _ in known}]
    assert len({one.actor for one in mine}) == len(known)
    assert [(one, proof) for one in mine if (proof := world.prove(one)).outcome != "proved"] == []


@pytest.mark.control("IMG-11", "IMG-12", lacking="of the templates; the pipelines run in the stories")
def test_each_image_is_rebuilt_when_what_it_stands_on_is_and_no_other() -> None:
    stacks = {one.name: one.template["Resources"] for one in rendered(parse(_text()))}
    frameworks = stacks["bank-landing-imagery-framework"]
    below = {name: one["Properties"] for name, one in frameworks.items() if name.startswith("Below")}
    told = {name: one["EventPattern"]["detail"] for name, one in below.items()}
    assert {name: one["repository-name"] for name, one in told.items()} == {
        "BelowFrameworkPython": ["base/debian"], "BelowFrameworkR": ["base/slim"],
    }  # fmt: skip
    assert all(one["image-tag"][0].startswith("v") for one in told.values())
    ages = [one for name, one in stacks["bank-landing-imagery-base"].items() if name.startswith("Age")]
    assert [one["Properties"]["ScheduleExpression"] for one in ages] == ["rate(28 days)"] * 2
    team = stacks["bank-landing-imagery-mortgage"]
    assert [name for name, one in team.items() if one["Type"] == "AWS::Events::Rule"] == ["Push"]


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ('"public/debian:12"', '"base/debian:v12"', "is not below public/"),
        ('"base/debian:v12"', '"base/other:v1"', "there is no base image base/other:v1"),
        ("line: v12", "line: latest", "is not a stable tag"),
        ("    debian: ", "    Debian: ", "an image's name has small letters"),
        ("  mortgage:\n", "  base:\n", "is a level of images"),
        ("stopAt: {base: [CRITICAL, HIGH]", "stopAt: {base: [BAD]", "is not a severity"),
    ],
)
def test_faults_of_the_hierarchy_are_told(before: str, after: str, why: str) -> None:
    assert before in default()
    with pytest.raises(Faulty, match=why):
        parse(default().replace(before, after))
