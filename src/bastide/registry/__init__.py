"""The registry's own protocol, for docker, podman, skopeo and buildah: OCI Distribution 1.1 over ECR's operations.

A client of ECR like any other: every request becomes calls that are authorised and recorded as those of the API are.
"""

from bastide.registry.application import RegistryPages

__all__ = ["RegistryPages"]
