"""Repositories of packages as their managers know them: the simple repository API and the upload form for pip, uv and
twine, channels for conda and its like.

A read is CodeArtifact's ReadFromRepository, an upload its PublishPackageVersion: asked, recorded, refused as the API is.
Paths begin with ``/_codeartifact/DOMAIN-OWNER.d.codeartifact.REGION`` here, and are those of AWS's own host inside of VPCs.

Source: PEP 503, 592, 629, 658, 691, 700 and 714; "Legacy API" of the Python package index for uploads; CodeArtifact User
Guide, "Using CodeArtifact with Python".
"""

from __future__ import annotations

import html
import logging
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote

import orjson
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from bastide.domain import MICROS, Refused, iso
from bastide.frontdoor.receive import Listener, Received, receive
from bastide.kernel import Call, Caller, Calls, Request
from bastide.registry.answers import Answer, send
from bastide.services import codeartifact

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_log = logging.getLogger("bastide.registry")

_PREFIX: Final = "/_codeartifact/"
_PLACE: Final = (
    r"(?P<domain>[a-z][a-z0-9-]{0,48}[a-z0-9])-(?P<owner>[0-9]{12})\.d\.codeartifact\.(?P<region>[a-z0-9-]+)"
)
_HOST: Final = re.compile(_PLACE + r"\.amazonaws\.com")
_FIRST: Final = re.compile(_PLACE)
_ROUTE: Final = re.compile(
    r"/pypi/(?P<repository>[A-Za-z0-9][A-Za-z0-9._-]{1,99})"
    r"(?:/?|/simple/?|/simple/(?P<package>[^/]{1,255})/?|/simple/(?P<of>[^/]{1,255})/(?P<version>[^/]{1,255})/(?P<file>[^/]{1,255}))"
)
_CHANNEL: Final = re.compile(
    r"/conda/(?P<repository>[A-Za-z0-9][A-Za-z0-9._-]{1,99})/(?P<subdir>[a-z0-9_-]{1,40})/(?P<asset>[^/]{1,255})"
)
_JSON: Final = "application/vnd.pypi.simple.v1+json"
_HTML: Final = "text/html; charset=utf-8"
_MOST_FIELDS: Final = 1 << 20
"""Bytes of a form before its file: a project's description is in it."""
_STATUS: Final = {
    "AccessDeniedException": 403, "UnrecognizedClientException": 401, "ExpiredTokenException": 401,
    "ResourceNotFoundException": 404, "ConflictException": 409, "ValidationException": 400,
    "ServiceQuotaExceededException": 413, "RequestEntityTooLargeException": 413,
}  # fmt: skip


@dataclass(slots=True)
class _Asked:
    """A request of somebody who is known. place: domain, its owner and region. route: what the path says."""

    received: Received
    caller: Caller
    domain: str
    owner: str
    region: str
    route: Mapping[str, str | None]

    @property
    def repository(self) -> str:
        """The repository's name."""
        return str(self.route["repository"])


