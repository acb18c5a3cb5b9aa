"""Grants of KMS keys as policies: what a grant gives, and to whom.

Source: AWS KMS Developer Guide, "Grants in AWS KMS", "Using grant constraints", "Retiring and revoking grants"; API
reference, GrantConstraints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from bastide.policy.conditions import Condition, condition
from bastide.policy.documents import Document, Form, Statement

GRANT_ID: Final = "bastide:GrantId"
"""Context key: which grant a RetireGrant is about. AWS's own policies cannot name one, so it has no name there."""
_NO_CONTEXT: Final = frozenset({"DescribeKey", "RetireGrant", "CreateGrant", "GetPublicKey"})
"""Operations that an encryption context constraint does not apply to; CreateGrant has its own rule."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A grant, as KMS keeps it.

    grantee, retiring: a Principal element each, ``{"AWS": arn}`` or ``{"Service": name}``; None if nobody may retire it.
    equals, subset: encryption context constraints; None without one. source_arn: "" without that constraint.
    """

    id: str
    grantee: Mapping[str, str]
    operations: Sequence[str]
    retiring: Mapping[str, str] | None = None
    equals: Mapping[str, str] | None = None
    subset: Mapping[str, str] | None = None
    source_arn: str = ""
    _place: str = field(default="Constraints", repr=False)

    def document(self) -> Document:
        """The policy that a grant amounts to; raises Refused (MalformedPolicyDocument) for a constraint that cannot be
        a condition."""
        cryptographic = [one for one in self.operations if one not in _NO_CONTEXT]
        told = [one for one in self.operations if one in ("DescribeKey", "GetPublicKey")]
        wanted: list[tuple[Mapping[str, str], list[str], list[Condition]]] = []
        if cryptographic:
            wanted.append((self.grantee, cryptographic, [*self._context(), *self._source()]))
        if told:
            wanted.append((self.grantee, told, self._source()))
        if "CreateGrant" in self.operations:
            wanted.append((self.grantee, ["CreateGrant"], [*self._child(), *self._source()]))
        retire = self._one("StringEquals", GRANT_ID, self.id)
        if "RetireGrant" in self.operations:
            wanted.append((self.grantee, ["RetireGrant"], [retire]))
        if self.retiring is not None:
            wanted.append((self.retiring, ["RetireGrant"], [retire]))
        statements = tuple(self._statement(index, *one) for index, one in enumerate(wanted))
        return Document(Form.KEY, "2012-10-17", None, statements)

    @staticmethod
    def _statement(
        index: int, principal: Mapping[str, str], actions: Sequence[str], conditions: list[Condition]
    ) -> Statement:
        written = {"Effect": "Allow", "Principal": principal, "Action": [f"kms:{one}" for one in actions]}
        [statement] = Document.parse({"Version": "2012-10-17", "Statement": [written]}, Form.KEY).statements
        return replace(
            statement, index=index, conditions=tuple(conditions), holds=tuple(one.holds for one in conditions)
        )

    def _one(self, operator: str, key: str, *values: str) -> Condition:
        return condition(operator, key, values, self._place, deny=False, variables=False)

    def _pairs(self, pairs: Mapping[str, str]) -> list[Condition]:
        """Every pair is in the request's encryption context, its key in that very case."""
        found: list[Condition] = []
        for key, value in pairs.items():
            found.append(self._one("ForAnyValue:StringEquals", "kms:EncryptionContextKeys", key))
            found.append(self._one("StringEquals", f"kms:EncryptionContext:{key}", value))
        return found

    def _context(self) -> list[Condition]:
        if self.equals is not None:
            # No key but these, and all of these.
            return [
                self._one("ForAllValues:StringEquals", "kms:EncryptionContextKeys", *self.equals),
                *self._pairs(self.equals),
            ]
        return self._pairs(self.subset) if self.subset is not None else []

    def _child(self) -> list[Condition]:
        """Of a grant that the grantee makes: no operation that it does not have, no looser constraint."""
        found = [self._one("ForAllValues:StringEquals", "kms:GrantOperations", *self.operations), *self._context()]
        if self.equals is not None:
            found.append(self._one("StringEquals", "kms:GrantConstraintType", "EncryptionContextEquals"))
        return found

    def _source(self) -> list[Condition]:
        return [self._one("StringEquals", "aws:SourceArn", self.source_arn)] if self.source_arn else []
