"""Values that every floor understands: ARNs, account ids, tags, refusals. This package knows nothing else."""

from bastide.domain.arn import Arn
from bastide.domain.clock import MICROS, Clock, Instant, iso, wall
from bastide.domain.ids import new_id, timed_id
from bastide.domain.refused import Refused
from bastide.domain.tags import Tags, tag_list, tag_map

__all__ = [
    "MICROS", "Arn", "Clock", "Instant", "Refused", "Tags", "iso", "new_id", "tag_list", "tag_map", "timed_id", "wall",
]  # fmt: skip
