"""The nouns of CodeArtifact, and what a call is about.

Everything is kept below the account that owns the domain. A repository belongs to the account that made it, its
administrator, which is another one where the domain's policy lets it.
Source: AWS CodeArtifact User Guide and API Reference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote, unquote

from packaging.version import InvalidVersion, Version

from bastide.domain import Arn, Refused, tag_map
from bastide.kernel import Asked, Authorised, Facts, Kind, Output
from bastide.policy import Attached, Document, Form
from bastide.store import Row, View

PRINCIPAL: Final = "codeartifact.amazonaws.com"
DOMAIN: Final = Kind("Domain", service="codeartifact", arn="domain/{}", named_by="domain")
REPOSITORY: Final = Kind("Repository", service="codeartifact", arn="repository/{}", named_by="repository")
"""Rows ``DOMAIN/REPOSITORY``."""
GROUP: Final = Kind("PackageGroup", service="codeartifact", arn="package-group/{}", named_by="packageGroup")
"""Rows ``DOMAIN`` and the pattern as its ARN has it."""
PACKAGE: Final = Kind("Package", service="codeartifact", arn="package/{}", named_by="package", tags=False)
"""Rows ``DOMAIN/REPOSITORY/FORMAT/NAMESPACE/NAME``, as the ARN says it; the namespace is empty where there is none."""
VERSION: Final = Kind("PackageVersion", service="codeartifact", arn="package-version/{}", tags=False)
"""Rows of the package's name, a slash and the version."""
CONTENT: Final = Kind("PackageContent", service="codeartifact", arn="package-content/{}", tags=False, history=False)
"""Rows ``DOMAIN/SHA256``: bytes that assets of the domain have, kept once, with how many name them."""
HOLDER: Final = "codeartifact:Holder"
"""Rows of no account, ``ACCOUNT|REGION``: where there are domains."""
READER: Final = Kind("RepositoryRead", service="codeartifact", arn="repository-read/{}", tags=False, history=False)
"""Not a noun: what reading over the endpoint hangs on."""

FORMATS: Final = ("pypi", "generic")
PUBLIC: Final = "public:pypi"
"""The external connection to the public index of Python packages; every other one is to a conda channel."""
MOST_AT_ONCE: Final = 1000
_MOST_TAGS: Final = 200


# -- refusals ------------------------------------------------------------------------------------------------------------


def invalid(message: str) -> Refused:
    """ValidationException."""
    return Refused("ValidationException", message, members={"reason": "OTHER"})


def missing(what: str, name: str, message: str) -> Refused:
    """ResourceNotFoundException. what: domain, repository, package, package-version, asset."""
    return Refused("ResourceNotFoundException", message, 404, members={"resourceId": name, "resourceType": what})


def conflict(what: str, name: str, message: str) -> Refused:
    """ConflictException."""
    return Refused("ConflictException", message, 409, members={"resourceId": name, "resourceType": what})


# -- what a call is about ------------------------------------------------------------------------------------------------


def owner(asked: Asked | Authorised) -> str:
    """The account that owns the domain; the caller's own if the call names none."""
    account = asked.call.account
    return str(asked.input.get("domainOwner") or account)


def this_domain(asked: Asked) -> Iterable[str]:
    """The ARN of the domain that the call names."""
    return (DOMAIN.arn(owner(asked), asked.call.region, str(asked.input["domain"])),)


def this_repository(asked: Asked) -> Iterable[str]:
    """The ARN of the repository that the call names."""
    return (repository_arn(asked, str(asked.input["repository"])),)


def repository_arn(asked: Asked, name: str) -> str:
    """The ARN of a repository of the call's domain."""
    return REPOSITORY.arn(owner(asked), asked.call.region, f"{asked.input['domain']}/{name}")


def this_package(asked: Asked) -> Iterable[str]:
    """The ARN of the package that the call names."""
    return (package_arn(asked, str(asked.input["repository"])),)


def package_arn(asked: Asked, repository: str) -> str:
    """The ARN of the call's package in a repository."""
    return PACKAGE.arn(owner(asked), asked.call.region, package_name(asked.input, repository))


def package_name(given: Mapping[str, Any], repository: str) -> str:
    """How the row of a package is named, from a call's input."""
    name, format = str(given["package"]), str(given["format"])
    if format == "pypi":
        name = normal(name)
    return f"{given['domain']}/{repository}/{format}/{given.get('namespace') or ''}/{name}"


def normal(name: str) -> str:
    """A Python project's name as it is compared (PEP 503)."""
    found = "".join("-" if char in "-_." else char for char in name.lower())
    while "--" in found:
        found = found.replace("--", "-")
    return found


def group_name(domain: str, pattern: str) -> str:
    """How the row of a package group is named."""
    return f"{domain}{quote(pattern, safe='/')}"


def group_pattern(row: Row) -> str:
    """The pattern of a group's row."""
    return unquote(row.name[row.name.index("/") :])


def this_group(asked: Asked) -> Iterable[str]:
    """The ARN of the package group that the call names."""
    name = group_name(str(asked.input["domain"]), str(asked.input["packageGroup"]))
    return (GROUP.arn(owner(asked), asked.call.region, name),)


