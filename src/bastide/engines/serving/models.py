"""Several models behind one server: loaded when first asked for, unloaded when room is wanted.

Source: SageMaker developer guide, "Custom containers contract for multi-model endpoints".
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, Protocol

import orjson

from bastide.engines.serving.client import Answer, Client

_LOAD_SECONDS: Final = 240.0
_UNLOAD_SECONDS: Final = 30.0


class NoModel(Exception):  # noqa: N818
    """There is no such model, or it cannot be fetched; the message is for whoever asked for it."""


class NotLoaded(Exception):  # noqa: N818
    """The server could not load a model; `answer` is what it said."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(str(answer.status))
        self.answer = answer


class Models(Protocol):
    """Where models come from."""

    async def fetch(self, name: str) -> tuple[str, str]:
        """Puts a model where the server finds it; its name for the server and its path there. Raises NoModel."""
        ...

    async def forget(self, id: str) -> None:
        """Removes it again."""
        ...


class _Entry:
    __slots__ = ("flying", "id", "loading")

    def __init__(self, loading: asyncio.Task[str]) -> None:
        self.loading = loading
        self.id = ""
        self.flying = 0


class Loaded:
    """The models of one server. keep: they stay loaded after a call, as long as there is room."""

    def __init__(self, client: Client, models: Models, keep: bool) -> None:
        self._client = client
        self._models = models
        self._keep = keep
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    async def invoke(
        self, name: str, headers: Iterable[tuple[str, str]], body: bytes, *, seconds: float
    ) -> Answer | None:
        """The model's answer, None if it is not loaded yet when time is up. Raises NoModel, NotLoaded, Lost, and
        TimeoutError for a model that is loaded and does not answer."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        told = [*headers, ("x-amzn-sagemaker-target-model", name)]
        answer = Answer()
        for _ in range(2):
            entry = self._entry(name)
            entry.flying += 1
            try:
                done, _ = await asyncio.wait({entry.loading}, timeout=max(0.0, until - loop.time()))
                if not done:
                    return None
                entry.id = entry.loading.result()
                path = f"/models/{entry.id}/invoke"
                answer = await self._client.request("POST", path, told, body, seconds=max(0.001, until - loop.time()))
            except BaseException:
                if entry.loading.done() and not entry.id:
                    self._drop(name, entry)
                raise
            finally:
                entry.flying -= 1
            if answer.status != 404:
                break
            self._drop(name, entry)  # the server does not have it any more: it was started anew
        if not self._keep and not entry.flying and self._entries.get(name) is entry:
            self._drop(name, entry)
            await self._unload(entry.id)
        return answer

    def _drop(self, name: str, entry: _Entry) -> None:
        if self._entries.get(name) is entry:
            del self._entries[name]

    def _entry(self, name: str) -> _Entry:
        entry = self._entries.get(name)
        if entry is None:
            entry = self._entries[name] = _Entry(asyncio.get_running_loop().create_task(self._load(name)))
            # Whoever waits reads how it ended; if nobody waits any more, nobody has to.
            entry.loading.add_done_callback(lambda task: task.cancelled() or task.exception())
        else:
            self._entries.move_to_end(name)
        return entry

    async def _load(self, name: str) -> str:
        id_, path = await self._models.fetch(name)
        body = orjson.dumps({"model_name": id_, "url": path})
        told = (("content-type", "application/json"),)
        while True:
            answer = await self._client.request("POST", "/models", told, body, seconds=_LOAD_SECONDS)
            if answer.status in (200, 409):
                return id_
            if answer.status != 507 or not await self._make_room():
                await self._models.forget(id_)
                raise NotLoaded(answer)

    async def _make_room(self) -> bool:
        """Unloads the model that was not asked for the longest; False if all are being used."""
        for name, entry in self._entries.items():
            if entry.id and not entry.flying:
                del self._entries[name]
                await self._unload(entry.id)
                return True
        return False

    async def _unload(self, id_: str) -> None:
        await self._client.request("DELETE", f"/models/{id_}", (), b"", seconds=_UNLOAD_SECONDS)
        await self._models.forget(id_)

    def clear(self) -> None:
        """The server is gone, and what it had loaded with it."""
        for entry in self._entries.values():
            entry.loading.cancel()
        self._entries.clear()
