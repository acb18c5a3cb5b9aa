"""Images built in a build: buildah in the build's own sandbox, which is root of a user namespace of its own
(`Spec.privileged`).

What buildspecs say is ``docker build``, ``docker login``, ``docker push``: a small program of that name says it to buildah.
RUN commands run in a root of their own (chroot isolation) within the build's sandbox, so they reach what the build reaches
and nothing more. Images come from the platform's own registry, or FROM scratch.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from bastide.services.codebuild.script import HOME

_DOCKER: Final = Path(__file__).with_name("docker.sh")
_STORAGE: Final = f"""\
[storage]
driver = "vfs"
graphroot = "{HOME}/images/store"
runroot = "{HOME}/images/run"
"""
_POLICY: Final = '{"default": [{"type": "insecureAcceptAnything"}]}\n'
"""Images are believed by where they come from: the platform's registry, with the role's permission."""
_CONTAINERS: Final = """\
[containers]
default_capabilities = [
  "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
]
[engine]
events_logger = "none"
cgroup_manager = "cgroupfs"
"""


def lacking() -> str:
    """What this machine lacks for building images, empty if nothing."""
    return "" if shutil.which("buildah", path="/usr/bin:/usr/local/bin") else "buildah"


def prepare(folder: Path, images: Path | None) -> dict[str, str]:
    """Lays out `docker` below `folder`, which is `HOME` inside, and what buildah reads; the variables that it goes by.
    images: the folder where images are to lie, ``HOME/images`` inside; none of a build that is not privileged."""
    program = folder / "bin" / "docker"
    program.parent.mkdir(mode=0o755)
    program.write_bytes(_DOCKER.read_bytes())
    program.chmod(0o755)
    if images is None:
        return {}
    (folder / "images").mkdir()
    for name in ("store", "run", "scratch"):
        (images / name).mkdir(parents=True)
    (images / "storage.conf").write_text(_STORAGE)
    (images / "registries.conf").write_text("unqualified-search-registries = []\n")
    (images / "containers.conf").write_text(_CONTAINERS)
    policy = folder / "home" / ".config" / "containers" / "policy.json"
    policy.parent.mkdir(parents=True)
    policy.write_text(_POLICY)
    inside = f"{HOME}/images"
    return {
        "BASTIDE_PRIVILEGED": "1",
        "BUILDAH_ISOLATION": "chroot",
        "CONTAINERS_CONF": f"{inside}/containers.conf",
        "CONTAINERS_REGISTRIES_CONF": f"{inside}/registries.conf",
        "CONTAINERS_STORAGE_CONF": f"{inside}/storage.conf",
        "REGISTRY_AUTH_FILE": f"{inside}/auth.json",
        "TMPDIR": f"{inside}/scratch",
        "XDG_RUNTIME_DIR": f"{inside}/run",
        "_CONTAINERS_USERNS_CONFIGURED": "done",
    }
