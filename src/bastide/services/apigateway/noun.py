"""What every part of API Gateway shares: its noun, ids, ARNs, what is refused, and the patches that its updates are.

Source: Amazon API Gateway REST API reference; Service Authorization Reference, "Amazon API Gateway Management".
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from bastide.domain import Arn, Refused
from bastide.kernel import Ask, Asked, Authorised, Facts, Kind, Output, pages
from bastide.kernel.kind import About, Given
from bastide.policy import Attached, Document, Form
from bastide.store import Row, View

GATEWAY: Final = "apigateway.amazonaws.com"
REST_API: Final = Kind(
    "RestApi",
    service="apigateway",
    arn="/restapis/{}",
    arn_account=False,
    named_by="restApiId",
    missing=("NotFoundException", "Invalid API identifier specified", 404),
    taken=("ConflictException", "{what} {name} exists already.", 409),
)
INDEX: Final = "apigateway:Api"
"""Below no account: whose an API is, by its id."""
RESOURCE: Final = "apigateway:Resource"
"""``API/RESOURCE``: a path, and its methods."""
DEPLOYMENT: Final = "apigateway:Deployment"
"""``API/DEPLOYMENT``: the resources as they were."""
STAGE: Final = "apigateway:Stage"
"""``API/STAGE``."""
MODEL: Final = "apigateway:Model"
"""``API/NAME``: what a body is to be, a JSON schema."""
VALIDATOR: Final = "apigateway:RequestValidator"
"""``API/VALIDATOR``: what is checked of a request."""
AUTHORIZER: Final = "apigateway:Authorizer"
"""``API/AUTHORIZER``: the function that says who may call."""
ACCOUNT: Final = "apigateway:Account"
_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz0123456789"
MOST: Final = 300
"""Resources of an API, and APIs of an account (API Gateway Developer Guide, "Quotas")."""
_PAGE: Final = 25


def new(length: int = 10) -> str:
    """An id as API Gateway makes them."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def bad(message: str) -> Refused:
    """BadRequestException."""
    return Refused("BadRequestException", message, 400)


def absent(what: str) -> Refused:
    """NotFoundException."""
    return Refused("NotFoundException", f"Invalid {what} identifier specified", 404)


def unsupported(input: Mapping[str, Any], *names: str) -> None:
    """Raises BadRequestException for members that would have no effect."""
    for name in names:
        if input.get(name) not in (None, False, "", [], {}):
            raise bad(f"{name} is not supported by Bastide yet; please leave it out.")


def api(a: Authorised, view: View) -> Row:
    """The API that a call names; raises NotFoundException."""
    return REST_API.find(view, a.account, a.region, a.input["restApiId"])


def resource(a: Authorised, view: View, id: str = "") -> Row:
    """The resource that a call names; raises NotFoundException."""
    row = view.get(RESOURCE, a.account, a.region, f"{api(a, view).name}/{id or a.input['resourceId']}")
    if row is None:
        raise absent("Resource")
    return row


def part(a: Authorised, view: View, kind: str, member: str, what: str) -> Row:
    """Something of an API that a call names by a member; raises NotFoundException."""
    row = view.get(kind, a.account, a.region, f"{api(a, view).name}/{a.input[member]}")
    if row is None:
        raise absent(what)
    return row


def parts(view: View, row: Row, kind: str) -> list[Row]:
    """All of a kind that an API has."""
    return view.scan(kind, row.account, row.region, prefix=f"{row.name}/", limit=MOST)


# -- questions ---------------------------------------------------------------------------------------------------------


def at(path: str) -> About:
    """The ARN of what an operation is about: its path, with members of the input in braces."""

    def about(asked: Asked) -> Iterable[str]:
        found = path
        for name, value in asked.input.items():
            if f"{{{name}}}" in found:
                found = found.replace(f"{{{name}}}", str(value))
        return (f"arn:aws:apigateway:{asked.call.region}::{found}",)

    return about


def ask(method: str, path: str, given: Mapping[str, Given] | None = None) -> list[Ask]:
    """The one question of an operation: its HTTP method, of its path."""
    return [Ask(f"apigateway:{method}", at(path), given=given or {})]


def facts(view: View, arn: Arn, _: str) -> Facts | None:
    """Whose an API is, and its tags, also for what is below it."""
    parts = arn.resource.split("/")
    if len(parts) < 3 or parts[1] != "restapis":
        return Facts(arn.account, type=REST_API.name)
    known = view.get(INDEX, "", "", parts[2])
    if known is None:
        return Facts(arn.account, type=REST_API.name)
    row = REST_API.get(view, known.doc["account"], known.doc["region"], parts[2])
    if len(parts) == 5 and parts[3] == "stages":
        row = view.get(STAGE, known.doc["account"], known.doc["region"], f"{parts[2]}/{parts[4]}") or row
    return Facts(known.doc["account"], row.tags if row is not None else {}, type=REST_API.name, own=True)


def execute_arn(row: Row, rest: str) -> str:
    """The ARN of what of an API is called: ``STAGE/METHOD/PATH``."""
    return f"arn:aws:execute-api:{row.region}:{row.account}:{row.name}/{rest}"


def policy_of(row: Row) -> Attached | None:
    """An API's own policy."""
    text = row.doc.get("_policy")
    if not text:
        return None
    return Attached(Document.parse_cached(text, Form.RESOURCE), REST_API.arn("", row.region, row.name))


# -- pages and patches -------------------------------------------------------------------------------------------------


def paged(a: Authorised, found: list[tuple[str, Output]], member: str = "items") -> Output:
    """A page of a short list."""
    limit = int(a.input.get("limit") or _PAGE)
    after = pages.position(a, a.input.get("position"), code="BadRequestException")
    left = [one for one in sorted(found, key=lambda one: one[0]) if after is None or one[0] > after]
    output: Output = {member: [told for _, told in left[:limit]]}
    if len(left) > limit:
        output["position"] = pages.seal(a, left[limit - 1][0])
    return output


Patch = Callable[[str, "str | None"], None]
"""What an operation on a path does: its name (add, remove, replace), its value."""


def patched(a: Authorised, known: Mapping[str, Patch]) -> None:
    """Does what patchOperations say; raises BadRequestException for a path that is not known. A key that ends in ``/``
    takes what is below it, and is given the rest of the path before the value."""
    for one in a.input.get("patchOperations") or ():
        op, path, value = one.get("op"), str(one.get("path") or ""), one.get("value")
        if op not in ("add", "remove", "replace"):
            raise bad(f"Invalid patch operation: {op}.")
        head = next((key for key in known if key == path or (key[-1] == "/" and path.startswith(key))), None)
        if head is None:
            raise bad(f"Invalid patch path '{path[:200]}' specified for op '{op}'; Bastide knows: {', '.join(known)}.")
        known[head](path[len(head) :] if head[-1] == "/" else op, None if op == "remove" else value)
