"""Tags: AWS writes them as lists of Key and Value; we keep them as a mapping."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bastide.domain.refused import Refused

Tags = dict[str, str]


def tag_map(tags: Iterable[Mapping[str, Any]] | None, *, code: str = "ValidationException") -> Tags:
    """A mapping from a list of ``{"Key": ..., "Value": ...}``.

    Raises Refused with `code` for a key that occurs twice or a reserved ``aws:`` prefix.
    Source: Tagging AWS Resources, "Tag naming limits and requirements".
    """
    found: Tags = {}
    for tag in tags or ():
        key = str(tag.get("Key", tag.get("TagKey", "")))
        if key in found:
            raise Refused(code, f"Duplicate tag keys found: `{key}`. Please specify each tag key once.")
        if key.lower().startswith("aws:"):
            raise Refused(code, f"The tag key `{key}` begins with the reserved prefix aws:. Please choose another key.")
        found[key] = str(tag.get("Value", tag.get("TagValue", "")))
    return found


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """The list AWS writes, in the order of insertion."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]
