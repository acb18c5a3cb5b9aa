"""Types of packages: domains, repositories and package groups of CodeArtifact."""

from __future__ import annotations

from typing import Any, Final

from bastide.domain import Arn
from bastide.services.cloudformation.resource import Resource, Type
from bastide.services.cloudformation.types.identity import document
from bastide.services.cloudformation.types.regular import calls_of, shown

_MODES: Final = {
    "Publish": "PUBLISH", "ExternalUpstream": "EXTERNAL_UPSTREAM", "InternalUpstream": "INTERNAL_UPSTREAM",
}  # fmt: skip


def _tags(r: Resource) -> dict[str, Any]:
    brought = [{"key": one["Key"], "value": one["Value"]} for one in r.tags()]
    return {"tags": brought} if brought else {}


async def _retag(r: Resource, arn: str) -> None:
    before = {str(one["Key"]) for one in r.old.get("Tags") or ()}
    after = _tags(r).get("tags", [])
    if gone := sorted(before - {one["key"] for one in after}):
        await r.do("UntagResource", {"resourceArn": arn, "tagKeys": gone})
    if after and r.changed("Tags"):
        await r.do("TagResource", {"resourceArn": arn, "tags": after})


async def _policy(r: Resource, noun: str, named: dict[str, Any]) -> None:
    if not r.changed("PermissionsPolicyDocument"):
        return
    given = r.get("PermissionsPolicyDocument")
    if given is not None:
        await r.do(f"Put{noun}PermissionsPolicy", {**named, "policyDocument": document(given)})
    else:
        await r.drop(f"Delete{noun}PermissionsPolicy", named)


# -- domains -------------------------------------------------------------------------------------------------------------


async def _create_domain(r: Resource) -> None:
    name = str(r.get("DomainName"))
    key = {"encryptionKey": r.get("EncryptionKey")} if r.get("EncryptionKey") else {}
    told = (await r.do("CreateDomain", {"domain": name, **key, **_tags(r)}, key="create"))["domain"]
    r.thing.physical = told["arn"]
    r.thing.attributes = {"Arn": told["arn"], "Name": name, "Owner": told["owner"]}
    if told.get("encryptionKey"):
        r.thing.attributes["EncryptionKey"] = told["encryptionKey"]
    await _policy(r, "Domain", {"domain": name})


async def _update_domain(r: Resource) -> None:
    await _policy(r, "Domain", {"domain": str(r.get("DomainName"))})
    await _retag(r, r.physical)


async def _delete_domain(r: Resource) -> None:
    await r.drop("DeleteDomain", {"domain": r.physical.rpartition("/")[2]})


async def _read_domain(r: Resource) -> dict[str, Any] | None:
    told = await r.seen("DescribeDomain", {"domain": r.physical.rpartition("/")[2]})
    return None if told is None else shown(told["domain"], r.properties, {"DomainName": "name"})


# -- repositories --------------------------------------------------------------------------------------------------------


def _repository(r: Resource) -> dict[str, Any]:
    if r.physical:
        where = Arn.parse(r.physical)
        _, domain, name = where.resource.split("/")
        return {"domain": domain, "domainOwner": where.account, "repository": name}
    owner = {"domainOwner": r.get("DomainOwner")} if r.get("DomainOwner") else {}
    return {"domain": r.get("DomainName"), **owner, "repository": r.get("RepositoryName")}


async def _connections(r: Resource, named: dict[str, Any]) -> None:
    before, after = set(r.old.get("ExternalConnections") or ()), set(r.get("ExternalConnections") or ())
    for one in sorted(before - after):
        await r.do("DisassociateExternalConnection", {**named, "externalConnection": one})
    for one in sorted(after - before):
        await r.do("AssociateExternalConnection", {**named, "externalConnection": one})


def _settings(r: Resource) -> dict[str, Any]:
    found: dict[str, Any] = {"upstreams": [{"repositoryName": one} for one in r.get("Upstreams") or ()]}
    if r.get("Description") is not None:
        found["description"] = r.get("Description")
    return found


async def _create_repository(r: Resource) -> None:
    named = _repository(r)
    told = (await r.do("CreateRepository", {**named, **_settings(r), **_tags(r)}, key="create"))["repository"]
    r.thing.physical = told["arn"]
    r.thing.attributes = {
        "Arn": told["arn"], "Name": told["name"], "DomainName": told["domainName"], "DomainOwner": told["domainOwner"],
    }  # fmt: skip
    await _connections(r, named)
    await _policy(r, "Repository", named)


async def _update_repository(r: Resource) -> None:
    named = _repository(r)
    if r.changed("Upstreams", "Description"):
        await r.do("UpdateRepository", {**named, **_settings(r)}, key="update")
    await _connections(r, named)
    await _policy(r, "Repository", named)
    await _retag(r, r.physical)


async def _delete_repository(r: Resource) -> None:
    await r.drop("DeleteRepository", _repository(r))


