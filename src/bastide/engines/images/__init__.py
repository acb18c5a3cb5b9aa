"""Which environment an image URI means, and the environments that Bastide brings.

A SageMaker client names an image by the URI that its SDK computes,
``<account>.dkr.ecr.<region>.<suffix>/<repository>[:<tag>]``. The account in it varies by region and says nothing, so an
image is known here by repository and tag. An :class:`Environment` is what a sandbox needs of it: folders to bind read
only, a search path, and a digest that pins what ran.
"""

from __future__ import annotations

from bastide.engines.images.catalogue import ALGORITHMS, IMAGES, images_of, known, resolve
from bastide.engines.images.container import Blob, Container, Containers, Unfit
from bastide.engines.images.environment import (
    Environment,
    build,
    default_root,
    digest_of,
    is_built,
    located,
    names,
    packages,
    place_of,
)

__all__ = [
    "ALGORITHMS",
    "IMAGES",
    "Blob",
    "Container",
    "Containers",
    "Environment",
    "Unfit",
    "build",
    "default_root",
    "digest_of",
    "images_of",
    "is_built",
    "known",
    "located",
    "names",
    "packages",
    "place_of",
    "resolve",
]
