"""The network of a job's hosts: a switch that nothing else is plugged into.

Each host is a namespace; their links end at a bridge in a namespace of its own, which has no address and no other link.
Where what they send is to be encrypted, each has a second interface whose packets leave as WireGuard's, and the first one
lets nothing else through to a peer. WireGuard and not the kernel's IPsec or MACsec: it runs in a process where a kernel has
neither. All is held by this process's descriptors and ends with it; a WireGuard process is killed by the kernel with its
parent, and its folder is a mount of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from bastide.engines.network import Attachment, NetworkError, Peer, kernel

PORT: Final = 51820
_PLAIN: Final = "10.77"
_INNER: Final = "10.78"
_MOST: Final = 250
PROGRAM: Final = "wireguard-go"
OWN: Final = "/run/bastide-peers"
PACKET: Final = 1420  # bytes, that an encrypted one still fits into 1500


@dataclass
class _Member:
    """A host. handle: its namespace, if it is ours. outer: its address on the way; on it, the interface."""

    namespace: str
    outer: str
    handle: int = -1
    process: asyncio.subprocess.Process | None = None


class Peers:
    """See the port's Joined."""

    def __init__(self) -> None:
        self.peers: list[Peer] = []
        self._members: list[_Member] = []
        self._switch = -1

    async def make(self, hosts: int, *, encrypted: bool, attached: Sequence[Attachment]) -> None:
        """Makes it; called once. Raises OSError and NetworkError."""
        if hosts > _MOST:
            raise NetworkError(f"more than {_MOST} hosts")
        if attached:
            self._members = [_Member(one.namespace, one.interface.address) for one in attached]
        else:
            for number in range(hosts):
                handle = kernel.new_namespace(forwards=False)
                self._members.append(_Member(kernel.shown(handle), f"{_PLAIN}.0.{number + 1}", handle))
                kernel.lo_up(handle)
            if hosts == 1:
                self.peers = [Peer(self._members[0].namespace)]
                return
            await self._plug()
        if encrypted and hosts > 1:
            await self._encrypt()
            self.peers = [
                Peer(one.namespace, f"{_INNER}.0.{number + 1}", "eth1") for number, one in enumerate(self._members)
            ]
        else:
            self.peers = [Peer(one.namespace, one.outer, "eth0") for one in self._members]

    async def _plug(self) -> None:
        self._switch = kernel.new_namespace(forwards=False)
        lines = ["link add br0 type bridge", "link set br0 up"]
        for number, one in enumerate(self._members):
            lines.append(f"link add p{number} type veth peer name eth0 netns {one.namespace}")
            lines += [f"link set p{number} master br0", f"link set p{number} up"]
        await kernel.ip(self._switch, *lines)
        await asyncio.gather(
            *(
                kernel.ip(one.handle, "link set eth0 up", f"address add {one.outer}/16 dev eth0")
                for one in self._members
            )
        )
        async with asyncio.timeout(kernel.SECONDS):
            for number, one in enumerate(self._members):
                while not (kernel.running(self._switch, f"p{number}") and kernel.running(one.handle, "eth0")):
                    await asyncio.sleep(0.005)

    async def _encrypt(self) -> None:
        program = shutil.which(PROGRAM, path=kernel.PATH)
        if program is None:
            raise NetworkError(f"the program {PROGRAM} is not installed (apt-get install {PROGRAM})")
        keys = [X25519PrivateKey.generate() for _ in self._members]
        public = [key.public_key().public_bytes_raw().hex() for key in keys]
        outer = ", ".join(one.outer for one in self._members)

        async def one(number: int, member: _Member) -> None:
            handle = os.open(member.namespace, os.O_RDONLY | os.O_CLOEXEC)
            try:
                # Nothing but WireGuard goes to a peer on the first interface: rules first.
                to, back = f'oifname "eth0" ip daddr {{ {outer} }}', f'iifname "eth0" ip saddr {{ {outer} }}'
                both = f"udp sport {PORT} udp dport {PORT} accept"
                rules = [
                    "table ip peers {",
                    f"chain out {{ type filter hook output priority 0; {to} {both}; {to} drop; }}",
                    f"chain in {{ type filter hook input priority 0; {back} {both}; {back} drop; }}",
                    "}",
                ]
                await kernel.run(handle, "nft", "-f", "-", given="\n".join(rules) + "\n")
                member.process = await asyncio.create_subprocess_exec(
                    "/usr/bin/setpriv", "--pdeathsig", "KILL", "--", "/usr/bin/nsenter", f"--net={member.namespace}",
                    "--", "/usr/bin/unshare", "--mount", "--propagation", "private", "--", "/bin/sh", "-c",
                    f"mount -t tmpfs -o mode=0700 none /run && : >{OWN} && mkdir -p /var/run && exec {program} -f eth1",
                    stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.DEVNULL, env={"PATH": kernel.PATH, "LOG_LEVEL": "silent"}, cwd="/",
                )  # fmt: skip
                told = [f"set=1\nprivate_key={keys[number].private_bytes_raw().hex()}\nlisten_port={PORT}"]
                told += [
                    f"public_key={public[peer]}\nendpoint={other.outer}:{PORT}\nallowed_ip={_INNER}.0.{peer + 1}/32"
                    for peer, other in enumerate(self._members)
                    if peer != number
                ]
                await configure(member.process, "eth1", "\n".join(told) + "\n\n")
                await kernel.ip(
                    handle,
                    f"link set eth1 mtu {PACKET} up",
                    f"address add {_INNER}.0.{number + 1}/16 dev eth1",
                )
            finally:
                os.close(handle)

        await asyncio.gather(*(one(number, member) for number, member in enumerate(self._members)))

    def stands(self) -> bool:
        """See the port."""
        return all(one.process is None or one.process.returncode is None for one in self._members)

    async def close(self) -> None:
        """See the port."""
        members, self._members = self._members, []
        for one in members:
            if one.process is not None and one.process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    one.process.kill()
                await one.process.wait()
            if one.handle >= 0:
                os.close(one.handle)
        if self._switch >= 0:
            os.close(self._switch)
            self._switch = -1


async def configure(process: asyncio.subprocess.Process, interface: str, text: str) -> None:
    """Tells WireGuard's process of an interface over its socket, which is in the process's own view of the file system."""
    root = f"/proc/{process.pid}/root"
    async with asyncio.timeout(kernel.SECONDS):
        while True:
            if process.returncode is not None:
                raise NetworkError(f"{PROGRAM} ended with status {process.returncode}")
            if Path(root + OWN).exists():  # otherwise it still sees the machine's own /run
                with contextlib.suppress(OSError):
                    reader, writer = await asyncio.open_unix_connection(f"{root}/run/wireguard/{interface}.sock")
                    break
            await asyncio.sleep(0.003)
        writer.write(text.encode())
        said = await reader.readuntil(b"\n\n")
        writer.close()
    if b"errno=0" not in said:
        raise NetworkError(f"{PROGRAM}: {said.decode(errors='replace').strip()}")
