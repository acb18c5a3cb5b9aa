"""The public Smithy protocol cases, read backwards: requests are parsed by the server, outputs and errors serialised.

``run(folder)`` walks ``input/*.json`` and ``output/*.json``; the folder's README tells the form. What only a client does is
counted as not applicable, with its reason.
"""

from __future__ import annotations

import base64
import json
import math
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from xml.etree import ElementTree

import cbor2
from botocore import parsers
from botocore.awsrequest import HeadersDict
from botocore.model import OperationModel, ServiceModel

from bastide.domain import Refused
from bastide.protocol import Answer, Codec, Head, times

CBOR = "smithy-rpc-v2-cbor"


class NotApplicable(Exception):
    """A case about what only a client does."""


class Mismatch(Exception):
    """A case that came out otherwise."""


def _service(suite: dict[str, Any], case: dict[str, Any]) -> tuple[ServiceModel, OperationModel, Codec]:
    given = case["given"]
    description = {
        "version": "2.0",
        "metadata": {"endpointPrefix": "example", "serviceId": "Example", **suite["metadata"]},
        "operations": {given["name"]: given},
        "shapes": suite["shapes"],
    }
    model = ServiceModel(description, "example")
    return model, model.operation_model(given["name"]), Codec("example", model.metadata, lambda: model)


# What the cases write for what we hold: times as seconds, blobs as text, infinities as words.


def _plain(value: Any, shape: Any, sent: bool) -> Any:
    """Our value as the cases write it."""
    if value is None:
        return None
    kind = shape.type_name
    if kind == "structure":
        if shape.is_document_type:
            return value
        return {name: _plain(one, shape.members[name], sent) for name, one in value.items()}
    if kind == "list":
        return [_plain(one, shape.member, sent) for one in value]
    if kind == "map":
        return {key: _plain(one, shape.value, sent) for key, one in value.items()}
    if kind == "timestamp":
        return value / 1_000_000
    if kind == "blob":
        return bytes(value)
    return value


def _ours(value: Any, shape: Any) -> Any:
    """A case's value as handlers hold it."""
    if value is None:
        return None
    kind = shape.type_name
    if kind == "structure":
        if shape.is_document_type:
            return value
        return {name: _ours(one, shape.members[name]) for name, one in value.items()}
    if kind == "list":
        return [_ours(one, shape.member) for one in value]
    if kind == "map":
        return {key: _ours(one, shape.value) for key, one in value.items()}
    if kind == "timestamp":
        return round(value * 1_000_000)
    if kind == "blob":
        return value.encode()
    if kind in ("float", "double") and isinstance(value, str):
        return {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}[value]
    return value


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(one, right[key]) for key, one in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, float) and isinstance(right, float) and math.isnan(left) and math.isnan(right):
        return True
    if isinstance(left, bool) != isinstance(right, bool):
        return False
    return bool(left == right)


def _wanted(value: Any, shape: Any) -> Any:
    return _plain(_ours(value, shape), shape, True) if shape is not None else value


# Requests


