"""Writes docs/services/<service>.md from the registry: what is there, what each operation asks, and what is missing; and
docs/authorization.md, where that stands key by key beside the published reference; and docs/stacks.md, the types that
stacks have."""

from __future__ import annotations

import sys
from pathlib import Path

import authorization
import stacks

from bastide.kernel import Operation, Service
from bastide.main.catalogue import SERVICES
from bastide.protocol import codec

FOLDER = Path(__file__).parents[1] / "docs" / "services"


def page(service: Service) -> str:
    """One service's page."""
    known = codec(service.name)
    have: dict[str, Operation] = {one.name: one for kind in service.kinds for one in kind.operations}
    inside = {name for name, one in have.items() if one.inside}
    missing = sorted(set(known.operations) - set(have))
    there, of = len(have) - len(inside), len(known.operations) - len(inside)
    lines = [
        f"# {service.name}",
        "",
        f"{there} of the API's {of} operations. What is not in the first table is refused as",
        "an unknown operation. This page is generated (`make docs`); a test compares it with the registry.",
        "",
        "| operation | asks | changes | record |",
        "| --- | --- | --- | --- |",
    ]
    for name in sorted(have):
        operation = have[name]
        asked = [f"`{ask.action}`" + (" (if given)" if ask.when else "") for ask in operation.asks]
        asked = [f"`{ask.action}`" + (" (if given)" if ask.when else "") for ask in operation.asks]
        asks = ", ".join(dict.fromkeys(asked))
        category = "data event" if operation.data else "management event"
        lines.append(f"| {name} | {asks} | {'yes' if operation.mutates else 'no'} | {category} |")
    if inside:
        lines += [
            "",
            f"No request of the API means {', '.join(sorted(inside))}: a protocol or another service does.",
        ]
    if missing:
        lines += ["", "## Not there", "", ", ".join(missing) + "."]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Writes the pages; with `--check` only compares, and ends with 1 if one is stale."""
    stale = []
    FOLDER.mkdir(parents=True, exist_ok=True)
    pages = {FOLDER / f"{service.name}.md": page(service) for service in SERVICES}
    pages[FOLDER.parent / "authorization.md"] = authorization.page(SERVICES)
    pages[FOLDER.parent / "stacks.md"] = stacks.page()
    for path, text in pages.items():
        if "--check" in sys.argv[1:]:
            if not path.exists() or path.read_text() != text:
                stale.append(path.name)
        else:
            path.write_text(text)
    if stale:
        print(f"stale: {', '.join(stale)}; run `make docs`")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
