"""A service's operations on the wire, as its botocore model describes them, seen from the server."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any, BinaryIO, Final

import botocore
import orjson
from botocore.exceptions import UnknownServiceError
from botocore.loaders import JSONFileLoader, Loader
from botocore.model import ServiceModel

from bastide.domain import Refused
from bastide.protocol import forms, routing
from bastide.protocol import xml as xml_
from bastide.protocol.errors import CBOR
from bastide.protocol.head import Head, Malformed
from bastide.protocol.operation import OperationCodec
from bastide.protocol.rules import Rules
from bastide.protocol.values import ValueReaders, ValueWriters

_RPC_PATH = re.compile(rb"(?:/.*)?/service/([^/]+)/operation/([^/]+)")


class _Operations(Mapping[str, OperationCodec]):
    """The operations of a service, each compiled when it is first asked for."""

    def __init__(self, service: Codec) -> None:
        self._service = service
        self._made: dict[str, OperationCodec] = {}

    def __getitem__(self, name: str) -> OperationCodec:
        found = self._made.get(name)
        if found is None:
            if name not in self._service.names:
                raise KeyError(name)
            found = self._made[name] = self._service.compiled(self._service, self._service.model.operation_model(name))
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._service.names

    def __iter__(self) -> Iterator[str]:
        return iter(self._service.names)

    def __len__(self) -> int:
        return len(self._service.names)


class Codec:
    """One service as botocore names it.

    signing_name: its name in credential scopes. endpoint_prefix, api_version, target_prefix, json_version: as in the
    model. protocols: those that clients may speak, the first preferred. metadata is the model's; `read` reads the whole of
    it, when it is first asked for.
    """

    compiled = OperationCodec
    """What an operation becomes."""
    anonymous = False
    """Whether nobody may ask, too: what is asked about says who may."""

    def __init__(self, service: str, metadata: Mapping[str, Any], read: Callable[[], ServiceModel]) -> None:
        self.service = service
        self.metadata = metadata
        self._read = read
        self.endpoint_prefix = str(metadata.get("endpointPrefix", service))
        self.signing_name = str(metadata.get("signingName") or self.endpoint_prefix)
        self.api_version = str(metadata.get("apiVersion", ""))
        self.target_prefix = str(metadata.get("targetPrefix", ""))
        self.json_version = str(metadata.get("jsonVersion", "1.0"))
        self.protocols: tuple[str, ...] = tuple(dict.fromkeys([metadata["protocol"], *metadata.get("protocols", ())]))
        self.protocol = self.protocols[0]
        self.query_compatible = "awsQueryCompatible" in metadata
        self.anonymous = self.anonymous or service == "s3"
        self.operations: Mapping[str, OperationCodec] = _Operations(self)
        namespace = metadata.get("xmlNamespace")
        if namespace is None and service == "ec2":
            namespace = f"http://ec2.amazonaws.com/doc/{self.api_version}/"
        if namespace is None and service == "s3":
            namespace = f"http://s3.amazonaws.com/doc/{self.api_version}/"
        if isinstance(namespace, Mapping):
            namespace = namespace.get("uri")
        self.xmlns = f' xmlns="{xml_.escape(namespace)}"' if namespace else ""
        self.rules = Rules(service, "query" in self.protocols)
        self.xml_readers = xml_.XmlReaders()
        self.xml_writers = xml_.XmlWriters()
        self._readers: dict[bool, ValueReaders] = {}
        self._writers: dict[bool, ValueWriters] = {}
        self._forms: dict[bool, forms.FormReaders] = {}
        self._templates: dict[str, routing.Template] = {}
        self._routes: routing.Routes | None = None
        self._errors: dict[str, Any] | None = None
        self._rest = next((one for one in self.protocols if one.startswith("rest-")), None)
        self._form = next((one for one in self.protocols if one in ("query", "ec2")), None)

    @cached_property
    def model(self) -> ServiceModel:
        """The service's model, as it is served."""
        return self._served(self._read())

    def _served(self, model: ServiceModel) -> ServiceModel:
        """What of a published model is served, and what besides."""
        return model

    @property
    def global_(self) -> bool:
        """Whether it has one endpoint for all regions."""
        return self.endpoint_prefix in _global_prefixes()

    @cached_property
    def names(self) -> frozenset[str]:
        """Its operations."""
        return frozenset(self.model.operation_names)

    def readers(self, binary: bool) -> ValueReaders:
        """The readers of JSON, or of CBOR if `binary`."""
        found = self._readers.get(binary)
        if found is None:
            found = self._readers[binary] = ValueReaders(binary=binary)
        return found

    def writers(self, binary: bool) -> ValueWriters:
        """The writers of JSON, or of CBOR if `binary`."""
        found = self._writers.get(binary)
        if found is None:
            found = self._writers[binary] = ValueWriters(binary=binary)
        return found

    def forms(self, ec2: bool) -> forms.FormReaders:
        """The readers of form fields."""
        found = self._forms.get(ec2)
        if found is None:
            found = self._forms[ec2] = forms.FormReaders(ec2=ec2)
        return found

    def template(self, name: str) -> routing.Template:
        """The compiled request line of an operation."""
        found = self._templates.get(name)
        if found is None:
            found = self._templates[name] = routing.template(self.model.operation_model(name))
        return found

    def error_shape(self, code: str) -> Any:
        """The service's error of that name or code, or None."""
        if self._errors is None:
            self._errors = {}
            for shape in self.model.error_shapes:
                trait = shape.metadata.get("error") or {}
                self._errors.setdefault(shape.name, shape)
                if trait.get("code"):
                    self._errors.setdefault(trait["code"], shape)
        return self._errors.get(code)

    def needs_body(self, head: Head) -> bool:
        """Whether `route` has to see the body: a form that names its action there."""
        if self._form is None or head.method != "POST":
            return False
        headers = head.headers
        if "x-amz-target" in headers or "smithy-protocol" in headers:
            return False
        return not any(key == "Action" for key, _ in head.query)

    def route(self, head: Head, body: bytes | None) -> tuple[str, str]:
        """The operation and protocol that a request means.

        Raises Refused in the words of the protocol it seems to speak; ``kept["protocol"]`` names that.
        """
        headers = head.headers
        if CBOR in self.protocols and (
            headers.get("smithy-protocol") == "rpc-v2-cbor" or b"/service/" in head.raw_path
        ):
            found = _RPC_PATH.fullmatch(head.raw_path)
            if found is not None and head.method == "POST":
                name = found[2].decode("latin-1")
                if found[1].decode("latin-1") == self.target_prefix and name in self.names:
                    return name, CBOR
            if found is not None or "smithy-protocol" in headers:
                raise _unknown(CBOR, 404)
        target = headers.get("x-amz-target")
        if target is not None and "json" in self.protocols:
            prefix, _, name = target.rpartition(".")
            if prefix == self.target_prefix and name in self.names and head.method == "POST":
                return name, "json"
            raise _unknown("json", 400)
        if self._rest is not None:
            return self._route_rest(head, self._rest), self._rest
        if self._form is not None:
            return self._route_form(head, body, self._form), self._form
        raise _unknown(self.protocol, 404)

    def _route_rest(self, head: Head, protocol: str) -> str:
        if self._routes is None:
            self._routes = routing.Routes([self.template(name) for name in self.model.operation_names])
        found = self._routes.find(head)
        s3 = self.service == "s3"
        if found is None:
            if s3:
                raise Refused(
                    "MethodNotAllowed",
                    "The specified method is not allowed against this resource.",
                    405,
                    kept={"protocol": protocol},
                )
            raise _unknown(protocol, 404)
        if s3 and head.method not in ("GET", "HEAD"):
            for key, value in head.query:
                # A subresource that nobody knows must not become a change of the whole bucket or object.
                if not value and key not in found.known and not key.lower().startswith("x-"):
                    raise Refused(
                        "NotImplemented",
                        "A query parameter you provided implies functionality that is not implemented",
                        501,
                        kept={"protocol": protocol},
                    )
        return found.name

    def _route_form(self, head: Head, body: bytes | None, protocol: str) -> str:
        action = version = None
        fields = head.query
        if body and head.method == "POST":
            try:
                fields = fields + forms.pairs(body)
            except Malformed as malformed:
                code = "InvalidParameterValue" if protocol == "ec2" else "MalformedQueryString"
                raise Refused(code, malformed.text, kept={"protocol": protocol}) from None
        for key, value in fields:
            if key == "Action":
                action = value
            elif key == "Version":
                version = value
        if not action:
            raise Refused(
                "MissingAction",
                "The request is missing an action or a required parameter.",
                kept={"protocol": protocol},
            )
        if action not in self.names or (version is not None and version != self.api_version):
            shown, wanted = action[:128], (version or self.api_version)[:32]
            if protocol == "ec2":
                text = f"The action {shown} is not valid for this web service."
            else:
                text = f"Could not find operation {shown} for version {wanted}"
            raise Refused("InvalidAction", text, kept={"protocol": protocol})
        return action


