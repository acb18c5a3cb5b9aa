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
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Literal
from urllib.parse import quote, unquote_to_bytes

from bastide.domain import MICROS, Instant, Refused

ALGORITHM = "AWS4-HMAC-SHA256"
SKEW = 15 * 60 * MICROS
MOST_EXPIRES = 7 * 24 * 3600
UNSIGNED = "UNSIGNED-PAYLOAD"
STREAMING_FORMS = frozenset(
    {
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
        "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
    }
)
_MOST_CREDENTIAL = 256
_MOST_TOKEN = 16 * 1024
_MOST_KEYS = 8192
_MOST_NAMES = 8192

Headers = Sequence[tuple[bytes, bytes]]

_ONCE = frozenset({b"authorization", b"date", b"host", b"x-amz-content-sha256", b"x-amz-date", b"x-amz-security-token"})
_DATE = re.compile(r"\d{8}T\d{6}Z", re.ASCII)
_HEX = re.compile(r"[0-9a-f]{64}", re.ASCII)
_EXPIRES = re.compile(r"[0-9]{1,7}", re.ASCII)
_PLAIN_PATH = re.compile(rb"[A-Za-z0-9/_.~-]*")
_PLAIN_QUERY = re.compile(rb"[A-Za-z0-9_.~=&-]*")


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
    """What a request presents; None if it is not signed. Raises Refused for a signature that is not whole.

    method, raw_path: taken for the symmetry with `verify`; nothing is read from them.
    """
    named: dict[bytes, str] = {}
    amazon: list[bytes] = []
    for name, value in headers:
        key = name.lower()
        if key in _ONCE:
            if key in named:
                raise _incomplete(f"The header {key.decode()} stands more than once in the request.")
            named[key] = value.decode("latin-1")
        if key.startswith(b"x-amz-"):
            amazon.append(key)
    given = _query_parameters(raw_query) if b"X-Amz-" in raw_query else None
    authorization = named.get(b"authorization")
    if authorization is None:
        return _from_query(given, named, amazon) if given is not None else None
    if given is not None:
        raise Refused(
            "InvalidArgument", "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query "
            "string parameter or the Authorization header should be specified", 400,
        )  # fmt: skip
    return _from_header(authorization, named, amazon)


