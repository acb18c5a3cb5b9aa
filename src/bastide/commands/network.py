"""`bastide network`."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import botocore.exceptions
import click

from bastide.commands.client import Credentials, Platform
from bastide.commands.options import DATA_OPTION
from bastide.engines.network.kernel import enter
from bastide.jail.namespaces import CLONE_NEWNS, MS_BIND, MS_PRIVATE, MS_REC, mount, unshare

_ACCOUNT_ROLE = "OrganizationAccountAccessRole"


@click.group()
def network() -> None:
    """Programs inside a VPC's subnets, and what packets from there meet."""


@network.command(context_settings={"ignore_unknown_options": True})
@DATA_OPTION
@click.option("--subnet", required=True, help="Id of the subnet.")
@click.option(
    "--security-group",
    "groups",
    multiple=True,
    help="Id of a security group; the VPC's default if left out. May be repeated.",
)
@click.option("--account", help="Name or id of the subnet's account; the management account if left out.")
@click.option("--role", help=f"Name of the role to take on there.  [default: {_ACCOUNT_ROLE}]")
@click.option("--region", help="The subnet's region; the platform's default if left out.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(
    data: Path,
    subnet: str,
    groups: tuple[str, ...],
    account: str | None,
    role: str | None,
    region: str | None,
    command: tuple[str, ...],
) -> None:
    """Run COMMAND with a network interface in a subnet as its only network.

    It has an address of the subnet, its DNS is the VPC's, and what it reaches is what security groups and routes let it
    reach. The interface is made by ec2:CreateNetworkInterface and deleted when the command ends. Needs root on the
    platform's machine. The command sees the machine's files as you do: this is no sandbox.

    AWS_* variables that are not set are set for it: the region, the platform's authority, and the credentials of the
    role. AWS_ENDPOINT_URL is left out if it names the platform's public listener, which no subnet reaches.

    \b
    bastide network run --account data-science --subnet subnet-0123 -- aws sts get-caller-identity
    """
    if os.geteuid() != 0:
        raise click.ClickException("a network interface can be attached by root only")
    platform = Platform(data)
    held = _credentials(platform, account, role)
    ec2 = platform.client("ec2", held, region)
    status = 0
    with _interface(ec2, subnet, groups) as made, _attached(platform, made, ec2.meta.region_name) as told:
        status = _wait(told, command, _environment(platform, held, ec2.meta.region_name))
    sys.exit(status)


