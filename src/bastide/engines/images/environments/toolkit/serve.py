"""The image side of SageMaker's hosting contract: GET /ping, POST /invocations, on the user's functions or a model.

Runs inside the sandbox on the environment's Python and imports nothing of Bastide. It follows the developer guide
(your-algorithms-inference-code) and the handler functions that the SageMaker inference toolkit documents: ``model_fn``,
``input_fn``, ``predict_fn``, ``output_fn``, or ``transform_fn`` in place of the last three. What a script leaves out does
the framework's default: scikit-learn loads ``model.joblib``, or else the one ``*.joblib`` or ``*.pkl`` that is there, and
calls its ``predict``; the others are in ``bastide_frameworks``. A built-in algorithm without a script answers as
``bastide_algorithms`` says.

Variables: BASTIDE_SERVE_SOCKET (path of a unix socket; without it TCP port SAGEMAKER_BIND_TO_PORT or 8080),
SAGEMAKER_PROGRAM, SAGEMAKER_SUBMIT_DIRECTORY, SAGEMAKER_MODEL_SERVER_WORKERS, SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT,
SAGEMAKER_MAX_PAYLOAD_IN_MB. The server listens once the model is loaded and not before. The caller is never shown a
traceback; the log is. An output function that returns an iterator of text or bytes answers piece by piece.

With SAGEMAKER_MULTI_MODEL=true it serves the contract of multi-model endpoints (mms-container-apis): models are loaded by
POST /models, each in a process of its own, and 507 says that BASTIDE_MEMORY_BYTES do not suffice for one more.
"""

from __future__ import annotations

import argparse
import asyncio
import concurrent.futures
import importlib
import importlib.util
import io
import json
import multiprocessing.connection
import os
import signal
import socket
import subprocess
import sys
import tarfile
import traceback
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

BASE = Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml"))
JSON, CSV, NPY = "application/json", "text/csv", "application/x-npy"
LIBRARY = "/opt/bastide/library"
FRAMEWORK, ALGORITHM = "BASTIDE_FRAMEWORK", "BASTIDE_ALGORITHM"  # handed on to the processes of several models
HANDLERS = ("model_fn", "input_fn", "predict_fn", "output_fn", "transform_fn")
GRACE_SECONDS = 25  # the contract's 30 s between SIGTERM and SIGKILL, less some to end in


class Answer(Exception):  # noqa: N818 - it is an answer
    """Ends an invocation with a status and a short text for the caller."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def numpy() -> Any:
    """Loaded at first use, because a user's functions may do without."""
    return importlib.import_module("numpy")


def default_model(folder: str) -> Any:
    """The model that training left with joblib."""
    here = Path(folder)
    found = [here / "model.joblib"] if (here / "model.joblib").is_file() else []
    found = found or sorted(here.glob("*.joblib")) or sorted(here.glob("*.pkl"))
    if len(found) != 1:
        names = ", ".join(p.name for p in found) or "none"
        raise RuntimeError(f"without model_fn the model has to be one *.joblib or *.pkl file; found: {names}")
    return importlib.import_module("joblib").load(found[0])


def default_input(body: Any, content_type: str) -> Any:
    """JSON, CSV or NPY to an array; text becomes float32, as in AWS's scikit-learn image."""
    np = numpy()
    try:
        if content_type == JSON:
            read = json.loads(body)
            return np.array(read["instances"] if isinstance(read, dict) else read).astype(np.float32)
        if content_type == CSV:
            if not body.strip():
                raise ValueError("empty")
            return np.loadtxt(io.StringIO(body), delimiter=",", ndmin=2, dtype=np.float32)
        if content_type == NPY:
            return np.load(io.BytesIO(body), allow_pickle=False)
    except (ValueError, TypeError, KeyError, EOFError, OSError):
        raise Answer(400, f"The body cannot be read as {content_type}.") from None
    raise Answer(415, f"Content type {content_type or '(none)'} is not supported; send {JSON}, {CSV} or {NPY}.")


def default_predict(data: Any, model: Any) -> Any:
    """The model's own prediction."""
    return model.predict(data)


