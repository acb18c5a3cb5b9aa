"""Image URIs that Bastide answers for, and the environment behind each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bastide.domain import Refused
from bastide.engines.images.environment import Environment, located

_XGBOOST_METRICS: Final = (
    "accuracy", "auc", "aucpr", "balanced_accuracy", "error", "f1", "logloss", "mae", "map", "merror", "mlogloss",
    "mse", "ndcg", "r2", "rmse", "rmsle",
)  # fmt: skip
_NUMBER: Final = r"([-+.0-9a-zA-Z]+)"


def _xgboost_metrics() -> tuple[tuple[str, str], ...]:
    """As the developer guide's "Tune an XGBoost model" has them, and those of the training data."""
    return tuple(
        (f"{part}:{name}", rf".*\[[0-9]+\].*#011{part}-{name}:([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)")
        for part in ("train", "validation")
        for name in _XGBOOST_METRICS
    )


def _quality(*named: str) -> tuple[tuple[str, str], ...]:
    """Lines ``#quality_metric: host=algo-1, PART NAME <loss>=NUMBER``, for each ``PART:NAME``."""
    return tuple(
        (one, rf"#quality_metric: host=\S+, {one.replace(':', ' ')} <(?:loss|score)>={_NUMBER}") for one in named
    )


def _linear() -> tuple[tuple[str, str], ...]:
    """As the developer guide's "Metrics computed by the linear learner algorithm" names them."""
    scores = (
        "binary_classification_accuracy", "binary_f_beta", "precision", "recall", "roc_auc_score",
        "multiclass_accuracy", "multiclass_top_k_accuracy", "mse", "absolute_loss", "rmse", "r2",
    )  # fmt: skip
    objectives = tuple(
        (f"{part}:objective_loss", rf"#quality_metric: host=\S+, {part} \S*objective <loss>={_NUMBER}")
        for part in ("train", "validation", "test")
    )
    return objectives + _quality(*(f"{part}:{name}" for part in ("validation", "test") for name in scores))


@dataclass(frozen=True)
class Algorithm:
    """A built-in algorithm. metrics: names and patterns watched for."""

    name: str
    metrics: tuple[tuple[str, str], ...]


ALGORITHMS: Final = {
    one.name: one
    for one in (
        Algorithm("xgboost", _xgboost_metrics()),
        Algorithm("linear-learner", _linear()),
        Algorithm("kmeans", _quality("train:msd", "test:msd", "test:ssd")),
        Algorithm("pca", _quality("train:explained_variance_ratio", "test:explained_variance_ratio")),
        Algorithm("knn", _quality("train:accuracy", "test:accuracy", "train:mse", "test:mse")),
        Algorithm("randomcutforest", _quality("test:f1", "test:precision", "test:recall", "test:accuracy")),
    )
}


@dataclass(frozen=True)
class Image:
    """A repository that Bastide answers for. tags: a pattern of the tags that it has, and examples to show.

    environment: what runs. framework: the flag of the toolkit's programs. algorithm: built in, if it is one.
    scripts: whether it trains in script mode. process: the default entry point of processing jobs.
    """

    repository: str
    environment: str
    tags: str
    examples: tuple[str, ...]
    framework: str = ""
    algorithm: str = ""
    scripts: bool = True
    trains: bool = True
    serves: bool = True
    process: tuple[str, ...] = ()


# The repositories and tags that the SageMaker Python SDK (2.257, 3.27) can compute. AWS's images carry releases of
# many years; ours is one environment with a current one, and it says so by its digest. A script that needs an old
# release brings its own image.
_PY3: Final = r"py3[0-9]{0,2}(?:-[a-z0-9.-]+)?"
IMAGES: Final = {
    one.repository: one
    for one in (
        Image(
            "sagemaker-scikit-learn",
            "scikit-learn",
            r"(?:0\.20\.0|0\.23-1|1\.0-1|1\.2-1|1\.4-2)(?:-cpu-py3)?",
            tuple(f"{version}-cpu-py3" for version in ("0.20.0", "0.23-1", "1.0-1", "1.2-1", "1.4-2")),
        ),
        Image(
            "sagemaker-xgboost",
            "xgboost",
            r"(?:0\.90-[12]|1\.0-1|1\.2-[12]|1\.3-1|1\.5-1|1\.7-1|3\.0-5)(?:-cpu-py3)?",
            ("0.90-2-cpu-py3", "1.0-1-cpu-py3", "1.2-2", "1.3-1", "1.5-1", "1.7-1", "3.0-5"),
            framework="xgboost",
            algorithm="xgboost",
        ),
        Image(
            "pytorch-training",
            "pytorch",
            rf"2\.[0-9]+(?:\.[0-9]+)?-cpu-{_PY3}",
            ("2.3-cpu-py311", "2.8-cpu-py312"),
            framework="pytorch",
            serves=False,
        ),
        Image(
            "pytorch-inference",
            "pytorch",
            rf"2\.[0-9]+(?:\.[0-9]+)?-cpu-{_PY3}",
            ("2.3-cpu-py311", "2.6-cpu-py312"),
            framework="pytorch",
            trains=False,
        ),
        Image(
            "tensorflow-training",
            "tensorflow",
            rf"2\.[0-9]+(?:\.[0-9]+)?-cpu-{_PY3}",
            ("2.14-cpu-py310", "2.19-cpu-py312"),
            framework="tensorflow",
            serves=False,
        ),
        Image(
            "tensorflow-inference",
            "tensorflow",
            r"2\.[0-9]+(?:\.[0-9]+)?-cpu(?:-[a-z0-9.-]+)?",
            ("2.14-cpu", "2.19-cpu"),
            framework="tensorflow",
            trains=False,
        ),
        Image(
            "huggingface-pytorch-training",
            "huggingface",
            # AWS has no tag of it without a GPU; here it trains on processors.
            rf"2\.[0-9.]+-transformers[0-9.]+-(?:cpu|gpu)-{_PY3}",
            ("2.1.0-transformers4.36.0-gpu-py310-cu121-ubuntu20.04",),
            framework="huggingface",
            serves=False,
        ),
        Image(
            "huggingface-pytorch-inference",
            "huggingface",
            rf"2\.[0-9.]+-transformers[0-9.]+-cpu-{_PY3}",
            ("2.1.0-transformers4.37.0-cpu-py310-ubuntu22.04",),
            framework="huggingface",
            trains=False,
        ),
        Image(
            "sagemaker-spark-processing",
            "spark",
            r"3\.[0-9]-cpu(?:-py3[0-9]{1,2})?(?:-v[0-9.]+)?",
            ("3.3-cpu", "3.5-cpu-py39-v1.0"),
            framework="spark",
            trains=False,
            serves=False,
            process=("smspark-submit",),
        ),
        # The packages of XGBoost's environment, of which Parquet's reader is one, are all that these need.
        *(
            Image(
                name, "xgboost", re.escape(tag), (tag,), scripts=False, trains=False, serves=False, process=(program,)
            )
            for name, tag, program in (
                ("sagemaker-model-monitor-analyzer", "latest", "model-monitor-analyzer"),
                ("sagemaker-model-monitor-groundtruth-merger", "latest", "groundtruth-merger"),
                ("sagemaker-clarify-processing", "1.0", "clarify-processing"),
            )
        ),
        *(
            Image(name, "scikit-learn", "1|latest", ("1",), algorithm=name, scripts=False)
            for name in ("linear-learner", "kmeans", "pca", "knn", "randomcutforest")
        ),
    )
}

