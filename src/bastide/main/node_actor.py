"""What Ray starts on a node: an agent, and nothing of a job's in Ray's own process but sealed bytes."""

from __future__ import annotations

import ctypes
import os
import resource
from pathlib import Path

from bastide.main.agent import FOLDER, Agent

_PR_SET_DUMPABLE = 4


class NodeActor:
    """An agent as an actor of Ray. The secret is the node's own: it came with `bastide node`, not through Ray."""

    def __init__(self) -> None:
        most = 1 if resource.getrlimit(resource.RLIMIT_CORE)[1] else 0  # 1 is what jobs are to have, see their limits
        resource.setrlimit(resource.RLIMIT_CORE, (most, most))
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
        os.umask(0o022)
        secret = bytes.fromhex(Path(os.environ["BASTIDE_NODE_SECRET"]).read_text().strip())
        self._agent = Agent(secret, Path(os.environ.get("BASTIDE_NODE_FOLDER") or FOLDER))

    async def begin(self) -> None:
        """Clears what earlier agents left."""
        await self._agent.start()

    async def call(self, content: bytes) -> bytes:
        """One sealed call."""
        return await self._agent(content)
