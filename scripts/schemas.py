"""Writes src/bastide/engines/templates/schemas.json: what AWS publishes of the resource types that stacks have here.

    uv run --no-project --with cfn-lint==1.58.0 python -c "import cfnlint, pathlib;
    print(pathlib.Path(cfnlint.__file__).parent)"

tells where cfn-lint (MIT-0) keeps its copy of the CloudFormation registry; this script takes that folder as its argument.
Descriptions are left out, and of each type only what is checked is kept. See docs/decisions.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from bastide.services.cloudformation.types import TYPES

TARGET = Path(__file__).parents[1] / "src" / "bastide" / "engines" / "templates" / "schemas.json"
KEPT = (
    "additionalProperties", "anyOf", "oneOf", "createOnlyProperties", "definitions", "dependentRequired",
    "primaryIdentifier",
    "properties", "readOnlyProperties", "required", "writeOnlyProperties",
)  # fmt: skip
WORDS = frozenset({"description", "title", "examples", "$comment", "markdownDescription", "default"})


def stripped(value: Any, *, names: bool = False) -> Any:
    """A schema without its prose. names: the keys are names of properties, none of which is prose."""
    if isinstance(value, dict):
        return {
            key: stripped(one, names=not names and key in ("properties", "definitions", "patternProperties"))
            for key, one in value.items()
            if names or key not in WORDS
        }
    if isinstance(value, list):
        return [stripped(one) for one in value]
    return value


def main() -> int:
    """Writes the file; the argument is cfnlint's folder."""
    schemas = Path(sys.argv[1]) / "data" / "schemas"
    index = json.loads((schemas / "providers" / "us-east-1.json").read_text())
    lines = []
    for name in sorted(TYPES):
        if name not in index:
            print(f"not published: {name}")
            continue
        published = json.loads((schemas / "resources" / f"{index[name]}.json").read_text())
        kept = stripped({key: published[key] for key in KEPT if key in published})
        tagged = published.get("tagging", {})
        if tagged.get("taggable") and tagged.get("tagProperty"):
            kept["tagProperty"] = tagged["tagProperty"]
        lines.append(f"{name}\t{json.dumps(kept, separators=(',', ':'), sort_keys=True)}")
    TARGET.write_text("\n".join(lines) + "\n")
    print(f"{len(lines)} types, {TARGET.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