async def _read_repository(r: Resource) -> dict[str, Any] | None:
    told = await r.seen("DescribeRepository", _repository(r))
    if told is None:
        return None
    held = told["repository"]
    held["upstreams"] = [one["repositoryName"] for one in held["upstreams"]]
    held["externalConnections"] = [one["externalConnectionName"] for one in held["externalConnections"]]
    return shown(held, r.properties, {"RepositoryName": "name"})


# -- package groups ------------------------------------------------------------------------------------------------------


def _group(r: Resource) -> dict[str, Any]:
    owner = {"domainOwner": r.get("DomainOwner")} if r.get("DomainOwner") else {}
    return {"domain": r.get("DomainName"), **owner, "packageGroup": r.get("Pattern")}


def _allowed(given: Any) -> set[tuple[str, str]]:
    restrictions = (given or {}).get("Restrictions") or {}
    return {
        (mode, name)
        for word, mode in _MODES.items()
        for name in (restrictions.get(word) or {}).get("Repositories") or ()
    }


async def _restrict(r: Resource, named: dict[str, Any]) -> None:
    given = r.get("OriginConfiguration")
    if not r.changed("OriginConfiguration") or (given is None and not r.old):
        return
    restrictions = (given or {}).get("Restrictions") or {}
    modes = {mode: (restrictions.get(word) or {}).get("RestrictionMode", "INHERIT") for word, mode in _MODES.items()}
    before, after = _allowed(r.old.get("OriginConfiguration")), _allowed(given)

    def listed(pairs: set[tuple[str, str]]) -> list[dict[str, str]]:
        kept = [one for one in sorted(pairs) if modes[one[0]] == "ALLOW_SPECIFIC_REPOSITORIES"]
        return [{"originRestrictionType": mode, "repositoryName": name} for mode, name in kept]

    asked = {
        **named, "restrictions": modes, "addAllowedRepositories": listed(after - before),
        "removeAllowedRepositories": listed(before - after),
    }  # fmt: skip
    await r.do("UpdatePackageGroupOriginConfiguration", asked)


def _words(r: Resource) -> dict[str, Any]:
    pairs = (("ContactInfo", "contactInfo"), ("Description", "description"))
    return {member: r.get(name) for name, member in pairs if r.get(name) is not None}


async def _create_group(r: Resource) -> None:
    named = _group(r)
    told = (await r.do("CreatePackageGroup", {**named, **_words(r), **_tags(r)}, key="create"))["packageGroup"]
    r.thing.physical = told["arn"]
    r.thing.attributes = {"Arn": told["arn"]}
    await _restrict(r, named)


async def _update_group(r: Resource) -> None:
    named = _group(r)
    if r.changed("ContactInfo", "Description"):
        cleared = {"contactInfo": "", "description": ""}
        await r.do("UpdatePackageGroup", {**named, **cleared, **_words(r)}, key="update")
    await _restrict(r, named)
    await _retag(r, r.physical)


async def _delete_group(r: Resource) -> None:
    await r.drop("DeletePackageGroup", _group(r))


async def _read_group(r: Resource) -> dict[str, Any] | None:
    told = await r.seen("DescribePackageGroup", _group(r))
    return None if told is None else shown(told["packageGroup"], r.properties, {})


_TAGGING: Final = ("TagResource", "UntagResource")
TYPES: Final = (
    Type(
        "AWS::CodeArtifact::Domain", "codeartifact", _create_domain, _delete_domain, _update_domain, _read_domain,
        calls_of(
            "codeartifact",
            [
                "CreateDomain", "DeleteDomain", "DescribeDomain", "PutDomainPermissionsPolicy",
                "DeleteDomainPermissionsPolicy", *_TAGGING,
            ],
        ),
        mark=lambda r: str(r.thing.attributes["Arn"]), named="DomainName",
    ),
    Type(
        "AWS::CodeArtifact::Repository", "codeartifact", _create_repository, _delete_repository, _update_repository,
        _read_repository,
        calls_of(
            "codeartifact",
            [
                "CreateRepository", "UpdateRepository", "DeleteRepository", "DescribeRepository",
                "AssociateExternalConnection", "DisassociateExternalConnection", "PutRepositoryPermissionsPolicy",
                "DeleteRepositoryPermissionsPolicy", *_TAGGING,
            ],
        ),
        mark=lambda r: str(r.thing.attributes["Arn"]), named="RepositoryName",
    ),
    Type(
        "AWS::CodeArtifact::PackageGroup", "codeartifact", _create_group, _delete_group, _update_group, _read_group,
        calls_of(
            "codeartifact",
            [
                "CreatePackageGroup", "UpdatePackageGroup", "UpdatePackageGroupOriginConfiguration", "DeletePackageGroup",
                "DescribePackageGroup", *_TAGGING,
            ],
        ),
        mark=lambda r: str(r.thing.attributes["Arn"]),
    ),
)  # fmt: skip
