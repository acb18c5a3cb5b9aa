"""Who a client of git is: the password is a signature, or a git credential of IAM's.

git-remote-codecommit and ``aws codecommit credential-helper`` sign a request of the method ``GIT``, of path and host alone,
 and send the access key (and a session's token behind ``%``) as the user's name, time and signature as the password.
Sources: AWS CodeCommit User Guide, "Setup steps for HTTPS connections with git-remote-codecommit"; the AWS CLI's
credential helper; IAM User Guide, "Using IAM with CodeCommit: Git credentials".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from bastide.domain import MICROS, Refused
from bastide.frontdoor.receive import Received
from bastide.kernel import Caller, Calls

_SIGNED: Final = re.compile(r"(?P<stamp>[0-9]{8}T[0-9]{6})Z(?P<signature>[0-9a-f]{64})")
_KEY: Final = re.compile(r"(?P<key>(?:AKIA|ASIA)[A-Z0-9]{12,28})(?:%(?P<token>[A-Za-z0-9+/=_-]{1,8192}))?")
_HOST: Final = re.compile(r"(?:git-)?codecommit\.(?P<region>[a-z0-9-]+)\.[a-z0-9.-]+")
_OLDEST: Final = 15 * 60 * MICROS
_NEWEST: Final = 5 * 60 * MICROS
_LONGEST: Final = 16 * 1024
SERVICE: Final = "codecommit.amazonaws.com"


def _unknown() -> Refused:
    return Refused(
        "UnrecognizedClientException",
        "Use git-remote-codecommit, the AWS CLI's credential helper for CodeCommit, or a git credential of IAM's.",
        401,
    )


def presented(received: Received) -> tuple[str, str] | None:
    """The name and password of the request, None if there are none; raises Refused."""
    given = received.named.get("authorization")
    if given is None:
        return None
    scheme, _, text = given.partition(" ")
    if scheme.lower() != "basic" or len(text) > _LONGEST:
        raise _unknown()
    try:
        name, _, password = base64.b64decode(text.strip(), validate=True).decode().partition(":")
    except (ValueError, binascii.Error):
        raise _unknown() from None
    return name, password


def region_of(host: str, regions: Sequence[str]) -> str | None:
    """The region that a host's name says."""
    found = _HOST.fullmatch(host.partition(":")[0])
    return found["region"] if found is not None and found["region"] in regions else None


def identified(
    calls: Calls, received: Received, name: str, password: str, path: str, regions: Sequence[str]
) -> tuple[Caller, str]:
    """Who asks, and for which region; raises Refused for whoever is not who they claim to be.

    A signature tells its region. A git credential does not: the host's name has to, otherwise it is the default region.
    """
    host = received.named.get("host", "")
    signed, key = _SIGNED.fullmatch(password), _KEY.fullmatch(name)
    if signed is None or key is None:
        with calls.store.reading() as view:
            found = calls.directory.by_service_credential(view, SERVICE, name, password)
        if found is None:
            raise _unknown()
        return found, region_of(host, regions) or regions[0]
    caller, secret = _secret(calls, received, key["key"], key["token"])
    told = region_of(host, regions)
    hosts = dict.fromkeys((host, host.rsplit(":", 1)[0] if not host.endswith("]") else host))
    fitting = [
        region
        for region in ([told] if told is not None else regions)
        for one in hosts
        if hmac.compare_digest(_signature(secret, signed["stamp"], region, one, path), signed["signature"])
    ]
    if not fitting:
        raise Refused(
            "SignatureDoesNotMatch", "The signature does not match: check the secret key, the region and the repository.",
            403, kept={"claimed": caller},
        )  # fmt: skip
    try:
        at = int(datetime.strptime(signed["stamp"], "%Y%m%dT%H%M%S").replace(tzinfo=UTC).timestamp()) * MICROS
    except ValueError:
        raise _unknown() from None
    if not received.at - _OLDEST <= at <= received.at + _NEWEST:
        raise Refused(
            "RequestExpired", "The signature has expired, or is of the future: signatures hold for 15 minutes.", 403,
            kept={"claimed": caller},
        )  # fmt: skip
    return caller, fitting[0]


def _secret(calls: Calls, received: Received, key: str, token: str | None) -> tuple[Caller, str]:
    with calls.store.reading() as view:
        if token is not None:
            session, secret = calls.sessions.read(token, key, received.at)
            caller = calls.directory.by_session(view, session)
            found = None if caller is None else (caller, secret)
        else:
            found = calls.directory.by_access_key(view, key)
    if found is None:
        raise _unknown()
    return found


def _signature(secret: str, stamp: str, region: str, host: str, path: str) -> str:
    canonical = f"GIT\n{path}\n\nhost:{host}\n\nhost\n"
    scope = f"{stamp[:8]}/{region}/codecommit/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{secret}".encode()
    for part in (*scope.split("/"), text):
        key = hmac.digest(key, part.encode(), "sha256")
    return key.hex()