def default_output(prediction: Any, accept: str) -> tuple[Any, str]:
    """The prediction as JSON, CSV or NPY."""
    np = numpy()
    if accept == JSON:
        plain = prediction.tolist() if hasattr(prediction, "tolist") else prediction
        return json.dumps(plain, default=lambda v: v.tolist()), JSON
    if accept == CSV:
        return as_csv(np.atleast_1d(np.asarray(prediction))), CSV
    if accept == NPY:
        raw = io.BytesIO()
        np.save(raw, np.asarray(prediction), allow_pickle=False)
        return raw.getvalue(), NPY
    raise Answer(406, f"Accept {accept} is not supported; ask for {JSON}, {CSV} or {NPY}.")


def as_csv(values: Any) -> str:
    """An array's rows, as numpy.savetxt writes them with the format %s, in a third of its time."""
    if values.ndim > 2:
        raise ValueError("CSV has two dimensions")
    # As numbers of Python's own where they are the same digits; of other types each number knows its digits.
    plain = values.tolist() if values.dtype.kind in "biuOU" or values.dtype == "f8" else values
    if values.ndim == 1:
        return "".join([f"{one!s}\n" for one in plain])
    return "".join([",".join(map(str, row)) + "\n" for row in plain])


def source_folder(model: Path) -> Path:
    """Where the user's script is: the model's ``code`` folder unless the variable says otherwise."""
    told = os.environ.get("SAGEMAKER_SUBMIT_DIRECTORY", "").removeprefix("file://")
    if told.startswith("s3://"):
        path = BASE / "input" / "source" / told.rstrip("/").rsplit("/", 1)[1]
        path = path if path.exists() else model / "code"
    else:
        path = Path(told) if told else model / "code"
    if path.is_file():
        folder = Path("/tmp/code")  # noqa: S108 - the sandbox's own
        with tarfile.open(path) as packed:
            packed.extractall(folder, filter="data")
        return folder
    return path


def defaults(framework: str) -> dict[str, Callable[..., Any]]:
    """What stands for functions that a script leaves out."""
    own = {
        "model_fn": default_model,
        "input_fn": default_input,
        "predict_fn": default_predict,
        "output_fn": default_output,
    }
    if framework in ("", "scikit-learn"):
        return own
    sys.path.append(LIBRARY)
    return own | importlib.import_module("bastide_frameworks").handlers(framework, own, Answer)


class BuiltIn:
    """A built-in algorithm's model."""

    def __init__(self, algorithm: str, model: Path) -> None:
        sys.path.append(LIBRARY)
        self._module = importlib.import_module("bastide_algorithms.serving")
        self._served = self._module.Served(algorithm, model)

    def invoke(self, body: bytes, headers: Mapping[str, str]) -> tuple[bytes, str]:
        """The answer's body and content type. Raises Answer."""
        accept = headers.get("accept", "") or os.environ.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", "")
        try:
            return self._served.invoke(body, headers.get("content-type", ""), accept)
        except self._module.Refused as refused:
            raise Answer(refused.status, str(refused)) from None
        except Exception as error:
            traceback.print_exc()
            raise Answer(500, f"the model failed: {type(error).__name__}") from None


def loaded(model: Path) -> Model | BuiltIn:
    """What answers for the model in a folder."""
    algorithm = os.environ.get(ALGORITHM, "")
    return BuiltIn(algorithm, model) if algorithm and not os.environ.get("SAGEMAKER_PROGRAM") else Model(model)


