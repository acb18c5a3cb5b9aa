"""``python -m tests.clients``: builds the environments of all clients but the largest, or of those named."""

from __future__ import annotations

import sys

from tests.clients.environments import LARGE, build, names

if __name__ == "__main__":
    for chosen in sys.argv[1:] or [one for one in names() if one not in LARGE]:
        build(chosen, lambda line: print(line, flush=True))
