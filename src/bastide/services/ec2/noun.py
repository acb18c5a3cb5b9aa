"""What the nouns of EC2 have in common: ids, tags at creation, filters, pages, dry runs, and what lies in what.

Source: Amazon EC2 API Reference; EC2 User Guide, "Error codes for the Amazon EC2 API"; Service Authorization Reference,
"Actions, resources, and condition keys for Amazon EC2".
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from bastide.domain import Arn, Refused, Tags, tag_list
from bastide.engines.network import Networks, Transit, Vpc
from bastide.kernel import Ask, Asked, Authorised, Facts, Kind, Output, fills, pages, shares
from bastide.kernel.context import tag_keys
from bastide.kernel.kind import About, Given, Handler
from bastide.policy.matching import Plain, plain_pattern
from bastide.policy.variables import Atom, Wild
from bastide.store import Row, Transaction, View

_MOST_TAGS: Final = 50
_MOST_VALUES: Final = 200
_PAGE: Final = 1000
_MOST_EXAMINED: Final = 5000
"""Rows that a filtered page looks at before it hands out a token instead."""
IN: Final = "ec2:In"
"""Rows ``CONTAINER/TYPE/ID``: what lies in a VPC, a subnet, is a walk along an index."""

Field = Callable[[View, Row], "str | Iterable[str] | None"]
"""What a filter compares."""


class Noun(Kind):
    """A kind whose rows are named by id. missing: code and message, with ``{name}``, for an id that is not there. shared:
    Resource Access Manager may share it with other accounts."""

    def __init__(self, name: str, *, type: str, prefix: str, member: str, missing: tuple[str, str]) -> None:
        super().__init__(name, service="ec2", arn=f"{type}/{{}}", named_by=member, missing=(*missing, 400))
        self.resource = type
        self.member = member
        self.prefix = prefix
        self.keys: Callable[[Row], Mapping[str, str]] = lambda row: {}
        self.shared = False

    def new_id(self) -> str:
        """An id as EC2 makes them: the prefix and 17 hexadecimal digits."""
        return f"{self.prefix}-0{secrets.token_hex(8)}"

    def facts(self, view: View, arn: Arn) -> Facts | None:
        """Owner, tags and the condition keys that follow from the resource."""
        row = self.get(view, arn.account, arn.region, arn.resource.removeprefix(f"{self.resource}/"))
        if row is None:
            return Facts(arn.account, type=self.name)
        policy = shares.policy(view, arn) if self.shared else None
        return Facts(arn.account, row.tags, policy, type=self.name, keys=self.keys(row))

    def ids(self, member: str) -> About:
        """The ARNs of those that a member of the input names, one or several."""

        def about(asked: Asked) -> Iterable[str]:
            given = asked.input.get(member)
            for one in [given] if isinstance(given, str) else given or ():
                yield self.arn(asked.call.account, asked.call.region, str(one))

        return about

    def one(self, member: str) -> About:
        """The ARN of the one that a member names; of any, if it names none: the handler then says what is missing."""

        def about(asked: Asked) -> Iterable[str]:
            return (self.arn(asked.call.account, asked.call.region, str(asked.input.get(member) or "*")),)

        return about

    def new(self, asked: Asked) -> Iterable[str]:
        """The one to be created, which has no id yet."""
        return (self.arn(asked.call.account, asked.call.region, "*"),)

    def held(self, a: Authorised, view: View, id: str) -> Row:
        """The row of the caller's; raises Refused as `missing` says."""
        return self.find(view, a.account, a.region, id)

    def put(
        self,
        a: Authorised,
        tx: Transaction,
        id: str,
        doc: dict[str, Any],
        inside: Iterable[str] = (),
        tags: Tags | None = None,
    ) -> Row:
        """A new row that lies in the containers named."""
        found = tag_specification(a, self.resource) if tags is None else tags
        row = self.create(a, tx, id, {**doc, "In": list(inside)}, tags=found)
        for container in inside:
            tx.insert(Row(IN, a.account, a.region, f"{container}/{self.resource}/{id}", {}), keep=False)
        return row

    def save(self, a: Authorised, tx: Transaction, row: Row) -> None:
        """Writes a changed row."""
        self.change(tx, row, a.operation.name, a.request.id)

    def drop(self, a: Authorised, tx: Transaction, row: Row) -> None:
        """Removes a row and takes it out of its containers."""
        for container in row.doc["In"]:
            held = tx.get(IN, row.account, row.region, f"{container}/{self.resource}/{row.name}")
            if held is not None:
                tx.delete(held, keep=False)
        self.remove(tx, row, a.operation.name, a.request.id)

    def inside(self, view: View, account: str, region: str, container: str) -> list[Row]:
        """Those that lie in a container."""
        found: list[Row] = []
        prefix = f"{container}/{self.resource}/"
        after: str | None = None
        while True:
            held = view.scan(IN, account, region, prefix=prefix, after=after, limit=500)
            for one in held:
                row = self.get(view, account, region, one.name[len(prefix) :])
                if row is not None:
                    found.append(row)
            if len(held) < 500:
                return found
            after = held[-1].name

    def any_inside(self, view: View, account: str, region: str, container: str) -> bool:
        """Whether any lies there."""
        return bool(view.scan(IN, account, region, prefix=f"{container}/{self.resource}/", limit=1))

    def does(self, name: str, *, asks: Sequence[Ask], settles: Settles | None = None) -> Callable[[Handler], Handler]:
        """Declares an operation that changes something. settles: the VPCs whose packets go another way afterwards; they
        do when the call is answered."""

        def declare(handle: Handler) -> Handler:
            more: dict[str, Any] = {}
            if settles is not None:
                more = {"before": _before(settles), "after": _after}
            return self.operation(name, asks=asks, **more)(dry(handle))

        return declare

    def tells(self, name: str, *, asks: Sequence[Ask]) -> Callable[[Handler], Handler]:
        """Declares an operation that changes nothing."""
        return lambda handle: self.reads(name, asks=asks)(dry(handle))


