"""What an execution environment of a function is made of: a sandbox with the function's code, a network, a folder /tmp.

Everything that is the function's lies on encrypted volumes whose keys are in memory only: one for the code of a version,
which its environments share and nobody writes, and one for each environment's /tmp. Credentials of the role are in the
environment's variables, as on AWS; an environment gets no event that could outlive them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import orjson

from bastide.domain import MICROS, Refused, iso
from bastide.engines import images
from bastide.engines.functions import Functions, Launched, Runtime, Unavailable
from bastide.engines.network import Networks
from bastide.engines.placement import Claim, Placement
from bastide.engines.sandbox import Limits, SandboxError, Sandboxes, Spec, Volumes
from bastide.kernel import Calls
from bastide.kernel.address import Address
from bastide.services.lambda_ import code as codes
from bastide.services.lambda_ import image as own_image
from bastide.services.lambda_ import network as networks
from bastide.services.lambda_.log import Stream
from bastide.services.lambda_.network import Network
from bastide.services.lambda_.noun import Named
from bastide.services.lambda_.session import Credentials, RoleSession

ENVIRONMENT: Final = "lambda"
_INSIDE: Final = Path(images.__file__).parent / "environments" / ENVIRONMENT / "inside"
"""What stands in /var/runtime."""
_MIB: Final = 1 << 20
_CPU_OF_MIB: Final = 1769.0
"""Memory that comes with one whole processor (Lambda Developer Guide, "Configure Lambda function memory")."""
_SPARE: Final = 30 * MICROS


@dataclass(slots=True)
class _Code:
    """A version's code, unpacked. users: environments that have it."""

    build: str
    name: str
    ready: asyncio.Future[Path]
    users: int = 0


@dataclass(slots=True)
class _Held:
    """What an environment holds, to be freed."""

    network: Network = field(default_factory=Network)
    log: Stream | None = None
    claim: Claim | None = None
    volume: str = ""
    code: _Code | None = None
    image: images.Container | None = None


