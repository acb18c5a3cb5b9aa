"""AWS Signature Version 4, read and verified.

Source: IAM User Guide, "Create a signed AWS API request"; Amazon S3 API Reference, "Authenticating Requests (AWS Signature
Version 4)".
"""

from __future__ import annotations

import calendar
import hashlib
import hmac
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal
from urllib.parse import quote, unquote_to_bytes

from bastide.domain import MICROS, Instant, Refused

ALGORITHM = "AWS4-HMAC-SHA256"
SKEW_SECONDS = 15 * 60
MOST_EXPIRES = 7 * 24 * 3600
_MOST_TOKEN = 16 * 1024

Headers = Sequence[tuple[bytes, bytes]]

_HEADER = re.compile(
    rb"AWS4-HMAC-SHA256 +Credential=([^, ]+), *SignedHeaders=([^, ]+), *Signature=([0-9a-f]{64}) *", re.ASCII
)
_DATE = re.compile(r"\d{8}T\d{6}Z", re.ASCII)
_SPACES = re.compile(r" +")


@dataclass(frozen=True, slots=True)
class Presented:
    """What a request says of its own signature; nothing of it is believed before `verify`.

    signed_at: microseconds. expires: seconds, of a presigned URL. body: what is said of the body's hash, "" if nothing.
    """

    access_key_id: str
    date: str
    region: str
    service: str
    signed_headers: tuple[str, ...]
    signature: str
    form: Literal["header", "query"]
    session_token: str | None
    signed_at: Instant
    stamp: str
    expires: int | None
    body: str

    @property
    def scope(self) -> str:
        """``date/region/service/aws4_request``."""
        return f"{self.date}/{self.region}/{self.service}/aws4_request"


def _incomplete(message: str) -> Refused:
    return Refused("IncompleteSignature", message, 400)


def _query_error(message: str) -> Refused:
    return Refused("AuthorizationQueryParametersError", message, 400)


def read(method: str, raw_path: bytes, raw_query: bytes, headers: Headers) -> Presented | None:
    """What a request presents; None if it is not signed. Raises Refused for a signature that is not whole."""
    named: dict[str, str] = {}
    for name, value in headers:
        key = name.decode("latin-1").lower()
        if key in named and key in (
            "authorization",
            "x-amz-date",
            "x-amz-security-token",
            "x-amz-content-sha256",
            "host",
        ):
            raise _incomplete(f"The header {key} stands more than once in the request.")
        named[key] = value.decode("latin-1")
    authorization = named.get("authorization")
    in_query = b"X-Amz-Signature=" in raw_query or b"X-Amz-Algorithm=" in raw_query or b"X-Amz-Credential=" in raw_query
    if authorization is not None and in_query:
        raise Refused(
            "InvalidArgument", "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query "
            "string parameter or the Authorization header should be specified", 400,
        )  # fmt: skip
    if authorization is not None:
        return _from_header(authorization, named)
    return _from_query(raw_query, named) if in_query else None


