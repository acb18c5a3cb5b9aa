"""What docs/stacks.md says: which resource types and functions stacks have here. `scripts/docs.py` writes it."""

from __future__ import annotations

from bastide.engines.templates import FUNCTIONS, PSEUDO, schema
from bastide.kernel import Registry
from bastide.main.catalogue import SERVICES
from bastide.services.cloudformation.types import TYPES
from bastide.services.cloudformation.types.adopting import ADOPTIONS

REGISTRY = Registry(SERVICES)
HEAD = """# Stacks

CloudFormation makes resources of this platform from templates, as their owner's role or session, and undoes what fails. The
operations are in [services/cloudformation.md](services/cloudformation.md); how a stack survives the platform's death is
[a decision](decisions/0016-stacks-remember-their-calls.md). `bastide deploy TEMPLATE` shows a plan, and what
whoever deploys lacks for it, before anything starts.

This page is generated (`make docs`); a test compares it.
"""
TAIL = """
## Not there

- Types without a row above stop a stack before anything is made, with their names. `Snapshot` policies, rollback triggers,
  hooks, modules, stack refactoring, `ImportExistingResources` and `UpdatePolicy` are refused.
- Transforms of AWS: `AWS::Include`, `AWS::LanguageExtensions`, and `AWS::Serverless-2016-10-31` where the extra `sam` is
  installed.
- `Fn::ValueOf` and `Fn::ValueOfAll` in rules; `Fn::GetAZs` of another Region.
- Drift is found for types that tell their properties (marked), of the properties that the template names.
- Answers to custom resources go to an address of the platform, which a function in a VPC reaches only where that VPC leads
  to the platform.
- YAML aliases and merges, as on AWS; templates deeper than 96 levels or with more than 100,000 values.
"""


def lacking(name: str) -> list[str]:
    """The operations that a type needs and that are not there."""
    return [":".join(one) for one in TYPES[name].calls if one not in REGISTRY.operations]


def page() -> str:
    """The page."""
    names = sorted(TYPES)
    there = [name for name in names if not lacking(name)]
    lines = [HEAD, f"{len(there)} resource types, {len(FUNCTIONS)} functions, {len(PSEUDO)} pseudo parameters.", ""]
    lines += ["| type | named by | replaced by a change of | drift |", "| --- | --- | --- | --- |"]
    for name in there:
        held = TYPES[name]
        fixed = sorted(held.replaces | schema.names(name, "createOnlyProperties"))
        if held.update is None:
            fixed = ["anything"]
        lines.append(f"| {name} | {held.named} | {', '.join(fixed)} | {'yes' if held.read is not None else ''} |")
    lines.append("| Custom::* | | ServiceToken | |")
    lines += ["", f"Resources that are there already are imported of the types {', '.join(sorted(ADOPTIONS))}."]
    waiting = [name for name in names if lacking(name)]
    if waiting:
        lines += ["", f"Rows that wait for their service: {', '.join(waiting)}."]
    lines += ["", f"Functions: {', '.join(f'`{one}`' for one in FUNCTIONS)}."]
    lines.append(f"Pseudo parameters: {', '.join(f'`{one}`' for one in PSEUDO)}.")
    return "\n".join(lines) + "\n" + TAIL
