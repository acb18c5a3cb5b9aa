"""Third stage: who asks. A signature is verified, or the caller is Anonymous."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from bastide import sigv4
from bastide.domain import Refused
from bastide.frontdoor.body import Upload, unpacked
from bastide.frontdoor.form import Form
from bastide.frontdoor.receive import Received
from bastide.frontdoor.route import Target
from bastide.kernel import ANONYMOUS, Caller, Calls
from bastide.sigv4 import Presented

_JSON = {
    "InvalidClientTokenId": "UnrecognizedClientException",
    "SignatureDoesNotMatch": "InvalidSignatureException",
    "RequestTimeTooSkewed": "InvalidSignatureException",
    "RequestExpired": "InvalidSignatureException",
    "ExpiredToken": "ExpiredTokenException",
    "IncompleteSignature": "IncompleteSignatureException",
    "MissingAuthenticationToken": "MissingAuthenticationTokenException",
}
_S3 = {"InvalidClientTokenId": "InvalidAccessKeyId"}
_EC2 = {"InvalidClientTokenId": "AuthFailure", "SignatureDoesNotMatch": "AuthFailure"}
_CODES: dict[str, dict[str, str]] = {"rest-xml": _S3, "query": {}, "ec2": _EC2}


def worded(refused: Refused, protocol: str) -> Refused:
    """The same refusal under the code that the protocol's services use for it."""
    codes = _CODES.get(protocol, _JSON)
    code = codes.get(refused.code)
    if code is None:
        return refused
    status = 401 if code == "AuthFailure" else refused.status
    return Refused(code, refused.message, status, members=refused.members, kept=refused.kept)


@dataclass(slots=True)
class Authenticated:
    """The caller of a request and its body: whole and verified, or an upload that verifies as it is read."""

    caller: Caller
    region: str
    body: bytes
    upload: Upload | None


def _refused_known(refused: Refused, caller: Caller) -> Refused:
    """Keeps beside a refusal whose key was misused, so that the record reaches that account."""
    known: dict[str, Any] = {
        "claimed": Caller("Anonymous", caller.account, "", "", caller.user_id, caller.name, caller.access_key)
    }
    return Refused(refused.code, refused.message, refused.status, kept=known)


def authenticate(
    calls: Calls, received: Received, target: Target, presented: Presented | None, default_region: str
) -> Authenticated:
    """Verifies who asks; raises Refused for whoever is not who they claim to be, or must not be nobody."""
    if presented is None or target.operation.identify is not None:
        if not target.service.anonymous and target.operation.identify is None:
            raise Refused("MissingAuthenticationToken", "Request is missing Authentication Token", 403)
        claimed = received.named.get("x-amz-content-sha256", "")
        if not claimed.startswith("STREAMING-UNSIGNED"):
            claimed = ""
        if target.body is None:
            return Authenticated(ANONYMOUS, default_region, b"", Upload(received, None, "", claimed))
        body = Upload(received, None, "", claimed, whole=target.body).all() if claimed else target.body
        return Authenticated(ANONYMOUS, default_region, body, None)
    caller, secret = _credentials(calls, received, presented)
    whole = target.body
    streamed = whole is None
    s3 = target.service.service == "s3"
    if s3:
        claimed = presented.body or "UNSIGNED-PAYLOAD"
        if not streamed and len(claimed) == 64:
            claimed = hashlib.sha256(whole or b"").hexdigest()
    else:
        claimed = hashlib.sha256(whole or b"").hexdigest()
    try:
        sigv4.verify(
            presented,
            secret,
            received.method,
            received.raw_path,
            received.raw_query,
            received.headers,
            claimed,
            received.at,
        )
    except Refused as refused:
        raise _refused_known(refused, caller) from None
    if streamed:
        return Authenticated(caller, presented.region, b"", Upload(received, presented, secret, claimed))
    if claimed.startswith("STREAMING-"):
        whole = Upload(received, presented, secret, claimed, whole=whole or b"").all()
    elif s3 and whole:
        _check_sums(received, target, whole)
    if not s3 and whole:
        whole = unpacked(received, whole)
    return Authenticated(caller, presented.region, whole or b"", None)


def authenticate_form(
    calls: Calls, received: Received, form: Form, bucket: str, default_region: str
) -> tuple[Caller, str]:
    """Who signed a form's policy, and in which region, once the policy is found to permit the form; raises Refused."""
    presented = form.presented()
    if presented is None:
        return ANONYMOUS, default_region
    caller, secret = _credentials(calls, received, presented)
    try:
        form.verify(presented, secret)
        form.check(bucket)
    except Refused as refused:
        raise _refused_known(refused, caller) from None
    return caller, presented.region or default_region


def _check_sums(received: Received, target: Target, body: bytes) -> None:
    """What a request says of its body's checksum holds; raises Refused BadDigest."""
    named = received.named
    if target.operation.name == "CompleteMultipartUpload":
        # Its checksums are those of the object that it makes, not of the list of parts.
        named = {name: value for name, value in named.items() if name == "content-md5"}
    sums = sigv4.Checksums(named)
    sums.update(body)
    sums.finish({})


def _credentials(calls: Calls, received: Received, presented: Presented) -> tuple[Caller, str]:
    invalid = Refused("InvalidClientTokenId", "The security token included in the request is invalid.", 403)
    with calls.store.reading() as view:
        if presented.session_token is not None:
            session, secret = calls.sessions.read(presented.session_token, presented.access_key_id, received.at)
            caller = calls.directory.by_session(view, session)
            if caller is None:
                raise invalid
            return caller, secret
        found = calls.directory.by_access_key(view, presented.access_key_id)
        if found is None:
            raise invalid
        return found