class PackagePages:
    """Answers what is a repository's endpoint. hosts: the names that the platform answers to. regions: those that exist."""

    inside = True

    def __init__(self, calls: Calls, hosts: tuple[str, ...], regions: tuple[str, ...]) -> None:
        self._calls = calls
        self._hosts = frozenset({*hosts, "127.0.0.1", "[::1]", "localhost"})
        self._regions = regions

    def takes(self, scope: dict[str, Any]) -> bool:
        """Whether a request is for an endpoint: no bucket has a name that begins with an underscore."""
        host = _host(scope)
        return _HOST.fullmatch(host) is not None or (host in self._hosts and str(scope["path"]).startswith(_PREFIX))

    async def serve(self, scope: dict[str, Any], source: Any, send_: Any, listener: Listener) -> None:
        """Answers one request."""
        received: Received | None = None
        try:
            received = receive(scope, source, listener, self._calls.clock)
            answer = await self._answer(received, _host(scope))
        except Refused as refused:
            answer = _refused(refused)
        except Exception:
            _log.exception("a request to a package repository failed")
            answer = _error(500, "An internal error occurred.")
        close = received is None or (not received.finished and received.length != 0)
        await send(send_, answer, scope["method"], received.id if received else "", close=close)

    async def _answer(self, received: Received, host: str) -> Answer:
        path = unquote(received.raw_path.decode("latin-1"))
        place = _HOST.fullmatch(host)
        if place is None:
            first, slash, rest = path.removeprefix(_PREFIX).partition("/")
            place, path = _FIRST.fullmatch(first), slash + rest
        route = _ROUTE.fullmatch(path) or _CHANNEL.fullmatch(path)
        if place is None or route is None or place["region"] not in self._regions:
            raise Refused("ResourceNotFoundException", "There is no such page of a package repository.", 404)
        given = received.named.get("authorization")
        if given is None:
            raise Refused("UnrecognizedClientException", "Log in as aws, with a token of GetAuthorizationToken.", 401)
        caller = codeartifact.caller_of(self._calls, given, place["owner"], place["region"], place["domain"])
        asked = _Asked(received, caller, place["domain"], place["owner"], place["region"], route.groupdict())
        if "subdir" in route.groupdict():
            return await self._channel(asked)
        at_top = not any(route[name] for name in ("package", "file")) and "/simple" not in path
        if received.method == "POST" and at_top:
            return await self._upload(asked)
        if received.method not in ("GET", "HEAD") or at_top:
            raise Refused("ValidationException", f"{received.method} is not supported there.", 405)
        if route["file"]:
            return await self._file(asked)
        return await (self._project(asked) if route["package"] else self._projects(asked))

    async def _call(
        self, asked: _Asked, operation: str, given: dict[str, Any], *, body: Any = None, prepared: Any = None
    ) -> dict[str, Any]:
        held, received = self._calls.registry.operations["codeartifact", operation], asked.received
        request = Request(
            received.id,
            received.at,
            received.source_ip,
            received.named.get("user-agent", "")[:512],
            received.listener.secure,
            "rest-json",
            received.named.get("host", ""),
            received.tls,
            signed="header",
            vpce=received.listener.vpce,
        )
        input = {"domain": asked.domain, "domainOwner": asked.owner, "repository": asked.repository, **given}
        call = Call(held, input, asked.caller, asked.caller.account, asked.region, request, body, prepared=prepared)
        return await self._calls.run(call)

    # -- reading -------------------------------------------------------------------------------------------------------

    async def _projects(self, asked: _Asked) -> Answer:
        names = (await self._call(asked, "ReadFromRepository", {}))["packages"]
        if _wants_json(asked.received):
            told = {"meta": {"api-version": "1.1"}, "projects": [{"name": one} for one in names]}
            return Answer(200, {"content-type": _JSON}, orjson.dumps(told))
        lines = [f'<a href="{quote(one)}/">{html.escape(one)}</a><br>' for one in names]
        return Answer(200, {"content-type": _HTML}, _page("Simple index", lines))

    async def _project(self, asked: _Asked) -> Answer:
        name = str(asked.route["package"])
        files = (await self._call(asked, "ReadFromRepository", {"package": name}))["files"]
        if _wants_json(asked.received):
            told = {
                "meta": {"api-version": "1.1"},
                "name": re.sub(r"[-_.]+", "-", name).lower(),
                "versions": sorted({one["version"] for one in files}),
                "files": [_told(one) for one in files],
            }
            return Answer(200, {"content-type": _JSON, "vary": "accept"}, orjson.dumps(told))
        lines = []
        for one in files:
            more = ""
            if one["requiresPython"]:
                more += f' data-requires-python="{html.escape(one["requiresPython"])}"'
            if one["status"] == "Unlisted":
                more += ' data-yanked=""'
            if one["metadata"]:
                more += (
                    f' data-core-metadata="sha256={one["metadata"]}" data-dist-info-metadata="sha256={one["metadata"]}"'
                )
            lines.append(f'<a href="{_where(one)}#sha256={one["sha256"]}"{more}>{html.escape(one["name"])}</a><br>')
        return Answer(200, {"content-type": _HTML, "vary": "accept"}, _page(f"Links for {name}", lines))

    async def _file(self, asked: _Asked) -> Answer:
        name = str(asked.route["file"])
        given = {"package": str(asked.route["of"]), "asset": name}
        [found] = (await self._call(asked, "ReadFromRepository", given))["files"]
        sha256 = found["metadata"] if name.endswith(codeartifact.METADATA) else found["sha256"]
        if not sha256 or found["version"] != asked.route["version"]:
            raise Refused("ResourceNotFoundException", f"There is no {name[:200]} in that version.", 404)
        size, content = await codeartifact.bytes_of(self._calls, asked.owner, asked.region, asked.domain, sha256)
        head = {
            "content-type": "application/octet-stream",
            "content-length": str(size),
            "etag": f'"{sha256}"',
            "x-content-type-options": "nosniff",
        }
        return Answer(200, head, stream=content)

    async def _channel(self, asked: _Asked) -> Answer:
        """A conda channel's list of a subdir, or one package of it."""
        if asked.received.method not in ("GET", "HEAD"):
            raise Refused("ValidationException", "Nothing is published to a conda channel.", 405)
        subdir, asset = str(asked.route["subdir"]), str(asked.route["asset"])
        given = {"format": "conda", "namespace": subdir}
        if asset == "repodata.json":
            found = (await self._call(asked, "ReadFromRepository", given))["packages"]
            told: dict[str, Any] = {
                "info": {"subdir": subdir},
                "packages": {},
                "packages.conda": {},
                "repodata_version": 1,
            }
            for name, record in found.items():
                kept = {key: value for key, value in record.items() if key != "channel"}
                told["packages.conda" if name.endswith(".conda") else "packages"][name] = kept
            return Answer(200, {"content-type": "application/json"}, orjson.dumps(told))
        [record] = (await self._call(asked, "ReadFromRepository", {**given, "asset": asset}))["packages"].values()
        head = {
            "content-type": "application/octet-stream",
            "content-length": str(record["size"]),
            "etag": f'"{record["sha256"]}"',
        }
        return Answer(200, head, stream=await codeartifact.bytes_of_package(self._calls, record))

    # -- uploading -----------------------------------------------------------------------------------------------------

    async def _upload(self, asked: _Asked) -> Answer:
        form = await _Form.read(asked.received)

        def one(name: str) -> str:
            return (form.fields.get(name) or [""])[0]

        if one(":action") != "file_upload":
            raise Refused("ValidationException", "The form's :action is file_upload.")
        facts = codeartifact.facts_of_form(form.fields)
        codeartifact.check_file(form.filename, facts.name, facts.version)
        upload = codeartifact.Upload(facts, one("sha256_digest"))
        given = {
            "format": "pypi",
            "package": facts.name,
            "packageVersion": facts.version,
            "assetName": form.filename,
            "assetSHA256": one("sha256_digest"),
        }
        await self._call(asked, "PublishPackageVersion", given, body=form, prepared=upload)
        return Answer(200, {"content-type": "application/json"}, b"{}")


