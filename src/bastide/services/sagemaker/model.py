"""Models: what an endpoint serves, from images and data of one's own or from registered and approved packages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Ask, Asked, Authorised, Kind, Output, regular, tags_of
from bastide.services.sagemaker import job_network, lineage_record, own_image
from bastide.services.sagemaker.asking import keys, otherwise, passing, tagging
from bastide.services.sagemaker.model_package import MODEL_PACKAGE
from bastide.services.sagemaker.objects import split
from bastide.services.sagemaker.session import RoleSession, check_role
from bastide.store import Transaction

MODEL = Kind(
    "Model",
    service="sagemaker",
    arn="model/{}",
    missing=("ValidationException", 'Could not find model "{arn}".', 400),
    taken=("ValidationException", 'Cannot create already existing model "{arn}".', 400),
)
"""Beside what the API shows a row keeps `_resolved`: each container as it will be served."""

_UNSUPPORTED: Final = (
    "ImageConfig",
    "AdditionalModelDataSources",
    "InferenceSpecificationName",
    "ContainerMetricsConfig",
)
_UNSUPPORTED_OF_DATA: Final = ("ModelAccessConfig", "HubAccessConfig", "ManifestS3Uri", "ManifestEtag")
MULTI: Final = "MultiModel"


def containers(given: dict[str, Any]) -> list[dict[str, Any]]:
    """The containers of a CreateModel request, however it names them."""
    found: list[dict[str, Any]] = list(given.get("Containers") or ())
    if given.get("PrimaryContainer"):
        found.insert(0, given["PrimaryContainer"])
    return found


def packages(asked: Asked) -> list[str]:
    """ARNs of the packages that a CreateModel request names."""
    account, region = asked.call.account, asked.call.region
    named = [str(one["ModelPackageName"]) for one in containers(asked.input) if one.get("ModelPackageName")]
    return [one if one.startswith("arn:") else MODEL_PACKAGE.arn(account, region, one) for one in named]


def _foreign(asked: Asked) -> Iterable[str]:
    """Packages of other accounts: their groups' policies are asked, for the same action as AWS documents it.

    Source: developer guide, "Deploy a model from a different account".
    """
    return [one for one in packages(asked) if one.split(":")[4] != asked.call.account]


_KEYS: Final = {
    **keys(
        NetworkIsolation=otherwise("EnableNetworkIsolation", "false"),
        VpcSubnets_="VpcConfig.Subnets",
        VpcSecurityGroupIds_="VpcConfig.SecurityGroupIds",
    ),
    # Not AWS's: lets a guardrail demand that every model comes from the registry.
    "bastide:ModelPackageArn": packages,
}


async def _before(a: Authorised) -> dict[str, str]:
    """The digests of images of one's own, found with the model's role: a tag that moves later changes no model."""
    pinned: dict[str, str] = {}
    if a.input.get("ExecutionRoleArn"):
        arn = MODEL.arn(a.account, a.region, a.input["ModelName"])
        where = {"account": a.account, "region": a.region, "source_arn": arn}
        await check_role(a.calls, a.input["ExecutionRoleArn"], **where)
        await job_network.check(a.calls, a.input["ExecutionRoleArn"], a.input.get("VpcConfig"), **where)
        session = RoleSession(a.calls, a.input["ExecutionRoleArn"], **where)
        for one in containers(a.input):
            if one.get("Image"):
                pinned[one["Image"]] = await own_image.digest_for_role(session, one["Image"])
    return pinned


@MODEL.operation(
    "CreateModel",
    asks=[
        Ask("sagemaker:CreateModel", MODEL.this, given=_KEYS),
        # The same keys: they are the request's, whichever resource is asked about.
        Ask("sagemaker:CreateModel", _foreign, given=_KEYS),
        passing(MODEL, "ExecutionRoleArn"),
        tagging(MODEL, "CreateModel"),
    ],
    before=_before,
)
def create(a: Authorised, tx: Transaction) -> Output:
    given = a.input
    every = containers(given)
    if not every or (given.get("PrimaryContainer") and given.get("Containers")):
        raise Refused("ValidationException", "Exactly one of PrimaryContainer and Containers is needed.")
    if not given.get("ExecutionRoleArn"):
        raise Refused("ValidationException", "ExecutionRoleArn is needed: Bastide fetches the model with it.")
    name = given["ModelName"]
    doc = {key: value for key, value in given.items() if key not in ("Tags", "ModelName")}
    doc.setdefault("EnableNetworkIsolation", False)
    resolved = [_resolved(a, tx, one) for one in every]
    _named(resolved, direct=(given.get("InferenceExecutionConfig") or {}).get("Mode") == "Direct")
    doc["_resolved"] = resolved
    arn = MODEL.arn(a.account, a.region, name)
    lineage_record.of_model(tx, arn, MODEL.create(a, tx, name, doc, tags=tags_of(a)))
    return {"ModelArn": arn}


def _named(resolved: list[dict[str, Any]], *, direct: bool) -> None:
    """Gives every container its host name, by which it is invoked and errors call it."""
    if len(resolved) == 1 and not direct:
        resolved[0].setdefault("ContainerHostname", "primary")
        return
    seen = set()
    for number, one in enumerate(resolved, 1):
        if one.get("Mode") == MULTI:
            raise Refused("ValidationException", "A multi-model container is not supported by Bastide beside others.")
        if direct and not one.get("ContainerHostname"):
            raise Refused("ValidationException", "ContainerHostname is needed where containers are invoked directly.")
        host = one.setdefault("ContainerHostname", f"container-{number}")
        if host in seen:
            raise Refused("ValidationException", f"The ContainerHostname {host} occurs twice.")
        seen.add(host)


def _resolved(a: Authorised, tx: Transaction, container: dict[str, Any]) -> dict[str, Any]:
    """Image, data and environment as they will be served; of a package as they were registered, and no others."""
    for member in _UNSUPPORTED:
        if container.get(member):
            raise Refused("ValidationException", f"{member} is not supported by Bastide yet.")
    package = container.get("ModelPackageName")
    environment = dict(container.get("Environment") or {})
    if package:
        if container.get("Image") or container.get("ModelDataUrl") or container.get("ModelDataSource"):
            raise Refused("ValidationException", "A container has a ModelPackageName or an Image and data, not both.")
        row = MODEL_PACKAGE.find(tx, *MODEL_PACKAGE.locate(package, a.account, a.region))
        arn = MODEL_PACKAGE.arn(row.account, row.region, row.name)
        if row.doc["ModelApprovalStatus"] != "Approved":
            raise Refused(
                "ValidationException",
                f"Cannot create a model from model package {arn}: its approval status is "
                f"{row.doc['ModelApprovalStatus']}, not Approved.",
            )
        held: list[dict[str, Any]] = (row.doc.get("InferenceSpecification") or {}).get("Containers") or []
        if len(held) != 1:
            raise Refused("ValidationException", f"The model package {arn} has not exactly one container.")
        source = held[0]
        a.touched.append(arn)
        found = {"ModelPackageArn": arn, **source, "Environment": {**(source.get("Environment") or {}), **environment}}
        found |= {key: container[key] for key in ("ContainerHostname", "Mode") if key in container}
    else:
        found = {**container, "Environment": environment}
    if not found.get("Image"):
        raise Refused("ValidationException", "The container has no Image.")
    image = own_image.check(a, tx, found["Image"])
    if image is None:
        found.setdefault("ImageDigest", a.staged.get(found["Image"], ""))
    elif not image.serve:
        raise Refused("ValidationException", f"The image {found['Image']} does not serve: take the one for inference.")
    else:
        found["ImageDigest"] = image.digest
    _check_data(found)
    return found


def _check_data(container: dict[str, Any]) -> None:
    """Raises Refused for data that no server could be given."""
    url, source = container.get("ModelDataUrl"), (container.get("ModelDataSource") or {}).get("S3DataSource")
    if url and source:
        raise Refused("ValidationException", "A container has a ModelDataUrl or a ModelDataSource, not both.")
    if container.get("MultiModelConfig") and container.get("Mode") != MULTI:
        raise Refused("ValidationException", "MultiModelConfig is for containers with the Mode MultiModel.")
    if container.get("Mode") == MULTI:
        if container.get("ModelPackageArn"):
            raise Refused("ValidationException", "A model package is one model; the Mode MultiModel is for several.")
        if not url:
            raise Refused("ValidationException", "ModelDataUrl is needed: the prefix below which the models are.")
    if url:
        split(url)
    if source:
        for member in _UNSUPPORTED_OF_DATA:
            if source.get(member):
                raise Refused("ValidationException", f"{member} is not supported by Bastide yet.")
        _, key = split(source["S3Uri"])
        kind, packing = source["S3DataType"], source["CompressionType"]
        if packing == "Gzip" and kind != "S3Object":
            raise Refused("ValidationException", "S3DataType has to be S3Object where CompressionType is Gzip.")
        if kind == "S3Prefix" and key and not key.endswith("/"):
            raise Refused("ValidationException", f"The S3Uri {source['S3Uri']} of an S3Prefix has to end with a slash.")


regular(MODEL, "Describe", "List", "Delete", descending=True)
