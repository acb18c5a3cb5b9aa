"""Servers of one program each that answer HTTP as a whole, by the ARN of whose they are: started, supervised, asked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from bastide.engines.serving.client import Answer
from bastide.engines.serving.server import Container, Instance, NotReady, Slow, Supervised


class Standing:
    """What stands now."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[Supervised, Instance]] = {}

    def __contains__(self, arn: str) -> bool:
        return arn in self._held

    async def start(self, arn: str, instance: Instance, seconds: float) -> None:
        """Until the instance's one container is well; raises Unhealthy after `seconds`, and whatever `launch` raises: then
        the instance is closed. An earlier server under this name has to be ended first."""
        assert arn not in self._held, arn
        container: Container = instance.containers[0]
        server = Supervised(arn, container, seconds)
        try:
            await server.start()
        except BaseException:
            await server.close(0)
            await instance.close()
            raise
        self._held[arn] = (server, instance)

    async def ask(
        self, arn: str, method: str, path: str, headers: Sequence[tuple[str, str]], body: bytes, *, seconds: float
    ) -> Answer:
        """What the server answers. Raises NotReady, Lost and Slow."""
        server, _ = self._held.get(arn, (None, None))
        if server is None or not server.ready:
            raise NotReady
        try:
            return await server.client.request(method, path, headers, body, seconds=seconds)
        except TimeoutError:
            raise Slow(server.container.name) from None

    async def end(self, arn: str, grace: float) -> None:
        """Ends a server, if it stands: SIGTERM, and after `grace` seconds all of it."""
        server, instance = self._held.pop(arn, (None, None))
        if server is not None and instance is not None:
            await server.close(grace)
            await instance.close()

    async def close(self, grace: float) -> None:
        """Ends all."""
        await asyncio.gather(*(self.end(arn, grace) for arn in list(self._held)))