def _from_header(authorization: str, named: Mapping[str, str]) -> Presented:
    found = _HEADER.fullmatch(authorization.encode("latin-1"))
    if found is None:
        if not authorization.startswith(ALGORITHM):
            raise _incomplete("Unsupported authorization type. Please sign requests with AWS4-HMAC-SHA256.")
        raise _incomplete(
            "The Authorization header requires 'Credential', 'SignedHeaders' and 'Signature' parameters, each once."
        )
    credential, signed, signature = (part.decode("latin-1") for part in found.groups())
    stamp = named.get("x-amz-date", "")
    if not stamp:
        raise _incomplete("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
    return _presented(
        credential, signed, signature, stamp, "header",
        token=named.get("x-amz-security-token"), expires=None, body=named.get("x-amz-content-sha256", ""), named=named,
    )  # fmt: skip


def _from_query(raw_query: bytes, named: Mapping[str, str]) -> Presented:
    given: dict[str, str] = {}
    for part in raw_query.split(b"&"):
        key, _, value = part.partition(b"=")
        if key.startswith(b"X-Amz-"):
            name = key.decode("latin-1")
            if name in given:
                raise _query_error(f"The query parameter {name} stands more than once in the request.")
            given[name] = unquote_to_bytes(value.replace(b"+", b" ")).decode("latin-1")
    if given.get("X-Amz-Algorithm") != ALGORITHM:
        raise _query_error('X-Amz-Algorithm only supports "AWS4-HMAC-SHA256"')
    for name in ("X-Amz-Credential", "X-Amz-SignedHeaders", "X-Amz-Signature", "X-Amz-Date", "X-Amz-Expires"):
        if not given.get(name):
            raise _query_error(
                "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, X-Amz-Signature, "
                "X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters."
            )
    if not re.fullmatch(r"[0-9]{1,7}", given["X-Amz-Expires"]) or not 1 <= int(given["X-Amz-Expires"]) <= MOST_EXPIRES:
        raise _query_error("X-Amz-Expires must be a number of seconds from 1 to 604800")
    if not re.fullmatch(r"[0-9a-f]{64}", given["X-Amz-Signature"]):
        raise _query_error("X-Amz-Signature must be 64 hexadecimal digits")
    return _presented(
        given["X-Amz-Credential"], given["X-Amz-SignedHeaders"], given["X-Amz-Signature"], given["X-Amz-Date"], "query",
        token=given.get("X-Amz-Security-Token") or named.get("x-amz-security-token"), expires=int(given["X-Amz-Expires"]),
        body=given.get("X-Amz-Content-Sha256") or named.get("x-amz-content-sha256", ""), named=named,
    )  # fmt: skip


def _presented(
    credential: str, signed: str, signature: str, stamp: str, form: Literal["header", "query"], *,
    token: str | None, expires: int | None, body: str, named: Mapping[str, str],
) -> Presented:  # fmt: skip
    wrong = _query_error if form == "query" else _incomplete
    parts = credential.split("/")
    if len(parts) != 5 or not all(parts) or len(credential) > 256:
        raise wrong("Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term.")
    key, date, region, service, terminator = parts
    if terminator != "aws4_request":
        raise wrong("Credential should be scoped with a valid terminator: 'aws4_request'.")
    if not _DATE.fullmatch(stamp):
        raise wrong("Date must be in ISO-8601 'basic format', as in 20260102T030405Z.")
    if stamp[:8] != date:
        raise wrong("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP.")
    try:
        at = _seconds(stamp)
    except ValueError:
        raise wrong("Date must be a moment that exists.") from None
    names = tuple(signed.split(";"))
    if list(names) != sorted(set(names)) or not all(names) or signed != signed.lower():
        raise wrong("SignedHeaders must be lower-case header names in order, each once.")
    if "host" not in names:
        raise wrong("'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.")
    for name in named:
        if name.startswith("x-amz-") and name not in names:
            raise Refused(
                "AccessDenied", f"There were headers present in the request which were not signed: {name}", 403
            )
    if token is not None and len(token) > _MOST_TOKEN:
        raise Refused("InvalidClientTokenId", "The security token included in the request is invalid.", 403)
    return Presented(key, date, region, service, names, signature, form, token, at * MICROS, stamp, expires, body)


@lru_cache(4096)
def _day(date: str) -> int:
    return calendar.timegm(time.strptime(date, "%Y%m%d"))


def _seconds(stamp: str) -> int:
    hour, minute, second = int(stamp[9:11]), int(stamp[11:13]), int(stamp[13:15])
    if hour > 23 or minute > 59 or second > 60:
        raise ValueError(stamp)
    return _day(stamp[:8]) + hour * 3600 + minute * 60 + second


@lru_cache(8192)
def _signing_key(access_key: str, fingerprint: bytes, secret: str, date: str, region: str, service: str) -> bytes:
    key = hmac.digest(b"AWS4" + secret.encode(), date.encode(), "sha256")
    for part in (region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def signing_key(presented: Presented, secret: str) -> bytes:
    """The key that signs within a scope; a session's key never serves another one's secret."""
    fingerprint = hashlib.sha256(secret.encode()).digest()
    return _signing_key(
        presented.access_key_id, fingerprint, secret, presented.date, presented.region, presented.service
    )


_UNRESERVED = "-_.~"


def _path(raw_path: bytes, service: str) -> str:
    if service == "s3":
        return quote(unquote_to_bytes(raw_path), safe="/" + _UNRESERVED) or "/"
    text = raw_path.decode("latin-1")
    if "//" in text or "/." in text:
        kept: list[str] = []
        for part in text.split("/"):
            if part == "..":
                if kept:
                    kept.pop()
            elif part not in ("", "."):
                kept.append(part)
        text = "/" + "/".join(kept) + ("/" if text.endswith("/") and kept else "")
    return quote(text, safe="/" + _UNRESERVED) if text != "/" else text


def _query(raw_query: bytes, presigned: bool) -> str:
    if not raw_query:
        return ""
    pairs = []
    for part in raw_query.split(b"&"):
        if not part:
            continue
        key, _, value = part.partition(b"=")
        if presigned and key == b"X-Amz-Signature":
            continue
        pairs.append(
            (
                quote(unquote_to_bytes(key.replace(b"+", b" ")), safe=_UNRESERVED),
                quote(unquote_to_bytes(value.replace(b"+", b" ")), safe=_UNRESERVED),
            )
        )
    pairs.sort()
    return "&".join([f"{key}={value}" for key, value in pairs])


def verify(
    presented: Presented,
    secret: str,
    method: str,
    raw_path: bytes,
    raw_query: bytes,
    headers: Headers,
    payload_hash: str,
    now: Instant,
) -> None:
    """Computes the signature again and compares it in constant time.

    payload_hash: what stands in the canonical request's last line. now: the wall clock, microseconds.
    Raises Refused: SignatureDoesNotMatch, RequestTimeTooSkewed (S3), AccessDenied for a presigned URL that has expired.
    """
    presigned = presented.form == "query"
    values: dict[str, str] = {}
    for name, value in headers:
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1").strip()
        if "  " in text:
            text = _SPACES.sub(" ", text)
        values[key] = f"{values[key]},{text}" if key in values else text
    lines = []
    for signed in presented.signed_headers:
        found = values.get(signed)
        if found is None:
            raise _mismatch(presented.service)
        lines.append(f"{signed}:{found}\n")
    if presigned and presented.service == "s3":
        payload_hash = values.get("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
    canonical = (
        f"{method}\n{_path(raw_path, presented.service)}\n{_query(raw_query, presigned)}\n{''.join(lines)}\n"
        f"{';'.join(presented.signed_headers)}\n{payload_hash}"
    )
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    to_sign = f"{ALGORITHM}\n{presented.stamp}\n{presented.scope}\n{digest}"
    wanted = hmac.digest(signing_key(presented, secret), to_sign.encode(), "sha256").hex()
    if not hmac.compare_digest(wanted, presented.signature):
        raise _mismatch(presented.service)
    _in_time(presented, now)


def _mismatch(service: str) -> Refused:
    if service == "s3":
        message = (
            "The request signature we calculated does not match the signature you provided. "
            "Check your key and signing method."
        )
    else:
        message = (
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access "
            "Key and signing method. Consult the service documentation for details."
        )
    return Refused("SignatureDoesNotMatch", message, 403)


def _stamp(at: Instant) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at // MICROS))


def _in_time(presented: Presented, now: Instant) -> None:
    age = (now - presented.signed_at) // MICROS
    if presented.expires is not None:
        if age > presented.expires:
            raise Refused("AccessDenied", "Request has expired", 403)
        if age < -SKEW_SECONDS:
            raise Refused("AccessDenied", "Request is not yet valid", 403)
        return
    if abs(age) <= SKEW_SECONDS:
        return
    if presented.service == "s3":
        raise Refused(
            "RequestTimeTooSkewed", "The difference between the request time and the current time is too large.", 403
        )
    edge = now + (SKEW_SECONDS if age < 0 else -SKEW_SECONDS) * MICROS
    side = "not yet current" if age < 0 else "expired"
    relation = "later" if age < 0 else "earlier"
    sign = "+" if age < 0 else "-"
    raise Refused(
        "SignatureDoesNotMatch",
        f"Signature {side}: {presented.stamp} is {relation} than {_stamp(edge)} ({_stamp(now)} {sign} 15 min.)",
        403,
    )
