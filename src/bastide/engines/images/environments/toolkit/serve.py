"""The image side of SageMaker's hosting contract: GET /ping, POST /invocations, on the user's functions or a model.

Runs inside the sandbox on the environment's Python and imports nothing of Bastide. It follows the developer guide
(your-algorithms-inference-code) and the handler functions that the SageMaker inference toolkit documents: ``model_fn``,
``input_fn``, ``predict_fn``, ``output_fn``, or ``transform_fn`` in place of the last three. Without a script it loads
``model.joblib``, or else the one ``*.joblib`` or ``*.pkl`` that is there, and calls its ``predict``.

Variables: BASTIDE_SERVE_SOCKET (path of a unix socket; without it TCP port SAGEMAKER_BIND_TO_PORT or 8080),
SAGEMAKER_PROGRAM, SAGEMAKER_SUBMIT_DIRECTORY, SAGEMAKER_MODEL_SERVER_WORKERS, SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT,
SAGEMAKER_MAX_PAYLOAD_IN_MB. The server listens once the model is loaded and not before. The caller is never shown a
traceback; the log is.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib
import importlib.util
import io
import json
import os
import signal
import socket
import sys
import tarfile
import traceback
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

BASE = Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml"))
JSON, CSV, NPY = "application/json", "text/csv", "application/x-npy"
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
            return np.loadtxt(io.StringIO(body), delimiter=",", ndmin=2, dtype=np.float64).astype(np.float32)
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
        out = io.StringIO()
        np.savetxt(out, np.atleast_1d(np.asarray(prediction)), delimiter=",", fmt="%s")
        return out.getvalue(), CSV
    if accept == NPY:
        raw = io.BytesIO()
        np.save(raw, np.asarray(prediction), allow_pickle=False)
        return raw.getvalue(), NPY
    raise Answer(406, f"Accept {accept} is not supported; ask for {JSON}, {CSV} or {NPY}.")


def source_folder() -> Path:
    """Where the user's script is: the model's ``code`` folder unless the variable says otherwise."""
    told = os.environ.get("SAGEMAKER_SUBMIT_DIRECTORY", "").removeprefix("file://")
    if told.startswith("s3://"):
        path = BASE / "input" / "source" / told.rstrip("/").rsplit("/", 1)[1]
        path = path if path.exists() else BASE / "model" / "code"
    else:
        path = Path(told) if told else BASE / "model" / "code"
    if path.is_file():
        folder = Path("/tmp/code")  # noqa: S108 - the sandbox's own
        with tarfile.open(path) as packed:
            packed.extractall(folder, filter="data")
        return folder
    return path


class Model:
    """The user's functions over the defaults, with the model loaded."""

    def __init__(self) -> None:
        given: dict[str, Any] = {}
        program = os.environ.get("SAGEMAKER_PROGRAM", "")
        if program:
            folder = source_folder()
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
        self._input = given.get("input_fn", default_input)
        self._predict = given.get("predict_fn", default_predict)
        self._output = given.get("output_fn", default_output)
        self._default_accept = os.environ.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", JSON)
        self._model = given.get("model_fn", default_model)(str(BASE / "model"))

    def invoke(self, body: bytes, headers: Mapping[str, str]) -> tuple[bytes, str]:
        """The answer's body and content type. Raises Answer."""
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


class Server:
    """The ASGI application. One invocation at a time for each worker, beside the loop, so that /ping always answers."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._largest = int(float(os.environ.get("SAGEMAKER_MAX_PAYLOAD_IN_MB", "100")) * (1 << 20)) or (1 << 40)
        self._worker = concurrent.futures.ThreadPoolExecutor(1, "model")

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError("HTTP only")
        try:
            status, body, kind = await self._answer(scope, receive)
        except Answer as answer:
            status, body, kind = answer.status, answer.text.encode(), "text/plain; charset=utf-8"
        headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: dict[str, Any], receive: Receive) -> tuple[int, bytes, str]:
        path, method = scope["path"], scope["method"]
        if path == "/ping" and method == "GET":
            return 200, b"", "text/plain"
        if path != "/invocations":
            raise Answer(404, "There are /ping and /invocations.")
        if method != "POST":
            raise Answer(405, "Invocations are posted.")
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        pieces: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Answer(400, "The body ended early.")
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            if size > self._largest:
                raise Answer(413, "The body is too large.")
            if not message.get("more_body"):
                break
        loop = asyncio.get_running_loop()
        body, kind = await loop.run_in_executor(self._worker, self._model.invoke, b"".join(pieces), headers)
        return 200, body, kind


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


def work(listener: socket.socket) -> int:
    """Load the model and answer until told to stop."""
    uvicorn = importlib.import_module("uvicorn")
    try:
        server = Server(Model())
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
    workers = max(1, int(os.environ.get("SAGEMAKER_MODEL_SERVER_WORKERS") or "1"))
    listener = bound()
    if workers == 1:
        return work(listener)
    children = set()
    for _ in range(workers):
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
    sys.exit(main())