# -- finding -------------------------------------------------------------------------------------------------------------


def find_domain(view: View, account: str, region: str, name: str) -> Row:
    """A domain; raises ResourceNotFoundException."""
    row = DOMAIN.get(view, account, region, name)
    if row is None:
        raise missing("domain", name, f"Domain not found. domainName: {name}, domainOwner: {account}")
    return row


def domain_of(a: Authorised, view: View) -> Row:
    """The domain that the call names."""
    return find_domain(view, owner(a), a.region, str(a.input["domain"]))


def find_repository(view: View, domain: Row, name: str) -> Row:
    """A repository of a domain; raises ResourceNotFoundException."""
    row = REPOSITORY.get(view, domain.account, domain.region, f"{domain.name}/{name}")
    if row is None:
        raise missing(
            "repository", name,
            f"Repository not found. domainName: {domain.name}, domainOwner: {domain.account}, repositoryName: {name}",
        )  # fmt: skip
    return row


def repository_of(a: Authorised, view: View) -> Row:
    """The repository that the call names."""
    return find_repository(view, domain_of(a, view), str(a.input["repository"]))


def name_of(repository: Row) -> str:
    """A repository's name, without the domain's."""
    return repository.name.partition("/")[2]


def supported(format: str) -> None:
    """Raises ValidationException for a format that repositories here do not hold."""
    if format not in FORMATS:
        raise invalid(f"Repositories of Bastide hold packages of the formats pypi and generic, not {format}.")


def package_of(a: Authorised, view: View, repository: Row) -> Row:
    """The package that the call names; raises ResourceNotFoundException."""
    supported(str(a.input["format"]))
    row = PACKAGE.get(view, repository.account, repository.region, package_name(a.input, name_of(repository)))
    if row is None:
        raise missing(
            "package", str(a.input["package"]),
            f"Package not found. repositoryName: {name_of(repository)}, packageFormat: {a.input['format']}, "
            f"package: {a.input['package']}",
        )  # fmt: skip
    return row


def canonical(format: str, version: str) -> str:
    """A version as rows are named by it: of Python packages in its normal form (PEP 440), if it has one."""
    if format != "pypi":
        return version
    try:
        return str(Version(version))
    except InvalidVersion:
        return version


def find_version(view: View, package: Row, version: str) -> Row:
    """A version of a package; raises ResourceNotFoundException."""
    format = package.name.split("/")[2]
    row = VERSION.get(view, package.account, package.region, f"{package.name}/{canonical(format, version)}")
    if row is None:
        raise missing(
            "package-version", version,
            f"Package version not found. package: {package.name.rpartition('/')[2]}, version: {version}",
        )  # fmt: skip
    return row


def rows_below(view: View, kind: Kind, domain: Row, prefix: str) -> list[Row]:
    """All rows of a kind whose names begin with a prefix."""
    found: list[Row] = []
    after: str | None = None
    while rows := view.scan(kind.key, domain.account, domain.region, prefix=prefix, after=after, limit=500):
        found += rows
        after = rows[-1].name
    return found


# -- facts ---------------------------------------------------------------------------------------------------------------


def facts(view: View, where: Arn, _: str) -> Facts | None:
    """Whose a resource is, its tags and its policy. A package is its repository's, and so is what may be done to it."""
    kind = {"domain": DOMAIN, "repository": REPOSITORY, "package": REPOSITORY, "package-group": GROUP}.get(where.type)
    if kind is None:
        return None
    name = where.resource.partition("/")[2]
    if where.type == "package":
        name = "/".join(name.split("/")[:2])
    row = kind.get(view, where.account, where.region, name)
    if row is None:
        return Facts(where.account, type=kind.name)
    text = str(row.doc.get("policy") or "")
    policy = Attached(Document.parse_cached(text, Form.RESOURCE), f"policy of {where}") if text else None
    tags = row.tags if where.type != "package" else {}
    account = str(row.doc.get("administrator") or row.account)
    return Facts(account, tags, policy, type=kind.name, text=text, principals=row.doc.get("principals", {}))


# -- tags and pages ------------------------------------------------------------------------------------------------------


def tags_given(given: Any, before: Mapping[str, str]) -> dict[str, str]:
    """Tags with those of the call; raises ValidationException."""
    from_call = [{"Key": one["key"], "Value": one["value"]} for one in given or ()]
    tags = {**before, **tag_map(from_call)}
    if len(tags) > _MOST_TAGS:
        raise Refused("ServiceQuotaExceededException", f"A resource may have {_MOST_TAGS} tags at most.", 402)
    return tags


def shown_tags(row: Row) -> list[dict[str, str]]:
    """Tags as the API writes them."""
    return [{"key": key, "value": value} for key, value in row.tags.items()]


def limit_of(a: Authorised) -> int:
    """How many a page has."""
    return min(int(a.input.get("maxResults") or 100), MOST_AT_ONCE)


def without_none(told: Output) -> Output:
    """An answer without members that say nothing."""
    return {name: value for name, value in told.items() if value is not None}