class Hosts:
    """Makes execution environments."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._codes: dict[str, _Code] = {}
        self._seen: set[str] = set()

    async def launch(self, what: Named, version: str, doc: Mapping[str, Any], variables: Mapping[str, str]) -> Launched:
        """Starts an environment of a version of a function. Raises Unavailable, and Refused in Lambda's words, when nothing
        of it is left."""
        session = RoleSession(
            self._calls, str(doc["Role"]), what.name,
            account=what.account, region=what.region, source_arn=what.function,
        )  # fmt: skip
        held = _Held()
        try:
            return await self._launched(what, version, doc, variables, session, held)
        except BaseException as error:
            await asyncio.shield(self._free(held, session))
            if isinstance(error, SandboxError | OSError | ValueError):
                raise Unavailable(f"The execution environment could not be made: {error}") from error
            raise

    async def _launched(
        self,
        what: Named,
        version: str,
        doc: Mapping[str, Any],
        variables: Mapping[str, str],
        session: RoleSession,
        held: _Held,
    ) -> Launched:
        environment = await self._environment(what, doc, held)
        id = uuid.uuid4().hex
        await self._book(held, id, int(doc["MemorySize"]))
        credentials = await session.begin()
        config = doc.get("VpcConfig")
        if networks.wanted(config) and what.function not in self._seen:
            self._seen.add(what.function)
            with contextlib.suppress(Refused):
                await networks.left(session)
        runtime = Runtime()
        volume, code, _ = await _together(
            self._scratch(held, id, int(doc["EphemeralStorage"]["Size"]) * _MIB),
            self._code(held, doc, environment),
            networks.connect(session, held.network, runtime, config, self._calls.engine(Address).url),
        )
        group = str(doc["LoggingConfig"]["LogGroup"])
        now = self._calls.clock()
        stream = f"{iso(now)[:10].replace('-', '/')}/[{version}]{id}"
        held.log = Stream(session, group, stream)
        told = self._variables(what, version, doc, group, stream, credentials) | dict(variables)
        spec = self._spec(id, environment, volume, code, doc, held, told | held.network.variables)
        with self._calls.store.reading() as view:
            untrusted = self._calls.organisation.untrusted(view, what.account)
        running = await self._calls.engine(Sandboxes).start(replace(spec, untrusted=untrusted))
        python = f"Bastide's Python {platform.python_version()}, for {doc.get('Runtime')}"
        if isinstance(environment, images.Container):
            python = "of the function's image"
        first = f"INIT_START Runtime Version: {python}\tRuntime Version ARN: {environment.digest}"
        if doc["LoggingConfig"]["LogFormat"] == "JSON":
            record = {"initializationType": "on-demand", "phase": "init", "runtimeVersion": python}
            record |= {"functionName": what.name, "functionVersion": version}
            begun = f"{iso(now, fraction=True)[:-4]}Z"
            first = orjson.dumps({"time": begun, "type": "platform.initStart", "record": record}).decode()
        volumes, code_of = self._calls.engine(Volumes), held.code
        assert code_of is not None

        def stands() -> bool:
            return not volumes.lost(held.volume) and not volumes.lost(code_of.name)

        until = credentials.until - int(doc["Timeout"]) * MICROS - _SPARE
        memory, json = int(doc["MemorySize"]), doc["LoggingConfig"]["LogFormat"] == "JSON"
        return Launched(
            running,
            runtime,
            held.log.tell,
            lambda: self._free(held, session),
            version,
            memory,
            first,
            until,
            stands,
            json,
        )

    async def _environment(self, what: Named, doc: Mapping[str, Any], held: _Held) -> images.Environment:
        if doc.get("_image"):
            held.image = await own_image.container(self._calls, what, doc["_image"])
            folder = str(doc.get("_config", {}).get("WorkingDirectory") or held.image.folder)
            return replace(held.image, folder=folder)
        try:
            return images.located(ENVIRONMENT)
        except Refused as refused:
            raise Unavailable(refused.message) from None

    async def _book(self, held: _Held, id: str, memory_mib: int) -> None:
        """Books memory; environments that wait make room, and whoever finds none is told at once."""
        placement, functions = self._calls.engine(Placement), self._calls.engine(Functions)
        wanted = placement.part(memory_mib * _MIB, 1.0)
        while await placement.busy(wanted, here=True):
            if not functions.spare():
                raise Unavailable("This machine has no room for another execution environment now.")
        held.claim = await placement.claim(f"lambda-{id}", wanted, here=True, yields=lambda: _let_go(functions))

    async def _scratch(self, held: _Held, id: str, size: int) -> Path:
        held.volume = f"lambda-{id}"
        return await self._calls.engine(Volumes).create(held.volume, os.urandom(32), size)

    async def _code(self, held: _Held, doc: Mapping[str, Any], environment: images.Environment) -> Path:
        """The folder with ``task``, ``opt`` and ``runtime`` of a version; made once for all its environments."""
        build, volumes = str(doc["_build"]), self._calls.engine(Volumes)
        found = self._codes.get(build)
        if found is not None and found.ready.done() and volumes.lost(found.name):
            found = None  # its users go with it
        if found is None:
            name = f"lambda-code-{uuid.uuid4().hex}"
            found = self._codes[build] = _Code(build, name, asyncio.get_running_loop().create_future())
            try:
                place = await self._unpacked(found.name, doc, environment)
            except BaseException as error:
                self._unlist(found)
                found.ready.set_exception(error if isinstance(error, Exception) else Unavailable("It was given up."))
                found.ready.exception()  # somebody may wait for it, or nobody
                await asyncio.shield(volumes.close(found.name))
                raise
            found.ready.set_result(place)
        place = await asyncio.shield(found.ready)
        if self._codes.get(build) is not found:
            return await self._code(held, doc, environment)  # its last user has gone meanwhile
        found.users += 1
        held.code = found
        return place

    def _unlist(self, code: _Code) -> None:
        if self._codes.get(code.build) is code:
            del self._codes[code.build]

    async def _unpacked(self, name: str, doc: Mapping[str, Any], environment: images.Environment) -> Path:
        volume = await self._calls.engine(Volumes).create(name, os.urandom(32))
        authority = self._calls.engine(Networks).authority
        own = await codes.content(self._calls, doc["_code"]) if doc.get("_code") else None
        layers = [await codes.content(self._calls, one["_code"]) for one in doc.get("Layers") or ()]

        def fill() -> None:
            for part in ("task", "opt", "runtime"):
                (volume / part).mkdir(mode=0o755)
                (volume / part).chmod(0o755)
            volume.chmod(0o755)
            if own is not None:
                codes.unpack(own, volume / "task")
            for layer in layers:
                codes.unpack(layer, volume / "opt", layer=True)
            for _, inside in environment.readonly:
                if layers and inside.startswith("/opt/"):
                    (volume / inside[1:]).mkdir(parents=True, exist_ok=True)
            if layers:
                (volume / "opt" / "ml").mkdir(exist_ok=True)
            shutil.copyfile(authority, volume / "authority.pem")
            (volume / "authority.pem").chmod(0o644)
            for source in _INSIDE.glob("*.py"):
                shutil.copyfile(source, volume / "runtime" / source.name)
                (volume / "runtime" / source.name).chmod(0o644)

        await asyncio.to_thread(fill)
        return volume

    @staticmethod
    def _variables(
        what: Named, version: str, doc: Mapping[str, Any], group: str, stream: str, credentials: Credentials
    ) -> dict[str, str]:
        found = {
            "AWS_REGION": what.region,
            "AWS_DEFAULT_REGION": what.region,
            "AWS_LAMBDA_FUNCTION_NAME": what.name,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(doc["MemorySize"]),
            "AWS_LAMBDA_FUNCTION_VERSION": version,
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_LOG_GROUP_NAME": group,
            "AWS_LAMBDA_LOG_STREAM_NAME": stream,
            **credentials.variables,
        }
        if doc["LoggingConfig"]["LogFormat"] == "JSON":
            found["AWS_LAMBDA_LOG_FORMAT"] = "JSON"
            found["AWS_LAMBDA_LOG_LEVEL"] = str(doc["LoggingConfig"]["ApplicationLogLevel"])
        if doc.get("_image"):
            return found
        return found | {
            "_HANDLER": str(doc["Handler"]),
            "AWS_EXECUTION_ENV": f"AWS_Lambda_{doc['Runtime']}",
            "LAMBDA_TASK_ROOT": "/var/task",
            "LAMBDA_RUNTIME_DIR": "/var/runtime",
            "TZ": ":UTC",
            "PYTHONDONTWRITEBYTECODE": "1",
            "LD_LIBRARY_PATH": "/var/task:/var/task/lib:/opt/lib",
        }

    @staticmethod
    def _spec(
        id: str,
        environment: images.Environment,
        volume: Path,
        code: Path,
        doc: Mapping[str, Any],
        held: _Held,
        variables: Mapping[str, str],
    ) -> Spec:
        memory = int(doc["MemorySize"])
        work, scratch = volume / "work", volume / "tmp"
        for folder in (work, scratch):
            folder.mkdir()
        readonly = [(code / "authority.pem", networks.AUTHORITY)]
        if isinstance(environment, images.Container):
            command, path = own_image.command(environment, doc.get("_config") or {}), {}
        else:
            command = ["python3", "/var/runtime/bootstrap.py", str(doc["Handler"])]
            path = {"PATH": f"{environment.path}:/opt/bin"}
            readonly += [(code / "task", "/var/task"), (code / "runtime", "/var/runtime")]
        if doc.get("Layers"):
            readonly.append((code / "opt", "/opt"))
        return Spec(
            name=f"lambda-{id}",
            image=environment,
            command=command,
            workdir=work,
            limits=Limits(memory * _MIB, max(1.0, memory / _CPU_OF_MIB), processes=1024, open_files=1024),
            env={**path, **variables},
            readonly=readonly,
            writable=[(scratch, "/tmp")],  # noqa: S108
            hostname="function",
            hosts=("function", *held.network.hosts),
            network=held.network.namespace,
            resolver=held.network.resolver,
        )

    async def _free(self, held: _Held, session: RoleSession) -> None:
        """Frees what an environment held; bears repeating."""
        log, held.log = held.log, None
        if log is not None:
            await log.close()
        await held.network.close(session)
        volumes = self._calls.engine(Volumes)
        volume, held.volume = held.volume, ""
        if volume:
            await volumes.close(volume)
        code, held.code = held.code, None
        if code is not None:
            code.users -= 1
            if code.users <= 0:
                self._unlist(code)
                await volumes.close(code.name)
        claim, held.claim = held.claim, None
        if claim is not None:
            self._calls.engine(Placement).release(claim)


def _let_go(functions: Functions) -> None:
    """A job waits for room: whatever function waits for an event gives its own."""
    functions.spare()


async def _together(*work: Any) -> list[Any]:
    """Does all at once; when one fails the others are ended before that is told."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def key_of(what: Named, version: str, doc: Mapping[str, Any]) -> str:
    """What an environment may be reused for: events of this version as it is configured now."""
    return f"{what.function}:{version}|{doc['_build']}"
