"""Policies in force, as they are now, read over the platform's API by whoever asks and as far as they may read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final
from urllib.parse import unquote

import botocore.exceptions

from bastide.commands.client import Credentials, Platform
from bastide.domain import Arn, Refused
from bastide.kernel.authorise import _RCP_SERVICES as RCP_SERVICES
from bastide.policy import Attached, Document, Form, Layers, Principal

_ABSENT: Final = frozenset(
    {
        "NoSuchEntity", "NoSuchBucketPolicy", "NoSuchBucket", "NotFoundException", "ResourceNotFoundException",
        "RepositoryPolicyNotFoundException", "RepositoryNotFoundException", "PolicyNotFoundException", "ResourceNotFound",
    }
)  # fmt: skip
_NOT_THERE: Final = frozenset({"InvalidAction", "UnknownOperationException", "AWSOrganizationsNotInUseException"})
_EVERYTHING: Final[dict[str, Any]] = {
    "Version": "2012-10-17",
    "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"},
}


@dataclass(frozen=True, slots=True)
class Held:
    """A policy in force. level: of an SCP or RCP. attached: None if whoever asks may not read it; why: the error's code.

    owner: who may change it, in words.
    """

    layer: str
    level: int | None
    source: str
    owner: str
    attached: Attached | None
    why: str = ""


@dataclass(slots=True)
class Stack:
    """Everything in force for a question. unknown: what the API cannot tell, in words."""

    held: list[Held] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    session: bool = False
    resource_kind: str = ""
    levels: dict[str, int] = field(default_factory=dict)

    @property
    def hidden(self) -> list[Held]:
        """The policies that whoever asks may not read."""
        return [one for one in self.held if one.attached is None]

    def layers(self) -> Layers:
        """What can be read, as layers."""

        def of(layer: str) -> tuple[Attached, ...]:
            return tuple(one.attached for one in self.held if one.layer == layer and one.attached is not None)

        def single(*layers: str) -> Attached | None:
            found = [one for layer in layers for one in of(layer)]
            return found[0] if found else None

        def levelled(layer: str) -> list[list[Attached]]:
            return [
                [one.attached for one in self.held if one.layer == layer and one.level == number and one.attached]
                for number in range(self.levels.get(layer, 0))
            ]

        return Layers(
            identity=of("identity"),
            boundary=single("boundary"),
            session=of("session") if self.session else None,
            resource=single("resource", "trust"),
            scps=levelled("scp"),
            rcps=levelled("rcp"),
            endpoint=single("endpoint"),
            resource_kind=self.resource_kind,
        )


class Reader:
    """Reads policies with the credentials that `allowed` gives for an account; None where there are none."""

    def __init__(self, platform: Platform, allowed: Callable[[str], Credentials | None]) -> None:
        self._platform = platform
        self._allowed = allowed
        self._clients: dict[tuple[str, str, str], Any] = {}
        self._known: dict[Any, Any] = {}

    # -- asking --------------------------------------------------------------------------------------------------------

    def _client(self, service: str, account: str, region: str = "") -> Any:
        key = (service, account, region)
        if key not in self._clients:
            credentials = self._allowed(account)
            if credentials is None:
                raise _Hidden("no credentials for the account")
            self._clients[key] = self._platform.client(service, credentials, region or None)
        return self._clients[key]

    def _ask(self, service: str, account: str, operation: str, region: str = "", **given: Any) -> dict[str, Any] | None:
        """The answer; None if there is no such thing. Raises _Hidden if whoever asks may not know."""
        key = (service, account, operation, region, json.dumps(given, sort_keys=True))
        if key not in self._known:
            try:
                client = self._client(service, account, region)
                if client.can_paginate(operation):
                    answer: dict[str, Any] | None = (
                        client.get_paginator(operation).paginate(**given).build_full_result()
                    )
                else:
                    answer = getattr(client, operation)(**given)
                self._known[key] = answer
            except botocore.exceptions.ClientError as error:
                code = error.response["Error"]["Code"]
                self._known[key] = None if code in _ABSENT or code in _NOT_THERE else _Hidden(code)
        found = self._known[key]
        if isinstance(found, _Hidden):
            raise found
        return found  # type: ignore[no-any-return]

    def _reading(
        self, service: str, account: str, operation: str, *path: str, region: str = "", **given: Any
    ) -> Callable[[], Any]:
        """Asks when it is called, and gives the member at a path of the answer; None if there is none."""

        def read() -> Any:
            found: Any = self._ask(service, account, operation, region, **given)
            for name in path:
                found = (found or {}).get(name)
            return found

        return read

    @staticmethod
    def _document(value: Any, form: Form) -> Document:
        return Document.parse(unquote(value) if isinstance(value, str) and value.startswith("%") else value, form)

    def _held(
        self, layer: str, source: str, owner: str, form: Form, read: Callable[[], Any], level: int | None = None
    ) -> Iterator[Held]:
        try:
            value = read()
        except _Hidden as hidden:
            yield Held(layer, level, source, owner, None, hidden.code)
            return
        if value is None:
            return
        try:
            yield Held(layer, level, source, owner, Attached(self._document(value, form), source))
        except Refused as refused:
            yield Held(layer, level, source, owner, None, refused.message)

    # -- layers --------------------------------------------------------------------------------------------------------

    def _managed(self, account: str, arn: str) -> Any:
        policy = self._ask("iam", account, "get_policy", PolicyArn=arn)
        if policy is None:
            return None
        version = policy["Policy"]["DefaultVersionId"]
        found = self._ask("iam", account, "get_policy_version", PolicyArn=arn, VersionId=version)
        return None if found is None else found["PolicyVersion"]["Document"]

    def by_arn(self, source: str) -> Held | None:
        """The policy of an ARN; None for a source that is none."""
        home = self._platform.configuration.account
        if ":organizations:" in source and ":policy/" in source:
            form = Form.RCP if "/resource_control_policy/" in source else Form.SCP
            read = partial(self._organisations, home, source.rpartition("/")[2])
            found = [*self._held("scp", source, "the organisation's administrators", form, read)]
        elif ":iam:" in source and ":policy/" in source:
            account = Arn.parse(source).account
            owner = f"administrators of the account {account}"
            found = [*self._held("identity", source, owner, Form.IDENTITY, partial(self._managed, account, source))]
        else:
            return None
        return found[0] if found else Held("", None, source, "", None, "NoSuchEntity")

    def identity(self, principal_arn: str) -> list[Held]:
        """Identity policies and permissions boundary of a user or a role."""
        arn = Arn.parse(principal_arn)
        account, name = arn.account, arn.resource.rpartition("/")[2]
        owner = f"administrators of the account {account} (iam:Put{arn.type.capitalize()}Policy)"
        kind = "user" if arn.type == "user" else "role"
        found: list[Held] = []
        try:
            found += self._entity(kind, account, name, principal_arn, owner)
            if kind == "user":
                for group in (self._ask("iam", account, "list_groups_for_user", UserName=name) or {}).get("Groups", ()):
                    found += self._entity("group", account, group["GroupName"], group["Arn"], owner)
            entity = self._ask("iam", account, f"get_{kind}", **{f"{kind.capitalize()}Name": name})
            boundary = (entity or {}).get(kind.capitalize(), {}).get("PermissionsBoundary", {})
            if boundary:
                source = boundary["PermissionsBoundaryArn"]
                by = f"administrators of the account {account} (iam:CreatePolicyVersion)"
                found += self._held("boundary", source, by, Form.BOUNDARY, lambda: self._managed(account, source))
        except _Hidden as hidden:
            found.append(Held("identity", None, f"policies of {principal_arn}", owner, None, hidden.code))
        return found

    def _entity(self, kind: str, account: str, name: str, arn: str, owner: str) -> Iterator[Held]:
        given = {f"{kind.capitalize()}Name": name}
        inline = self._ask("iam", account, f"list_{kind}_policies", **given) or {}
        for one in inline.get("PolicyNames", ()):
            read = self._reading("iam", account, f"get_{kind}_policy", "PolicyDocument", **given, PolicyName=one)
            yield from self._held("identity", f"{arn} inline policy {one}", owner, Form.IDENTITY, read)
        attached = self._ask("iam", account, f"list_attached_{kind}_policies", **given) or {}
        for one in attached.get("AttachedPolicies", ()):
            source = one["PolicyArn"]
            yield from self._held("identity", source, owner, Form.IDENTITY, partial(self._managed, account, source))

    def organisation(self, account: str, kind: str) -> tuple[int, list[Held]]:
        """How many levels of SCPs ("scp") or RCPs ("rcp") bind an account, and the policies."""
        home = self._platform.configuration.account
        layer, form = kind, Form.SCP if kind == "scp" else Form.RCP
        type_name = "SERVICE_CONTROL_POLICY" if kind == "scp" else "RESOURCE_CONTROL_POLICY"
        owner = f"the organisation's administrators (account {home}, organizations:UpdatePolicy)"
        if account == home:
            return 0, []
        try:
            roots = (self._ask("organizations", home, "list_roots") or {}).get("Roots", ())
            if not any(one["Type"] == type_name for root in roots for one in root["PolicyTypes"]):
                return 0, []
            nodes = self._nodes(home, account)
            found: list[Held] = []
            for level, node in enumerate(nodes):
                listed = self._ask("organizations", home, "list_policies_for_target", TargetId=node, Filter=type_name)
                for one in (listed or {}).get("Policies", ()):
                    read = partial(self._organisations, home, one["Id"])
                    found += self._held(layer, one["Arn"], owner, form, read, level)
        except _Hidden as hidden:
            return 1, [Held(layer, 0, f"{kind.upper()}s of the organisation", owner, None, hidden.code)]
        return len(nodes), found

    def _organisations(self, home: str, id: str) -> Any:
        if id == "p-FullAWSAccess":
            return _EVERYTHING
        if id == "p-RCPFullAWSAccess":
            return {**_EVERYTHING, "Statement": {**_EVERYTHING["Statement"], "Principal": "*"}}
        found = self._ask("organizations", home, "describe_policy", PolicyId=id)
        return None if found is None else found["Policy"]["Content"]

    def _nodes(self, home: str, account: str) -> list[str]:
        nodes = [account]
        while not nodes[0].startswith("r-"):
            parents = (self._ask("organizations", home, "list_parents", ChildId=nodes[0]) or {}).get("Parents", ())
            if not parents:
                break
            nodes.insert(0, parents[0]["Id"])
        return nodes

    def resource(self, resource: str, action: str, owner_account: str) -> tuple[str, list[Held], list[str]]:
        """The kind of a resource's policy ("key", "trust" or ""), the policy, and what cannot be told of it."""
        try:
            arn = Arn.parse(resource)
        except ValueError:
            return "", [], []
        account = arn.account or owner_account
        by = f"administrators of the account {account or 'that owns the resource'}"
        if arn.service == "s3":
            bucket = arn.resource.partition("/")[0]
            read = self._reading("s3", account, "get_bucket_policy", "Policy", Bucket=bucket)
            owner = f"{by} (s3:PutBucketPolicy)"
            return "", [*self._held("resource", f"policy of the bucket {bucket}", owner, Form.RESOURCE, read)], []
        if arn.service == "kms" and arn.type == "key":
            read = self._reading(
                "kms", account, "get_key_policy", "Policy", region=arn.region, KeyId=resource, PolicyName="default"
            )
            held = [*self._held("resource", resource, f"{by} (kms:PutKeyPolicy)", Form.KEY, read)]
            return "key", held, ["the key's grants"]
        if arn.service == "iam" and arn.type == "role" and action.lower().startswith("sts:"):
            name = arn.resource.rpartition("/")[2]
            read = self._reading("iam", account, "get_role", "Role", "AssumeRolePolicyDocument", RoleName=name)
            owner = f"{by} (iam:UpdateAssumeRolePolicy)"
            return "trust", [*self._held("trust", f"trust policy of {resource}", owner, Form.TRUST, read)], []
        return self._other(arn, resource, account, by)

    def _other(self, arn: Arn, resource: str, account: str, by: str) -> tuple[str, list[Held], list[str]]:
        name = arn.resource.rpartition("/")[2]
        domain, _, repository = arn.resource.partition("/")[2].partition("/")
        of_domain = {"domainOwner": arn.account, "domain": domain}
        of_repository = (
            "get_repository_permissions_policy",
            {**of_domain, "repository": repository.partition("/")[0]},
            ("policy", "document"),
        )
        asked: dict[tuple[str, str], tuple[str, dict[str, Any], str | tuple[str, ...]]] = {
            ("sagemaker", "model-package-group"): (
                "get_model_package_group_policy", {"ModelPackageGroupName": name}, "ResourcePolicy",
            ),
            ("secretsmanager", "secret"): ("get_resource_policy", {"SecretId": resource}, "ResourcePolicy"),
            ("ecr", "repository"): (
                "get_repository_policy",
                {"registryId": account, "repositoryName": arn.resource.partition("/")[2]},
                "policyText",
            ),
            ("codeartifact", "domain"): ("get_domain_permissions_policy", of_domain, ("policy", "document")),
            ("codeartifact", "repository"): of_repository,
            ("codeartifact", "package"): of_repository,
        }  # fmt: skip
        kind = arn.type if "/" in arn.resource else arn.resource.partition(":")[0]
        found = asked.get((arn.service, kind))
        if found is None:
            return "", [], []
        operation, given, member = found
        path = (member,) if isinstance(member, str) else member
        read = self._reading(arn.service, account, operation, *path, region=arn.region, **given)
        return "", [*self._held("resource", f"policy of {resource}", by, Form.RESOURCE, read)], []

    def endpoint(self, id: str, account: str) -> list[Held]:
        """The policy of a VPC endpoint."""

        def read() -> Any:
            found = self._ask("ec2", account, "describe_vpc_endpoints", VpcEndpointIds=[id])
            [endpoint] = (found or {}).get("VpcEndpoints") or [{}]
            return endpoint.get("PolicyDocument")

        owner = f"administrators of the account {account} (ec2:ModifyVpcEndpoint)"
        return [*self._held("endpoint", id, owner, Form.ENDPOINT, read)]

    # -- all of it -----------------------------------------------------------------------------------------------------

    def stack(self, who: Principal, question: dict[str, Any], record: dict[str, Any]) -> Stack:
        """Everything in force for a recorded question, as far as whoever reads may read."""
        stack = Stack()
        action, resource = str(question["action"]), str(question["resource"])
        account = str(question.get("account") or "")
        linked = ":role/aws-service-role/" in who.principal_arn
        signed = who.kind in ("User", "AssumedRole", "Root", "FederatedUser")
        if signed and who.account and not linked:
            stack.levels["scp"], held = self.organisation(who.account, "scp")
            stack.held += held
        if account and action.partition(":")[0].lower() in RCP_SERVICES and not linked:
            stack.levels["rcp"], held = self.organisation(account, "rcp")
            stack.held += held
        vpce = record.get("vpcEndpointId")
        if vpce:
            stack.held += self.endpoint(str(vpce), str(question["context"].get("aws:vpceaccount", who.account or "")))
        stack.resource_kind, held, unknown = self.resource(resource, action, account)
        stack.held += held
        stack.unknown += unknown
        if who.kind in ("User", "AssumedRole", "FederatedUser"):
            stack.held += self.identity(who.principal_arn or who.arn)
        if who.kind == "FederatedUser" or question.get("layer") == "session":
            # They decide here, and lie in the session's token alone.
            stack.held.append(
                Held(
                    "session", None, "the session's own policies", "whoever starts the session", None, "kept by nobody"
                )
            )
        elif who.kind == "AssumedRole":
            stack.unknown.append("policies of the session's own, if it has any,")
        return stack


