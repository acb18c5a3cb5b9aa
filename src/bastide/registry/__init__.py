"""What clients of packages and images speak beside AWS's API: OCI Distribution 1.1 over ECR's operations, for docker,
podman, skopeo and buildah; Python's simple repository API and upload form over CodeArtifact's, for pip, uv and twine.

Clients of the services like any other: every request becomes calls that are authorised and recorded as the API's are.
"""

from bastide.registry.application import RegistryPages
from bastide.registry.packages import PackagePages

__all__ = ["PackagePages", "RegistryPages"]
