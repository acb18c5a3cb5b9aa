"""Model servers of others, in environments of their own below ``.bench/``, each with one worker and the model of 5 ms."""

from __future__ import annotations

import time
from pathlib import Path
from typing import ClassVar

from . import measure
from .measure import Sample, middle
from .servers import BENCH, Server, free_port, install

MODEL = """
import time
def work():
    until = time.thread_time() + 0.005
    while time.thread_time() < until: pass
    return 1.0
"""


class Peer(Server):
    """A server that is asked over plain HTTP. Left out where its environment cannot be made."""

    path: ClassVar[str]
    body: ClassVar[bytes]
    kind: ClassVar[str]

    def files(self) -> dict[str, str]:
        """What it serves, by file name."""
        raise NotImplementedError

    def measured(self, clients: tuple[int, ...], repeats: int, seconds: float) -> dict[int, Sample] | str:
        """The figures, or why there are none."""
        try:
            install(self.name)
        except (OSError, RuntimeError) as error:
            return f"not installed: {str(error).strip().splitlines()[-1][:80]}"
        self.home.mkdir(parents=True, exist_ok=True)
        for name, text in self.files().items():
            (self.home / name).write_text(text)
        self.port = free_port()
        head = f"POST {self.path} HTTP/1.1\r\nHost: x\r\nContent-Type: {self.kind}\r\nContent-Length: {len(self.body)}"
        request = f"{head}\r\n\r\n".encode() + self.body
        self.spawn()
        try:
            measure.first_answer(self, request, self.port, 120)
            time.sleep(1)
            found: dict[int, list[Sample]] = {}
            for _ in range(repeats):
                for count in clients:
                    spec = {
                        "requests": [request],
                        "port": self.port,
                        "clients": count,
                        "seconds": seconds,
                        "warm": count,
                    }
                    found.setdefault(count, []).append(measure.play(self, spec))
            return {count: middle(samples) for count, samples in found.items()}
        except (RuntimeError, OSError) as error:
            return f"failed: {str(error).strip()[-80:]}"
        finally:
            self.stop()

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return BENCH / self.name / "bin" / "python"


class BentoML(Peer):
    """BentoML's HTTP server."""

    name = "bentoml"
    label = "BentoML"
    path = "/predict"
    body = b"{}"
    kind = "application/json"

    def files(self) -> dict[str, str]:
        service = "import bentoml\n@bentoml.service(workers=1)\nclass Model:\n    @bentoml.api\n"
        return {"service.py": f"{MODEL}{service}    def predict(self) -> float:\n        return work()\n"}

    def command(self) -> list[str]:
        return [str(self.python), "-m", "bentoml", "serve", "service:Model", "--port", str(self.port)]

    def environment(self) -> dict[str, str]:
        return {"BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": str(self.home / "bentoml")}


class MLflow(Peer):
    """MLflow's scoring server, on its own."""

    name = "mlflow"
    label = "MLflow"
    path = "/invocations"
    body = b'{"inputs": [[1.0]]}'
    kind = "application/json"

    def files(self) -> dict[str, str]:
        model = "import mlflow\nclass Model(mlflow.pyfunc.PythonModel):\n    def predict(self, context, model_input):\n"
        save = "mlflow.pyfunc.save_model('model', python_model=Model())\n"
        serve = "import uvicorn\nfrom mlflow.pyfunc import load_model\nfrom mlflow.pyfunc.scoring_server import init\n"
        run = "uvicorn.run(init(load_model('model')), host='127.0.0.1', port=int(sys.argv[1]), log_level='warning')\n"
        return {"server.py": f"import sys\n{MODEL}{model}        return [work()]\n{save}{serve}{run}"}

    def command(self) -> list[str]:
        return [str(self.python), "server.py", str(self.port)]


PEERS: tuple[type[Peer], ...] = (BentoML, MLflow)