class _Hidden(Exception):  # noqa: N818
    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def principal_of(record: dict[str, Any]) -> Principal:
    """Who asked, from a record's userIdentity."""
    who = record["userIdentity"]
    kind, arn, account = who.get("type"), who.get("arn", ""), who.get("accountId")
    id = str(who.get("principalId", ""))
    issuer = who.get("sessionContext", {}).get("sessionIssuer", {}).get("arn", "")
    if kind == "AWSService":
        return Principal("Service", None, who.get("invokedBy", ""))
    if kind in ("WebIdentityUser", "SAMLUser"):
        return Principal("Federated", None, who.get("identityProvider", ""))
    if kind == "AssumedRole":
        return Principal("AssumedRole", account, arn, issuer, id)
    if kind == "FederatedUser":
        return Principal("FederatedUser", account, arn, issuer, id)
    if kind == "IAMUser":
        return Principal("User", account, arn, arn, id)
    if kind == "Root":
        return Principal("Root", account, arn, arn)
    return Principal("Anonymous", None, "")


def keys_of(question: dict[str, Any]) -> dict[str, str | tuple[str, ...]]:
    """The request context of a recorded question."""
    return {
        key: value if isinstance(value, str) else tuple(map(str, value)) for key, value in question["context"].items()
    }


def readers(platform: Platform, mine: Credentials | None) -> Callable[[str], Credentials | None]:
    """Which credentials read an account's policies: one's own, else the administrator's, in members by their own role."""
    if mine is not None:
        return lambda account: mine
    held: dict[str, Credentials | None] = {}

    def inside(account: str) -> Credentials | None:
        if account not in held:
            try:
                held[account] = platform.inside(account) if account else platform.administrator()
            except botocore.exceptions.ClientError:
                held[account] = None  # an account whose doors are closed to the administrator
        return held[account]

    return inside
