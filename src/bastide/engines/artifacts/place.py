"""Where a platform's objects lie: with its other files, or in an S3-compatible store that a URL names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

SYNTAX = "s3://BUCKET/PREFIX?region=REGION&endpoint-url=URL&ca-bundle=FILE&credentials=FILE"
_KNOWN = ("region", "endpoint-url", "ca-bundle", "credentials")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"([A-Za-z0-9._-]+/)*")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class PlaceError(Exception):
    """A store of objects cannot be used; the message says why and what to change."""


@dataclass(frozen=True, slots=True)
class Place:
    """A place in an S3-compatible store, everything below a prefix of a bucket.

    prefix: empty, or ends in `/`. endpoint: None for AWS's own. authority: certificates that its TLS is believed by; None
    for the system's. credentials: a file in the format of AWS's (profile `default`), of mode 0600; None for the ways that
    AWS's SDKs find them (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY first).
    """

    bucket: str
    prefix: str = ""
    region: str = "us-east-1"
    endpoint: str | None = None
    authority: Path | None = None
    credentials: Path | None = None

    @classmethod
    def parse(cls, url: str) -> Place:
        """Raises PlaceError, which never repeats what stands where a password would."""
        parts = urlsplit(url)
        if parts.scheme != "s3" or "@" in parts.netloc or parts.fragment:
            raise PlaceError(f"a store of objects is named as {SYNTAX}; credentials never stand in it")
        given = parse_qs(parts.query, keep_blank_values=True)
        for name, values in given.items():
            if name not in _KNOWN or len(values) != 1 or not values[0]:
                raise PlaceError(f"`{name}` is unknown, empty or twice there; a store of objects is named as {SYNTAX}")
        prefix = parts.path.strip("/")
        prefix = f"{prefix}/" if prefix else ""
        if not _BUCKET.fullmatch(parts.netloc):
            raise PlaceError(f"`{parts.netloc}` is not a bucket's name")
        if not _PREFIX.fullmatch(prefix) or len(prefix) > 512:
            raise PlaceError("a prefix has letters, digits, `.`, `_`, `-` between its slashes, and 512 bytes at most")
        endpoint = given.get("endpoint-url", [None])[0]
        if endpoint is not None:
            _check_endpoint(endpoint)
        files = {}
        for name in ("ca-bundle", "credentials"):
            text = given.get(name, [None])[0]
            files[name] = Path(text) if text is not None else None
            if text is not None and not Path(text).is_absolute():
                raise PlaceError(f"`{name}` is the whole path of a file")
        return cls(
            parts.netloc,
            prefix,
            given.get("region", ["us-east-1"])[0],
            endpoint,
            files["ca-bundle"],
            files["credentials"],
        )

    def __str__(self) -> str:
        at = f" at {self.endpoint}" if self.endpoint else ""
        return f"s3://{self.bucket}/{self.prefix}{at}"


def _check_endpoint(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise PlaceError("`endpoint-url` is https://HOST:PORT")
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise PlaceError("a store of objects on another machine is spoken to over https only")