@network.command()
@DATA_OPTION
@click.option("--account", help="Name or id of the source's account; the management account if left out.")
@click.option("--role", help=f"Name of the role to take on there.  [default: {_ACCOUNT_ROLE}]")
@click.option("--region", help="The source's region; the platform's default if left out.")
@click.option("--protocol", type=click.Choice(["tcp", "udp", "icmp"]), default="tcp", show_default=True)
@click.option("--format", "shape", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.argument("source")
@click.argument("destination")
@click.argument("port", type=click.IntRange(1, 65535), default=443)
def why(
    data: Path,
    account: str | None,
    role: str | None,
    region: str | None,
    protocol: str,
    shape: str,
    source: str,
    destination: str,
    port: int,
) -> None:
    """Tell what a packet from SOURCE to DESTINATION meets, hop by hop, there and back: groups, routes, gateways, links.

    SOURCE is a network interface (eni-...), or the address of one. DESTINATION is an address, a name that the VPC's DNS
    knows, or an interface of the same account. The last hop is the one that refuses; the exit status is 1 then. It is said
    from what packets go by, not tried. Works for the platform's owner on its machine.

    \b
    bastide network why --account data-science eni-0123 10.2.1.10 443
    """
    platform = Platform(data)
    ec2 = platform.client("ec2", _credentials(platform, account, role), region)
    found = _interface_of(ec2, source)
    if found is None:
        raise click.ClickException(f"{source} is no network interface of the account, and no address of one")
    if destination.startswith("eni-"):
        other = _interface_of(ec2, destination)
        if other is None:
            raise click.ClickException(f"{destination} is no network interface of the account; give its address")
        destination = other["PrivateIpAddress"]
    asked = {
        "account": found["OwnerId"], "region": ec2.meta.region_name, "vpc": found["VpcId"],
        "interface": found["NetworkInterfaceId"],
        "packet": {"destination": destination, "protocol": protocol, "port": port},
    }  # fmt: skip
    with _line(platform, asked) as (_, told):
        if "error" in told:
            raise click.ClickException(told["error"])
        hops = told["hops"]
    passes = all(one["passes"] for one in hops)
    if shape == "json":
        click.echo(json.dumps({"passes": passes, "hops": hops}, indent=2))
    else:
        wide = max(len(one["what"]) for one in hops)
        for one in hops:
            mark = "passes " if one["passes"] else "REFUSES"
            click.echo(f"{mark}  {one['what']:<{wide}}  {one['where']}: {one['why']}")
        click.echo("it arrives, and an answer comes back" if passes else "it does not arrive, or no answer comes back")
    sys.exit(0 if passes else 1)


def _interface_of(ec2: Any, id: str) -> dict[str, Any] | None:
    name = "network-interface-id" if id.startswith("eni-") else "private-ip-address"
    found = ec2.describe_network_interfaces(Filters=[{"Name": name, "Values": [id]}])["NetworkInterfaces"]
    if len(found) > 1:
        ids = ", ".join(one["NetworkInterfaceId"] for one in found)
        raise click.ClickException(f"several interfaces have the address {id}: {ids}")
    return dict(found[0]) if found else None


def _credentials(platform: Platform, account: str | None, role: str | None) -> Credentials:
    held = platform.administrator()
    if account is None and role is None:
        return held
    return platform.assume(held, account or platform.configuration.account, role or _ACCOUNT_ROLE, "bastide-network")


def _environment(platform: Platform, held: Credentials, region: str) -> dict[str, str]:
    """The command's: what an AWS client needs inside, where it is not set."""
    found = dict(os.environ)
    if found.get("AWS_ENDPOINT_URL") == platform.url:
        del found["AWS_ENDPOINT_URL"]
    found.setdefault("AWS_CA_BUNDLE", str(platform.directory.authority.absolute()))
    if "AWS_REGION" not in found and "AWS_DEFAULT_REGION" not in found:
        found |= {"AWS_REGION": region, "AWS_DEFAULT_REGION": region}
    if "AWS_ACCESS_KEY_ID" not in found and "AWS_PROFILE" not in found:
        found |= {"AWS_ACCESS_KEY_ID": held.access_key, "AWS_SECRET_ACCESS_KEY": held.secret}
        if held.token:
            found["AWS_SESSION_TOKEN"] = held.token
    return found


@contextlib.contextmanager
def _interface(ec2: Any, subnet: str, groups: Sequence[str]) -> Iterator[dict[str, Any]]:
    given: dict[str, Any] = {"SubnetId": subnet, "Description": "bastide network run"}
    if groups:
        given["Groups"] = list(groups)
    made: dict[str, Any] = ec2.create_network_interface(**given)["NetworkInterface"]
    try:
        yield made
    finally:
        # What is left when the platform is gone can be deleted later: nothing is attached to it.
        with contextlib.suppress(botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError):
            ec2.delete_network_interface(NetworkInterfaceId=made["NetworkInterfaceId"])


@contextlib.contextmanager
def _line(platform: Platform, asked: dict[str, Any]) -> Iterator[tuple[socket.socket, dict[str, Any]]]:
    """A connection to the platform's socket for its owner, and the answer to a question."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(30)
        try:
            link.connect(str(platform.directory.attaching))
            link.sendall(json.dumps(asked).encode() + b"\n")
            answer = link.makefile("rb").readline()
        except OSError as error:
            raise click.ClickException(f"the platform cannot be reached: {error}") from None
        yield link, json.loads(answer or b'{"error": "it closed the connection"}')


@contextlib.contextmanager
def _attached(platform: Platform, made: dict[str, Any], region: str) -> Iterator[dict[str, str]]:
    """Something is attached to the interface as long as this lasts."""
    asked = {
        "account": made["OwnerId"], "region": region, "vpc": made["VpcId"], "interface": made["NetworkInterfaceId"]
    }  # fmt: skip
    with _line(platform, asked) as (link, told):
        if "error" in told:
            raise click.ClickException(f"the interface could not be attached: {told['error']}")
        yield told
        link.shutdown(socket.SHUT_WR)
        link.recv(1)  # until it is detached, so that the interface can be deleted


def _wait(told: dict[str, str], command: Sequence[str], environment: dict[str, str]) -> int:
    """Runs the command inside; its exit status, 128 and the signal's number if a signal ended it."""
    sys.stdout.flush()
    sys.stderr.flush()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal tells the command itself
    child = os.fork()
    if child == 0:
        _become(told, command, environment)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _become(told: dict[str, str], command: Sequence[str], environment: dict[str, str]) -> NoReturn:
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG: nothing stays behind alone
        handle = os.open(told["namespace"], os.O_RDONLY)
        enter(handle)
        os.close(handle)
        _resolve(told["resolver"])
        os.execvpe(command[0], list(command), environment)  # noqa: S606
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror or error}\n".encode())
    os._exit(127)


def _resolve(resolver: str) -> None:
    """Puts the VPC's DNS in place of the machine's, for this process and those it starts."""
    unshare(CLONE_NEWNS)
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    with tempfile.NamedTemporaryFile("w") as draft:
        draft.write(f"{resolver}options timeout:1 attempts:1\n" if resolver else "")
        draft.flush()
        Path(draft.name).chmod(0o644)
        mount(draft.name, os.path.realpath("/etc/resolv.conf"), None, MS_BIND)
