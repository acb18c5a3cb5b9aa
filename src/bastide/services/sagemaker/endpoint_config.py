"""Endpoint configurations: which models, on what, under which key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from bastide.domain import Refused
from bastide.engines.placement import Placement
from bastide.kernel import Ask, Asked, Authorised, Kind, Output, regular, tags_of
from bastide.kernel.kind import Given
from bastide.services.sagemaker.asking import keys, otherwise, passing, several, tagging, unsupported
from bastide.services.sagemaker.model import MODEL, MULTI
from bastide.services.sagemaker.objects import split
from bastide.store import Transaction

ENDPOINT_CONFIG = Kind(
    "EndpointConfig",
    service="sagemaker",
    arn="endpoint-config/{}",
    missing=("ValidationException", 'Could not find endpoint configuration "{arn}".', 400),
    taken=("ValidationException", 'Cannot create already existing endpoint configuration "{arn}".', 400),
)

_UNSUPPORTED: Final = (
    "ExplainerConfig",
    "ExecutionRoleArn",
    "VpcConfig",
    "CrossRegionTrafficConfig",
    "MetricsConfig",
)
_UNSUPPORTED_OF_VARIANTS: Final = (
    "AcceleratorType",
    "CoreDumpConfig",
    "EnableSSMAccess",
    "ManagedInstanceScaling",
    "InferenceAmiVersion",
    "InstancePools",
    "VariantInstanceProvisionTimeoutInSeconds",
    "CapacityReservationConfig",
    "AcceleratorPartitionLayouts",
)
MOST_INSTANCES: Final = 4
"""Of a variant, on one machine."""
_MEMORY_STEP: Final = 1024
_MOST_MEMORY: Final = 6144

_VARIANTS: Final = ("ProductionVariants", "ShadowProductionVariants")


def _of_variants(path: str) -> Given:
    return several(*(f"{variants}.{path}" for variants in _VARIANTS))


def _models(asked: Asked) -> Sequence[str]:
    names = _of_variants("ModelName")(asked) or ()
    return [MODEL.arn(asked.call.account, asked.call.region, name) for name in names]


@ENDPOINT_CONFIG.operation(
    "CreateEndpointConfig",
    asks=[
        Ask(
            "sagemaker:CreateEndpointConfig",
            ENDPOINT_CONFIG.this,
            given=keys(
                InstanceTypes=_of_variants("InstanceType"),
                AcceleratorTypes=_of_variants("AcceleratorType"),
                ModelArn=_models,
                VolumeKmsKey="KmsKeyId",
                NetworkIsolation=otherwise("EnableNetworkIsolation", "false"),
                VpcSubnets_="VpcConfig.Subnets",
                VpcSecurityGroupIds_="VpcConfig.SecurityGroupIds",
                ServerlessMaxConcurrency=_of_variants("ServerlessConfig.MaxConcurrency"),
                ServerlessMemorySize=_of_variants("ServerlessConfig.MemorySizeInMB"),
            ),
        ),
        passing(ENDPOINT_CONFIG, "ExecutionRoleArn"),
        tagging(ENDPOINT_CONFIG, "CreateEndpointConfig"),
    ],
)
def create(a: Authorised, tx: Transaction) -> Output:
    given = a.input
    unsupported(a, *_UNSUPPORTED)
    seen: set[str] = set()
    variants = [_variant(a, tx, one, seen) for one in given["ProductionVariants"]]
    shadows = [_variant(a, tx, one, seen) for one in given.get("ShadowProductionVariants") or ()]
    if shadows and (len(shadows) > 1 or len(variants) > 1):
        raise Refused(
            "ValidationException", "A shadow variant stands beside one production variant, and is the only one."
        )
    serverless = [one["VariantName"] for one in (*variants, *shadows) if one.get("ServerlessConfig")]
    if serverless and (shadows or len(variants) > 1):
        raise Refused("ValidationException", f"The serverless variant {serverless[0]} has to be the only variant.")
    if given.get("AsyncInferenceConfig"):
        if serverless or shadows or len(variants) > 1:
            raise Refused("ValidationException", "An asynchronous endpoint has one variant, with instances.")
        _check_async(a, given["AsyncInferenceConfig"])
    if given.get("DataCaptureConfig"):
        split(given["DataCaptureConfig"]["DestinationS3Uri"])
    name = given["EndpointConfigName"]
    doc = {key: value for key, value in given.items() if key not in ("Tags", "EndpointConfigName")}
    doc["ProductionVariants"] = variants
    if shadows:
        doc["ShadowProductionVariants"] = shadows
    ENDPOINT_CONFIG.create(a, tx, name, doc, tags=tags_of(a))
    return {"EndpointConfigArn": ENDPOINT_CONFIG.arn(a.account, a.region, name)}


def _variant(a: Authorised, tx: Transaction, variant: dict[str, Any], seen: set[str]) -> dict[str, Any]:
    """A variant with its defaults; raises Refused for one that could not be served."""
    name = variant["VariantName"]
    if name in seen:
        raise Refused("ValidationException", f"The variant {name} occurs twice.")
    seen.add(name)
    for member in _UNSUPPORTED_OF_VARIANTS:
        if variant.get(member):
            raise Refused("ValidationException", f"{member} is not supported by Bastide yet.")
    # Calls go to the server with the fewest under way, in turn among equals: that is what LEAST_OUTSTANDING_REQUESTS asks
    # for, and RANDOM promises no other.
    strategy = (variant.get("RoutingConfig") or {}).get("RoutingStrategy", "RANDOM")
    if strategy not in ("RANDOM", "LEAST_OUTSTANDING_REQUESTS"):
        raise Refused("ValidationException", f"The RoutingStrategy {strategy} is not supported by Bastide yet.")
    if not variant.get("ModelName"):
        raise Refused("ValidationException", f"ModelName is needed (variant {name}).")
    model = MODEL.find(tx, a.account, a.region, variant["ModelName"])
    serverless = variant.get("ServerlessConfig")
    if serverless:
        for member in ("InstanceType", "InitialInstanceCount", "VolumeSizeInGB"):
            if variant.get(member):
                raise Refused("ValidationException", f"A serverless variant has no {member} (variant {name}).")
        memory, most = serverless["MemorySizeInMB"], serverless["MaxConcurrency"]
        if memory % _MEMORY_STEP or not _MEMORY_STEP <= memory <= _MOST_MEMORY:
            raise Refused(
                "ValidationException",
                f"MemorySizeInMB is a multiple of {_MEMORY_STEP} up to {_MOST_MEMORY}, not {memory}.",
            )
        if serverless.get("ProvisionedConcurrency", 0) > most:
            raise Refused("ValidationException", "ProvisionedConcurrency cannot be more than MaxConcurrency.")
        if any(one.get("Mode") == MULTI for one in model.doc["_resolved"]):
            raise Refused("ValidationException", "A serverless variant serves one model.")
        return {"InitialVariantWeight": 1.0, **variant}
    if not variant.get("InstanceType"):
        raise Refused("ValidationException", f"InstanceType or ServerlessConfig is needed (variant {name}).")
    a.engine(Placement).grant(variant["InstanceType"], here=True)
    check_count(variant.get("InitialInstanceCount", 1))
    return {"InitialInstanceCount": 1, "InitialVariantWeight": 1.0, **variant}


def check_count(count: int) -> None:
    """Raises Refused for more instances of a variant than this platform gives."""
    if count > MOST_INSTANCES:
        raise Refused("ResourceLimitExceeded", f"A variant has at most {MOST_INSTANCES} instances on this platform.")


def _check_async(a: Authorised, config: dict[str, Any]) -> None:
    output = config["OutputConfig"]
    topics = output.get("NotificationConfig") or {}
    if topics.get("IncludeInferenceResponseIn"):
        raise Refused(
            "ValidationException",
            "IncludeInferenceResponseIn is not supported by Bastide: topics are told where it lies.",
        )
    if not output.get("S3OutputPath"):
        raise Refused("ValidationException", "S3OutputPath is needed: the answers are written there.")
    split(output["S3OutputPath"])
    if output.get("S3FailurePath"):
        split(output["S3FailurePath"])


regular(ENDPOINT_CONFIG, "Describe", "List", "Delete", descending=True)
