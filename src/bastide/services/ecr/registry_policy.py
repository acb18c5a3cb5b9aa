"""The policy of a registry: it stands beside the policies of its repositories, also of those to come.

Of AWS's two scopes it has the second (V2), which all new registries have: all of ECR's actions. Source: Amazon ECR User
Guide, "Private registry permissions"; API Reference, PutRegistryPolicy, PutAccountSetting.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Ask, Authorised, Kind, Output, anything, principals
from bastide.policy import Document, Form
from bastide.store import Row, Transaction, View

REGISTRY: Final = Kind("Registry", service="ecr", arn="registry/{}", tags=False)
"""Rows of a registry, an account and region: ``scanning``, how it scans; ``signing``, what it signs; ``policy``."""
_NAME: Final = "policy"
_LONGEST: Final = 10_240
_WITHOUT_REPOSITORY: Final = frozenset(
    f"ecr:{one}".lower()
    for one in (
        "DeleteRegistryPolicy", "DeleteSigningConfiguration", "DescribeRegistry", "GetAccountSetting",
        "GetAuthorizationToken", "GetRegistryPolicy", "GetRegistryScanningConfiguration", "GetSigningConfiguration",
        "PutAccountSetting", "PutRegistryPolicy", "PutRegistryScanningConfiguration", "PutSigningConfiguration",
    )
)  # fmt: skip
"""Actions that are about no repository: they are an account's own, and its identity policies say who does them."""


def _fault(why: str) -> Refused:
    return Refused(
        "InvalidParameterException",
        f"Invalid parameter at 'PolicyText' failed to satisfy constraint: 'Invalid registry policy provided': {why}",
    )


def _check(text: str) -> None:
    """Raises InvalidParameterException for what does not parse, is about others' actions, or would have no effect."""
    try:
        Document.parse(text, Form.RESOURCE, max_bytes=_LONGEST)
    except Refused as refused:
        raise _fault(refused.message) from None
    for one in _statements(text):
        actions = one.get("Action") or one.get("NotAction") or []
        if "Resource" not in one and "NotResource" not in one:
            raise _fault("a statement of a registry's policy names repositories by their ARNs")
        for action in [actions] if isinstance(actions, str) else actions:
            if action != "*" and not action.lower().startswith("ecr:"):
                raise _fault(f"{action[:100]} is not an action of ECR")
            if action.lower() in _WITHOUT_REPOSITORY:
                raise _fault(f"{action} is about no repository: policies of users and roles decide it")


def _statements(text: str) -> list[dict[str, Any]]:
    found = json.loads(text)["Statement"]
    return found if isinstance(found, list) else [found]


def policy(view: View, account: str, region: str) -> Row | None:
    """The registry's policy, if it has one."""
    return REGISTRY.get(view, account, region, _NAME)


@lru_cache(maxsize=256)
def together(repository: str, registry: str) -> str:
    """The policies of a repository and its registry as one: what either denies is denied, what either allows is allowed."""
    if not repository or not registry:
        return repository or registry
    found: list[dict[str, Any]] = []
    known: set[str] = set()
    for text, prefix in ((repository, ""), (registry, "Registry")):
        # Before that version nothing was a variable.
        literal = json.loads(text).get("Version") != "2012-10-17"
        for one in _statements(text.replace("${", "${$}{") if literal else text):
            if "Sid" in one:
                if one["Sid"] in known:
                    one["Sid"] = f"{prefix}{len(found)}{one['Sid']}"
                known.add(one["Sid"])
            found.append(one)
    return json.dumps({"Version": "2012-10-17", "Statement": found})


@REGISTRY.operation("PutRegistryPolicy", asks=[Ask("ecr:PutRegistryPolicy", anything)])
def put(a: Authorised, tx: Transaction) -> Output:
    text = str(a.input["policyText"])
    _check(text)
    doc = {"policy": text, "principals": principals.kept(tx, text)}
    row = policy(tx, a.account, a.region)
    if row is None:
        REGISTRY.create(a, tx, _NAME, doc)
    else:
        row.doc = doc
        REGISTRY.change(tx, row, a.operation.name, a.request.id)
    return {"registryId": a.account, "policyText": text}


@REGISTRY.reads("GetRegistryPolicy", asks=[Ask("ecr:GetRegistryPolicy", anything)])
def get(a: Authorised, view: View) -> Output:
    row = policy(view, a.account, a.region)
    if row is None:
        raise Refused(
            "RegistryPolicyNotFoundException",
            f"Registry policy does not exist in the registry with id '{a.account}'",
        )
    return {"registryId": a.account, "policyText": principals.shown(view, row.doc["policy"], row.doc["principals"])}


@REGISTRY.operation("DeleteRegistryPolicy", asks=[Ask("ecr:DeleteRegistryPolicy", anything)])
def delete(a: Authorised, tx: Transaction) -> Output:
    output = get(a, tx)
    row = policy(tx, a.account, a.region)
    assert row is not None
    REGISTRY.remove(tx, row, a.operation.name, a.request.id)
    return output