def _told(one: Mapping[str, Any]) -> dict[str, Any]:
    """A file as PEP 691 and 700 have it."""
    told: dict[str, Any] = {
        "filename": one["name"],
        "url": _where(one),
        "hashes": {"sha256": one["sha256"]},
        "yanked": one["status"] == "Unlisted",
    }
    if one["requiresPython"]:
        told["requires-python"] = one["requiresPython"]
    if one.get("size") is not None:
        told["size"] = one["size"]
    if one.get("published"):
        told["upload-time"] = iso(one["published"] // MICROS * MICROS)
    if one["metadata"]:
        told["core-metadata"] = told["dist-info-metadata"] = {"sha256": one["metadata"]}
    return told


def _where(one: Mapping[str, Any]) -> str:
    return f"{quote(one['version'])}/{quote(one['name'])}"


def _page(title: str, lines: list[str]) -> bytes:
    head = (
        '<!DOCTYPE html>\n<html><head><meta name="pypi:repository-version" content="1.1">'
        f"<title>{html.escape(title)}</title></head><body>\n"
    )
    return (head + "\n".join(lines) + "\n</body></html>\n").encode()


def _wants_json(received: Received) -> bool:
    for part in received.named.get("accept", "").split(","):
        kind, *more = (one.strip().lower() for one in part.split(";"))
        if kind in (_JSON, "application/vnd.pypi.simple.latest+json"):
            return not any(one in ("q=0", "q=0.0") for one in more)
    return False


def _host(scope: dict[str, Any]) -> str:
    found = str(dict(scope["headers"]).get(b"host", b"").decode("latin-1")).lower()
    return found.rsplit(":", 1)[0] if found.rpartition(":")[2].isdigit() else found


def _error(status: int, message: str) -> Answer:
    return Answer(status, {"content-type": "text/plain; charset=utf-8"}, message.encode())


def _refused(refused: Refused) -> Answer:
    answer = _error(_STATUS.get(refused.code, refused.status), refused.message)
    if refused.status == 405:
        answer.status = 405
    if answer.status == 401:
        answer.head["www-authenticate"] = 'Basic realm="AWS CodeArtifact"'
    return answer


@dataclass(slots=True)
class _Form:
    """The fields before the file, and the file as a body that is read on."""

    received: Received
    fields: dict[str, list[str]] = field(default_factory=dict)
    filename: str = ""
    length: int | None = None
    _begun: bool = False
    _after: bool = False
    _ready: list[bytes] = field(default_factory=list)
    _whole: bool = False
    _parser: Any = None

    @classmethod
    async def read(cls, received: Received) -> _Form:
        """Reads up to the file's first byte; raises Refused for what is no form or holds no file."""
        form = cls(received)
        kind, options = parse_options_header(received.named.get("content-type", "").encode("latin-1"))
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary or len(boundary) > 200:
            raise Refused("ValidationException", "An upload is a form, multipart/form-data.")
        form._parser = MultipartParser(boundary, form._callbacks())
        taken = 0
        while not form._begun and not form._whole:
            taken += await form._more()
            if taken > _MOST_FIELDS and not form._begun:
                raise Refused("ValidationException", f"The fields before the file have {_MOST_FIELDS} bytes at most.")
        if not form._begun:
            raise Refused("ValidationException", "The form has no file `content`, behind all its fields.")
        return form

    async def _more(self) -> int:
        data = await self.received.more()
        try:
            if data:
                self._parser.write(data)
            else:
                self._parser.finalize()
                self._whole = True
        except MultipartParseError:
            raise Refused("ValidationException", "The form is not well-formed multipart/form-data.") from None
        return len(data)

    def _callbacks(self) -> MultipartCallbacks:
        head: dict[str, str] = {}
        name, value, part = bytearray(), bytearray(), bytearray()

        def header(kept: bytearray) -> Any:
            # Those of parts behind the file are not kept: nothing bounds them.
            return lambda piece, start, end: None if self._begun else kept.extend(piece[start:end])

        def end_header() -> None:
            head[name.decode("latin-1").lower()] = value.decode("utf-8", "replace")
            name.clear()
            value.clear()

        def end_headers() -> None:
            _, told = parse_options_header(head.get("content-disposition", "").encode())
            head["_name"] = told.get(b"name", b"").decode("utf-8", "replace")
            if head["_name"] == "content" and not self._begun:
                self._begun = True
                self.filename = told.get(b"filename", b"").decode("utf-8", "replace")
            elif self._begun:
                self._after = True  # signatures and the like: not kept

        def data(piece: bytes, start: int, end: int) -> None:
            if self._begun and not self._after:
                self._ready.append(piece[start:end])
            elif not self._begun:
                part.extend(piece[start:end])

        def end_part() -> None:
            if not self._begun:
                self.fields.setdefault(head["_name"], []).append(part.decode("utf-8", "replace"))
            else:
                self._after = True
            part.clear()
            head.clear()

        return {
            "on_header_field": header(name),
            "on_header_value": header(value),
            "on_header_end": end_header,
            "on_headers_finished": end_headers,
            "on_part_data": data,
            "on_part_end": end_part,
        }

    async def chunks(self) -> AsyncIterator[bytes]:
        """The file's bytes; raises Refused if the form ends too soon."""
        while True:
            for piece in self._ready:
                yield piece
            self._ready.clear()
            if self._whole:
                break
            await self._more()
        if not self._after:
            raise Refused("ValidationException", "The form ended before its file did.")

    def checksums(self) -> Mapping[str, str]:
        """None: the form's digests are compared where the file is kept."""
        return {}
