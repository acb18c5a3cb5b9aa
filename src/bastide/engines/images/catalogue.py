"""Image URIs that Bastide answers for, and the environment behind each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from bastide.domain import Refused
from bastide.engines.images.environment import Environment, located

# The repositories and tags that the SageMaker Python SDK (2.257, 3.27: image_uri_config/sklearn.json) can compute.
# AWS's images carry old releases of scikit-learn; ours is one environment with a current one, and it says so by its
# digest. A script that needs an old release brings its own image.
_TAGS: Final[dict[str, dict[str, str]]] = {
    "sagemaker-scikit-learn": {
        tag: "scikit-learn"
        for version in ("0.20.0", "0.23-1", "1.0-1", "1.2-1", "1.4-2")
        for tag in (f"{version}-cpu-py3", version)
    },
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
    """What can be named, as ``repository:tag``, sorted; for messages and documentation."""
    return sorted(f"{repository}:{tag}" for repository, tags in _TAGS.items() for tag in tags)


def resolve(image_uri: str, root: Path | None = None) -> Environment:
    """The environment that an image URI means. The account and region in the URI are ignored.

    root: the folder that :func:`bastide.engines.images.build` filled, by default the installation's.
    A URI that pins a digest must pin the digest of the environment that is here.

    Raises Refused ValidationException (400) naming what exists when the image is unknown, and Refused InternalFailure
    (500) when the environment is known and has not been built on this machine.
    """
    if len(image_uri) > 255 or (match := _URI.fullmatch(image_uri)) is None:
        raise Refused("ValidationException", "The image URI is not of the form registry/repository:tag.")
    repository, tag, digest = match["repository"], match["tag"], match["digest"]
    tags = _TAGS.get(repository)
    if tags is None:
        names = ", ".join(sorted(_TAGS))
        raise Refused(
            "ValidationException",
            f"Unknown image repository {repository!r}. Bastide brings the repositories: {names}.",
        )
    if digest is not None and tag is None:
        for name in sorted(set(tags.values())):
            environment = located(name, root)
            if environment.digest == digest:
                return environment
        raise Refused("ValidationException", f"Repository {repository!r} has no image with the digest {digest}.")
    name_or_none = tags.get(tag or "")
    if name_or_none is None:
        there = ", ".join(sorted(tags))
        raise Refused("ValidationException", f"Repository {repository!r} has no tag {tag!r}. Its tags are: {there}.")
    environment = located(name_or_none, root)
    if digest is not None and environment.digest != digest:
        raise Refused(
            "ValidationException",
            f"The image {repository}:{tag} is here with the digest {environment.digest}, not {digest}.",
        )
    return environment