def _unknown(protocol: str, status: int) -> Refused:
    if protocol == "rest-xml":
        return Refused("InvalidAction", "The requested operation is not known.", 404, kept={"protocol": protocol})
    return Refused(
        "UnknownOperationException", "The requested operation is not recognized by the service.", status,
        kept={"protocol": protocol},
    )  # fmt: skip


SPECIAL: dict[str, type[Codec]] = {}
"""Services that botocore does not know, each with its own codec; their models are in `MODELS`."""
MODELS: Final = Path(__file__).parent / "models"


class _Files(JSONFileLoader):  # type: ignore[misc]
    """botocore's way to a model's file, read by a quicker reader: half of a cold start was this."""

    def _load_file(self, full_path: str, open_method: Callable[[str, str], BinaryIO]) -> Any:
        if not Path(full_path).is_file():
            return None
        with open_method(full_path, "rb") as file:
            return orjson.loads(file.read())


@cache
def _loader() -> Any:
    paths = [str(_data()), str(MODELS)]
    return Loader(include_default_search_paths=False, extra_search_paths=paths, file_loader=_Files())


def _data() -> Path:
    return Path(botocore.__file__).parent / "data"


@cache
def _global_prefixes() -> frozenset[str]:
    services = _loader().load_data("endpoints")["partitions"][0]["services"]
    return frozenset(name for name, one in services.items() if one.get("isRegionalized") is False)


