"""Amazon SQS on the wire: JSON, which its model describes, and the query protocol, which older clients speak.

The model of today lost the names that the query protocol has for lists and maps; they stand here. Source: Amazon SQS
Developer Guide, "Making Query API requests"; API Reference (2012-11-05).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, Final

from botocore.model import ServiceModel

from bastide.protocol.codec import SPECIAL, Codec
from bastide.protocol.head import Answer, Head
from bastide.protocol.operation import OperationCodec

_NAMESPACE: Final = "http://queue.amazonaws.com/doc/2012-11-05/"
_QUERY: Final = {"protocol": "query", "protocols": ["query"], "xmlNamespace": _NAMESPACE}
"""What the metadata of the query protocol say."""
_ITEMS: Final = {
    "AWSAccountIdList": "AWSAccountId",
    "ActionNameList": "ActionName",
    "AttributeNameList": "AttributeName",
    "BatchResultErrorEntryList": "BatchResultErrorEntry",
    "BinaryList": "BinaryListValue",
    "ChangeMessageVisibilityBatchRequestEntryList": "ChangeMessageVisibilityBatchRequestEntry",
    "ChangeMessageVisibilityBatchResultEntryList": "ChangeMessageVisibilityBatchResultEntry",
    "DeleteMessageBatchRequestEntryList": "DeleteMessageBatchRequestEntry",
    "DeleteMessageBatchResultEntryList": "DeleteMessageBatchResultEntry",
    "ListMessageMoveTasksResultEntryList": "ListMessageMoveTasksResultEntry",
    "MessageAttributeNameList": "MessageAttributeName",
    "MessageList": "Message",
    "MessageSystemAttributeList": "MessageSystemAttributeName",
    "QueueUrlList": "QueueUrl",
    "SendMessageBatchRequestEntryList": "SendMessageBatchRequestEntry",
    "SendMessageBatchResultEntryList": "SendMessageBatchResultEntry",
    "StringList": "StringListValue",
    "TagKeyList": "TagKey",
}
"""What the items of a list are called."""
_ENTRIES: Final = {
    "MessageBodyAttributeMap": ("MessageAttribute", "Name", "Value"),
    "MessageBodySystemAttributeMap": ("MessageSystemAttribute", "Name", "Value"),
    "MessageSystemAttributeMap": ("Attribute", "Name", "Value"),
    "QueueAttributeMap": ("Attribute", "Name", "Value"),
    "TagMap": ("Tag", "Key", "Value"),
}
"""What the entries of a map are called, and their keys and values."""


_WORDS: Final = ("QueueAttributeName", "MessageSystemAttributeName")


def _json_model(held: Any) -> ServiceModel:
    """Without the lists of names: ReceiveMessage takes names in AttributeNames that the model does not have there, and a
    wrong one is InvalidAttributeName."""
    described = copy.deepcopy(held._service_description)
    for name in _WORDS:
        described["shapes"][name].pop("enum", None)
    return ServiceModel(described, held.service_name)


def _query_model(held: Any) -> ServiceModel:
    described = copy.deepcopy(held._service_description)
    described["metadata"] |= _QUERY
    shapes = described["shapes"]
    for name, item in _ITEMS.items():
        if name in shapes:
            shapes[name]["flattened"] = True
            shapes[name]["member"]["locationName"] = item
    for name, (entry, key, value) in _ENTRIES.items():
        shape = shapes[name]
        shape |= {"flattened": True, "locationName": entry}
        shape["key"]["locationName"], shape["value"]["locationName"] = key, value
    return ServiceModel(described, held.service_name)


class _Operation(OperationCodec):
    def _query(self) -> OperationCodec:
        service = self.service
        assert isinstance(service, QueueCodec)
        return service.query.operations[self.name]

    def _parser(self, protocol: str) -> Callable[[Head, bytes], dict[str, Any]]:
        if protocol == "query":
            return self._query()._parser(protocol)
        return super()._parser(protocol)

    def _answer(self, protocol: str) -> Callable[[dict[str, Any], str], Answer]:
        if protocol == "query":
            return self._query()._answer(protocol)
        return super()._answer(protocol)


class QueueCodec(Codec):
    """The service ``sqs``."""

    compiled = _Operation

    def __init__(self, service: str, metadata: Mapping[str, Any], read: Callable[[], ServiceModel]) -> None:
        super().__init__(service, metadata, read)
        self.query = Codec(service, {**metadata, **_QUERY}, lambda: _query_model(self.model))
        self.protocols = (*self.protocols, "query")
        self._form = "query"
        self.xmlns = self.query.xmlns

    def _served(self, model: ServiceModel) -> ServiceModel:
        return _json_model(model)


SPECIAL["sqs"] = QueueCodec
