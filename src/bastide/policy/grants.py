"""Grants of KMS keys as policies: what a grant gives, and to whom.

Source: AWS KMS Developer Guide, "Grants in AWS KMS", "Using grant constraints", "Retiring and revoking grants"; API
reference, GrantConstraints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bastide.policy.documents import Document, Form

GRANT_ID: Final = "bastide:GrantId"
"""Context key: which grant a RetireGrant is about. AWS's own policies cannot name one, so it has no name there."""
_TOLD: Final = ("DescribeKey", "GetPublicKey")
"""Operations that an encryption context constraint does not apply to; CreateGrant has its own rule."""

_Conditions = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Grant:
    """A grant, as KMS keeps it.

    grantee, retiring: a Principal element each, ``{"AWS": arn}`` or ``{"Service": name}``; None if nobody may retire it.
    equals, subset: encryption context constraints, at most one of them; None without. source_arn: "" without that
    constraint.
    """

    id: str
    grantee: Mapping[str, str]
    operations: Sequence[str]
    retiring: Mapping[str, str] | None = None
    equals: Mapping[str, str] | None = None
    subset: Mapping[str, str] | None = None
    source_arn: str = ""

    def document(self) -> Document:
        """The policy that a grant amounts to; raises Refused (MalformedPolicyDocument) for a constraint that cannot be
        a condition."""
        others = (*_TOLD, "CreateGrant", "RetireGrant")
        this = {"StringEquals": {GRANT_ID: self.id}}
        statements = [
            _statement(
                self.grantee, [one for one in self.operations if one not in others], self._source(self._context())
            ),
            _statement(self.grantee, [one for one in self.operations if one in _TOLD], self._source({})),
            _statement(self.grantee, self._if("CreateGrant"), self._source(self._child())),
            _statement(self.grantee, self._if("RetireGrant"), this),
        ]
        if self.retiring is not None:
            statements.append(_statement(self.retiring, ["RetireGrant"], this))
        # The old version has no policy variables: what a constraint says is meant as it stands.
        return Document.parse(
            {"Version": "2008-10-17", "Statement": [one for one in statements if one["Action"]]}, Form.KEY
        )

    def _if(self, operation: str) -> list[str]:
        return [operation] if operation in self.operations else []

    def _context(self) -> _Conditions:
        """The encryption context is the one wanted, or holds it. Keys count in the very case they are written in, but
        the names of condition keys do not: ``kms:EncryptionContextKeys`` tells the case."""
        if self.equals is not None:
            return {
                "ForAllValues:StringEquals": {_KEYS: list(self.equals)},
                "StringEquals": {f"kms:EncryptionContext:{key}": value for key, value in self.equals.items()},
            }
        if self.subset is None:
            return {}
        return {
            "ForAnyValue:StringEquals": {_cased(index): key for index, key in enumerate(self.subset)},
            "StringEquals": {f"kms:EncryptionContext:{key}": value for key, value in self.subset.items()},
        }

    def _child(self) -> _Conditions:
        """Of a grant that the grantee makes: no operation that it does not have, no looser constraint."""
        found = self._context()
        found.setdefault("ForAllValues:StringEquals", {})["kms:GrantOperations"] = list(self.operations)
        if self.equals is not None:
            found["StringEquals"]["kms:GrantConstraintType"] = "EncryptionContextEquals"
        return found

    def _source(self, conditions: _Conditions) -> _Conditions:
        if self.source_arn:
            conditions.setdefault("StringEquals", {})["aws:SourceArn"] = self.source_arn
        return conditions


def _statement(principal: Mapping[str, str], operations: Sequence[str], conditions: _Conditions) -> dict[str, Any]:
    written = {"Effect": "Allow", "Principal": dict(principal), "Action": [f"kms:{one}" for one in operations]}
    return {**written, "Condition": conditions} if conditions else written


_KEYS: Final = "kms:EncryptionContextKeys"


def _cased(index: int) -> str:
    """The same condition key in another case each time, so that one operator can ask for several of its values at once."""
    at = _KEYS.index(":") + 1 + index
    return _KEYS if index == 0 else _KEYS[:at] + _KEYS[at].swapcase() + _KEYS[at + 1 :]
