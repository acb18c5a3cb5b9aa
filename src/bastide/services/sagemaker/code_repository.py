"""Git repositories under a name, for notebook instances. Source: Amazon SageMaker API Reference; developer guide, "Git
repositories with SageMaker AI notebook instances"."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from bastide.domain import Refused
from bastide.kernel import Ask, Authorised, Kind, Output, regular, tags_of
from bastide.services.sagemaker.asking import tagging
from bastide.store import Transaction, View

CODE_REPOSITORY = Kind(
    "CodeRepository",
    service="sagemaker",
    arn="code-repository/{}",
    missing=("ValidationException", "Could not find the code repository {name}.", 400),
    taken=("ValidationException", "The code repository {name} exists already.", 400),
)
_CODECOMMIT: Final = re.compile(r"git-codecommit\.([a-z0-9-]+)\.amazonaws\.com")


@dataclass(frozen=True, slots=True)
class Cloned:
    """A repository to be cloned. secret: the ARN of the secret with its user name and password, if it has one. folder: its
    name. codecommit: the region of a CodeCommit repository."""

    url: str
    branch: str
    secret: str
    folder: str
    host: str
    codecommit: str


def _checked(url: str) -> str:
    parts = urlsplit(url)
    if (
        parts.scheme != "https"
        or parts.username is not None
        or parts.query
        or parts.fragment
        or not parts.path.strip("/")
    ):
        raise Refused("ValidationException", f"`{url[:200]}` is not the HTTPS address of a repository.")
    return url


def cloned(view: View, account: str, region: str, named: str) -> Cloned:
    """What a name of a code repository, or a URL, means; raises Refused."""
    config: dict[str, Any] = {"RepositoryUrl": named}
    if not named.startswith("https://"):
        config = CODE_REPOSITORY.find(view, account, region, named).doc["GitConfig"]
    url = _checked(config["RepositoryUrl"])
    parts = urlsplit(url)
    folder = parts.path.rstrip("/").rpartition("/")[2].removesuffix(".git")
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", folder) or folder.strip(".") == "":
        raise Refused("ValidationException", f"The last part of `{url[:200]}` cannot be the name of a folder.")
    found = _CODECOMMIT.fullmatch(parts.netloc)
    return Cloned(
        url, config.get("Branch") or "", config.get("SecretArn") or "", folder, parts.netloc, found[1] if found else ""
    )


@CODE_REPOSITORY.operation(
    "CreateCodeRepository",
    asks=[
        Ask("sagemaker:CreateCodeRepository", CODE_REPOSITORY.this),
        tagging(CODE_REPOSITORY, "CreateCodeRepository"),
    ],
)
def create(a: Authorised, tx: Transaction) -> Output:
    name = a.input["CodeRepositoryName"]
    _checked(a.input["GitConfig"]["RepositoryUrl"])
    CODE_REPOSITORY.create(a, tx, name, {"GitConfig": a.input["GitConfig"]}, tags=tags_of(a))
    return {"CodeRepositoryArn": CODE_REPOSITORY.arn(a.account, a.region, name)}


@CODE_REPOSITORY.operation("UpdateCodeRepository", asks=[Ask("sagemaker:UpdateCodeRepository", CODE_REPOSITORY.this)])
def update(a: Authorised, tx: Transaction) -> Output:
    row = CODE_REPOSITORY.named(a, tx)
    secret = (a.input.get("GitConfig") or {}).get("SecretArn")
    if secret:
        row.doc["GitConfig"] = {**row.doc["GitConfig"], "SecretArn": secret}
    CODE_REPOSITORY.change(tx, row, a.operation.name, a.request.id)
    return {"CodeRepositoryArn": CODE_REPOSITORY.arn(row.account, row.region, row.name)}


regular(CODE_REPOSITORY, "Describe", "Delete")
regular(CODE_REPOSITORY, "List", descending=True, plural="CodeRepositories")