_REFUSED: Final = {
    "mxnet-training": "MXNet is retired (the project ended in 2023): there is no environment of it.",
    "mxnet-inference": "MXNet is retired (the project ended in 2023): there is no environment of it.",
    "xgboost": "The first release of XGBoost's image is retired: use sagemaker-xgboost, for example 1.7-1.",
    "sagemaker-debugger-rules": "It evaluates rules of training jobs: name it in their DebugRuleConfigurations.",
}

# https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_AlgorithmSpecification.html#TrainingImage and the
# reference grammar of OCI distribution: a registry, a path, then a tag or a digest.
_URI: Final = re.compile(
    r"(?:(?P<registry>[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]{1,5})?)/)?"
    r"(?P<repository>[a-z0-9]+(?:[._/-][a-z0-9]+)*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


def known() -> list[str]:
    """What can be named, as ``repository:tag``, sorted; examples where a repository has many tags."""
    return sorted(f"{image.repository}:{tag}" for image in IMAGES.values() for tag in image.examples)


def resolve(image_uri: str, root: Path | None = None) -> Environment:
    """The environment that an image URI means. The account and region in the URI are ignored.

    root: the folder that :func:`bastide.engines.images.build` filled, by default the installation's.
    A URI that pins a digest must pin the digest of the environment that is here.

    Raises Refused ValidationException (400) naming what exists when the image is unknown, and saying how it is built
    when it has not been built on this machine.
    """
    if len(image_uri) > 255 or (match := _URI.fullmatch(image_uri)) is None:
        raise Refused("ValidationException", "The image URI is not of the form registry/repository:tag.")
    repository, tag, digest = match["repository"], match["tag"], match["digest"]
    image = IMAGES.get(repository)
    if image is not None and not (tag or digest) and re.fullmatch(image.tags, "latest"):
        tag = "latest"  # as every registry has it; AWS's own URIs of some images have no tag
    if image is None:
        names = ", ".join(sorted(IMAGES))
        why = _REFUSED.get(repository, "")
        raise Refused(
            "ValidationException",
            f"Unknown image repository {repository!r}. {f'{why} ' if why else ''}Bastide brings the repositories: {names}.",
        )
    if tag is None and digest is None:
        raise Refused(
            "ValidationException", f"Repository {repository!r} needs a tag, such as {_shown(image.examples)}."
        )
    if tag is not None and re.fullmatch(image.tags, tag) is None:
        gpu = " There are no GPUs here: take a tag with cpu." if "gpu" in tag else ""
        raise Refused(
            "ValidationException",
            f"Repository {repository!r} has no tag {tag!r}.{gpu} Its tags are such as: {_shown(image.examples)}.",
        )
    environment = _of(image, located(image.environment, root))
    if digest is not None and environment.digest != digest:
        raise Refused(
            "ValidationException",
            f"The image {repository}{f':{tag}' if tag else ''} is here with the digest {environment.digest}, not {digest}.",
        )
    return environment


def _of(image: Image, environment: Environment) -> Environment:
    """The environment with what the image adds to it."""
    flags = [*(("--framework", image.framework) if image.framework else ())]
    algorithm = ALGORITHMS.get(image.algorithm)
    if algorithm is not None:
        flags += ["--algorithm", algorithm.name]
    return replace(
        environment,
        train=("train", *flags) if image.trains else (),
        serve=("serve", *flags) if image.serves else (),
        process=image.process,
        algorithm=image.algorithm,
        metrics=algorithm.metrics if algorithm is not None else (),
        scripts=image.scripts,
    )


def _shown(examples: Sequence[str]) -> str:
    return ", ".join(sorted(examples))


def images_of(name: str) -> list[Image]:
    """The images that an environment is behind, by repository."""
    return sorted((one for one in IMAGES.values() if one.environment == name), key=lambda one: one.repository)
