"""Buildspecs, version 0.2: read from a stranger's YAML, every key known, or refused in words.

Scalars are texts, whatever YAML would make of them; aliases never unfold. Source: CodeBuild User Guide, "Build
specification reference".
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

PHASES: Final = ("install", "pre_build", "build", "post_build")
MOST_BYTES: Final = 1 << 20
_MOST_NODES: Final = 20_000
_DEEPEST: Final = 16
_MOST_PATTERNS: Final = 200
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")
_IDENTIFIER: Final = re.compile(r"[A-Za-z0-9_]{1,128}")
_LOADER: Final = getattr(yaml, "CLoader", yaml.Loader)
PYTHON: Final = f"{sys.version_info[0]}.{sys.version_info[1]}"
"""The release of Python in the environment that Bastide brings."""
FORMATS: Final = {
    "JUNITXML": "TEST",
    "COBERTURAXML": "CODE_COVERAGE",
}


class Wrong(Exception):  # noqa: N818
    """What is wrong with a buildspec, in a sentence."""


@dataclass(frozen=True, slots=True)
class Phase:
    """commands, at_last (`finally`): in their order. failing: what a failure leads to, ABORT or CONTINUE, or empty."""

    name: str
    commands: tuple[str, ...] = ()
    at_last: tuple[str, ...] = ()
    failing: str = ""


@dataclass(frozen=True, slots=True)
class Artifact:
    """files: patterns. base: a folder, a pattern. name: what the build calls it, a text for a shell."""

    files: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    base: str = ""
    name: str = ""
    flat: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """files: patterns. format: of `FORMATS`."""

    group: str
    files: tuple[str, ...]
    base: str = ""
    flat: bool = False
    format: str = "JUNITXML"


@dataclass(frozen=True, slots=True)
class Buildspec:
    """What a build is to do. parameters, secrets: names of variables, and where their values are kept."""

    shell: str = "sh"
    variables: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    exported: tuple[str, ...] = ()
    phases: tuple[Phase, ...] = ()
    runtimes: Mapping[str, str] = field(default_factory=dict)
    artifacts: Artifact | None = None
    secondary: Mapping[str, Artifact] = field(default_factory=dict)
    reports: tuple[Report, ...] = ()
    cache: tuple[str, ...] = ()


def read(text: str) -> Buildspec:
    """The buildspec that a text holds; raises Wrong."""
    if len(text.encode("utf-8", "surrogatepass")) > MOST_BYTES:
        raise Wrong(f"the buildspec is longer than {MOST_BYTES} bytes")
    try:
        told = _tree(text)
    except (yaml.YAMLError, UnicodeError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        raise Wrong(f"the buildspec is no well-formed YAML{where}") from None
    top = _mapping(told, "the buildspec", (
        "version", "run-as", "env", "proxy", "batch", "phases", "reports", "artifacts", "cache",
    ))  # fmt: skip
    if top.get("version") != "0.2":
        raise Wrong(f"version is {top.get('version')!s:.20}: Bastide runs version 0.2")
    for name in ("batch", "run-as", "proxy"):
        if name in top:
            raise Wrong(f"{name} is not supported by Bastide")
    phases = _mapping(top.get("phases"), "phases", PHASES)
    if not phases:
        raise Wrong("phases are needed")
    artifacts, secondary = _artifacts(top.get("artifacts"))
    return Buildspec(
        **_env(top.get("env")),
        phases=tuple(_phase(name, phases[name]) for name in PHASES if name in phases),
        runtimes=_runtimes(phases.get("install")),
        artifacts=artifacts,
        secondary=secondary,
        reports=_reports(top.get("reports")),
        cache=_cache(top.get("cache")),
    )


# -- YAML ----------------------------------------------------------------------------------------------------------------


def _tree(text: str) -> Any:
    """Built from the parser's events, one after the other, so that neither depth nor aliases cost anything."""
    stack: list[tuple[Any, list[str]]] = []
    found: Any = None
    nodes = documents = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise Wrong("the buildspec is more than one YAML document")
            continue
        if isinstance(event, yaml.AliasEvent):
            raise Wrong("the buildspec has YAML aliases, which Bastide does not unfold")
        if isinstance(event, yaml.ScalarEvent):
            value: Any = event.value
            if not event.style and value in ("", "~", "null"):
                value = None
            if stack and isinstance(stack[-1][0], dict) and not stack[-1][1]:
                if event.value in stack[-1][0]:
                    raise Wrong(f"the key {event.value[:64]} stands twice in one mapping")
                stack[-1][1].append(event.value)
                continue
        elif isinstance(event, yaml.CollectionStartEvent):
            if len(stack) >= _DEEPEST:
                raise Wrong(f"the buildspec is nested deeper than {_DEEPEST} levels")
            if stack and isinstance(stack[-1][0], dict) and not stack[-1][1]:
                raise Wrong("a key of a mapping must be a text")
            stack.append(({} if isinstance(event, yaml.MappingStartEvent) else [], []))
            continue
        elif isinstance(event, yaml.CollectionEndEvent):
            value = stack.pop()[0]
        else:
            continue
        nodes += 1
        if nodes > _MOST_NODES:
            raise Wrong(f"the buildspec has more than {_MOST_NODES} values")
        if not stack:
            found = value
        elif isinstance(stack[-1][0], list):
            stack[-1][0].append(value)
        else:
            stack[-1][0][stack[-1][1].pop()] = value
    return found


