"""Instance types by the rules their names follow.

Source: Amazon EC2 instance types, "General purpose", "Compute optimized", "Memory optimized"; SageMaker's `ml.` types
have the same processors and memory.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
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
# Processors, GiB and NVIDIA GPUs of accelerated types.
_ACCELERATED: Final = {
    **{f"ml.g4dn.{size}": one for size, one in {
        "xlarge": (4, 16, 1), "2xlarge": (8, 32, 1), "4xlarge": (16, 64, 1), "8xlarge": (32, 128, 1),
        "12xlarge": (48, 192, 4), "16xlarge": (64, 256, 1),
    }.items()},
    **{f"ml.{family}.{size}": one for family in ("g5", "g6") for size, one in {
        "xlarge": (4, 16, 1), "2xlarge": (8, 32, 1), "4xlarge": (16, 64, 1), "8xlarge": (32, 128, 1),
        "12xlarge": (48, 192, 4), "16xlarge": (64, 256, 1), "24xlarge": (96, 384, 4), "48xlarge": (192, 768, 8),
    }.items()},
    "ml.p3.2xlarge": (8, 61, 1), "ml.p3.8xlarge": (32, 244, 4), "ml.p3.16xlarge": (64, 488, 8),
    "ml.p4d.24xlarge": (96, 1152, 8), "ml.p5.4xlarge": (16, 256, 1), "ml.p5.48xlarge": (192, 2048, 8),
}  # fmt: skip
_OTHER_CHIPS: Final = re.compile(r"ml\.(p[0-9]|g[0-9]|trn|inf|dl)")
_DEVICES: Final = Path("/dev")
_TYPE: Final = re.compile(r"ml\.([a-z]+[0-9]+[a-z]*)\.(medium|large|(?:([0-9]*)xlarge))")


@dataclass(frozen=True, slots=True)
class InstanceType:
    """What a type has: virtual processors, bytes of memory, GPUs."""

    name: str
    cpus: int
    memory_bytes: int
    gpus: int = 0


def gpus_here() -> list[int]:
    """The numbers of this machine's GPUs: NVIDIA's driver runs, and each has a device."""
    if not (_DEVICES / "nvidiactl").exists():
        return []
    names = (one.name.removeprefix("nvidia") for one in _DEVICES.glob("nvidia[0-9]*"))
    return sorted(int(one) for one in names if one.isdecimal())


def devices_of(gpus: Sequence[int]) -> list[Path]:
    """What a program needs of /dev for these GPUs; the driver's libraries lie below /usr, which every sandbox sees."""
    if not gpus:
        return []
    names = ["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", *(f"nvidia{one}" for one in gpus)]
    return [_DEVICES / name for name in names if (_DEVICES / name).exists()]


def _not_there(name: str, why: str) -> Refused:
    return Refused(
        "ResourceLimitExceeded",
        f"The account-level service limit '{name}' is 0 Instances, with current utilization of 0 Instances and a "
        f"request delta of 1 Instances: this platform does not have the type ({why}). Please use another one, "
        "ml.m5.large for instance.",
    )


def lacks_gpus(wanted: InstanceType, most: int) -> Refused:
    """For a type with more GPUs than any machine has."""
    return _not_there(
        wanted.name, f"it has {wanted.gpus} GPUs, the platform's machines have {most or 'no accelerators'}"
    )


@cache
def instance_type(name: str) -> InstanceType:
    """What a type has; raises Refused ResourceLimitExceeded for one that there is not."""
    if (told := _ACCELERATED.get(name)) is not None:
        return InstanceType(name, told[0], told[1] * GIB, told[2])
    match = _TYPE.fullmatch(name)
    ratio = _RATIO.get(match[1]) if match is not None else None
    if match is None or ratio is None:
        chips = (
            "it has no such accelerators" if _OTHER_CHIPS.match(name) else "it has general, compute and memory types"
        )
        raise _not_there(name, chips)
    size = match[2]
    cpus = 2 if size in ("medium", "large") else 4 * int(match[3] or 1)
    memory = cpus * ratio
    if match[1] in ("t2", "t3"):
        memory = _MEMORY_OF_SMALL.get(size, memory)
    return InstanceType(name, cpus, int(memory * GIB))
