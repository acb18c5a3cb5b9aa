"""A customer gateway and the host behind it: strongSwan, as its makers have it, in a network of its own.

What reaches the host reaches it decrypted: on its link to the platform the network takes packets of IKE and ESP alone.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tests.waiting import until

GATEWAY = "203.0.113.10"
"""By which it is the way to 10.200.0.0/16."""
PROXY = "203.0.113.20"
"""By which it is the way to everything."""
HOST = "10.200.0.10"
BY_CIRCUIT = "10.201.0.10"
"""What may be reached in the clear."""
HOSTS = (HOST, BY_CIRCUIT, "192.0.2.80")
_NETWORK = """
import http.server, pathlib, subprocess, sys
def run(*words, **more):
    subprocess.run(words, check=True, **more)
run("mount", "--make-rprivate", "/")
run("mount", "-t", "tmpfs", "none", "/run")
run("ip", "link", "set", "lo", "up")
for one in sys.argv[1:]:
    run("ip", "addr", "add", one + "/32", "dev", "lo")
run("nft", "-f", "-", text=True, input='''table ip office { chain inward { type filter hook input priority 0;
    iifname "bastide*" udp dport { 500, 4500 } accept
    iifname "bastide*" ip daddr 10.201.0.10 accept
    iifname "bastide*" drop
}
}
''')
pathlib.Path("/run/strongswan.conf").write_text('''
charon-systemd {
  load = random nonce aes sha1 sha2 hmac kdf gcm openssl kernel-libipsec kernel-netlink socket-default vici
  plugins { vici { socket = unix:///run/vici } }
}
swanctl { load = random openssl }
''')
quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "charon-systemd"], **quiet)
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        said = ("on premises, to " + self.client_address[0]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("0.0.0.0", 80), Page)
print("ready", flush=True)
server.serve_forever()
"""
_CONNECTION = """
connections {{
  {name} {{
    version = 2
    local_addrs = {here}
    remote_addrs = {there}
    encap = yes
    mobike = no
    proposals = {ike}
    local {{
      auth = psk
      id = {here}
    }}
    remote {{
      auth = psk
      id = {there}
    }}
    children {{
      {name} {{
        local_ts = {behind}
        remote_ts = 10.0.0.0/8
        esp_proposals = {esp}
      }}
    }}
  }}
}}
secrets {{
  ike-{name} {{
    id-1 = {here}
    id-2 = {there}
    secret = "{key}"
  }}
}}
"""
_WORDS = {"aes-256-cbc": "aes256", "aes-128-cbc": "aes128", "sha2-256": "sha256", "group14": "modp2048"}


class Device:
    """What stands on premises."""

    def __init__(self, room: Path) -> None:
        self._room = room
        self._connections: dict[str, str] = {}
        self.running = subprocess.Popen(
            ["unshare", "--net", "--mount", "--", sys.executable, "-c", _NETWORK, GATEWAY, PROXY, *HOSTS],
            stdout=subprocess.PIPE, text=True,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "STRONGSWAN_CONF": "/run/strongswan.conf"},
        )  # fmt: skip
        assert self.running.stdout is not None and self.running.stdout.readline() == "ready\n"

    def circuit(self, connection: str) -> dict[str, Any]:
        """A circuit that ends there, as the operator declares it."""
        where = f"/proc/{self.running.pid}/ns/net"
        return {"name": "circuit", "connection": connection, "namespace": where, "ranges": ["10.201.0.0/16"]}

    @property
    def links(self) -> list[dict[str, Any]]:
        """As the platform's operator declares it."""
        where = f"/proc/{self.running.pid}/ns/net"
        return [
            {"name": "office", "gateway": GATEWAY, "namespace": where, "ranges": ["10.200.0.0/16"]},
            {"name": "proxy", "gateway": PROXY, "namespace": where, "ranges": ["0.0.0.0/0"]},
        ]

    def connect(self, configuration: str, behind: str, *, key: str = "") -> bool:
        """Brings up the first tunnel as the connection's configuration says; whether it is let in. behind: the network that
        is reached by it."""
        root = ElementTree.fromstring(configuration.encode())
        tunnel = root.findall("ipsec_tunnel")[0]

        def read(path: str) -> str:
            return tunnel.findtext(path) or ""

        def proposal(part: str) -> str:
            cipher, digest = read(f"{part}/encryption_protocol"), read(f"{part}/authentication_protocol")
            group = read(f"{part}/perfect_forward_secrecy")
            return "-".join((_WORDS[cipher], _WORDS[digest.removeprefix("hmac-")], _WORDS[group]))

        name = root.get("id") or ""
        self._connections[name] = _CONNECTION.format(
            name=name, here=read("customer_gateway/tunnel_outside_address/ip_address"),
            there=read("vpn_gateway/tunnel_outside_address/ip_address"), ike=proposal("ike"), esp=proposal("ipsec"),
            key=key or read("ike/pre_shared_key"), behind=behind,
        )  # fmt: skip
        file = self._room / "connections"
        file.write_text("".join(self._connections.values()))
        until(lambda: self._told("--load-all", "--file", str(file)))
        return self._told("--initiate", "--child", name, "--timeout", "60")

    def disconnect(self) -> None:
        """Takes the tunnels down."""
        for name in self._connections:
            self._told("--terminate", "--ike", name, "--force")
        self._connections.clear()

    def _told(self, *words: str) -> bool:
        enter = ("nsenter", f"--target={self.running.pid}", "--net", "--mount", "--")
        told = ("env", "STRONGSWAN_CONF=/run/strongswan.conf", "/usr/sbin/swanctl", *words, "--uri", "unix:///run/vici")
        return subprocess.run([*enter, *told], capture_output=True, check=False).returncode == 0

    def close(self) -> None:
        self.running.kill()  # and the kernel its daemon
        self.running.communicate()


@contextlib.contextmanager
def device(room: Path) -> Iterator[Device]:
    """A device, as long as it is open."""
    made = Device(room)
    try:
        yield made
    finally:
        made.close()
