"""The program that a build runs: a shell script that takes the buildspec's commands one after the other, and says how far
it is in lines that begin with a mark.

Each command is a script of its own, in the shell that the buildspec names; variables and the folder that it leaves are
those of the next one, as on AWS. Whoever runs in the build can read the mark and write such lines: they tell of the build
itself and of nothing else, are taken in their order alone, and what cannot be is a line of the log.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bastide.services.codebuild.buildspec import Buildspec, Phase

HOME: Final = "/codebuild"
"""Where a build's own folder is seen inside."""
_TOOLS: Final = "/opt/environment"
_PREPARE: Final = f"""\
{_TOOLS}/bin/python3 -m venv --without-pip {HOME}/python || exit 125
for folder in {HOME}/python/lib/python*/site-packages; do
  echo {_TOOLS}/lib/"${{folder#{HOME}/python/lib/}}" > "$folder/tools.pth"
done
for tool in {_TOOLS}/bin/*; do
  name="${{tool##*/}}"
  case "$name" in python*|activate*|Activate*|aws*) continue;; esac
  if IFS= read -r first < "$tool" && [ "$first" = "#!{_TOOLS}/bin/python3" -o "$first" = "#!{_TOOLS}/bin/python" ]; then
    {{ echo "#!{HOME}/python/bin/python3"; tail -n +2 "$tool"; }} > {HOME}/python/bin/"$name"
    chmod 755 {HOME}/python/bin/"$name"
  fi
done
"""
"""What is installed goes into an environment of the build's own, over Bastide's, which nobody can change."""

_HISTORY: Final = f"""\
if [ -f {HOME}/output/history ] && command -v git > /dev/null; then
  git -c init.defaultBranch=main init -q .
  git remote add origin "$CODEBUILD_SOURCE_REPO_URL"
  git fetch -q {HOME}/output/history '+refs/heads/*:refs/remotes/origin/*' '+refs/tags/*:refs/tags/*'
  git reset -q "$CODEBUILD_RESOLVED_SOURCE_VERSION" && git checkout -q --detach
  rm -f {HOME}/output/history
fi
"""
"""A clone of the repository around the tree that is there; git reads the history in the build itself."""


def write(
    folder: Path, spec: Buildspec, mark: str, source: str, names: Sequence[tuple[str, str]], *, prepare: bool
) -> None:
    """Writes the scripts below `folder`, which is `HOME` inside. source: the folder to begin in, inside. names:
    identifiers, and what artifacts are called, for a shell to work out. prepare: in the environment that Bastide brings."""
    scripts = folder / "scripts"
    scripts.mkdir(mode=0o755)
    lines = ["#!/bin/sh", f"say() {{ printf '{mark} %s\\n' \"$*\"; }}"]
    if prepare:
        lines.append(_PREPARE)
    lines += [f"cd {shlex.quote(source)} || exit 125", _HISTORY, f"export -p > {HOME}/scripts/variables"]
    lines += [f"pwd > {HOME}/scripts/folder", "failed=0", "stop=0", "export CODEBUILD_BUILD_SUCCEEDING=1"]
    for number, phase in enumerate(spec.phases):
        lines += _phase(scripts, number, phase, spec.shell)
    lines.append("say out")
    told = [f". {HOME}/scripts/variables >/dev/null 2>&1"]
    told += [f'printf %s "${{{name}-}}" > {HOME}/scripts/exported{at}' for at, name in enumerate(spec.exported)]
    _put(scripts / "exported.sh", "\n".join(told) + "\n")
    lines.append(f"{spec.shell} {HOME}/scripts/exported.sh")
    for number, (_, text) in enumerate(names):
        own = scripts / f"name{number}.sh"
        _put(own, f'. {HOME}/scripts/variables >/dev/null 2>&1\nprintf %s "{text}" > {HOME}/scripts/named{number}\n')
        lines.append(f"{spec.shell} {HOME}/scripts/{own.name}")
    lines.append("exit 0")
    _put(scripts / "build.sh", "\n".join(lines) + "\n")