def _from_header(authorization: str, named: Mapping[bytes, str], amazon: Sequence[bytes]) -> Presented:
    kind, _, rest = authorization.strip().partition(" ")
    if kind != ALGORITHM:
        raise _incomplete("Unsupported authorization type. Please sign requests with AWS4-HMAC-SHA256.")
    found: dict[str, str] = {}
    for part in rest.split(","):
        key, equals, value = part.strip().partition("=")
        if not equals or key in found or key not in ("Credential", "SignedHeaders", "Signature"):
            raise _incomplete(f"'{key[:64]}' not a valid key=value pair (missing equal-sign) in Authorization header.")
        found[key] = value
    stamp = named.get(b"x-amz-date") or _stamp_of_date(named.get(b"date", ""))
    missing = [name for name in ("Credential", "Signature", "SignedHeaders") if not found.get(name)]
    if missing or not stamp:
        said = [f"Authorization header requires '{name}' parameter." for name in missing]
        if not stamp:
            said.append("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
        raise _incomplete(" ".join(said))
    return _presented(
        found["Credential"], found["SignedHeaders"], found["Signature"], stamp, "header", amazon,
        token=named.get(b"x-amz-security-token"), expires=None, body=named.get(b"x-amz-content-sha256", ""),
    )  # fmt: skip


def _stamp_of_date(date: str) -> str:
    """The Date header (RFC 9110, 5.6.7) in the form that is signed; "" if it is none."""
    try:
        moment = parsedate_to_datetime(date)
    except (ValueError, TypeError, OverflowError, IndexError):
        return ""
    # `-0000` is UTC too, of somebody who does not tell where they are.
    moment = moment.astimezone(UTC) if moment.tzinfo is not None else moment
    return moment.strftime("%Y%m%dT%H%M%SZ")


def _query_parameters(raw_query: bytes) -> dict[str, str] | None:
    """The parameters of a presigned URL; None if the query has nothing of a signature."""
    given: dict[str, str] = {}
    signed = False
    for part in raw_query.split(b"&"):
        key, _, value = part.partition(b"=")
        if key.startswith(b"X-Amz-"):
            name = key.decode("latin-1")
            if name in given:
                raise _query_error(f"The query parameter {name[:64]} stands more than once in the request.")
            if b"%" in value or b"+" in value:
                value = unquote_to_bytes(value.replace(b"+", b" "))
            given[name] = value.decode("latin-1")
            signed = signed or name in ("X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Signature")
    return given if signed else None


def _from_query(given: Mapping[str, str], named: Mapping[bytes, str], amazon: Sequence[bytes]) -> Presented:
    if given.get("X-Amz-Algorithm", ALGORITHM) != ALGORITHM:
        raise _query_error('X-Amz-Algorithm only supports "AWS4-HMAC-SHA256"')
    wanted = ("Algorithm", "Credential", "Signature", "Date", "SignedHeaders", "Expires")
    if not all(given.get("X-Amz-" + name) for name in wanted):
        raise _query_error(
            "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, X-Amz-Signature, "
            "X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters."
        )
    expires = given["X-Amz-Expires"]
    if not _EXPIRES.fullmatch(expires):
        raise _query_error("X-Amz-Expires should be a number")
    if int(expires) > MOST_EXPIRES:
        raise _query_error(
            "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be less than "
            "604800 seconds"
        )
    if int(expires) < 1:
        raise _query_error("X-Amz-Expires must be non-negative")
    token, body = given.get("X-Amz-Security-Token"), given.get("X-Amz-Content-Sha256")
    for said, header in ((token, b"x-amz-security-token"), (body, b"x-amz-content-sha256")):
        if said is not None and named.get(header, said) != said:
            raise _query_error(f"The query parameter and the header {header.decode()} disagree.")
    return _presented(
        given["X-Amz-Credential"], given["X-Amz-SignedHeaders"], given["X-Amz-Signature"], given["X-Amz-Date"], "query",
        amazon, token=token or named.get(b"x-amz-security-token"), expires=int(expires),
        body=body or named.get(b"x-amz-content-sha256", ""),
    )  # fmt: skip


def _presented(
    credential: str, signed: str, signature: str, stamp: str, form: Literal["header", "query"], amazon: Sequence[bytes], *,
    token: str | None, expires: int | None, body: str,
) -> Presented:  # fmt: skip
    parts = credential.split("/")
    s3 = len(parts) == 5 and parts[3] == "s3"

    def wrong(message: str, of_s3: str) -> Refused:
        # S3 and the other services word the same mistakes differently.
        if form == "query":
            return _query_error(f"Error parsing the X-Amz-Credential parameter; {of_s3}" if s3 else message)
        if s3:
            return Refused("AuthorizationHeaderMalformed", f"The authorization header is malformed; {of_s3}", 400)
        return _incomplete(message)

    if len(parts) != 5 or not all(parts) or len(credential) > _MOST_CREDENTIAL:
        raise wrong(
            "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term.",
            'the Credential is mal-formed; expecting "<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request".',
        )
    key, date, region, service, terminator = parts
    if terminator != "aws4_request":
        raise wrong(
            "Credential should be scoped with a valid terminator: 'aws4_request'.",
            f'incorrect terminal "{terminator}". This endpoint belongs to "aws4_request".',
        )
    if not _HEX.fullmatch(signature):
        raise wrong("Signature must be 64 lower-case hexadecimal digits.", "the Signature is mal-formed.")
    try:
        at = _seconds(stamp) if _DATE.fullmatch(stamp) else None
    except ValueError:
        at = None
    if at is None:
        raise wrong(
            f"Date must be in ISO-8601 'basic format'. Got '{stamp[:64]}'. See http://en.wikipedia.org/wiki/ISO_8601",
            "X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\"",
        )
    if stamp[:8] != date:
        raise wrong(
            f"Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '{date}' != "
            f"'{stamp[:8]}', from '{stamp}'.",
            f'Invalid credential date "{date}". This date is not the same as X-Amz-Date: "{stamp[:8]}".',
        )
    found = _names(signed) if len(signed) <= _MOST_NAMES else None
    if found is None:
        raise wrong(
            "SignedHeaders must be lower-case header names in order, each once.", "the SignedHeaders are mal-formed."
        )
    names, covered = found
    unsigned = [name for name in (b"host", *amazon) if name not in covered]
    if unsigned:
        if not s3 and unsigned[0] == b"host":
            raise _incomplete("'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.")
        raise Refused(
            "AccessDenied",
            "There were headers present in the request which were not signed",
            403,
            members={"HeadersNotSigned": ", ".join([name.decode("latin-1") for name in unsigned])},
        )
    if token is not None and len(token) > _MOST_TOKEN:
        raise Refused("InvalidClientTokenId", "The security token included in the request is invalid.", 403)
    if s3:
        _check_claim(body, form)
    return Presented(key, date, region, service, names, signature, form, token, at * MICROS, stamp, expires, body)


@lru_cache(1024)
def _names(signed: str) -> tuple[tuple[str, ...], frozenset[bytes]] | None:
    # The same few lists come with every request.
    names = tuple(signed.split(";"))
    if list(names) != sorted(set(names)) or "" in names or signed != signed.lower():
        return None
    return names, frozenset(name.encode("latin-1") for name in names)


def _check_claim(body: str, form: str) -> None:
    if not body:
        if form == "query":
            return
        raise Refused("InvalidRequest", "Missing required header for this request: x-amz-content-sha256", 400)
    if body != UNSIGNED and body not in STREAMING_FORMS and not _HEX.fullmatch(body):
        raise Refused(
            "InvalidArgument",
            "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, "
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER or a valid sha256 value.",
            400,
        )


def payload_hash_wanted(presented: Presented, service: str) -> str | None:
    """What stands for the body in what was signed: a hex SHA-256, UNSIGNED-PAYLOAD or a streaming form.

    None: the SHA-256 of the body, which the server computes whatever a header claims (every service but S3).
    """
    return (presented.body or UNSIGNED) if service == "s3" else None


@lru_cache(4096)
def _day(date: str) -> int:
    return calendar.timegm(time.strptime(date, "%Y%m%d"))


def _seconds(stamp: str) -> int:
    hour, minute, second = int(stamp[9:11]), int(stamp[11:13]), int(stamp[13:15])
    if hour > 23 or minute > 59 or second > 60:
        raise ValueError(stamp)
    return _day(stamp[:8]) + hour * 3600 + minute * 60 + second


_keys: OrderedDict[tuple[str, bytes, str, str, str], bytes] = OrderedDict()


def signing_key(presented: Presented, secret: str) -> bytes:
    """The key that signs within a scope; a session's key never serves another one's secret."""
    raw = secret.encode()
    # The secret's hash, not the secret, is what the cache remembers it by.
    place = (
        presented.access_key_id, hashlib.sha256(raw).digest(), presented.date, presented.region, presented.service
    )  # fmt: skip
    key = _keys.get(place)
    if key is None:
        key = hmac.digest(b"AWS4" + raw, presented.date.encode("latin-1"), "sha256")
        for part in (presented.region, presented.service, "aws4_request"):
            key = hmac.digest(key, part.encode("latin-1"), "sha256")
        _keys[place] = key
        while len(_keys) > _MOST_KEYS:
            _keys.popitem(last=False)
    else:
        _keys.move_to_end(place)
    return key


_UNRESERVED = "-_.~"


def _path(raw_path: bytes, service: str) -> str:
    """S3 signs the path as it is, encoded once; everybody else removes dots and doubled slashes and encodes it again."""
    if service == "s3":
        if _PLAIN_PATH.fullmatch(raw_path):
            return raw_path.decode() or "/"
        return quote(unquote_to_bytes(raw_path), safe="/" + _UNRESERVED) or "/"
    if raw_path == b"/" or not raw_path:
        return "/"
    if b"//" in raw_path or b"/." in raw_path:
        kept: list[bytes] = []
        for part in raw_path.split(b"/"):
            if part == b"..":
                if kept:
                    kept.pop()
            elif part not in (b"", b"."):
                kept.append(part)
        raw_path = b"/" + b"/".join(kept) + (b"/" if raw_path.endswith(b"/") and kept else b"")
    return raw_path.decode() if _PLAIN_PATH.fullmatch(raw_path) else quote(raw_path, safe="/" + _UNRESERVED)


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
        if b"=" not in value and _PLAIN_QUERY.fullmatch(part):
            pairs.append((key.decode(), value.decode()))
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

    payload_hash: what stands in the canonical request's last line: `payload_hash_wanted`, or the body's hex SHA-256.
    now: the wall clock, microseconds. Raises Refused: SignatureDoesNotMatch (also for what is too old or too early),
    RequestTimeTooSkewed (S3), AccessDenied for a presigned URL of S3 outside its time.
    """
    values: dict[bytes, bytes] = {}
    for name, value in headers:
        key = name.lower()
        values[key] = values[key] + b"," + b" ".join(value.split()) if key in values else b" ".join(value.split())
    names = presented.signed_headers
    try:
        lines = "".join([f"{name}:{values[name.encode('latin-1')].decode('latin-1')}\n" for name in names])
    except KeyError:
        raise _mismatch(presented.service) from None
    canonical = (
        f"{method}\n{_path(raw_path, presented.service)}\n{_query(raw_query, presented.form == 'query')}\n{lines}\n"
        f"{';'.join(names)}\n{payload_hash}"
    )
    key_of_scope = signing_key(presented, secret)
    # Bytes beyond ASCII: most clients sign what they send, botocore signs the UTF-8 of what it sends as Latin-1.
    for encoding in ("latin-1",) if canonical.isascii() else ("latin-1", "utf-8"):
        digest = hashlib.sha256(canonical.encode(encoding)).hexdigest()
        to_sign = f"{ALGORITHM}\n{presented.stamp}\n{presented.scope}\n{digest}"
        wanted = hmac.digest(key_of_scope, to_sign.encode("latin-1"), "sha256").hex()
        if hmac.compare_digest(wanted, presented.signature):
            break
    else:
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
    age = now - presented.signed_at
    longest = SKEW if presented.expires is None else presented.expires * MICROS
    if -SKEW <= age <= longest:
        return
    if presented.service == "s3":
        if presented.form == "query":
            message = "Request has expired" if age > 0 else "Request is not yet valid"
            raise Refused("AccessDenied", message, 403)
        raise Refused(
            "RequestTimeTooSkewed", "The difference between the request time and the current time is too large.", 403
        )
    if age > 0:
        minutes, rest = divmod(longest // MICROS, 60)
        span = f"{minutes} min" if not rest else f"{longest // MICROS} sec"
        edge = _stamp(now - longest)
        message = f"Signature expired: {presented.stamp} is now earlier than {edge} ({_stamp(now)} - {span}.)"
    else:
        message = (
            f"Signature not yet current: {presented.stamp} is still later than {_stamp(now + SKEW)} "
            f"({_stamp(now)} + 15 min.)"
        )
    raise Refused("SignatureDoesNotMatch", message, 403)
