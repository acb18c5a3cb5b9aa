"""What a framework's serving image does where a script defines no function for it.

Sources: SageMaker Python SDK, "Using PyTorch", "Using XGBoost", "Deploy to SageMaker: TensorFlow"; the Hugging Face
inference toolkit's README.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

JSON, CSV, NPY = "application/json", "text/csv", "application/x-npy"
Functions = dict[str, Callable[..., Any]]


def handlers(framework: str, own: Mapping[str, Callable[..., Any]], answer: type[Exception]) -> Functions:
    """Functions in place of scikit-learn's, which are given in own. answer: what ends a request, by status and text."""
    made = {"xgboost": _xgboost, "pytorch": _pytorch, "tensorflow": _tensorflow, "huggingface": _huggingface}
    return made[framework](own, answer) if framework in made else {}


def _xgboost(own: Mapping[str, Callable[..., Any]], answer: type[Exception]) -> Functions:
    """``xgboost-model``, matrices, predictions."""
    trees = importlib.import_module("bastide_algorithms.boosted_trees")
    tables = importlib.import_module("bastide_algorithms.tables")
    xgboost = importlib.import_module("xgboost")

    def read(body: Any, content_type: str) -> Any:
        data = body.encode() if isinstance(body, str) else body
        rules = tables.Rules(labels=False, default=content_type, formats=trees.REQUESTS)
        try:
            return xgboost.DMatrix(tables.parse(data, content_type, rules).features)
        except Exception as error:
            raise answer(415 if "content type" in str(error) else 400, str(error)) from None

    def predict(data: Any, model: Any) -> Any:
        return model.predict(data, validate_features=False)

    return {"model_fn": lambda folder: trees.load(Path(folder)).booster, "input_fn": read, "predict_fn": predict}


def _pytorch(own: Mapping[str, Callable[..., Any]], answer: type[Exception]) -> Functions:
    """``model.pt``, a TorchScript module, on tensors of float32."""
    torch = importlib.import_module("torch")

    def load(folder: str) -> Any:
        path = Path(folder) / "model.pt"
        if not path.is_file():
            raise RuntimeError("without model_fn the model has to be model.pt, a TorchScript module")
        return torch.jit.load(str(path), map_location="cpu").eval()

    def read(body: Any, content_type: str) -> Any:
        return torch.from_numpy(own["input_fn"](body, content_type))

    def predict(data: Any, model: Any) -> Any:
        with torch.no_grad():
            return model(data)

    def write(prediction: Any, accept: str) -> Any:
        if isinstance(prediction, torch.Tensor):
            prediction = prediction.detach().cpu().numpy()
        return own["output_fn"](prediction, accept)

    return {"model_fn": load, "input_fn": read, "predict_fn": predict, "output_fn": write}


def _tensorflow(own: Mapping[str, Callable[..., Any]], answer: type[Exception]) -> Functions:
    """A SavedModel or a ``.keras`` file; requests and answers as TensorFlow Serving's REST API has them."""
    tensorflow = importlib.import_module("tensorflow")

    def load(folder: str) -> Any:
        here = Path(folder)
        found = sorted(here.rglob("saved_model.pb"), key=lambda p: (p.parent.name.isdigit(), p.parent.name.zfill(20)))
        if found:
            model = tensorflow.saved_model.load(str(found[-1].parent))
            signature = model.signatures["serving_default"]
            signature.kept = model  # its variables live as long as it does
            return signature
        files = sorted(here.glob("*.keras"))
        if len(files) != 1:
            raise RuntimeError("the model has to be a SavedModel or one .keras file")
        return tensorflow.keras.models.load_model(str(files[0]))

    def read(body: Any, content_type: str) -> Any:
        if content_type == CSV:
            return own["input_fn"](body, CSV)
        if content_type != JSON:
            raise answer(415, f"Content type {content_type or '(none)'} is not supported; send {JSON} or {CSV}.")
        try:
            told = json.loads(body)
            return told.get("instances", told.get("inputs")) if isinstance(told, dict) else told
        except ValueError:
            raise answer(400, "The body is not JSON.") from None

    def predict(data: Any, model: Any) -> Any:
        if not hasattr(model, "structured_input_signature"):
            return model(tensorflow.constant(data, dtype=model.inputs[0].dtype)).numpy()
        wanted = model.structured_input_signature[1]
        if isinstance(data, list) and data and isinstance(data[0], dict):
            data = {name: [one[name] for one in data] for name in data[0]}
        named = data if isinstance(data, dict) else {next(iter(wanted)): data}
        found = model(**{name: tensorflow.constant(value, dtype=wanted[name].dtype) for name, value in named.items()})
        plain = {name: value.numpy() for name, value in found.items()}
        return next(iter(plain.values())) if len(plain) == 1 else plain

    def write(prediction: Any, accept: str) -> Any:
        if accept != JSON:
            return own["output_fn"](prediction, accept)
        if isinstance(prediction, dict):
            columns = {name: value.tolist() for name, value in prediction.items()}
            rows: Any = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        else:
            rows = prediction.tolist()
        return json.dumps({"predictions": rows}), JSON

    return {"model_fn": load, "input_fn": read, "predict_fn": predict, "output_fn": write}


def _huggingface(own: Mapping[str, Callable[..., Any]], answer: type[Exception]) -> Functions:
    """A transformers pipeline of the task HF_TASK over the model's folder: ``{"inputs": ..., "parameters": {...}}``."""
    transformers = importlib.import_module("transformers")

    def load(folder: str) -> Any:
        task = os.environ.get("HF_TASK")
        if not task:
            raise RuntimeError("without model_fn the variable HF_TASK has to name the pipeline's task")
        return transformers.pipeline(task, model=folder, device="cpu")

    def read(body: Any, content_type: str) -> Any:
        if content_type != JSON:
            raise answer(415, f"Content type {content_type or '(none)'} is not supported; send {JSON}.")
        try:
            told = json.loads(body)
            return told["inputs"], told.get("parameters") or {}
        except (ValueError, TypeError, KeyError):
            raise answer(400, "The body is a JSON object with inputs.") from None

    def predict(data: Any, model: Any) -> Any:
        inputs, parameters = data
        if isinstance(inputs, dict):
            return model(**inputs, **parameters)
        return model(inputs, **parameters)

    def write(prediction: Any, accept: str) -> Any:
        if accept != JSON:
            raise answer(406, f"Accept {accept} is not supported; ask for {JSON}.")
        return json.dumps(prediction, default=lambda value: value.tolist()), JSON

    return {"model_fn": load, "input_fn": read, "predict_fn": predict, "output_fn": write}