def _put(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    path.chmod(0o644)


def _phase(scripts: Path, number: int, phase: Phase, shell: str) -> list[str]:
    lines = [f"if [ $stop = 0 ]; then say begin {number}; result=0"]
    for which, command in enumerate((*phase.commands, *phase.at_last)):
        own = scripts / f"command{number}-{which}.sh"
        # As `.` reads it, a command may end its script; how it left the variables is kept all the same.
        _put(scripts / f"text{number}-{which}", command + "\n")
        _put(
            own,
            f". {HOME}/scripts/variables >/dev/null 2>&1\n"
            f'cd "$(cat {HOME}/scripts/folder)" || exit 1\n'
            "export CODEBUILD_BUILD_SUCCEEDING=$SUCCEEDING\n"
            "unset SUCCEEDING\n"
            f"trap 'export -p > {HOME}/scripts/variables; pwd > {HOME}/scripts/folder' EXIT\n"
            f"set -a\n. {HOME}/scripts/text{number}-{which}\n",
        )
        condition = "[ $result = 0 ]" if which < len(phase.commands) else "true"
        lines += [
            f"if {condition}; then say command {number} {which}",
            f"SUCCEEDING=$((1 - failed)) {shell} {HOME}/scripts/{own.name}; code=$?",
            f"say ended {number} {which} $code; [ $code = 0 ] || [ $result != 0 ] || result=$code; fi",
        ]
    lines.append(f"say end {number} $result; if [ $result != 0 ]; then failed=1;")
    goes_on = phase.failing == "CONTINUE" or (phase.name == "build" and not phase.failing)
    lines.append("true" if goes_on else "stop=1")
    lines.append("fi; fi")
    return lines


@dataclass(slots=True)
class Failure:
    """A command that failed: what it was, and how it ended."""

    command: str
    code: int


@dataclass
class Progress:
    """What a build's program has said: where it is, taken in its order alone. failures: of each phase, by its number."""

    spec: Buildspec
    mark: str
    phase: int = -1
    running: bool = False
    over: bool = False
    failures: dict[int, Failure] = field(default_factory=dict)
    _command: int = -1

    def hear(self, line: bytes) -> tuple[str, int, int] | None:
        """What a line says, if it is one of the program's and can be: ``begin``, ``end`` (with the result), ``command`` or
        ``ended`` and numbers; None for a line of the log."""
        start = self.mark.encode() + b" "
        if not line.startswith(start) or len(line) > 200 or self.over:
            return None
        match = re.fullmatch(rb"(begin|command|ended|end|out)((?: [0-9]{1,6}){0,3})", line[len(start) :])
        if match is None:
            return None
        word, numbers = match[1].decode(), [int(one) for one in match[2].split()]
        return self._taken(word, numbers)

    def _taken(self, word: str, numbers: list[int]) -> tuple[str, int, int] | None:
        if word == "out":
            if self.running or numbers:
                return None
            self.over = True
            return word, 0, 0
        if (
            word == "begin"
            and len(numbers) == 1
            and not self.running
            and self.phase < numbers[0] < len(self.spec.phases)
        ):
            self.phase, self.running, self._command = numbers[0], True, -1
            return word, self.phase, 0
        if not self.running or not numbers or numbers[0] != self.phase:
            return None
        if word == "end" and len(numbers) == 2:
            self.running = False
            return word, self.phase, numbers[1]
        commands = self.commands
        if word == "command" and len(numbers) == 2 and self._command < numbers[1] < len(commands):
            self._command = numbers[1]
            return word, self.phase, self._command
        if word == "ended" and len(numbers) == 3 and numbers[1] == self._command:
            if numbers[2] and self.phase not in self.failures:
                self.failures[self.phase] = Failure(commands[self._command], numbers[2])
            return word, self._command, numbers[2]
        return None

    @property
    def command(self) -> str:
        """The command that runs."""
        return self.commands[self._command]

    @property
    def commands(self) -> tuple[str, ...]:
        """The commands of the phase that runs."""
        phase = self.spec.phases[self.phase]
        return (*phase.commands, *phase.at_last)


def variables(given: Mapping[str, str], *, path: str) -> dict[str, str]:
    """The environment that the program begins with."""
    return {"PATH": path, "HOME": f"{HOME}/home", "CODEBUILD_CI": "true", "CI": "true", **given}