def _input(suite: dict[str, Any], case: dict[str, Any]) -> None:
    _, operation, codec = _service(suite, case)
    sent, given, params = case["serialized"], case["given"], case["params"]
    protocol = suite["metadata"]["protocol"]
    if given.get("requestcompression"):
        raise NotApplicable("request compression is a client's")
    token = next(iter(operation.idempotent_members), None)
    if token is not None and token not in params and "00000000" in str(sent):
        params = {**params, token: "00000000-0000-4000-8000-000000000000"}
    url = urlsplit(sent["uri"])
    headers = {name.lower(): value for name, value in sent.get("headers", {}).items()}
    body = sent.get("body") or ""
    content = base64.b64decode(body) if protocol == CBOR else body.encode()
    path = url.path
    if (
        "host" in sent
        and suite["metadata"].get("targetPrefix")
        and "x-amz-target" not in headers
        and protocol == "json"
    ):
        raise NotApplicable("a host prefix is a client's; the case has no target header")
    if "clientEndpoint" in suite and "/custom" in path and protocol.startswith("rest-"):
        raise NotApplicable("the path of a custom endpoint is a client's setting")
    head = Head(
        sent.get("method", "POST"), path.encode() or b"/", parse_qsl(url.query, keep_blank_values=True), headers
    )
    if given["http"]["method"] != head.method and protocol not in ("rest-json", "rest-xml"):
        raise Mismatch(f"method {head.method}")
    name, spoken = codec.route(head, content)
    if (name, spoken) != (given["name"], protocol):
        raise Mismatch(f"routed to {name} in {spoken}")
    held = codec.operations[name]
    found = held.parse(spoken, head, content)
    if held.streaming_input is not None and content:
        found[held.streaming_input] = content
    shape = operation.input_shape
    wanted = {key: value for key, value in _wanted(params, shape).items() if value is not None}
    shown = _plain(found, shape, True) if shape is not None else found
    if shape is not None:
        shown, wanted = _on_the_wire(shown, wanted, shape, head)
    if not _same(shown, wanted):
        raise Mismatch(f"parsed {shown!r}, meant {wanted!r}")


def _on_the_wire(shown: dict[str, Any], wanted: dict[str, Any], shape: Any, head: Head) -> tuple[Any, Any]:
    """Both sides without what the wire cannot tell apart.

    An empty list or map that a protocol does not send is the same as none; so is an empty payload. A map of all query
    parameters holds for a server those too that have members of their own (Smithy's httpQueryParams trait).
    """
    payload = shape.serialization.get("payload")
    bound = {
        member.serialization.get("name", name)
        for name, member in shape.members.items()
        if member.serialization.get("location") == "querystring" and member.type_name != "map"
    }
    for name, member in shape.members.items():
        if member.serialization.get("location") == "querystring" and member.type_name == "map":
            for side in (shown, wanted):
                side[name] = {key: one for key, one in side.get(name, {}).items() if key not in bound}
                if not side[name]:
                    del side[name]
    wanted = {key: one for key, one in wanted.items() if one not in ([], {}) or key in shown}
    shown = {key: one for key, one in shown.items() if key in wanted or not (key == payload and one == {})}
    return shown, wanted


# Responses


_OFFSET = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d")


def _in_utc(text: str) -> str:
    """The text with its times in UTC, as we always write them."""
    return _OFFSET.sub(lambda found: times.to_iso(times.from_iso(found[0])), text)


def _canonical_xml(text: str) -> str:
    root = ElementTree.fromstring(text)
    for ignored in ("RequestId", "requestId", "RequestID", "ResponseMetadata"):
        for element in list(root):
            if element.tag.rpartition("}")[2] == ignored:
                root.remove(element)

    def tree(element: Any) -> Any:
        below = [tree(one) for one in element]
        inside = (element.text or "") if not below else ""
        if "\n" in inside and not inside.strip():
            inside = ""
        return (element.tag.rpartition("}")[2], sorted(element.attrib.items()), inside, sorted(below, key=repr))

    return repr(tree(root))


def _compare_body(protocol: str, expected: str, body: bytes, shape: Any) -> None:
    expected = _in_utc(expected) if protocol != CBOR else expected
    if protocol == CBOR:
        wanted, got = (cbor2.loads(one) if one else {} for one in (base64.b64decode(expected), body))
        if not _same(_modelled(got, shape), _modelled(wanted, shape)):
            raise Mismatch(f"body {got!r}, expected {wanted!r}")
    elif protocol in ("json", "rest-json") and _is_json(expected):
        wanted, got = (json.loads(one) if one else {} for one in (expected, body))
        rest = protocol == "rest-json"
        if not _same(_modelled(got, shape, rest), _modelled(wanted, shape, rest)):
            raise Mismatch(f"body {got!r}, expected {wanted!r}")
    elif expected.lstrip().startswith("<"):
        if _canonical_xml(body.decode()) != _canonical_xml(expected):
            raise Mismatch(f"body {body.decode()!r}, expected {expected!r}")
    elif not expected and protocol in ("query", "ec2"):
        pass  # A client must bear an empty body; AWS's services and we send the response element.
    elif body != expected.encode():
        raise Mismatch(f"body {body!r}, expected {expected!r}")


