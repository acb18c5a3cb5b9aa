"""``python -m tests.clients``: builds the environments of all clients, or of those named."""

from __future__ import annotations

import sys

from tests.clients.environments import build, names

if __name__ == "__main__":
    for chosen in sys.argv[1:] or names():
        build(chosen, lambda line: print(line, flush=True))
