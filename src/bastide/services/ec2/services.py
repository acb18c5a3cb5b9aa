"""Which services have VPC endpoints, under which names, and the addresses they have outside of VPCs.

Source: AWS PrivateLink Guide, "AWS services that integrate with AWS PrivateLink".
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

PUBLIC: Final = "198.18.0.0/15"
"""Stands for the internet's addresses of services, in the DNS of VPCs alone. No VPC may overlap it, and nothing answers
there but what a route leads to. Source: RFC 2544, a range that no network routes."""


@dataclass(frozen=True, slots=True)
class EndpointService:
    """A service that endpoints lead to. services: botocore's names. host: what clients call it by, and further names;
    gateway: it is a route's target and no interface."""

    name: str
    services: frozenset[str]
    hosts: tuple[str, ...]
    gateway: bool = False

    @property
    def id(self) -> str:
        """``vpce-svc-`` and 17 digits, always the same for the same service."""
        return f"vpce-svc-0{hashlib.sha256(self.name.encode()).hexdigest()[:16]}"

    @property
    def base(self) -> str:
        """What endpoint-specific names end in."""
        host = self.hosts[0].removeprefix("*.").removesuffix(".amazonaws.com")
        region = self.name.split(".")[2] if self.name.count(".") > 2 else "us-east-1"
        return f"{host}.vpce.amazonaws.com" if host.endswith(region) else f"{host}.{region}.vpce.amazonaws.com"


_INTERFACES: Final = (
    # behind com.amazonaws.REGION., botocore's names, before .REGION.amazonaws.com
    ("access-analyzer", ("accessanalyzer",), "access-analyzer"),
    ("application-autoscaling", ("application-autoscaling",), "application-autoscaling"),
    ("cloudformation", ("cloudformation",), "cloudformation"),
    ("cloudtrail", ("cloudtrail",), "cloudtrail"),
    ("codeartifact.api", ("codeartifact",), "codeartifact"),
    ("codeartifact.repositories", ("codeartifact",), "*.d.codeartifact"),
    ("codebuild", ("codebuild",), "codebuild"),
    ("codecommit", ("codecommit",), "codecommit"),
    ("codepipeline", ("codepipeline",), "codepipeline"),
    ("ec2", ("ec2",), "ec2"),
    ("ecr.api", ("ecr",), "api.ecr"),
    ("ecr.dkr", ("ecr",), "*.dkr.ecr"),
    ("events", ("events",), "events"),
    ("execute-api", ("execute-api",), "*.execute-api"),
    ("git-codecommit", ("codecommit",), "git-codecommit"),
    ("kinesis-firehose", ("firehose",), "firehose"),
    ("kms", ("kms",), "kms"),
    ("lambda", ("lambda",), "lambda"),
    ("logs", ("logs",), "logs"),
    ("monitoring", ("cloudwatch",), "monitoring"),
    ("ram", ("ram",), "ram"),
    ("sagemaker.api", ("sagemaker",), "api.sagemaker"),
    ("sagemaker.featurestore-runtime", ("sagemaker-featurestore-runtime",), "featurestore-runtime.sagemaker"),
    ("sagemaker.metrics", ("sagemaker-metrics",), "metrics.sagemaker"),
    ("sagemaker.runtime", ("sagemaker-runtime",), "runtime.sagemaker"),
    ("scheduler", ("scheduler",), "scheduler"),
    ("secretsmanager", ("secretsmanager",), "secretsmanager"),
    ("servicecatalog", ("servicecatalog",), "servicecatalog"),
    ("sns", ("sns",), "sns"),
    ("sqs", ("sqs",), "sqs"),
    ("ssm", ("ssm",), "ssm"),
    ("states", ("stepfunctions",), "states"),
    ("sts", ("sts",), "sts"),
)
_GLOBAL: Final = "us-east-1"
"""Where services without regions have their endpoints."""
_REGIONS: Final = 256


@lru_cache(64)
def _of(region: str) -> tuple[EndpointService, ...]:
    found = [
        EndpointService(f"com.amazonaws.{region}.{name}", frozenset(services), (f"{host}.{region}.amazonaws.com",))
        for name, services, host in _INTERFACES
    ]
    s3 = f"s3.{region}.amazonaws.com"
    hosts = [s3, f"*.{s3}"]
    if region == _GLOBAL:
        hosts += ["s3.amazonaws.com", "*.s3.amazonaws.com"]
        found.append(EndpointService("com.amazonaws.iam", frozenset({"iam"}), ("iam.amazonaws.com",)))
        found.append(
            EndpointService(
                "com.amazonaws.us-east-1.organizations",
                frozenset({"organizations"}),
                ("organizations.us-east-1.amazonaws.com",),
            )
        )
    name = f"com.amazonaws.{region}.s3"
    found.append(EndpointService(name, frozenset({"s3"}), tuple(hosts), gateway=True))
    found.append(EndpointService(name, frozenset({"s3"}), tuple(hosts)))
    notebooks = (f"*.notebook.{region}.sagemaker.aws",)
    found.append(EndpointService(f"aws.sagemaker.{region}.notebook", frozenset({"sagemaker"}), notebooks))
    return tuple(sorted(found, key=lambda one: (one.name, not one.gateway)))


def endpoint_services(region: str, have: Collection[str]) -> list[EndpointService]:
    """Those of a region that lead to something: `have` are the platform's services."""
    return [one for one in _of(region) if one.services & set(have)]


def find(region: str, name: str, have: Collection[str], kind: str) -> EndpointService | None:
    """One by its name. kind: Gateway or Interface; where a service has no endpoints of that kind, its other."""
    found = [one for one in endpoint_services(region, have) if one.name == name]
    return next((one for one in found if one.gateway == (kind == "Gateway")), found[0] if found else None)


def _number(text: str, of: int) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) % of


def prefix_list(region: str, service: str) -> tuple[str, str]:
    """Id of a gateway service's prefix list, and the one CIDR in it."""
    name = f"com.amazonaws.{region}.{service}"
    return f"pl-{hashlib.sha256(name.encode()).hexdigest()[:8]}", f"198.19.{_number(name, _REGIONS)}.0/24"


def outside(region: str) -> dict[str, tuple[str, ...]]:
    """The names that services have on the internet, with addresses: they resolve everywhere, and lead somewhere only where
    a route or a private name does."""
    found: dict[str, tuple[str, ...]] = {}
    for one in _of(region):
        if one.gateway:
            address = prefix_list(region, one.name.rpartition(".")[2])[1].replace(".0/24", ".1")
        else:
            address = f"198.18.{_number(one.name, 256)}.{1 + _number(one.name[::-1], 254)}"
        found = {**dict.fromkeys(one.hosts, (address,)), **found}
    found.setdefault("sts.amazonaws.com", ("198.18.0.1",))
    found.setdefault("iam.amazonaws.com", ("198.18.0.2",))
    return found