def _modelled(value: Any, shape: Any, rest: bool = False) -> Any:
    """A body that a client must bear without what no server sends: nulls, types, and members that no model knows."""
    if shape is None:
        return {}
    kind = shape.type_name
    if kind == "structure" and isinstance(value, dict) and not shape.is_document_type:
        payload = shape.serialization.get("payload") if rest else None
        if payload is not None:
            return _modelled(value, shape.members[payload])
        known = {member.serialization.get("name", name): member for name, member in shape.members.items()}
        return {key: _modelled(one, known[key]) for key, one in value.items() if key in known and one is not None}
    if kind == "list" and isinstance(value, list):
        return [_modelled(one, shape.member) for one in value]
    if kind == "map" and isinstance(value, dict):
        return {key: _modelled(one, shape.value) for key, one in value.items() if one is not None}
    return value


def _is_json(text: str) -> bool:
    try:
        json.loads(text or "{}")
    except ValueError:
        return False
    return True


def _read_back(protocol: str, answer: Any, shape: Any) -> Any:
    headers = HeadersDict(dict(answer.headers))
    response = {"status_code": answer.status, "headers": headers, "body": answer.body}
    parser = parsers.create_parser(protocol)
    return parser.parse({**response, "context": {"operation_name": "Example"}}, shape)


def _from_client(value: Any, shape: Any) -> Any:
    """What botocore's parser made, in the same terms as `_plain`."""
    if value is None:
        return None
    kind = shape.type_name
    if kind == "structure":
        if shape.is_document_type:
            return value
        return {name: _from_client(one, shape.members[name]) for name, one in value.items() if name in shape.members}
    if kind == "list":
        return [_from_client(one, shape.member) for one in value]
    if kind == "map":
        return {key: _from_client(one, shape.value) for key, one in value.items()}
    if kind == "timestamp":
        return value.timestamp()
    if kind == "blob":
        return value.encode() if isinstance(value, str) else bytes(value)
    if kind in ("float", "double") and isinstance(value, str):
        return {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}[value]
    return value


def _headers_there(expected: dict[str, str], answer: Any, shape: Any) -> None:
    """Every header that the model binds is as the case has it."""
    got = dict(answer.headers)
    bound = tuple(
        member.serialization["name"].lower()
        for member in (shape.members.values() if shape is not None else ())
        if member.serialization.get("location") in ("header", "headers")
    )
    for name, value in expected.items():
        if name.lower().startswith(bound) and name.lower() != "content-type" and got.get(name.lower()) != value:
            raise Mismatch(f"header {name} is {got.get(name.lower())!r}, expected {value!r}")


def _output(suite: dict[str, Any], case: dict[str, Any]) -> None:
    _, operation, codec = _service(suite, case)
    held = codec.operations[operation.name]
    protocol = suite["metadata"]["protocol"]
    if "error" in case or "errorCode" in case:
        _error(case, operation, held, protocol)
        return
    shape = operation.output_shape
    result = case["result"] or {}
    response = case["response"]
    answer = held.answer(protocol, _ours(result, shape) if shape is not None else {}, "request-id")
    if answer.status != response["status_code"]:
        raise Mismatch(f"status {answer.status}, expected {response['status_code']}")
    meant = {key: one for key, one in _wanted(result, shape).items() if one is not None}
    body = response.get("body") or ""
    theirs = Answer(
        response["status_code"],
        list(response.get("headers", {}).items()),
        base64.b64decode(body) if protocol == CBOR else body.encode(),
    )
    if _client_reads(operation, protocol, theirs, meant):
        found = _client_reads(operation, protocol, answer, meant)
        if not found:
            raise Mismatch(f"a client reads something else from {answer}, meant {meant!r}")
    elif _VERBOSE:
        print(f"botocore itself does not read the case's response, bytes compared only: {case.get('id')}")
    _headers_there(response.get("headers", {}), answer, shape)
    _compare_body(protocol, body, answer.body, shape)