class Model:
    """The user's functions over the defaults, with the model loaded."""

    def __init__(self, model: Path) -> None:
        given: dict[str, Any] = {}
        program = os.environ.get("SAGEMAKER_PROGRAM", "")
        if program:
            folder = source_folder(model)
            script = folder / program
            if not script.is_file():
                raise RuntimeError(f"SAGEMAKER_PROGRAM names {program}, which is not in {folder}")
            sys.path.insert(0, str(folder))
            spec = importlib.util.spec_from_file_location(script.stem, script)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[script.stem] = module
            spec.loader.exec_module(module)
            given = {name: getattr(module, name) for name in HANDLERS if hasattr(module, name)}
        if "transform_fn" in given and given.keys() & {"input_fn", "predict_fn", "output_fn"}:
            raise RuntimeError("transform_fn stands in place of input_fn, predict_fn and output_fn: define it alone")
        self._transform = given.get("transform_fn")
        usual = defaults(os.environ.get(FRAMEWORK, ""))
        self._input = given.get("input_fn", usual["input_fn"])
        self._predict = given.get("predict_fn", usual["predict_fn"])
        self._output = given.get("output_fn", usual["output_fn"])
        self._default_accept = os.environ.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", JSON)
        self._model = given.get("model_fn", usual["model_fn"])(str(model))

    def invoke(self, body: bytes, headers: Mapping[str, str]) -> tuple[bytes | Iterator[Any], str]:
        """The answer's body, or the pieces of it, and content type. Raises Answer."""
        content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        accept = headers.get("accept", "").partition(",")[0].partition(";")[0].strip().lower()
        accept = self._default_accept if accept in {"", "*/*"} else accept
        data: Any = body
        if content_type == JSON or content_type.startswith("text/"):
            try:
                data = body.decode()
            except UnicodeDecodeError:
                raise Answer(400, "The body is not UTF-8.") from None
        if self._transform is not None:
            result = self._guarded(500, self._transform, self._model, data, content_type, accept)
        else:
            read = self._guarded(400, self._input, data, content_type)
            predicted = self._guarded(500, self._predict, read, self._model)
            result = self._guarded(500, self._output, predicted, accept)
        answer, kind = result if isinstance(result, tuple) else (result, accept)
        if isinstance(answer, str):
            answer = answer.encode()
        if isinstance(answer, Iterator):
            return answer, str(kind)
        if not isinstance(answer, bytes | bytearray | memoryview):
            answer, kind = default_output(answer, JSON)
            answer = answer.encode()
        return bytes(answer), str(kind)

    @staticmethod
    def _guarded(status: int, function: Callable[..., Any], *given: Any) -> Any:
        try:
            return function(*given)
        except Answer:
            raise
        except Exception as error:
            traceback.print_exc()
            name = getattr(function, "__name__", "function").removeprefix("default_")
            raise Answer(status, f"{name} failed: {type(error).__name__}") from None


Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


def piece(one: Any) -> bytes:
    """A piece of an answer as bytes."""
    return one.encode() if isinstance(one, str) else bytes(one)


def largest() -> int:
    """How many bytes a request may have."""
    return int(float(os.environ.get("SAGEMAKER_MAX_PAYLOAD_IN_MB", "100")) * (1 << 20)) or (1 << 40)


async def whole(receive: Receive) -> bytes:
    """The body of a request. Raises Answer."""
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Answer(400, "The body ended early.")
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        if size > largest():
            raise Answer(413, "The body is too large.")
        if not message.get("more_body"):
            return b"".join(pieces)


