"""A host's network on a node: its own namespace, and WireGuard to the job's hosts on other nodes.

WireGuard runs in the machine's own network, where it reaches the other nodes by UDP, and its interface is moved into the
namespace: inside there is no way but to the peers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import socket
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from bastide.engines.network import NetworkError, kernel
from bastide.engines.network.peers import OWN, PACKET, PROGRAM, configure

_PROBING: Final = 50


class Across:
    """port, public: of WireGuard here, for the others; 0 and empty if the host has none."""

    def __init__(self) -> None:
        self.handle = -1
        self.port = 0
        self.public = ""
        self._key: X25519PrivateKey | None = None
        self._process: asyncio.subprocess.Process | None = None

    @property
    def namespace(self) -> str:
        """A path for setns(2)."""
        return kernel.shown(self.handle)

    async def make(self, interface: str, address: str) -> None:
        """The namespace, with an interface of that name and address if there is one. Raises NetworkError and OSError."""
        self.handle = kernel.new_namespace(forwards=False)
        kernel.lo_up(self.handle)
        if not address:
            return
        program = shutil.which(PROGRAM, path=kernel.PATH)
        if program is None:
            raise NetworkError(f"the program {PROGRAM} is not installed (apt-get install {PROGRAM})")
        name = f"bw{secrets.token_hex(5)}"
        self._key = X25519PrivateKey.generate()
        self.public = self._key.public_key().public_bytes_raw().hex()
        self._process = await asyncio.create_subprocess_exec(
            "/usr/bin/setpriv", "--pdeathsig", "KILL", "--", "/usr/bin/unshare", "--mount", "--propagation", "private",
            "--", "/bin/sh", "-c",
            f"mount -t tmpfs -o mode=0700 none /run && : >{OWN} && mkdir -p /var/run && exec {program} -f {name}",
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
            env={"PATH": kernel.PATH, "LOG_LEVEL": "silent"}, cwd="/",
        )  # fmt: skip
        private = self._key.private_bytes_raw().hex()
        for _ in range(_PROBING):
            self.port = _free_port()
            with contextlib.suppress(NetworkError):
                await configure(self._process, name, f"set=1\nprivate_key={private}\nlisten_port={self.port}\n\n")
                break
        else:
            raise NetworkError("no port for WireGuard")
        here = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            await kernel.ip(here, f"link set {name} netns {self.namespace} name {interface}")
        finally:
            os.close(here)
        await kernel.ip(
            self.handle, f"link set {interface} mtu {PACKET} up", f"address add {address}/16 dev {interface}"
        )
        self._name = name

    async def join(self, peers: Sequence[Mapping[str, Any]]) -> None:
        """peers: public, endpoint, address of each other host."""
        assert self._process is not None
        lines = ["set=1"]
        for one in peers:
            lines += [f"public_key={one['public']}", f"endpoint={one['endpoint']}", f"allowed_ip={one['address']}/32"]
        await configure(self._process, self._name, "\n".join(lines) + "\n\n")

    def stands(self) -> bool:
        """Whether WireGuard runs where there is some."""
        return self._process is None or self._process.returncode is None

    async def close(self) -> None:
        """Takes it away; closing twice is fine."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        if self.handle >= 0:
            os.close(self.handle)
            self.handle = -1


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.bind(("0.0.0.0", 0))  # noqa: S104 - asked for a number only
        found: int = asked.getsockname()[1]
        return found