def _model(service: str) -> ServiceModel:
    return ServiceModel(_loader().load_service_model(service, "service-2"), service)


def _metadata(folder: Path) -> Any:
    """What stands at the head of the newest model in a folder of them, from its first bytes: all of the models are 100 MB.
    None if there is none, or it stands elsewhere."""
    versions = sorted(one for one in folder.iterdir() if one.is_dir()) if folder.is_dir() else []
    files = [versions[-1] / name for name in ("service-2.json.gz", "service-2.json")] if versions else []
    file = next((one for one in files if one.is_file()), None)
    if file is None:
        return None
    with file.open("rb") as source:
        first = source.read(4096)
    raw = zlib.decompressobj(31).decompress(first, 16384) if file.suffix == ".gz" else first
    text = raw.decode("utf-8", "replace")
    try:
        return json.JSONDecoder().raw_decode(text, text.index("{", text.index('"metadata"')))[0]
    except ValueError:
        return None


@cache
def codec(service: str) -> Codec:
    """The codec of a service by botocore's name for it; raises KeyError for one that botocore does not know."""
    metadata = _metadata(MODELS / service) or _metadata(_data() / service)
    if metadata is None:
        try:
            metadata = _model(service).metadata
        except UnknownServiceError:
            raise KeyError(service) from None
    return SPECIAL.get(service, Codec)(service, metadata, lambda: _model(service))


@cache
def _signing_names() -> dict[str, tuple[str, ...]]:
    """Services by the name they sign with."""
    found: dict[str, list[str]] = {}
    for folder in sorted(_data().iterdir()):
        metadata = _metadata(folder)
        if metadata is None:
            try:
                metadata = _model(folder.name).metadata
            except UnknownServiceError:
                continue
        name = metadata.get("signingName") or metadata.get("endpointPrefix") or folder.name
        found.setdefault(name, []).append(folder.name)
    return {name: tuple(many) for name, many in found.items()}


def services_for_signing_name(name: str) -> tuple[str, ...]:
    """The services, by botocore's names, whose requests are signed for `name`; the namesake first."""
    return tuple(sorted(_signing_names().get(name, ()), key=lambda one: (one != name, one)))