def headers_of(scope: Mapping[str, Any]) -> dict[str, str]:
    """The headers of a request."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


class Application:
    """The ASGI application: what its subclasses answer, sent."""

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError("HTTP only")
        try:
            status, body, kind = await self.answer(scope, receive)
        except Answer as answer:
            status, body, kind = answer.status, answer.text.encode(), "text/plain; charset=utf-8"
        headers = [(b"content-type", kind.encode())]
        if isinstance(body, bytes):
            headers.append((b"content-length", str(len(body)).encode()))
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            return
        await send({"type": "http.response.start", "status": status, "headers": headers})
        while (sent := await body.get()) is not None:
            if isinstance(sent, BaseException):
                raise RuntimeError("the answer broke off")  # the connection is closed, which tells the caller
            await send({"type": "http.response.body", "body": sent, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def answer(self, scope: dict[str, Any], receive: Receive) -> tuple[int, Any, str]:
        """Status, body (a queue if it comes in pieces) and content type. Raises Answer."""
        raise NotImplementedError


class Server(Application):
    """One model. One invocation at a time for each worker, beside the loop, so that /ping always answers."""

    def __init__(self, model: Model | BuiltIn) -> None:
        self._model = model
        self._worker = concurrent.futures.ThreadPoolExecutor(1, "model")

    async def answer(self, scope: dict[str, Any], receive: Receive) -> tuple[int, Any, str]:
        """See the contract."""
        path, method = scope["path"], scope["method"]
        if path == "/ping" and method == "GET":
            return 200, b"", "text/plain"
        if path == "/execution-parameters" and method == "GET":
            # One payload more than are worked on, so that the next one is there when a worker is free.
            told = {"MaxConcurrentTransforms": workers() + 1, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": 6}
            return 200, json.dumps(told).encode(), JSON
        if path != "/invocations":
            raise Answer(404, "There are /ping, /execution-parameters and /invocations.")
        if method != "POST":
            raise Answer(405, "Invocations are posted.")
        body = await whole(receive)
        loop = asyncio.get_running_loop()
        found, kind = await loop.run_in_executor(self._worker, self._model.invoke, body, headers_of(scope))
        if isinstance(found, bytes):
            return 200, found, kind
        pieces: asyncio.Queue[Any] = asyncio.Queue()

        def run() -> None:
            last: Any = None
            try:
                for one in found:
                    loop.call_soon_threadsafe(pieces.put_nowait, piece(one))
            except Exception as error:
                traceback.print_exc()
                last = error
            loop.call_soon_threadsafe(pieces.put_nowait, last)

        self._worker.submit(run)
        return 200, pieces, kind


class Loaded:
    """A model in a process of its own, so that unloading gives all its memory back and no two models meet."""

    def __init__(self, folder: str) -> None:
        mine, other = socket.socketpair()
        command = [sys.executable, __file__, "--model", folder, str(other.fileno())]
        self.process = subprocess.Popen(command, pass_fds=[other.fileno()])
        other.close()
        self._line = multiprocessing.connection.Connection(mine.detach())
        self._turn = concurrent.futures.ThreadPoolExecutor(1, "model")
        self.folder = folder

    def begun(self) -> str:
        """Empty once it is loaded, else why it could not be."""
        try:
            return str(self._line.recv())
        except (EOFError, OSError):
            return "its process ended"

    async def invoke(self, body: bytes, headers: dict[str, str]) -> tuple[int, bytes, str]:
        """The model's answer; raises EOFError if its process has gone."""
        return await asyncio.get_running_loop().run_in_executor(self._turn, self._ask, body, headers)

    def _ask(self, body: bytes, headers: dict[str, str]) -> tuple[int, bytes, str]:
        try:
            self._line.send((body, headers))
            status, found, kind = self._line.recv()
        except OSError:
            raise EOFError from None
        return int(status), bytes(found), str(kind)

    def used(self) -> int:
        """Bytes of memory that it has now."""
        try:
            pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        except (OSError, IndexError, ValueError):
            return 0
        return pages * os.sysconf("SC_PAGE_SIZE")

    def end(self) -> None:
        """Unloads it."""
        self.process.kill()
        self.process.wait()
        self._turn.shutdown(wait=False)


def serve_one(folder: str, descriptor: int) -> int:
    """The process of one model of several."""
    line = multiprocessing.connection.Connection(descriptor)
    try:
        model = loaded(Path(folder))
    except Exception as error:
        traceback.print_exc()
        line.send(type(error).__name__)
        return 1
    line.send("")
    while True:
        try:
            body, headers = line.recv()
        except EOFError:
            return 0
        try:
            found, kind = model.invoke(body, headers)
            if not isinstance(found, bytes):
                found = b"".join(piece(one) for one in found)
            line.send((200, found, kind))
        except Answer as answer:
            line.send((answer.status, answer.text.encode(), "text/plain; charset=utf-8"))
        except Exception as error:
            traceback.print_exc()
            line.send((500, type(error).__name__.encode(), "text/plain; charset=utf-8"))


