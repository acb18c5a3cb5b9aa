"""This side of a VPN connection: strongSwan in a namespace of its own, between a gateway and the place its peer is in.

```
 gateway  v4 ---- in0  [ ipsec0 | strongSwan ]  out0 ---- bastide…  the operator's namespace, or the machine's
```

What comes from the gateway leaves as ESP, and nothing else does: there is no route and no rule by which a packet crosses
that is not encrypted. ESP is made in the process (kernel-libipsec, packed into UDP as for a peer behind a NAT): it runs
where a kernel has none. The daemon is killed by the kernel with the platform; one that ends by itself is started again.
Keys are told to it over its socket and lie in its memory alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, Final

from bastide.domain import Instant
from bastide.engines.network import Ipsec, NetworkError, Telemetry, Tunnel, kernel
from bastide.engines.network.vici import Vici

PROGRAM: Final = "charon-systemd"
_PACKAGES: Final = "charon-systemd libcharon-extra-plugins libstrongswan-standard-plugins"
_PLUGIN: Final = Path("/usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so")
NEAR: Final = "169.254.173.1"
"""Of the link to the peer's place, the end here; `THERE` is the other one."""
THERE: Final = "169.254.173.2"
_SEGMENT: Final = 1360
"""Bytes of TCP in a packet, that an encrypted one still fits into 1500."""
_AGAIN: Final = 1.0
"""Seconds until a daemon that ended is started again."""
_INWARD, _OUTWARD = 101, 102
_EVENTS: Final = ("ike-updown", "child-updown", "ike-rekey", "child-rekey")
_USER, _GROUP = "nobody", "nogroup"
_CONFIGURATION: Final = f"""
charon-systemd {{
  load = random nonce aes sha1 sha2 hmac kdf gcm openssl kernel-libipsec kernel-netlink socket-default vici
  user = {_USER}
  group = {_GROUP}
  install_virtual_ip = no
  retransmit_tries = 3
  retransmit_timeout = 2
  retransmit_base = 1.5
  journal {{ default = -1 }}
  syslog {{ daemon {{ default = -1 }} auth {{ default = -1 }} }}
  plugins {{ vici {{ socket = unix:///run/vici }} }}
}}
"""

_log = logging.getLogger("bastide.network")


def lacking() -> str:
    """What this machine lacks for tunnels, empty if nothing."""
    if shutil.which(PROGRAM, path=kernel.PATH) is None or not _PLUGIN.exists():
        return f"strongSwan with kernel-libipsec (apt-get install {_PACKAGES})"
    return "" if Path("/dev/net/tun").exists() else "TUN (/dev/net/tun)"


