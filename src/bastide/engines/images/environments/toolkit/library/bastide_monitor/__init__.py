"""What Model Monitor's prebuilt images do: statistics of data, constraints, and what does not keep them.

Runs inside the sandbox on NumPy and the standard library, so that it starts quickly; Parquet alone needs PyArrow.
"""

from __future__ import annotations


class Unfit(Exception):  # noqa: N818
    """What the job was given does not fit; the message tells its owner what to change."""