class Models(Application):
    """Several models, loaded and unloaded as the platform says."""

    def __init__(self) -> None:
        self._models: dict[str, Loaded] = {}
        self._room = int(os.environ.get("BASTIDE_MEMORY_BYTES") or 1 << 62) * 85 // 100
        self._loading = asyncio.Lock()

    async def answer(self, scope: dict[str, Any], receive: Receive) -> tuple[int, Any, str]:
        """See the contract."""
        path, method = scope["path"], scope["method"]
        parts = [part for part in path.split("/") if part]
        if path == "/ping" and method == "GET":
            return 200, b"", "text/plain"
        if parts == ["models"] and method == "POST":
            return await self._load(await whole(receive))
        if parts == ["models"] and method == "GET":
            return self._told({"models": [self._shown(name) for name in self._models]})
        if parts[:1] != ["models"] or len(parts) not in (2, 3):
            raise Answer(404, "There are /ping and /models.")
        if parts[1] not in self._models:
            raise Answer(404, "The model is not loaded.")
        if len(parts) == 2 and method == "GET":
            return self._told(self._shown(parts[1]))
        if len(parts) == 2 and method == "DELETE":
            self._models.pop(parts[1]).end()
            return 200, b"", "text/plain"
        if parts[2:] == ["invoke"] and method == "POST":
            return await self._invoke(parts[1], await whole(receive), headers_of(scope))
        raise Answer(405, "Models are posted, got, deleted and invoked.")

    @staticmethod
    def _told(what: Any) -> tuple[int, bytes, str]:
        return 200, json.dumps(what).encode(), JSON

    def _shown(self, name: str) -> dict[str, str]:
        return {"modelName": name, "modelUrl": self._models[name].folder}

    async def _load(self, body: bytes) -> tuple[int, bytes, str]:
        try:
            asked = json.loads(body)
            name, folder = str(asked["model_name"]), str(asked["url"])
        except (ValueError, KeyError, TypeError):
            raise Answer(400, "A model has model_name and url.") from None
        async with self._loading:
            if name in self._models:
                raise Answer(409, "The model is loaded.")
            size = sum(one.stat().st_size for one in Path(folder).rglob("*") if one.is_file())
            if self._models and self._used() + size > self._room:
                raise Answer(507, "There is no memory for another model.")
            model = Loaded(folder)
            why = await asyncio.get_running_loop().run_in_executor(None, model.begun)
            if why:
                model.end()
                raise Answer(500, f"The model could not be loaded: {why}")
            if self._models and self._used() + model.used() > self._room:
                model.end()
                raise Answer(507, "There is no memory for another model.")
            self._models[name] = model
            return self._told(self._shown(name))

    def _used(self) -> int:
        return sum(one.used() for one in self._models.values())

    async def _invoke(self, name: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes, str]:
        model = self._models[name]
        try:
            return await model.invoke(body, headers)
        except EOFError:
            if self._models.get(name) is model:
                del self._models[name]
            model.end()
            raise Answer(500, "The process of the model ended.") from None


def bound() -> socket.socket:
    """The socket, bound and not yet listening: who connects early is refused."""
    path = os.environ.get("BASTIDE_SERVE_SOCKET")
    if path:
        Path(path).unlink(missing_ok=True)
        unix = socket.socket(socket.AF_UNIX)
        unix.bind(path)
        Path(path).chmod(0o666)  # the folder it lies in says who may come
        return unix
    tcp = socket.socket(socket.AF_INET)
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    tcp.bind(("0.0.0.0", int(os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080"))))  # noqa: S104 - the contract
    return tcp


def several() -> bool:
    """Whether it serves several models."""
    return os.environ.get("SAGEMAKER_MULTI_MODEL", "").lower() == "true"


def workers() -> int:
    """How many processes answer."""
    return 1 if several() else max(1, int(os.environ.get("SAGEMAKER_MODEL_SERVER_WORKERS") or "1"))


def work(listener: socket.socket) -> int:
    """Load the model and answer until told to stop."""
    uvicorn = importlib.import_module("uvicorn")
    try:
        server = Models() if several() else Server(loaded(BASE / "model"))
    except Exception:
        traceback.print_exc()
        sys.stderr.write("The model could not be loaded.\n")
        return 1
    config = uvicorn.Config(
        server,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    # uvicorn, when it has shut down, raises the signal again that told it to, for whoever stood before it.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    uvicorn.Server(config).run(sockets=[listener])
    return 0


def main() -> int:
    """The exit status. With several workers, the end of one is the end of all: the platform starts anew."""
    if sys.argv[1:2] == ["--model"]:
        return serve_one(sys.argv[2], int(sys.argv[3]))
    read = argparse.ArgumentParser(prog="serve", allow_abbrev=False)
    read.add_argument("--framework", default="")
    read.add_argument("--algorithm", default="")
    given, _ = read.parse_known_args()
    os.environ[FRAMEWORK], os.environ[ALGORITHM] = given.framework, given.algorithm
    listener = bound()
    if workers() == 1:
        return work(listener)
    children = set()
    for _ in range(workers()):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = work(listener)
            finally:
                os._exit(status)
        children.add(child)
    stopping = False

    def stop(*_: Any) -> None:
        nonlocal stopping
        stopping = True
        for child in children:
            os.kill(child, signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    result = 0
    while children:
        child, ended = os.wait()
        children.discard(child)
        status = os.waitstatus_to_exitcode(ended)
        if status and not stopping:
            result = status if status > 0 else 128 - status
        if not stopping:
            stop()
    return result


if __name__ == "__main__":
    ended = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(ended)  # at once: neither a model that hangs nor what it had loaded is waited for