def _client_reads(operation: OperationModel, protocol: str, answer: Answer, meant: dict[str, Any]) -> bool:
    """Whether botocore's parser finds the meaning in an answer."""
    shape = _reading(operation, protocol)
    try:
        read = _read_back(protocol, answer, shape)
    except Exception:
        return False
    read.pop("ResponseMetadata", None)
    got = _from_client(read, shape) if shape is not None else read
    for name, member in shape.members.items() if shape is not None else ():
        if member.serialization.get("location") == "headers" and name in got:
            # An empty prefix catches every header; the frame's own are no part of the meaning.
            got[name] = {key: one for key, one in got[name].items() if key.lower() not in _FRAME}
    kept = {key: one for key, one in got.items() if one is not None and (key in meant or one not in ({}, b"", ""))}
    return _same(kept, {key: one for key, one in meant.items() if key in kept or one not in ({}, [], b"", "")})


_FRAME = ("x-amzn-requestid", "content-type", "content-length")
_VERBOSE = "-v" in sys.argv


def _reading(operation: OperationModel, protocol: str) -> Any:
    """The output shape as botocore's parser wants it: the models of query services name the result's wrapper."""
    shape = operation.output_shape
    if protocol == "query" and shape is not None and "resultWrapper" not in shape.serialization:
        shape.serialization["resultWrapper"] = f"{operation.name}Result"
    return shape


def _error(case: dict[str, Any], operation: OperationModel, held: Any, protocol: str) -> None:
    shape = operation.error_shapes[0]
    members = _ours(case.get("error") or {}, shape)
    message = case.get("errorMessage") or ""
    refused = Refused(case["errorCode"], message, 400, members=members)
    answer = held.error(protocol, refused, "request-id")
    response = case["response"]
    if answer.status != response["status_code"]:
        raise Mismatch(f"status {answer.status}, expected {response['status_code']}")
    read = _read_back(protocol, answer, None)
    if read["Error"]["Code"] != case["errorCode"]:
        raise Mismatch(f"code {read['Error']['Code']!r}, expected {case['errorCode']!r}")
    if (read["Error"].get("Message") or "") != message:
        raise Mismatch(f"message {read['Error'].get('Message')!r}, expected {message!r}")
    modelled = _from_client(_read_back(protocol, answer, shape), shape)
    wanted = {key: one for key, one in _plain(members, shape, False).items() if one is not None}
    if not _same({key: one for key, one in modelled.items() if key in wanted}, wanted):
        raise Mismatch(f"a client reads {modelled!r}, meant {wanted!r}")
    _headers_there(response.get("headers", {}), answer, shape)


def run(folder: Path, verbose: bool = False) -> tuple[int, int]:
    """Runs every case below `folder`; prints each failure in one line. Returns (passed, failed)."""
    passed = failed = 0
    reasons: Counter[str] = Counter()
    for part, check in (("input", _input), ("output", _output)):
        for file in sorted((folder / part).glob("*.json")):
            for suite in json.loads(file.read_text()):
                for at, case in enumerate(suite["cases"]):
                    label = f"{part}/{file.name} {case.get('id') or suite['description'] + ' ' + str(at)}"
                    try:
                        check(suite, case)
                    except NotApplicable as reason:
                        reasons[str(reason)] += 1
                        if verbose:
                            print(f"not applicable: {label}: {reason}")
                        continue
                    except Mismatch as mismatch:
                        failed += 1
                        print(f"failed: {label}: {mismatch}")
                        continue
                    except Exception as error:
                        failed += 1
                        print(f"failed: {label}: {type(error).__name__}: {error}")
                        continue
                    passed += 1
                    if verbose:
                        print(f"passed: {label}")
    for reason, count in sorted(reasons.items()):
        print(f"not applicable: {count} ({reason})")
    return passed, failed


if __name__ == "__main__":
    good, bad = run(Path(sys.argv[1]), "-v" in sys.argv)
    print(f"{good} passed, {bad} failed")
    sys.exit(bool(bad))
