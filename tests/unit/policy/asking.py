"""Short ways to ask the engine something."""

from __future__ import annotations

import json
from typing import Any

from bastide.policy import Attached, Decision, Document, Form, Layers, Principal, Request, Value, context, decide

HOME, OTHER = "111122223333", "444455556666"
USER = Principal("User", HOME, f"arn:aws:iam::{HOME}:user/ann", f"arn:aws:iam::{HOME}:user/ann")
ROLE_ARN = f"arn:aws:iam::{HOME}:role/team/dev"
SESSION = Principal("AssumedRole", HOME, f"arn:aws:sts::{HOME}:assumed-role/dev/s1", ROLE_ARN)
ROOT = Principal("Root", HOME, f"arn:aws:iam::{HOME}:root", f"arn:aws:iam::{HOME}:root")
SERVICE = Principal("Service", None, "sagemaker.amazonaws.com", "sagemaker.amazonaws.com")
NOBODY = Principal("Anonymous", None, "", "")
BUCKET = "arn:aws:s3:::bucket"
OBJECT = "arn:aws:s3:::bucket/key"

Json = dict[str, Any]


def allow(action: Any = "*", resource: Any = "*", **more: Any) -> Json:
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def deny(action: Any = "*", resource: Any = "*", **more: Any) -> Json:
    return {"Effect": "Deny", "Action": action, "Resource": resource, **more}


def document(*statements: Json, version: str = "2012-10-17") -> str:
    return json.dumps({"Version": version, "Statement": list(statements)})


def attached(form: Form, *statements: Json, source: str = "arn:aws:iam::aws:policy/Test") -> Attached:
    return Attached(Document.parse(document(*statements), form), source)


def layers(
    identity: list[Json] | None = None,
    boundary: list[Json] | None = None,
    session: list[Json] | None = None,
    resource: list[Json] | None = None,
    scps: list[list[Json]] | None = None,
    rcps: list[list[Json]] | None = None,
    endpoint: list[Json] | None = None,
    kind: str = "",
) -> Layers:
    form = {"trust": Form.TRUST, "key": Form.KEY}.get(kind, Form.RESOURCE)

    def one(statements: list[Json] | None, form: Form) -> Attached | None:
        return None if statements is None else attached(form, *statements, source=f"arn:aws:test:::{form.value}")

    def some(statements: list[Json] | None, form: Form) -> list[Attached]:
        found = one(statements or None, form)
        return [] if found is None else [found]

    return Layers(
        identity=some(identity, Form.IDENTITY),
        boundary=one(boundary, Form.BOUNDARY),
        session=None if session is None else some(session, Form.SESSION),
        resource=one(resource, form),
        scps=[some(level, Form.SCP) for level in scps or []],
        rcps=[some(level, Form.RCP) for level in rcps or []],
        endpoint=one(endpoint, Form.ENDPOINT),
        resource_kind=kind,
    )


def ask(
    policies: Layers,
    who: Principal = USER,
    action: str = "s3:GetObject",
    resource: str = OBJECT,
    account: str | None = HOME,
    keys: dict[str, Any] | None = None,
) -> Decision:
    return decide(Request(who, action, resource, account, context(keys or {})), policies)


def holds(operator: str, key: str, wanted: Any, keys: dict[str, Value | list[str]], effect: str = "Allow") -> bool:
    """Whether a statement with this one condition applies."""
    statement = {"Effect": effect, "Action": "*", "Resource": "*", "Condition": {operator: {key: wanted}}}
    identity = [statement] if effect == "Allow" else [allow(), statement]
    return ask(layers(identity=identity), keys=dict(keys)).allowed is (effect == "Allow")
