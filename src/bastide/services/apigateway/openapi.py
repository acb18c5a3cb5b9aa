"""OpenAPI 2 and 3 documents, with API Gateway's extensions, as what an API is to be: read whole before anything is changed.

A stranger's document is bounded in size, depth and number of values; references are followed within it alone, and a ring of
them ends. What would have an effect on AWS and has none here is refused by its name.
Source: API Gateway Developer Guide, "Develop REST APIs using OpenAPI", "OpenAPI extensions for API Gateway"; OpenAPI
Specification 2.0 and 3.0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from bastide.domain import Refused
from bastide.engines import templates
from bastide.services.apigateway.noun import bad

MOST_BYTES: Final = 1 << 20
_MOST_METHODS: Final = 1000
_DEEPEST: Final = 20
_VERBS: Final = ("get", "put", "post", "delete", "options", "head", "patch")
_ANY: Final = "x-amazon-apigateway-any-method"
_PLACES: Final = {"path": "path", "query": "querystring", "header": "header"}
_NAME: Final = re.compile(r"[A-Za-z0-9]{1,128}")
_OURS: Final = "x-amazon-apigateway-"
_KNOWN: Final = frozenset(
    _OURS + one
    for one in (
        "any-method", "api-key-source", "auth", "authorizer", "authtype", "binary-media-types", "endpoint-configuration",
        "gateway-responses", "importexport-version", "integration", "policy", "request-validator", "request-validators",
        "documentation",
    )
)  # fmt: skip
"""Extensions that are read, and documentation, which is kept nowhere and has no effect."""
_REFUSED: Final = {
    f"{_OURS}minimum-compression-size": "answers are not compressed",
    f"{_OURS}integrations": "that is of HTTP APIs",
    f"{_OURS}cors": "that is of HTTP APIs",
    f"{_OURS}tls-config": "there are no HTTP integrations",
    f"{_OURS}security-policy": "the listener's is TLS 1.2 for all",
    f"{_OURS}endpoint-access-mode": "there is one only",
}
MODELS: Final = "https://apigateway.amazonaws.com/restapis/-/models"
"""What schemas of a plan refer to each other by, until the API has its id."""
Doc = dict[str, Any]


@dataclass(slots=True)
class Plan:
    """What an API is to be. paths: methods by verb, as the API's own operations take them, by path; each has
    ``integration`` and ``responses`` beside. models, validators, authorizers, answers (gateway responses): by name."""

    name: str
    description: str = ""
    version: str = ""
    binary: list[str] = field(default_factory=list)
    policy: str = ""
    endpoint: Doc = field(default_factory=dict)
    paths: dict[str, dict[str, Doc]] = field(default_factory=dict)
    models: dict[str, Doc] = field(default_factory=dict)
    validators: dict[str, Doc] = field(default_factory=dict)
    authorizers: dict[str, Doc] = field(default_factory=dict)
    answers: dict[str, Doc] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def roles(self) -> list[str]:
        """Every role that something of it is invoked with."""
        held = [one["integration"].get("credentials") for path in self.paths.values() for one in path.values()]
        held += [one.get("authorizerCredentials") for one in self.authorizers.values()]
        return list(dict.fromkeys(str(one) for one in held if one))


def plan(body: bytes, parameters: Mapping[str, str] | None = None) -> Plan:
    """What a document says; raises BadRequestException. parameters: of the import; ``basepath`` is ignore or prepend."""
    if len(body) > MOST_BYTES:
        raise bad(f"The OpenAPI document has more than {MOST_BYTES} bytes.")
    try:
        tree = templates.parse(body.decode())
    except UnicodeDecodeError:
        raise bad("Unable to parse API definition because of a malformed document: it is not UTF-8.") from None
    except Refused as refused:
        why = refused.message.partition(": ")[2] or refused.message
        raise bad(f"Unable to parse API definition because of a malformed document: {why}") from None
    if not isinstance(tree, dict) or not isinstance(tree.get("paths") or {}, dict):
        raise bad("Invalid OpenAPI input: it is a mapping with info and paths.")
    return _Reading(tree, dict(parameters or {})).read()


def _mapping(value: Any, what: str) -> Doc:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise bad(f"Invalid OpenAPI input: {what} is a mapping.")
    return value


def _list(value: Any, what: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise bad(f"Invalid OpenAPI input: {what} is a list.")
    return value


def _texts(value: Any, what: str) -> dict[str, str]:
    found = {}
    for name, one in _mapping(value, what).items():
        if isinstance(one, dict | list) or one is None:
            raise bad(f"Invalid OpenAPI input: {what}.{name[:64]} is a text.")
        found[name] = ("true" if one else "false") if isinstance(one, bool) else str(one)
    return found


class _Reading:
    """One document on its way to a plan."""

    def __init__(self, tree: Doc, parameters: Mapping[str, str]) -> None:
        self.tree = tree
        given = str(tree.get("swagger") or tree.get("openapi") or "")
        self.third = "openapi" in tree
        if not (given.startswith("3.") if self.third else given in ("2.0", "2")):
            raise bad("Invalid OpenAPI input: swagger is 2.0, or openapi is 3.x.")
        info = _mapping(tree.get("info"), "info")
        if not info.get("title"):
            raise bad("Invalid OpenAPI input: info.title is needed.")
        self.plan = Plan(
            str(info["title"])[:1024], str(info.get("description") or ""), str(info.get("version") or "")[:64]
        )
        self.prefix = self._base(parameters)
        components = _mapping(tree.get("components"), "components")
        self.schemes = _mapping(
            components.get("securitySchemes") if self.third else tree.get("securityDefinitions"), "security schemes"
        )
        self.schemas = _mapping(components.get("schemas") if self.third else tree.get("definitions"), "schemas")

    def _base(self, parameters: Mapping[str, str]) -> str:
        unknown = sorted(
            set(parameters)
            - {"basepath", "endpointConfigurationTypes", "endpointConfigurationVpcEndpointIds", "ignore"}
        )
        how = parameters.get("basepath", "ignore")
        if unknown or how not in ("ignore", "prepend"):
            raise bad(
                f"parameters: {unknown[0][:64] if unknown else f'basepath={how[:64]}'} is not supported by Bastide."
            )
        if parameters.get("endpointConfigurationTypes"):
            self.plan.endpoint["types"] = parameters["endpointConfigurationTypes"].split(",")
        if parameters.get("endpointConfigurationVpcEndpointIds"):
            self.plan.endpoint["vpcEndpointIds"] = parameters["endpointConfigurationVpcEndpointIds"].split(",")
        if how == "ignore":
            return ""
        base = str(self.tree.get("basePath") or "")
        if self.third:
            server = _mapping(next(iter(_list(self.tree.get("servers"), "servers")), None), "a server")
            variables = _mapping(server.get("variables"), "variables")
            path = re.sub(r"^[a-z]+://[^/]*", "", str(server.get("url") or ""))
            base = re.sub(
                r"\{(\w+)\}",
                lambda found: str(_mapping(variables.get(found[1]), "a variable").get("default") or ""),
                path,
            )
        return "/" + base.strip("/") if base.strip("/") else ""

    def read(self) -> Plan:
        """The plan."""
        self._extensions(self.tree, "the document")
        self._top()
        for name, scheme in self.schemes.items():
            self._scheme(name, self._followed(scheme, "a security scheme"))
        for name, schema in self.schemas.items():
            self._model(name, schema)
        count = 0
        for path, held in _mapping(self.tree.get("paths"), "paths").items():
            if path.startswith("x-"):
                continue
            item = self._followed(held, path)
            for verb, given in item.items():
                if verb in _VERBS or verb == _ANY:
                    count += 1
                    self._method(path, item, "ANY" if verb == _ANY else verb.upper(), _mapping(given, f"{verb} {path}"))
                elif verb == "trace":
                    raise bad(f"Invalid OpenAPI input: {path}: API Gateway has no method TRACE.")
            if count > _MOST_METHODS:
                raise bad(f"Invalid OpenAPI input: more than {_MOST_METHODS} methods.")
            if not path.startswith("/"):
                raise bad(f"Invalid OpenAPI input: the path {path[:200]} begins with /.")
            self.plan.paths.setdefault(self._path(path), {})
        return self.plan

    def _path(self, path: str) -> str:
        return f"{self.prefix}/{path.strip('/')}".rstrip("/") or "/"

    def _extensions(self, given: Mapping[str, Any], where: str) -> None:
        for name, value in given.items():
            if name in _REFUSED and value not in (None, "", [], {}):
                raise bad(f"{name} of {where[:200]} is not supported by Bastide: {_REFUSED[name]}.")
            if name.startswith(_OURS) and name not in _KNOWN and name not in _REFUSED:
                raise bad(f"{name[:100]} of {where[:200]} is not known to Bastide.")

    def _followed(self, given: Any, what: str) -> Doc:
        """A mapping, or the one that it refers to within the document."""
        found = _mapping(given, what)
        for _ in range(_DEEPEST):
            if "$ref" not in found:
                return found
            reference = str(found["$ref"])
            if not reference.startswith("#/"):
                raise bad(f"Invalid OpenAPI input: $ref {reference[:200]} leads out of the document.")
            here: Any = self.tree
            for part in reference[2:].split("/"):
                here = _mapping(here, reference[:200]).get(part.replace("~1", "/").replace("~0", "~"))
            if here is None:
                raise bad(f"Invalid OpenAPI input: $ref {reference[:200]} leads to nothing.")
            found = _mapping(here, reference[:200])
        raise bad(f"Invalid OpenAPI input: $ref of {what[:200]} leads back to itself.")

    # -- the whole document ------------------------------------------------------------------------------------------------

    def _top(self) -> None:
        tree, plan = self.tree, self.plan
        plan.binary = [str(one) for one in _list(tree.get(f"{_OURS}binary-media-types"), "binary-media-types")]
        policy = tree.get(f"{_OURS}policy")
        if policy:
            plan.policy = orjson.dumps(_mapping(policy, f"{_OURS}policy")).decode()
        source = tree.get(f"{_OURS}api-key-source")
        if source not in (None, "HEADER"):
            raise bad("x-amazon-apigateway-api-key-source: there are no API keys in Bastide yet.")
        endpoint = _mapping(tree.get(f"{_OURS}endpoint-configuration"), "endpoint-configuration")
        for server in _list(tree.get("servers"), "servers"):
            endpoint = endpoint or _mapping(
                _mapping(server, "a server").get(f"{_OURS}endpoint-configuration"), "endpoint-configuration"
            )
        if endpoint:
            plan.endpoint = {**plan.endpoint, **endpoint}
            if plan.endpoint.pop("disableExecuteApiEndpoint", False):
                raise bad("disableExecuteApiEndpoint is set by CreateRestApi and UpdateRestApi in Bastide.")
        for name, one in _mapping(tree.get(f"{_OURS}request-validators"), "request-validators").items():
            held = _mapping(one, "a request validator")
            plan.validators[name] = {
                "name": name, "validateRequestBody": held.get("validateRequestBody") is True,
                "validateRequestParameters": held.get("validateRequestParameters") is True,
            }  # fmt: skip
        for name, one in _mapping(tree.get(f"{_OURS}gateway-responses"), "gateway-responses").items():
            held = _mapping(one, "a gateway response")
            plan.answers[name] = {
                "responseType": name, "statusCode": None if held.get("statusCode") is None else str(held["statusCode"]),
                "responseParameters": _texts(held.get("responseParameters"), "responseParameters"),
                "responseTemplates": _texts(held.get("responseTemplates"), "responseTemplates"),
            }  # fmt: skip

    def _scheme(self, name: str, scheme: Doc) -> None:
        self._extensions(scheme, f"the security scheme {name}")
        held = scheme.get(f"{_OURS}authorizer")
        if held is None:
            return
        given, kind = _mapping(held, "an authorizer"), str(scheme.get(f"{_OURS}authtype") or "custom")
        type = str(given.get("type") or "").upper()
        if type == "COGNITO_USER_POOLS":
            raise bad(f"The authorizer {name[:64]}: there are no user pools in Bastide.")
        source = given.get("identitySource")
        if type == "TOKEN":
            source = source or f"method.request.header.{scheme.get('name') or 'Authorization'}"
        found: Doc = {"name": name, "type": type, "authType": kind}
        for member, value in (
            ("authorizerUri", given.get("authorizerUri")), ("authorizerCredentials", given.get("authorizerCredentials")),
            ("identitySource", source), ("identityValidationExpression", given.get("identityValidationExpression")),
        ):  # fmt: skip
            if value:
                found[member] = str(value)
        ttl = given.get("authorizerResultTtlInSeconds")
        if ttl is not None:
            found["authorizerResultTtlInSeconds"] = int(ttl) if str(ttl).isdecimal() else -1
        self.plan.authorizers[name] = found

    def _model(self, name: str, schema: Any) -> str:
        if not _NAME.fullmatch(name):
            clean = re.sub(r"[^A-Za-z0-9]", "", name)[:128]
            if not clean:
                raise bad(f"Invalid OpenAPI input: {name[:64]} names no model.")
            self.plan.warnings.append(f"The model {name[:64]} is called {clean}: names have letters and digits.")
            name = clean
        self.plan.models[name] = {
            "name": name, "contentType": "application/json", "schema": self._schema(_mapping(schema, name)),
            "description": str(_mapping(schema, name).get("description") or "")[:1024],
        }  # fmt: skip
        return name

    def _schema(self, schema: Doc) -> str:
        """A schema's text, which refers to models by their addresses."""
        text = orjson.dumps(schema).decode()

        def model(found: re.Match[str]) -> str:
            return f'"$ref":"{MODELS}/{re.sub(r"[^A-Za-z0-9]", "", found[1])[:128]}"'

        return re.sub(r'"\$ref":"#/(?:definitions|components/schemas)/([^"/]+)"', model, text)

    # -- methods -----------------------------------------------------------------------------------------------------------

    def _method(self, path: str, item: Doc, verb: str, given: Doc) -> None:
        where = f"{verb} {path}"
        self._extensions(given, where)
        found: Doc = {"httpMethod": verb, **self._security(given, where)}
        if given.get("operationId"):
            found["operationName"] = str(given["operationId"])[:128]
        parameters, models = self._parameters(item, given, where)
        if parameters:
            found["requestParameters"] = parameters
        if models:
            found["requestModels"] = models
        validator = given.get(f"{_OURS}request-validator", self.tree.get(f"{_OURS}request-validator"))
        if validator:
            if validator not in self.plan.validators:
                raise bad(f"{where}: there is no request validator {str(validator)[:64]} in the document.")
            found["validator"] = validator
        found["responses"] = self._responses(given, where)
        found["integration"] = self._integration(given, where)
        self.plan.paths.setdefault(self._path(path), {})[verb] = found

    def _security(self, given: Doc, where: str) -> Doc:
        own = _mapping(given.get(f"{_OURS}auth"), f"{_OURS}auth")
        if own.get("type"):
            return {"authorizationType": str(own["type"])}
        needs = _list(given.get("security", self.tree.get("security")), "security")
        for one in needs:
            for name, scopes in _mapping(one, "a security requirement").items():
                scheme = self._followed(self.schemes.get(name), f"the security scheme {name}")
                if not scheme:
                    raise bad(f"{where}: there is no security scheme {str(name)[:64]} in the document.")
                if name in self.plan.authorizers:
                    return {"authorizationType": "CUSTOM", "authorizer": name, "scopes": _list(scopes, "scopes")}
                if str(scheme.get(f"{_OURS}authtype")).lower() == "awssigv4":
                    return {"authorizationType": "AWS_IAM"}
                if scheme.get("type") == "apiKey" and str(scheme.get("name")).lower() == "x-api-key":
                    raise bad(f"{where}: there are no API keys in Bastide yet.")
                raise bad(
                    f"{where}: the security scheme {str(name)[:64]} is neither awsSigv4 nor has it an authorizer; "
                    "API Gateway would let everybody in."
                )
        return {"authorizationType": "NONE"}

    def _parameters(self, item: Doc, given: Doc, where: str) -> tuple[dict[str, bool], dict[str, str]]:
        found: dict[str, bool] = {}
        models: dict[str, str] = {}
        for one in [*_list(item.get("parameters"), "parameters"), *_list(given.get("parameters"), "parameters")]:
            held = self._followed(one, f"a parameter of {where}")
            place, name = str(held.get("in")), str(held.get("name") or "")
            if place == "body":
                consumes = _list(given.get("consumes", self.tree.get("consumes")), "consumes") or ["application/json"]
                models |= {str(kind): self._named(held.get("schema"), where) for kind in consumes}
            elif place in _PLACES and name:
                found[f"method.request.{_PLACES[place]}.{name}"] = held.get("required") is True
            else:
                self.plan.warnings.append(f"{where}: the parameter {name[:64]} in {place[:32]} is not checked.")
        body = self._followed(given.get("requestBody"), f"the body of {where}")
        for kind, media in _mapping(body.get("content"), "content").items():
            schema = _mapping(media, "a media type").get("schema")
            if schema is not None:
                models[str(kind)] = self._named(schema, where)
        return found, models

    def _named(self, schema: Any, where: str) -> str:
        """The model of a schema: the one that it refers to, or one of its own."""
        held = _mapping(schema, f"the schema of {where}")
        reference = str(held.get("$ref") or "")
        match = re.fullmatch(r"#/(?:definitions|components/schemas)/([^/]+)", reference)
        if match is not None:
            if match[1] not in self.schemas:
                raise bad(f"{where}: {reference[:200]} leads to nothing.")
            return re.sub(r"[^A-Za-z0-9]", "", match[1])[:128]
        return self._model(f"MODEL{len(self.plan.models):06x}", held)

    def _responses(self, given: Doc, where: str) -> list[Doc]:
        found = []
        for code, one in _mapping(given.get("responses"), f"responses of {where}").items():
            if str(code).startswith("x-"):
                continue
            if not re.fullmatch(r"[1-5]\d\d", str(code)):
                self.plan.warnings.append(f"{where}: the response {str(code)[:32]} is ignored; it is no status code.")
                continue
            held = self._followed(one, f"a response of {where}")
            headers = {f"method.response.header.{name}": False for name in _mapping(held.get("headers"), "headers")}
            found.append({"statusCode": str(code), "responseParameters": headers})
        return found

    def _integration(self, given: Doc, where: str) -> Doc:
        held = given.get(f"{_OURS}integration")
        if held is None:
            raise bad(f"No integration defined for method: {where} has no x-amazon-apigateway-integration.")
        told = self._followed(held, f"the integration of {where}")
        self._extensions(told, where)
        found: Doc = {"type": str(told.get("type") or "").upper().replace("-", "_")}
        for member in ("uri", "credentials", "connectionId", "cacheNamespace", "contentHandling"):
            if told.get(member):
                found[member] = str(told[member])
        for member, name in (
            ("httpMethod", "integrationHttpMethod"), ("connectionType", "connectionType"),
            ("passthroughBehavior", "passthroughBehavior"), ("responseTransferMode", "responseTransferMode"),
        ):  # fmt: skip
            if told.get(member):
                found[name] = str(told[member]).upper()
        for member in ("requestParameters", "requestTemplates"):
            if told.get(member):
                found[member] = _texts(told[member], member)
        if told.get("cacheKeyParameters"):
            found["cacheKeyParameters"] = _list(told["cacheKeyParameters"], "cacheKeyParameters")
        if told.get("timeoutInMillis") is not None:
            wait = str(told["timeoutInMillis"])
            found["timeoutInMillis"] = int(wait) if wait.isdecimal() and len(wait) < 9 else 0
        answers = []
        for pattern, one in _mapping(told.get("responses"), "responses").items():
            answer = _mapping(one, "a response of an integration")
            answers.append(
                {
                    "statusCode": str(answer.get("statusCode") or "200"),
                    "responseParameters": _texts(answer.get("responseParameters"), "responseParameters"),
                    "responseTemplates": _texts(answer.get("responseTemplates"), "responseTemplates"),
                    **({"contentHandling": str(answer["contentHandling"])} if answer.get("contentHandling") else {}),
                    **({"selectionPattern": str(pattern)} if pattern != "default" else {}),
                }
            )
        found["answers"] = answers
        return found