Settles = Callable[[Authorised, View], Iterable["str | Vpc | Transit"]]
"""VPCs by id if they are the caller's, and what belongs to others."""


def vpc_named(a: Authorised, view: View) -> Iterable[str]:
    """The VPC that a call names: for `settles`."""
    return [str(a.input["VpcId"])]


def _before(settles: Settles) -> Callable[[Authorised], Awaitable[Any]]:
    async def before(a: Authorised) -> Any:
        with a.calls.store.reading() as view:
            found = [
                Vpc(a.account, a.region, one) if isinstance(one, str) else one
                for one in dict.fromkeys(settles(a, view))
            ]
        return sorted(found, key=lambda one: isinstance(one, Transit))  # what a gateway leads to stands first

    return before


async def _after(a: Authorised, output: Output) -> Output:
    networks = a.engine(Networks)
    for one in a.staged:
        await networks.settle(one)
    return output


def dry(handle: Handler) -> Handler:
    """A handler that a dry run does not reach: by then the questions were answered yes."""

    def guarded(a: Authorised, view: Any) -> Output:
        if a.input.get("DryRun"):
            raise Refused("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412)
        return handle(a, view)

    return guarded


# -- questions ---------------------------------------------------------------------------------------------------------


def ask(action: str, about: About, when: Callable[[Asked], bool] | None = None, /, **given: Given) -> Ask:
    """A question of EC2. given: condition keys, ``__`` for the colon."""
    keys: dict[str, Given] = {"ec2:Region": lambda asked: asked.call.region}
    keys |= {name.replace("__", ":"): one for name, one in given.items()}
    return Ask(f"ec2:{action}", about, given=keys, when=when)


def naming(action: str, *nouns: Noun) -> list[Ask]:
    """The same question about one of each noun, named by the member that has its name."""
    return [ask(action, one.ids(one.member)) for one in nouns]


def creating(noun: Noun, action: str, *more: Ask, **given: Given) -> list[Ask]:
    """The questions of a creation: about what it is made in, the new resource with the tags it brings, and those tags."""

    @fills("aws:RequestTag/${TagKey}", "aws:TagKeys")
    def tags(asked: Asked) -> Mapping[str, str | Sequence[str]]:
        pairs = _pairs(asked.input, noun.resource)
        return {**tag_keys("aws:requesttag/", pairs), "aws:tagkeys": tuple(key for key, _ in pairs)} if pairs else {}

    made = ask(action, noun.new, None, **given)
    tagged = ask("CreateTags", noun.new, None, ec2__CreateAction=lambda _: action)
    return [
        *more,
        Ask(made.action, made.about, given=made.given, more=tags),
        Ask(
            tagged.action, tagged.about, given=tagged.given, more=tags,
            when=lambda asked: bool(_pairs(asked.input, noun.resource)),
        ),
    ]  # fmt: skip


def _pairs(given: Mapping[str, Any], type: str) -> list[tuple[str, str]]:
    return [
        (str(tag.get("Key", "")), str(tag.get("Value", "")))
        for one in given.get("TagSpecifications") or ()
        if one.get("ResourceType") == type
        for tag in one.get("Tags") or ()
    ]


def anything(_: Asked) -> Iterable[str]:
    """EC2's Describe operations take no resource."""
    return ("*",)


# -- tags --------------------------------------------------------------------------------------------------------------


def checked_tags(pairs: Iterable[tuple[str, str]], before: Tags | None = None) -> Tags:
    """Tags put over those from before; raises Refused for reserved, double or too many."""
    found: Tags = dict(before or {})
    seen: set[str] = set()
    for key, value in pairs:
        if not key or len(key) > 127:
            raise invalid("Tag keys must be between 1 and 127 characters in length.")
        if key.lower().startswith("aws:"):
            raise invalid("Tag keys starting with 'aws:' are reserved for internal use")
        if len(value) > 255:
            raise invalid("Tag values may be up to 255 characters in length.")
        if key in seen:
            raise invalid(f"Duplicate tag key '{key}' specified.")
        seen.add(key)
        found[key] = value
    if len(found) > _MOST_TAGS:
        raise Refused("TagLimitExceeded", f"The maximum number of Tags for a resource has been reached: {_MOST_TAGS}.")
    return found


def tag_specification(a: Authorised, type: str) -> Tags:
    """The tags that a creation brings for its resource; raises Refused for other types of resource."""
    for one in a.input.get("TagSpecifications") or ():
        if one.get("ResourceType") != type:
            raise invalid(f"'{one.get('ResourceType', '')}' is not a valid taggable resource type for this operation.")
    return checked_tags(_pairs(a.input, type))


def tags_shown(row: Row) -> list[dict[str, str]]:
    """A row's tags as EC2 lists them."""
    return tag_list(row.tags)


# -- refusals ----------------------------------------------------------------------------------------------------------


def invalid(message: str) -> Refused:
    """InvalidParameterValue."""
    return Refused("InvalidParameterValue", message)


def parameter(message: str) -> Refused:
    """InvalidParameter."""
    return Refused("InvalidParameter", message)


def missing(name: str) -> Refused:
    """MissingParameter."""
    return Refused("MissingParameter", f"The request must contain the parameter {name}")


def unsupported(a: Authorised, *members: str) -> None:
    """Raises Refused for what the request has and Bastide has not: better refused than left out in silence."""
    for member in members:
        if a.input.get(member) not in (None, False, [], {}, 0):
            raise Refused("UnsupportedOperation", f"{member} is not supported by Bastide yet.")


def capable(a: Authorised, *, ipsec: bool = False) -> None:
    """Raises Refused where this machine cannot make networks: what would not be enforced is not recorded either. ipsec:
    and tunnels."""
    lacking = a.engine(Networks).lacking(ipsec=ipsec)
    if lacking:
        raise Refused(
            "UnsupportedOperation",
            f"This platform cannot make networks: it lacks {lacking}. See `bastide doctor`.",
            400,
        )


# -- descriptions ------------------------------------------------------------------------------------------------------


def wildcard(text: str) -> Plain:
    """A matcher for a filter's value: ``*``, ``?``, and a backslash before either or itself."""
    atoms: list[Atom] = []
    held = ""
    at = 0
    while at < len(text):
        char = text[at]
        if char == "\\" and at + 1 < len(text):
            at += 1
            held += text[at]
        elif char in "*?":
            if held:
                atoms.append(held)
                held = ""
            atoms.append(Wild.MANY if char == "*" else Wild.ONE)
        else:
            held += char
        at += 1
    if held:
        atoms.append(held)
    return plain_pattern(tuple(atoms))


def _texts(found: str | Iterable[str] | None) -> Iterable[str]:
    return () if found is None else (found,) if isinstance(found, str) else found


Chosen = Callable[[View, Row], bool]


def filters(a: Authorised, fields: Mapping[str, Field]) -> Chosen:
    """Whether a row passes all filters of the call: of one filter's values any, of all filters each."""
    tests: list[tuple[Field, list[Plain]]] = []
    for one in a.input.get("Filters") or a.input.get("Filter") or ():
        name, values = str(one.get("Name", "")), one.get("Values") or []
        if len(values) > _MOST_VALUES:
            raise Refused(
                "FilterLimitExceeded", "The maximum number of filter values specified on a single call is 200"
            )
        field = fields.get(name)
        if field is None and name.startswith("tag:"):
            field = _tag(name[4:])
        elif field is None and name == "tag-key":
            field = _tag_keys
        if field is None:
            raise invalid(f"The filter '{name}' is invalid")
        tests.append((field, [wildcard(str(value)) for value in values]))

    def chosen(view: View, row: Row) -> bool:
        for field, wanted in tests:
            texts = list(_texts(field(view, row)))
            if not any(test(text) for test in wanted for text in texts):
                return False
        return True

    return chosen


def _tag(key: str) -> Field:
    return lambda view, row: row.tags.get(key)


def _tag_keys(view: View, row: Row) -> Iterable[str]:
    return row.tags


def doc(name: str) -> Field:
    """A filter on a member of the row's document."""
    return lambda view, row: row.doc.get(name)


def fixed(text: str) -> Field:
    """A filter on what is the same for all."""
    return lambda view, row: text


def owner(view: View, row: Row) -> str:
    """A filter on the owner's account id."""
    return row.account


def name(view: View, row: Row) -> str:
    """A filter on the id."""
    return row.name


def describes(
    noun: Noun,
    operation: str,
    members: str,
    ids: str,
    show: Callable[[Authorised, View, Row], Output],
    fields: Mapping[str, Field],
    lacking: Sequence[str] = (),
) -> None:
    """Declares a Describe operation: of the ids given, or a page of all, as the filters choose. lacking: members that are
    not supported."""

    def handle(a: Authorised, view: View) -> Output:
        unsupported(a, *lacking)
        chosen = filters(a, fields)
        named = a.input.get(ids)
        if named:
            if a.input.get("MaxResults"):
                raise Refused(
                    "InvalidParameterCombination",
                    f"The parameter {ids} cannot be used with the parameter maxResults",
                )
            rows = [noun.held(a, view, str(id)) for id in dict.fromkeys(named)]
            return {members: [show(a, view, row) for row in rows if chosen(view, row)]}
        return paged(a, view, noun.key, members, chosen, lambda row: show(a, view, row))

    noun.tells(operation, asks=[ask(operation, anything)])(handle)


def paged(a: Authorised, view: View, kind: str, members: str, chosen: Chosen, show: Callable[[Row], Output]) -> Output:
    """A page of rows of a kind, in the order of their ids."""
    limit = page_size(a)
    after = pages.position(a, a.input.get("NextToken"), code="InvalidNextToken")
    found: list[Output] = []
    examined = 0
    while True:
        rows = view.scan(kind, a.account, a.region, after=after, limit=min(limit, 200) + 1)
        for row in rows:
            if len(found) == limit or examined == _MOST_EXAMINED:
                return {members: found, "NextToken": pages.seal(a, after)}
            after = row.name
            examined += 1
            if chosen(view, row):
                found.append(show(row))
        if len(rows) <= min(limit, 200):
            return {members: found}


def page_size(a: Authorised) -> int:
    """How many a page may have."""
    wanted = int(a.input.get("MaxResults") or _PAGE)
    if wanted < 1:
        raise invalid(f"Value ({wanted}) for parameter maxResults is invalid.")
    return min(wanted, _PAGE)


def sliced(a: Authorised, members: str, found: Sequence[Any]) -> Output:
    """A page of a list that is at hand whole."""
    start = int(pages.position(a, a.input.get("NextToken"), code="InvalidNextToken") or 0)
    end = start + page_size(a)
    output: Output = {members: list(found[start:end])}
    if end < len(found):
        output["NextToken"] = pages.seal(a, end)
    return output