def connection(ipsec: Ipsec, tunnel: Tunnel) -> dict[str, Any]:
    """A tunnel as the daemon is told of it. Pure."""
    rand = str(tunnel.margin * tunnel.fuzz // 100)
    watched = tunnel.dead != "none"
    child = {
        "mode": "tunnel", "local_ts": ["0.0.0.0/0"], "remote_ts": ["0.0.0.0/0"], "esp_proposals": list(tunnel.esp),
        "rekey_time": str(tunnel.esp_seconds - tunnel.margin), "life_time": str(tunnel.esp_seconds), "rand_time": rand,
        "start_action": "start" if tunnel.starts else "none",
        **({"dpd_action": tunnel.dead} if watched else {}),
    }  # fmt: skip
    return {
        "version": str(tunnel.version), "local_addrs": [tunnel.outside], "remote_addrs": [ipsec.gateway],
        "proposals": list(tunnel.ike), "encap": "yes", "mobike": "no", "fragmentation": "yes", "unique": "replace",
        "rekey_time": str(tunnel.ike_seconds - tunnel.margin), "over_time": str(tunnel.margin), "rand_time": rand,
        "dpd_delay": str(max(tunnel.dead_seconds // 3, 1)) if watched else "0",
        "local-1": {"auth": "psk", "id": tunnel.outside}, "remote-1": {"auth": "psk", "id": ipsec.gateway},
        "children": {tunnel.outside: child},
    }  # fmt: skip


def rules(ipsec: Ipsec) -> str:
    """What may cross: encrypted packets of the peer, and what is within them. Pure: nftables' text."""
    outside = f"{{ {', '.join(one.outside for one in ipsec.tunnels)} }}"
    inside = f"{{ {', '.join(one.inside for one in ipsec.tunnels)} }}"
    peer = "udp {side} {{ 500, 4500 }} accept"
    return f"""flush ruleset
table ip vpn {{
chain inward {{
type filter hook input priority 0; policy drop;
iifname "out0" ip saddr {ipsec.gateway} ip daddr {outside} {peer.format(side="dport")}
iifname "ipsec0" ip daddr {inside} icmp type echo-request accept
}}
chain outward {{
type filter hook output priority 0; policy drop;
oifname "out0" ip saddr {outside} ip daddr {ipsec.gateway} {peer.format(side="sport")}
oifname "ipsec0" ip saddr {inside} icmp type echo-reply accept
}}
chain passes {{
type filter hook forward priority 0; policy drop;
tcp flags & (syn | rst) == syn tcp option maxseg size set {_SEGMENT}
iifname "in0" oifname "ipsec0" accept
iifname "ipsec0" oifname "in0" accept
}}
}}
"""


class Device:
    """The daemon of one connection and its namespace. `telemetry`: its tunnels, by this side's address."""

    def __init__(self, ipsec: Ipsec, now: Callable[[], Instant]) -> None:
        self.ipsec = ipsec
        self.namespace = kernel.new_namespace(forwards=True)
        self._telemetry = {one.outside: Telemetry() for one in ipsec.tunnels}
        self._now = now
        self._leads: set[str] = set()
        self._process: asyncio.subprocess.Process | None = None
        self._kept: asyncio.Task[None] | None = None

    @property
    def telemetry(self) -> Mapping[str, Telemetry]:
        return self._telemetry

    async def start(self, back: str) -> None:
        """Listens for the peer; both links are there already. back: the gateway's address on ``in0``. Raises OSError,
        TimeoutError and NetworkError."""
        if lacks := lacking():
            raise NetworkError(f"this machine lacks {lacks}")
        await kernel.run(self.namespace, "nft", "-f", "-", given=rules(self.ipsec))
        await kernel.ip(
            self.namespace,
            "link set lo up",
            "route add blackhole default",
            f"route add {self.ipsec.gateway} via {THERE} dev out0 onlink",
            f"route add default via {back} dev in0 onlink table {_INWARD}",
            # Not by the routes that the daemon makes: what comes in by either link has one way each.
            f"rule add iif ipsec0 lookup {_INWARD} prio 100",
            f"rule add iif in0 lookup {_OUTWARD} prio 100",
            "rule add iif lo lookup main prio 101",
            *(f"address add {one}/32 dev lo" for tunnel in self.ipsec.tunnels for one in (tunnel.outside, tunnel.inside)),
        )  # fmt: skip
        told = await self._begin()
        self._kept = asyncio.get_running_loop().create_task(self._keep(told))

    async def lead(self, networks: Iterable[str]) -> None:
        """Which networks lie behind the gateway. A peer that asks for less than everything has to ask for one of them, or
        more: the daemon takes a selector only if an address in it is its own, so it has the one that names the network,
        which no host has. Raises NetworkError."""
        wanted = {str(IPv4Network(one)[0]) for one in networks if IPv4Network(one).prefixlen}
        lines = [f"address del {one}/32 dev lo" for one in sorted(self._leads - wanted)]
        lines += [f"address add {one}/32 dev lo" for one in sorted(wanted - self._leads)]
        self._leads = wanted
        await kernel.ip(self.namespace, *lines)

    async def _begin(self) -> Vici:
        """Starts the daemon and tells it the tunnels; a connection to its socket."""
        process = self._process = await asyncio.create_subprocess_exec(
            "/usr/bin/setpriv", "--pdeathsig", "KILL", "--", "/usr/bin/nsenter", f"--net={kernel.shown(self.namespace)}",
            "--", "/usr/bin/unshare", "--mount", "--propagation", "private", "--", "/bin/sh", "-c",
            f"mount -t tmpfs -o mode=0755 none /run && cat >/run/strongswan.conf && exec {PROGRAM} </dev/null",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
            env={"PATH": kernel.PATH, "STRONGSWAN_CONF": "/run/strongswan.conf"}, cwd="/",
        )  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(_CONFIGURATION.encode())
        process.stdin.close()
        told = await self._connect(process)
        async with asyncio.timeout(kernel.SECONDS):
            peers = [IPv4Address(one.inside) + 1 for one in self.ipsec.tunnels]
            await kernel.ip(
                self.namespace,
                f"route add default dev ipsec0 table {_OUTWARD}",
                *(f"route add {one}/32 dev ipsec0" for one in peers),
            )
            for one in self.ipsec.tunnels:
                await told.ask(
                    "load-shared",
                    {"id": one.outside, "type": "IKE", "data": one.key, "owners": [one.outside, self.ipsec.gateway]},
                )
                await told.ask("load-conn", {one.outside: connection(self.ipsec, one)})
        return told

    async def _connect(self, process: asyncio.subprocess.Process) -> Vici:
        root = f"/proc/{process.pid}/root/run"
        async with asyncio.timeout(kernel.SECONDS):
            while True:
                if process.returncode is not None:
                    raise NetworkError(f"{PROGRAM} ended with status {process.returncode}")
                if Path(root, "strongswan.conf").exists():  # otherwise it still sees the machine's own /run
                    with contextlib.suppress(OSError):
                        return Vici(*await asyncio.open_unix_connection(f"{root}/vici"))
                await asyncio.sleep(0.003)

    async def _keep(self, told: Vici) -> None:
        """Follows what becomes of the tunnels, and starts a daemon that ended again."""
        while True:
            try:
                await self._follow(told)
            except (OSError, NetworkError, TimeoutError, asyncio.IncompleteReadError) as error:
                _log.error("the VPN to %s is down: its daemon is gone: %s", self.ipsec.gateway, error)
            told.close()
            self._are({})
            await self._end()
            while True:
                await asyncio.sleep(_AGAIN)
                try:
                    told = await self._begin()
                    break
                except (OSError, NetworkError, TimeoutError, asyncio.IncompleteReadError) as error:
                    _log.error("the VPN to %s stays down: %s", self.ipsec.gateway, error)
                    await self._end()

    async def _follow(self, told: Vici) -> None:
        assert self._process is not None
        heard = await self._connect(self._process)
        try:
            for one in _EVENTS:
                await heard.register(one)
            while True:
                up: dict[str, bool] = {}
                for held in await told.listed("list-sas", "list-sa"):
                    for sa in held.values():
                        for child in sa.get("child-sas", {}).values():
                            if child.get("state") in ("INSTALLED", "REKEYING", "REKEYED"):
                                up[str(child.get("name"))] = True
                self._are(up)
                await heard.wait()
        finally:
            heard.close()

    def _are(self, up: Mapping[str, bool]) -> None:
        for outside, held in self._telemetry.items():
            if held.up != up.get(outside, False):
                self._telemetry[outside] = Telemetry(not held.up, self._now())

    async def _end(self) -> None:
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def close(self) -> None:
        """Ends the daemon and takes the namespace away."""
        if self._kept is not None:
            self._kept.cancel()
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        if self.namespace >= 0:
            os.close(self.namespace)
            self.namespace = -1
