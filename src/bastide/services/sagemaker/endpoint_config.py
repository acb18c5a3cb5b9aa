"""Endpoint configurations: which models, on what, under which key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bastide.domain import Refused
from bastide.engines.placement import Placement
from bastide.kernel import Ask, Asked, Authorised, Kind, Output, regular, tags_of
from bastide.kernel.kind import Given
from bastide.services.sagemaker.asking import keys, otherwise, passing, several, tagging, unsupported
from bastide.services.sagemaker.model import MODEL
from bastide.store import Transaction

ENDPOINT_CONFIG = Kind(
    "EndpointConfig",
    service="sagemaker",
    arn="endpoint-config/{}",
    missing=("ValidationException", 'Could not find endpoint configuration "{arn}".', 400),
    taken=("ValidationException", 'Cannot create already existing endpoint configuration "{arn}".', 400),
)

_UNSUPPORTED: Final = (
    "DataCaptureConfig.EnableCapture",
    "AsyncInferenceConfig",
    "ExplainerConfig",
    "ShadowProductionVariants",
    "ExecutionRoleArn",
    "VpcConfig",
    "CrossRegionTrafficConfig",
)
_UNSUPPORTED_OF_VARIANTS: Final = (
    "AcceleratorType",
    "CoreDumpConfig",
    "ServerlessConfig",
    "EnableSSMAccess",
    "ManagedInstanceScaling",
    "InferenceAmiVersion",
    "InstancePools",
    "CapacityReservationConfig",
    "AcceleratorPartitionLayouts",
)
_MOST_INSTANCES: Final = 4


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
    seen = set()
    variants = []
    for variant in given["ProductionVariants"]:
        name = variant["VariantName"]
        if name in seen:
            raise Refused("ValidationException", f"The variant {name} occurs twice.")
        seen.add(name)
        for member in _UNSUPPORTED_OF_VARIANTS:
            if variant.get(member):
                raise Refused("ValidationException", f"{member} is not supported by Bastide yet.")
        if (variant.get("RoutingConfig") or {}).get("RoutingStrategy", "RANDOM") not in (
            "RANDOM",
            "LEAST_OUTSTANDING_REQUESTS",
        ):
            raise Refused("ValidationException", "This RoutingStrategy is not supported by Bastide yet.")
        if not variant.get("ModelName") or not variant.get("InstanceType"):
            raise Refused("ValidationException", f"ModelName and InstanceType are needed (variant {name}).")
        MODEL.find(tx, a.account, a.region, variant["ModelName"])
        a.engine(Placement).grant(variant["InstanceType"], here=True)
        if variant.get("InitialInstanceCount", 1) > _MOST_INSTANCES:
            raise Refused(
                "ResourceLimitExceeded", f"A variant has at most {_MOST_INSTANCES} instances on this platform."
            )
        variants.append({"InitialInstanceCount": 1, "InitialVariantWeight": 1.0, **variant})
    name = given["EndpointConfigName"]
    doc = {key: value for key, value in given.items() if key not in ("Tags", "EndpointConfigName")}
    doc["ProductionVariants"] = variants
    ENDPOINT_CONFIG.create(a, tx, name, doc, tags=tags_of(a))
    return {"EndpointConfigArn": ENDPOINT_CONFIG.arn(a.account, a.region, name)}


regular(ENDPOINT_CONFIG, "Describe", "List", "Delete", descending=True)