def _mapping(value: Any, what: str, known: tuple[str, ...] | None = None) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Wrong(f"{what} must be a mapping")
    if known is not None and (strange := [one for one in value if one not in known]):
        raise Wrong(f"{what}: {strange[0][:64]} is not known; there are {', '.join(known)}")
    return value


def _texts(value: Any, what: str) -> tuple[str, ...]:
    if value is None:
        return ()
    held = value if isinstance(value, list) else [value]
    if not all(isinstance(one, str) for one in held):
        raise Wrong(f"{what}: expected a list of texts; a command with `: ` in it wants quotes around it")
    if any("\0" in one for one in held):
        raise Wrong(f"{what}: a zero byte in it")
    return tuple(held)


def _text(value: Any, what: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or "\0" in value:
        raise Wrong(f"{what} must be a text")
    return value


def _flag(value: Any, what: str) -> bool:
    text = _text(value, what).lower()
    if text not in ("", "yes", "no", "true", "false"):
        raise Wrong(f"{what} is yes or no")
    return text in ("yes", "true")


# -- parts ---------------------------------------------------------------------------------------------------------------


def _env(value: Any) -> dict[str, Any]:
    told = _mapping(value, "env", (
        "shell", "variables", "parameter-store", "secrets-manager", "exported-variables", "git-credential-helper",
    ))  # fmt: skip
    shell = _text(told.get("shell"), "env/shell") or "sh"
    if shell not in ("sh", "bash", "/bin/sh", "/bin/bash"):
        raise Wrong(f"env/shell {shell[:40]} is not supported by Bastide; there are sh and bash")
    found: dict[str, Any] = {"shell": shell.rpartition("/")[2]}
    for name, member in (("variables", "variables"), ("parameters", "parameter-store"), ("secrets", "secrets-manager")):
        pairs = _mapping(told.get(member), f"env/{member}")
        for key, one in pairs.items():
            if _VARIABLE.fullmatch(key) is None:
                raise Wrong(f"env/{member}: {key[:64]} cannot be the name of a variable")
            pairs[key] = _text(one, f"env/{member}/{key}")
        found[name] = pairs
    found["exported"] = _texts(told.get("exported-variables"), "env/exported-variables")
    for one in found["exported"]:
        if _VARIABLE.fullmatch(one) is None or one.startswith("AWS_"):
            raise Wrong(f"env/exported-variables: {one[:64]} cannot be exported")
    return found


def _phase(name: str, value: Any) -> Phase:
    told = _mapping(value, f"phases/{name}", ("run-as", "on-failure", "runtime-versions", "commands", "finally"))
    if "run-as" in told:
        raise Wrong(f"phases/{name}/run-as is not supported by Bastide")
    failing = _text(told.get("on-failure"), f"phases/{name}/on-failure").upper()
    if failing not in ("", "ABORT", "CONTINUE"):
        raise Wrong(
            f"phases/{name}/on-failure {failing[:40]} is not supported by Bastide; there are ABORT and CONTINUE"
        )
    if name != "install" and "runtime-versions" in told:
        raise Wrong(f"phases/{name}: runtime-versions stand in install")
    commands = _texts(told.get("commands"), f"phases/{name}/commands")
    at_last = _texts(told.get("finally"), f"phases/{name}/finally")
    if not commands and "runtime-versions" not in told:
        raise Wrong(f"phases/{name}: commands are needed")
    return Phase(name, commands, at_last, failing)


def _runtimes(value: Any) -> dict[str, str]:
    told = _mapping((value or {}).get("runtime-versions") if isinstance(value, dict) else None, "runtime-versions")
    found = {}
    for name, one in told.items():
        wanted = _text(one, f"runtime-versions/{name}")
        if name != "python":
            raise Wrong(
                f"Unknown runtime named '{name[:40]}'. This build image has the following runtimes: python {PYTHON}"
            )
        if wanted not in ("latest", "3.x", PYTHON):
            raise Wrong(
                f"Unknown runtime version named '{wanted[:40]}' of python. This build image has the following versions: "
                f"{PYTHON}"
            )
        found[name] = PYTHON
    return found


def pattern(given: str, what: str) -> str:
    """A pattern of paths that lead nowhere but below where it begins; raises Wrong."""
    text = given.removeprefix("./")
    if text.startswith("/") or ".." in text.split("/"):
        raise Wrong(f"{what}: {given[:200]} leads out of the folder of the source")
    return text


def _patterns(told: Mapping[str, Any], member: str, what: str) -> tuple[str, ...]:
    found = tuple(pattern(one, f"{what}/{member}") for one in _texts(told.get(member), f"{what}/{member}"))
    if len(found) > _MOST_PATTERNS:
        raise Wrong(f"{what}/{member}: there are more than {_MOST_PATTERNS} patterns")
    return found


_ARTIFACT: Final = (
    "files", "name", "discard-paths", "base-directory", "exclude-paths", "enable-symlinks", "s3-prefix",
    "secondary-artifacts",
)  # fmt: skip


def _artifact(value: Any, what: str) -> Artifact:
    told = _mapping(value, what, _ARTIFACT)
    if _flag(told.get("enable-symlinks"), f"{what}/enable-symlinks"):
        raise Wrong(f"{what}/enable-symlinks is not supported by Bastide: links are left out")
    if told.get("s3-prefix"):
        raise Wrong(f"{what}/s3-prefix is not supported by Bastide")
    return Artifact(
        _patterns(told, "files", what),
        _patterns(told, "exclude-paths", what),
        pattern(_text(told.get("base-directory"), f"{what}/base-directory"), f"{what}/base-directory").rstrip("/"),
        _text(told.get("name"), f"{what}/name"),
        _flag(told.get("discard-paths"), f"{what}/discard-paths"),
    )


def _artifacts(value: Any) -> tuple[Artifact | None, dict[str, Artifact]]:
    if value is None:
        return None, {}
    told = _mapping(value, "artifacts", _ARTIFACT)
    first = _artifact(value, "artifacts")
    further = {}
    for name, one in _mapping(told.get("secondary-artifacts"), "artifacts/secondary-artifacts").items():
        what = f"artifacts/secondary-artifacts/{name[:64]}"
        if _IDENTIFIER.fullmatch(name) is None:
            raise Wrong(f"{what}: an identifier has letters, digits and underscores")
        further[name] = _artifact(one, what)
        if not further[name].files:
            raise Wrong(f"{what}: files are needed")
    if not first.files and not further:
        raise Wrong("artifacts: files are needed")
    return first if first.files else None, further


def _reports(value: Any) -> tuple[Report, ...]:
    found = []
    for group, one in _mapping(value, "reports").items():
        what = f"reports/{group[:64]}"
        told = _mapping(one, what, ("files", "base-directory", "discard-paths", "file-format"))
        kind = _text(told.get("file-format"), f"{what}/file-format").upper() or "JUNITXML"
        if kind not in FORMATS:
            raise Wrong(f"{what}/file-format {kind[:40]} is not supported by Bastide; there are {', '.join(FORMATS)}")
        files = _patterns(told, "files", what)
        if not files:
            raise Wrong(f"{what}: files are needed")
        base = pattern(_text(told.get("base-directory"), f"{what}/base-directory"), f"{what}/base-directory")
        found.append(
            Report(group, files, base.rstrip("/"), _flag(told.get("discard-paths"), f"{what}/discard-paths"), kind)
        )
    return tuple(found)


def _cache(value: Any) -> tuple[str, ...]:
    told = _mapping(value, "cache", ("key", "fallback-keys", "action", "paths"))
    for name in ("key", "fallback-keys", "action"):
        if told.get(name):
            raise Wrong(f"cache/{name} is not supported by Bastide")
    return _patterns(told, "paths", "cache")
