"""The process that speaks to Ray for the platform: ``python -m bastide.main.bridge DESCRIPTOR ADDRESS``.

It ends with the descriptor, and Ray then ends what it started: bookings and agents.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Final

from bastide.engines.cluster import frame, read_frame
from bastide.main.node_actor import NodeActor

_log = logging.getLogger("bastide.bridge")
_AT_ONCE: Final = 2000
_SECONDS: Final = 20

Answer = tuple[Mapping[str, Any], bytes]


class Bridge:
    """Answers the platform's frames."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._groups: dict[int, Any] = {}
        self._freed: set[int] = set()
        self._agents: dict[int, Any] = {}
        self._newest: dict[str, int] = {}

    async def answer(self, head: Mapping[str, Any], data: bytes) -> Answer:
        """One of them."""
        work = {
            "nodes": self._nodes,
            "book": self._book,
            "unbook": self._unbook,
            "agent": self._agent,
            "call": self._call,
        }
        return await work[head["do"]](head, data)

    async def _nodes(self, head: Mapping[str, Any], data: bytes) -> Answer:
        def look() -> list[dict[str, Any]]:
            from ray._private.state import available_resources_per_node  # noqa: PLC0415

            free = available_resources_per_node()
            found = []
            for one in self._ray.nodes():
                has, left = one["Resources"], free.get(one["NodeID"], {})
                if not one["Alive"] or not has.get("CPU"):
                    continue
                found.append(
                    {
                        "id": one["NodeID"],
                        "name": one["NodeName"],
                        "address": one["NodeManagerAddress"],
                        "cpus": has["CPU"],
                        "memory_bytes": int(has.get("memory", 0)),
                        "gpus": int(has.get("GPU", 0)),
                        "free_cpus": left.get("CPU", 0.0),
                        "free_bytes": int(left.get("memory", 0)),
                        "free_gpus": int(left.get("GPU", 0)),
                    }
                )
            return found

        return {"nodes": await asyncio.to_thread(look)}, b""

    async def _book(self, head: Mapping[str, Any], data: bytes) -> Answer:
        from ray.util.placement_group import placement_group, placement_group_table  # noqa: PLC0415

        number = head["booking"]
        group = await asyncio.to_thread(placement_group, head["bundles"], strategy="SPREAD")
        self._groups[number] = group
        if number in self._freed:  # the platform gave up meanwhile
            return await self._unbook(head, b"")
        try:
            while not await asyncio.to_thread(group.wait, 1):
                if number not in self._groups:
                    return {"error": "given up"}, b""
        except Exception:
            if number in self._groups:
                raise
            return {"error": "given up"}, b""
        table = await asyncio.to_thread(placement_group_table, group)
        places = {int(number): node for number, node in table["bundles_to_node_id"].items()}
        return {"nodes": [places[number] for number in range(len(places))]}, b""

    async def _unbook(self, head: Mapping[str, Any], data: bytes) -> Answer:
        from ray.util.placement_group import remove_placement_group  # noqa: PLC0415

        group = self._groups.pop(head["booking"], None)
        if group is None:
            self._freed.add(head["booking"])
        else:
            await asyncio.to_thread(remove_placement_group, group)
        return {"error": "given up"}, b""

    async def _agent(self, head: Mapping[str, Any], data: bytes) -> Answer:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: PLC0415

        node = head["node"]
        old = self._agents.pop(self._newest.get(node, -1), None)
        if old is not None:
            await asyncio.to_thread(self._ray.kill, old)
        actor = self._ray.remote(NodeActor).options(
            num_cpus=0,
            max_restarts=0,
            max_concurrency=_AT_ONCE,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        )
        made = actor.remote()
        await made.begin.remote()
        number = head["number"]
        self._agents[number], self._newest[node] = made, number
        return {"agent": number}, b""

    async def _call(self, head: Mapping[str, Any], data: bytes) -> Answer:
        agent = self._agents.get(head["agent"])
        if agent is None:
            return {"lost": "its agent was replaced"}, b""
        return {}, await agent.call.remote(data)


async def serve(bridge: Bridge, held: socket.socket, ready: bytes) -> None:
    """Until the platform hangs up."""
    from ray.exceptions import RayActorError, RayError  # noqa: PLC0415

    reader, writer = await asyncio.open_connection(sock=held)
    writer.write(ready)

    async def one(head: dict[str, Any], data: bytes) -> None:
        try:
            found, answer = await bridge.answer(head, data)
        except RayActorError as error:
            found, answer = {"lost": _said(error)}, b""
        except RayError as error:
            found, answer = {"lost": " ".join(str(error).split())[-300:]}, b""
        except Exception as error:
            _log.exception("%s failed", head["do"])
            found, answer = {"error": f"{type(error).__name__}: {error}"[:300]}, b""
        if head["number"]:
            writer.write(frame({**found, "number": head["number"]}, answer))
            with contextlib.suppress(ConnectionError):  # the platform hung up
                await writer.drain()

    tasks: set[asyncio.Task[None]] = set()
    try:
        while True:
            task = asyncio.create_task(one(*await read_frame(reader)))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
    except (asyncio.IncompleteReadError, OSError):
        pass


def _said(error: Exception) -> str:
    text = str(error)
    if "node" in text and ("died" in text or "dead" in text):
        return "the machine or its raylet ended"
    return "its agent ended" if "died" in text or "exit" in text else " ".join(text.split())[:300]


def _open_to_everybody(address: str) -> bool:
    """Whether the cluster lets in who has no token."""
    program = (
        "import sys\nfrom ray._raylet import GcsClient\n"
        f"GcsClient(address=sys.argv[1]).internal_kv_get(b'bastide', b'bastide', timeout={_SECONDS})"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, address],
        env={**environment, "RAY_AUTH_MODE": "disabled"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=3 * _SECONDS,
    )
    return done.returncode == 0


def connect(address: str) -> Any:
    """Ray, connected; raises RuntimeError with what the operator is to change."""
    try:
        import ray  # noqa: PLC0415
    except ImportError:
        raise RuntimeError("Ray is not installed: pip install 'bastide[ray]'") from None
    if _open_to_everybody(address):
        raise RuntimeError(
            "it lets in everybody, and whoever reaches it runs what he likes on its nodes: start its nodes with "
            "`bastide node`, or with RAY_AUTH_MODE=token"
        )
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
    except Exception as error:
        text = " ".join(str(error).split())
        raise RuntimeError(
            f"{text[:400]} (the platform's own machine has to be a node of it: `bastide node`)"
        ) from None
    return ray


def main() -> None:
    """See the module."""
    held = socket.socket(fileno=int(sys.argv[1]))
    try:
        ray = connect(sys.argv[2])
    except Exception as error:
        held.sendall(frame({"error": str(error)}))
        return
    asyncio.run(serve(Bridge(ray), held, frame({})))


if __name__ == "__main__":
    main()
