"""IAM's types. Inline policies and attachments of an entity are what the template says, and the rest is left alone."""

from __future__ import annotations

from typing import Any, Final

import orjson

from bastide.domain import Refused
from bastide.services.cloudformation.resource import Action, Resource, Type
from bastide.services.cloudformation.types.regular import Tagging, at, calls_of, regular, retag

_KINDS: Final = {"Roles": ("Role", "RoleName"), "Users": ("User", "UserName"), "Groups": ("Group", "GroupName")}
_SETTLED: Final = {"ManagedPolicyArns", "Policies", "Tags", "Groups", "PermissionsBoundary"}


def document(value: Any) -> str:
    """A policy as the API takes it."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _inline(properties: dict[str, Any]) -> dict[str, str]:
    return {one["PolicyName"]: document(one["PolicyDocument"]) for one in properties.get("Policies") or ()}


async def _settle(r: Resource, noun: str, member: str) -> None:
    """Attachments, inline policies, boundary and groups, as they are to be now."""
    named = {member: r.physical}
    before, after = set(r.old.get("ManagedPolicyArns") or ()), list(r.get("ManagedPolicyArns") or ())
    for arn in sorted(before - set(after)):
        await r.drop(f"Detach{noun}Policy", {**named, "PolicyArn": arn})
    for arn in after:
        if arn not in before:
            await r.do(f"Attach{noun}Policy", {**named, "PolicyArn": arn})
    old, new = _inline(r.old), _inline(r.properties)
    for name in sorted(set(old) - set(new)):
        await r.drop(f"Delete{noun}Policy", {**named, "PolicyName": name})
    for name, text in new.items():
        if old.get(name) != text:
            await r.do(f"Put{noun}Policy", {**named, "PolicyName": name, "PolicyDocument": text})
    if noun == "User":
        had, has = set(r.old.get("Groups") or ()), list(r.get("Groups") or ())
        for group in sorted(had - set(has)):
            await r.drop("RemoveUserFromGroup", {**named, "GroupName": group})
        for group in has:
            if group not in had:
                await r.do("AddUserToGroup", {**named, "GroupName": group})


def _entity(noun: str, *, more: tuple[str, ...]) -> Type:
    member, list_ = f"{noun}Name", f"List{noun}Policies"

    async def create(r: Resource) -> None:
        name = r.name(64 if noun == "Role" else 128, given=r.get(member))
        asked = {**r.but(*_SETTLED, "LoginProfile"), member: name, **r.only("PermissionsBoundary")}
        if r.get("LoginProfile"):
            raise Refused(
                "ValidationError", "LoginProfile: there are no passwords here; people sign in through the portal."
            )
        if "AssumeRolePolicyDocument" in asked:
            asked["AssumeRolePolicyDocument"] = document(asked["AssumeRolePolicyDocument"])
        tags = r.tags()
        if tags and noun != "Group":
            asked["Tags"] = tags
        made = (await r.do(f"Create{noun}", asked, key="create"))[noun]
        r.thing.physical = name
        r.thing.attributes = {member: name, "Arn": made["Arn"], f"{noun}Id": made[f"{noun}Id"]}
        await _settle(r, noun, member)

    async def update(r: Resource) -> None:
        named = {member: r.physical}
        if noun == "Role":
            if r.changed("AssumeRolePolicyDocument"):
                text = document(r.get("AssumeRolePolicyDocument"))
                await r.do("UpdateAssumeRolePolicy", {**named, "PolicyDocument": text})
            if r.changed("Description", "MaxSessionDuration"):
                asked = {
                    "Description": r.get("Description") or "",
                    "MaxSessionDuration": r.get("MaxSessionDuration") or 3600,
                }
                await r.do("UpdateRole", {**named, **asked})
        if r.changed("PermissionsBoundary"):
            if r.get("PermissionsBoundary"):
                await r.do(f"Put{noun}PermissionsBoundary", {**named, **r.only("PermissionsBoundary")})
            else:
                await r.drop(f"Delete{noun}PermissionsBoundary", named)
        await _settle(r, noun, member)
        if noun != "Group":
            await retag(r, Tagging(f"Tag{noun}", f"Untag{noun}", member, "Ref"))

    async def delete(r: Resource) -> None:
        named = {member: r.physical}
        attached = await r.seen(f"ListAttached{noun}Policies", named)
        if attached is None:
            return
        for one in attached.get("AttachedPolicies") or ():
            await r.drop(f"Detach{noun}Policy", {**named, "PolicyArn": one["PolicyArn"]})
        for name in (await r.read(list_, named)).get("PolicyNames") or ():
            await r.drop(f"Delete{noun}Policy", {**named, "PolicyName": name})
        if noun == "User":
            for group in (await r.read("ListGroupsForUser", named)).get("Groups") or ():
                await r.drop("RemoveUserFromGroup", {**named, "GroupName": group["GroupName"]})
        await r.drop(f"Delete{noun}", named)

    async def read(r: Resource) -> dict[str, Any] | None:
        told = await r.seen(f"Get{noun}", {member: r.physical})
        if told is None:
            return None
        held = told[noun]
        found: dict[str, Any] = {
            name: held[name] for name in ("Description", "MaxSessionDuration", "Path") if name in held
        }
        attached = await r.read(f"ListAttached{noun}Policies", {member: r.physical})
        wanted = r.get("ManagedPolicyArns") or []
        has = [one["PolicyArn"] for one in attached.get("AttachedPolicies") or ()]
        found["ManagedPolicyArns"] = wanted if set(has) == set(wanted) else sorted(has)
        return found

    return Type(
        f"AWS::IAM::{noun}",
        "iam",
        create,
        delete,
        update,
        read,
        calls_of("iam", [f"Create{noun}", f"Delete{noun}", f"Attach{noun}Policy", f"Put{noun}Policy", *more]),
        iam=True,
        named=member,
        mark=None if noun == "Group" else lambda r: str(r.thing.attributes["Arn"]),
    )


# -- policies of their own ---------------------------------------------------------------------------------------------


def _targets(properties: dict[str, Any]) -> set[tuple[str, str]]:
    return {(member, name) for member in _KINDS for name in properties.get(member) or ()}


async def _put_policy(r: Resource) -> None:
    name, text = r.fact("PolicyName"), document(r.get("PolicyDocument"))
    before = _targets(r.old)
    if r.old and r.old.get("PolicyName") != r.get("PolicyName"):
        raise Refused("ValidationError", "The name of a policy cannot be changed.")
    for member, target in sorted(before - _targets(r.properties)):
        noun, key = _KINDS[member]
        await r.drop(f"Delete{noun}Policy", {key: target, "PolicyName": name})
    for member, target in sorted(_targets(r.properties)):
        noun, key = _KINDS[member]
        if (member, target) not in before or r.changed("PolicyDocument"):
            await r.do(f"Put{noun}Policy", {key: target, "PolicyName": name, "PolicyDocument": text})


async def _create_policy(r: Resource) -> None:
    r.thing.physical = r.name(64)
    r.thing.attributes = {"Id": r.thing.physical}
    await _put_policy(r)


async def _delete_policy(r: Resource) -> None:
    for member, target in sorted(_targets(r.properties)):
        noun, key = _KINDS[member]
        await r.drop(f"Delete{noun}Policy", {key: target, "PolicyName": r.get("PolicyName")})


def _inline_type(noun: str) -> Type:
    member = f"{noun}Name"

    async def put(r: Resource) -> None:
        asked = {member: r.get(member), "PolicyName": r.get("PolicyName")}
        await r.do(f"Put{noun}Policy", {**asked, "PolicyDocument": document(r.get("PolicyDocument"))})
        r.thing.physical = f"{r.get('PolicyName')}|{r.get(member)}"

    async def delete(r: Resource) -> None:
        await r.drop(f"Delete{noun}Policy", {member: r.get(member), "PolicyName": r.get("PolicyName")})

    calls = calls_of("iam", [f"Put{noun}Policy", f"Delete{noun}Policy"])
    return Type(f"AWS::IAM::{noun}Policy", "iam", put, delete, put, None, calls, iam=True)


async def _attach(r: Resource) -> None:
    arn = {"PolicyArn": r.physical}
    before, after = _targets(r.old), _targets(r.properties)
    for member, target in sorted(before - after):
        noun, key = _KINDS[member]
        await r.drop(f"Detach{noun}Policy", {**arn, key: target})
    for member, target in sorted(after - before):
        noun, key = _KINDS[member]
        await r.do(f"Attach{noun}Policy", {**arn, key: target})


async def _create_managed(r: Resource) -> None:
    asked = {"PolicyName": r.name(128, given=r.get("ManagedPolicyName")), **r.only("Path", "Description")}
    tags = r.tags()
    if tags:
        asked["Tags"] = tags
    made = await r.do("CreatePolicy", {**asked, "PolicyDocument": document(r.get("PolicyDocument"))}, key="create")
    r.thing.physical = made["Policy"]["Arn"]
    r.thing.attributes = {"PolicyArn": made["Policy"]["Arn"], "PolicyId": made["Policy"]["PolicyId"]}
    await _attach(r)


async def _update_managed(r: Resource) -> None:
    arn = {"PolicyArn": r.physical}
    if r.changed("PolicyDocument"):
        versions = (await r.read("ListPolicyVersions", arn))["Versions"]
        spare = sorted((one["CreateDate"], one["VersionId"]) for one in versions if not one["IsDefaultVersion"])
        if len(versions) >= 5:
            await r.drop("DeletePolicyVersion", {**arn, "VersionId": spare[0][1]})
        text = document(r.get("PolicyDocument"))
        await r.do("CreatePolicyVersion", {**arn, "PolicyDocument": text, "SetAsDefault": True}, key="version")
    await _attach(r)
    await retag(r, Tagging("TagPolicy", "UntagPolicy", "PolicyArn", "Ref"))


async def _delete_managed(r: Resource) -> None:
    arn = {"PolicyArn": r.physical}
    held = await r.seen("ListEntitiesForPolicy", arn)
    if held is None:
        return
    for noun in ("Role", "User", "Group"):
        for one in held.get(f"Policy{noun}s") or ():
            await r.drop(f"Detach{noun}Policy", {**arn, f"{noun}Name": one[f"{noun}Name"]})
    for one in (await r.read("ListPolicyVersions", arn))["Versions"]:
        if not one["IsDefaultVersion"]:
            await r.drop("DeletePolicyVersion", {**arn, "VersionId": one["VersionId"]})
    await r.drop("DeletePolicy", arn)


async def _profile_roles(r: Resource) -> None:
    named = {"InstanceProfileName": r.physical}
    before, after = set(r.old.get("Roles") or ()), set(r.get("Roles") or ())
    for role in sorted(before - after):
        await r.drop("RemoveRoleFromInstanceProfile", {**named, "RoleName": role})
    for role in sorted(after - before):
        await r.do("AddRoleToInstanceProfile", {**named, "RoleName": role})


async def _profile_empty(r: Resource) -> None:
    told = await r.seen("GetInstanceProfile", {"InstanceProfileName": r.physical})
    for role in at(told, "InstanceProfile.Roles") or ():
        asked = {"InstanceProfileName": r.physical, "RoleName": role["RoleName"]}
        await r.drop("RemoveRoleFromInstanceProfile", asked)


async def _create_key(r: Resource) -> None:
    made = (await r.do("CreateAccessKey", r.only("UserName"), key="create"))["AccessKey"]
    r.thing.physical = made["AccessKeyId"]
    r.thing.attributes = {"Id": made["AccessKeyId"], "SecretAccessKey": made["SecretAccessKey"]}
    if r.get("Status") == "Inactive":
        await _key_status(r)


async def _key_status(r: Resource) -> None:
    asked = {**r.only("UserName"), "AccessKeyId": r.physical, "Status": r.get("Status") or "Active"}
    await r.do("UpdateAccessKey", asked)


async def _delete_key(r: Resource) -> None:
    await r.drop("DeleteAccessKey", {**r.only("UserName"), "AccessKeyId": r.physical})


async def _oidc_changes(r: Resource) -> None:
    if not r.old:
        return
    named = {"OpenIDConnectProviderArn": r.physical}
    before, after = set(r.old.get("ClientIdList") or ()), set(r.get("ClientIdList") or ())
    for one in sorted(before - after):
        await r.drop("RemoveClientIDFromOpenIDConnectProvider", {**named, "ClientID": one})
    for one in sorted(after - before):
        await r.do("AddClientIDToOpenIDConnectProvider", {**named, "ClientID": one})
    if r.changed("ThumbprintList") and r.get("ThumbprintList"):
        await r.do("UpdateOpenIDConnectProviderThumbprint", {**named, **r.only("ThumbprintList")})


_ATTACHING: Final = [f"{verb}{noun}Policy" for verb in ("Attach", "Detach") for noun in ("Role", "User", "Group")]
_create: Action = _create_policy
TYPES: Final = (
    _entity("Role", more=("UpdateRole", "UpdateAssumeRolePolicy", "TagRole")),
    _entity("User", more=("AddUserToGroup", "TagUser")),
    _entity("Group", more=()),
    Type(
        "AWS::IAM::Policy", "iam", _create, _delete_policy, _put_policy, None,
        calls_of("iam", ["PutRolePolicy", "PutUserPolicy", "PutGroupPolicy", "DeleteRolePolicy"]),
        frozenset({"PolicyName"}), iam=True,
    ),
    _inline_type("Role"),
    _inline_type("User"),
    _inline_type("Group"),
    Type(
        "AWS::IAM::ManagedPolicy", "iam", _create_managed, _delete_managed, _update_managed, None,
        calls_of("iam", ["CreatePolicy", "DeletePolicy", "CreatePolicyVersion", *_ATTACHING]),
        iam=True, named="ManagedPolicyName", mark=lambda r: r.physical,
    ),
    regular(
        "AWS::IAM::InstanceProfile", "iam", create="CreateInstanceProfile", delete="DeleteInstanceProfile",
        key=("InstanceProfileName",), ref="InstanceProfileName", named="InstanceProfileName", most=128,
        attributes={"Arn": "InstanceProfile.Arn"}, read="GetInstanceProfile", result="InstanceProfile", leave=("Roles",),
        tags="", after=_profile_roles, before_delete=_profile_empty, more=("AddRoleToInstanceProfile",), iam=True,
    ),
    Type(
        "AWS::IAM::AccessKey", "iam", _create_key, _delete_key, _key_status, None,
        calls_of("iam", ["CreateAccessKey", "DeleteAccessKey", "UpdateAccessKey"]), frozenset({"Serial"}), iam=True,
    ),
    regular(
        "AWS::IAM::OIDCProvider", "iam", create="CreateOpenIDConnectProvider", delete="DeleteOpenIDConnectProvider",
        key={"OpenIDConnectProviderArn": "Arn"}, ref="Arn", attributes={"Arn": "OpenIDConnectProviderArn"},
        rename={"ClientIdList": "ClientIDList"}, after=_oidc_changes, iam=True,
    ),
    regular(
        "AWS::IAM::SAMLProvider", "iam", create="CreateSAMLProvider", delete="DeleteSAMLProvider",
        update="UpdateSAMLProvider",
        key={"SAMLProviderArn": "Arn"}, ref="Arn", attributes={"Arn": "SAMLProviderArn"}, named="Name", most=128,
        rename={"SamlMetadataDocument": "SAMLMetadataDocument"}, update_leave=("Name",), iam=True,
    ),
    regular(
        "AWS::IAM::ServiceLinkedRole", "iam", create="CreateServiceLinkedRole", delete="DeleteServiceLinkedRole",
        key=("RoleName",), ref="RoleName", attributes={"RoleName": "Role.RoleName"}, tags="", iam=True,
    ),
)  # fmt: skip
"""IAM's types."""
