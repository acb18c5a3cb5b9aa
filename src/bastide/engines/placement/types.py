"""Instance types by the rules their names follow.

Source: Amazon EC2 instance types, "General purpose", "Compute optimized", "Memory optimized"; SageMaker's `ml.` types
have the same processors and memory.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from bastide.domain import Refused

GIB: Final = 1 << 30

# GiB a virtual processor.
_RATIO: Final = {
    **dict.fromkeys(("m4", "m5", "m5d", "m6i", "m6id", "m6a", "m7i", "t2", "t3"), 4.0),
    **dict.fromkeys(("c5", "c5d", "c6i", "c6id", "c6a", "c7i"), 2.0),
    **dict.fromkeys(("r5", "r5d", "r6i", "r6id", "r7i"), 8.0),
    "c4": 1.875,
}
_MEMORY_OF_SMALL: Final = {"medium": 4.0, "large": 8.0}  # t2 and t3, which have two processors from medium to large
_ACCELERATED: Final = re.compile(r"ml\.(p[0-9]|g[0-9]|trn|inf|dl)")
_GPUS: Final = Path("/proc/driver/nvidia/gpus")
"""A folder for each GPU, where NVIDIA's driver runs."""
_TYPE: Final = re.compile(r"ml\.([a-z]+[0-9]+[a-z]*)\.(medium|large|(?:([0-9]*)xlarge))")


@dataclass(frozen=True, slots=True)
class InstanceType:
    """What a type has: virtual processors and bytes of memory."""

    name: str
    cpus: int
    memory_bytes: int


@cache
def instance_type(name: str) -> InstanceType:
    """What a type has; raises Refused ResourceLimitExceeded for one that this platform does not have."""
    match = _TYPE.fullmatch(name)
    ratio = _RATIO.get(match[1]) if match is not None else None
    if match is None or ratio is None:
        why = "it has general, compute and memory types"
        if _ACCELERATED.match(name):
            why = "jobs cannot use its GPUs yet" if _GPUS.is_dir() else "it has no accelerators"
        raise Refused(
            "ResourceLimitExceeded",
            f"The account-level service limit '{name}' is 0 Instances, with current utilization of 0 Instances and a "
            f"request delta of 1 Instances: this platform does not have the type ({why}). Please use another one, "
            "ml.m5.large for instance.",
        )
    size = match[2]
    cpus = 2 if size in ("medium", "large") else 4 * int(match[3] or 1)
    memory = cpus * ratio
    if match[1] in ("t2", "t3"):
        memory = _MEMORY_OF_SMALL.get(size, memory)
    return InstanceType(name, cpus, int(memory * GIB))
