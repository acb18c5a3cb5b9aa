"""What a function is configured with: checked, kept, shown.

Source: AWS Lambda API Reference, CreateFunction, FunctionConfiguration; Lambda Developer Guide, "Lambda quotas".
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Final

from bastide.domain import Arn, Refused
from bastide.kernel import Asked, Authorised, Calls, Output
from bastide.services.lambda_ import image, network, session, variables
from bastide.services.lambda_.code import MOST_UNZIPPED, Code
from bastide.services.lambda_.image import Image
from bastide.services.lambda_.noun import (
    FUNCTION,
    LATEST,
    LAYER_VERSION,
    Named,
    archives,
    invalid,
    is_number,
    told_time,
    version_key,
)
from bastide.store import Row, Transaction, View

RUNTIMES: Final = ("python3.9", "python3.10", "python3.11", "python3.12", "python3.13")
"""All of them are the Python that Bastide runs with; what a function asked for, its variables and paths say."""
_SUBNET: Final = "ec2:Subnet"
_MOST_LAYERS: Final = 5
_MOST: Final = {"Timeout": 900, "MemorySize": 10_240}
_TARGETS: Final = ("sqs", "sns")
_LAYER: Final = re.compile(r"arn:aws:lambda:([a-z0-9-]+):([0-9]{12}):layer:([a-zA-Z0-9_-]{1,140}):([0-9]{1,10})")
_GROUP: Final = re.compile(r"[.\-_/#A-Za-z0-9]{1,512}")
_UNSUPPORTED: Final = (
    "FileSystemConfigs", "CodeSigningConfigArn", "TenancyConfig", "CapacityProviderConfig",
    "DurableConfig", "RuntimeConfig", "AcceleratorConfig", "PublishTo",
)  # fmt: skip
_SHOWN: Final = (
    "Runtime", "Role", "Handler", "CodeSize", "Description", "Timeout", "MemorySize", "LastModified", "CodeSha256",
    "Version", "VpcConfig", "DeadLetterConfig", "KMSKeyArn", "TracingConfig", "RevisionId", "Layers", "State",
    "StateReason", "StateReasonCode", "LastUpdateStatus", "PackageType", "Architectures", "EphemeralStorage",
    "SnapStart", "LoggingConfig",
)  # fmt: skip


def vpc_ids(asked: Asked) -> list[str] | None:
    """The VPCs that the subnets of a request lie in."""
    found = []
    for subnet in (asked.input.get("VpcConfig") or {}).get("SubnetIds") or ():
        row = asked.view.get(_SUBNET, asked.call.account, asked.call.region, str(subnet))
        if row is not None:
            found.append(str(row.doc["VpcId"]))
    return sorted(set(found)) or None


def layer_arns(asked: Asked) -> Iterable[str]:
    """The versions of layers that a request names."""
    return [str(one) for one in asked.input.get("Layers") or ()]


def unsupported(given: Mapping[str, Any]) -> None:
    """Raises Refused for members without effect here."""
    for member in _UNSUPPORTED:
        if given.get(member):
            raise invalid(f"{member} is not supported by Bastide yet.")
    if (given.get("TracingConfig") or {}).get("Mode") == "Active":
        raise invalid("TracingConfig Active is not supported by Bastide: there is no X-Ray.")
    if (given.get("SnapStart") or {}).get("ApplyOn") not in (None, "None"):
        raise invalid("SnapStart is not supported by Bastide yet.")
    if (given.get("VpcConfig") or {}).get("Ipv6AllowedForDualStack"):
        raise invalid("Ipv6AllowedForDualStack is not supported by Bastide yet.")
    if given.get("Architectures") not in (None, [], ["x86_64"]):
        raise invalid("Architectures: functions run on x86_64 here.")


async def check(calls: Calls, given: Mapping[str, Any], what: Named, role: str) -> None:
    """Raises Refused, before a function is taken, for a role that Lambda cannot assume and a network that is not there."""
    where = {"account": what.account, "region": what.region}
    if f":{what.account}:" not in role:
        raise Refused("AccessDeniedException", "Cross-account pass role is not allowed.", 403)
    held = session.RoleSession(calls, role, what.name, source_arn=what.function, **where)
    await held.caller()
    if network.wanted(given.get("VpcConfig")):
        await network.check(held, given["VpcConfig"])


def changed(a: Authorised, tx: Transaction, what: Named, doc: dict[str, Any], given: Mapping[str, Any]) -> None:
    """Puts what a request gives into a configuration; raises Refused for what cannot be."""
    if doc["PackageType"] == "Image":
        if any(given.get(member) for member in ("Handler", "Runtime", "Layers")):
            raise invalid(
                "Please don't provide Handler or Runtime or Layer when the intended function PackageType is Image."
            )
        if given.get("ImageConfig") is not None:
            doc["_config"] = image.configured(given["ImageConfig"])
    elif given.get("ImageConfig"):
        raise invalid("Please do not provide ImageConfig when the intended function PackageType is Zip.")
    for member, most in _MOST.items():
        if int(given.get(member) or 0) > most:
            raise Refused(
                "ValidationException",
                f"1 validation error detected: Value '{given[member]}' at '{member[0].lower()}{member[1:]}' failed to "
                f"satisfy constraint: Member must have value less than or equal to {most}",
            )
    for member in ("Role", "Handler", "Description", "Timeout", "MemorySize"):
        if given.get(member) is not None:
            doc[member] = given[member]
    if given.get("Runtime"):
        if given["Runtime"] not in RUNTIMES:
            raise invalid(
                f"The runtime parameter of {given['Runtime']} is not supported by Bastide for creating or updating AWS "
                f"Lambda functions. It brings {', '.join(RUNTIMES)}."
            )
        doc["Runtime"] = given["Runtime"]
    if given.get("VpcConfig") is not None:
        doc["VpcConfig"] = _vpc(tx, what, given["VpcConfig"])
    if given.get("DeadLetterConfig") is not None:
        doc["DeadLetterConfig"] = _dead_letters(given["DeadLetterConfig"])
    if given.get("TracingConfig"):
        doc["TracingConfig"] = {"Mode": given["TracingConfig"].get("Mode") or "PassThrough"}
    if given.get("EphemeralStorage"):
        doc["EphemeralStorage"] = {"Size": int(given["EphemeralStorage"]["Size"])}
    if given.get("LoggingConfig") is not None:
        doc["LoggingConfig"] = _logging(given["LoggingConfig"], what.name)
    if given.get("Layers") is not None:
        doc["Layers"] = _layers(tx, what, given["Layers"])
        _fits(doc)
    _variables(a, tx, what, doc, given)


def _variables(a: Authorised, tx: Transaction, what: Named, doc: dict[str, Any], given: Mapping[str, Any]) -> None:
    if given.get("Environment") is None and given.get("KMSKeyArn") is None and given.get("Role") is None:
        return
    key = str(given["KMSKeyArn"] if given.get("KMSKeyArn") is not None else doc.get("KMSKeyArn") or "")
    held = doc.get("_variables")
    if given.get("Environment") is not None:
        found = {str(name): str(value) for name, value in (given["Environment"].get("Variables") or {}).items()}
        variables.check(found)
    elif held is not None and (given.get("KMSKeyArn") is not None or held.get("key")):
        # Under another key, or for another role: whoever changes that may see them.
        found = variables.opened(a, tx, what.function, held)
    else:
        found = {}
        if held is not None:
            return
    if found:
        doc["_variables"] = variables.sealed(a, tx, what.function, str(doc["Role"]), key, found)
    else:
        doc.pop("_variables", None)
    if key:
        doc["KMSKeyArn"] = key
    else:
        doc.pop("KMSKeyArn", None)


def _vpc(view: View, what: Named, given: Mapping[str, Any]) -> dict[str, Any]:
    subnets, groups = list(given.get("SubnetIds") or ()), list(given.get("SecurityGroupIds") or ())
    if bool(subnets) != bool(groups):
        raise invalid("VpcConfig: SubnetIds and SecurityGroupIds belong together.")
    if not subnets:
        return {"SubnetIds": [], "SecurityGroupIds": [], "VpcId": ""}
    row = view.get(_SUBNET, what.account, what.region, subnets[0])
    return {"SubnetIds": subnets, "SecurityGroupIds": groups, "VpcId": row.doc["VpcId"] if row is not None else ""}


def _dead_letters(given: Mapping[str, Any]) -> dict[str, Any]:
    target = given.get("TargetArn")
    if not target:
        return {}
    if Arn.parse(target).service not in _TARGETS:
        raise invalid(f"The provided target {target} is neither a queue of SQS nor a topic of SNS.")
    return {"TargetArn": target}


def _logging(given: Mapping[str, Any], name: str) -> dict[str, Any]:
    form, level = given.get("LogFormat") or "Text", given.get("ApplicationLogLevel")
    if given.get("SystemLogLevel") not in (None, "INFO"):
        raise invalid("LoggingConfig: SystemLogLevel is INFO; other levels are not supported by Bastide yet.")
    if level and form != "JSON":
        raise invalid("LoggingConfig: ApplicationLogLevel belongs to the LogFormat JSON.")
    group = str(given.get("LogGroup") or f"/aws/lambda/{name}")
    if not _GROUP.fullmatch(group) or group.startswith("aws/"):
        raise invalid("LoggingConfig: LogGroup is the name of a log group.")
    found = {"LogFormat": form, "LogGroup": group}
    return found | {"ApplicationLogLevel": level or "INFO", "SystemLogLevel": "INFO"} if form == "JSON" else found


def layer_version(view: View, arn: str) -> Row | None:
    """The version of a layer that an ARN names."""
    match = _LAYER.fullmatch(arn)
    if match is None:
        return None
    region, account, name, number = match.groups()
    return view.get(LAYER_VERSION, account, region, version_key(name, number))


def _layers(view: View, what: Named, given: Iterable[str]) -> list[dict[str, Any]]:
    """The versions of layers that a function is to have, with their archives: they stay though a layer is deleted."""
    found: list[dict[str, Any]] = []
    names: set[str] = set()
    for arn in given:
        row = layer_version(view, str(arn))
        if row is None or row.region != what.region:
            raise invalid(f"Layer version {arn} does not exist.")
        if row.name.partition(":")[0] in names:
            raise invalid(f"Two different versions of the same layer are not allowed to be referenced in the same "
                          f"function. {arn} and another version.")  # fmt: skip
        names.add(row.name.partition(":")[0])
        found.append({"Arn": str(arn), "CodeSize": row.doc["CodeSize"], "_code": row.doc["_code"]})
    if len(found) > _MOST_LAYERS:
        raise invalid(f"Cannot reference more than {_MOST_LAYERS} layers.")
    return found


def _fits(doc: Mapping[str, Any]) -> None:
    unzipped = sum(int(one["unzipped"]) for one in archives(doc))
    if unzipped > MOST_UNZIPPED:
        raise invalid(
            f"Function code combined with layers exceeds the maximum allowed size of {MOST_UNZIPPED} bytes. The actual "
            f"size is {unzipped} bytes."
        )


def with_code(doc: dict[str, Any], code: Code) -> None:
    """Puts an archive into a configuration."""
    doc["_code"] = code.kept()
    doc["CodeSha256"], doc["CodeSize"] = code.sha256, code.size
    _fits(doc)


def with_image(doc: dict[str, Any], found: Image) -> None:
    """Puts an image into a configuration."""
    doc["_image"] = found.kept() | {"resolved": found.resolved}
    doc["CodeSha256"], doc["CodeSize"] = found.digest.removeprefix("sha256:"), 0


def touch(a: Authorised, doc: dict[str, Any], *, built: bool = True) -> None:
    """Marks a configuration as changed now; built: what is warm is of another one."""
    doc["RevisionId"] = str(uuid.uuid4())
    doc["LastModified"] = told_time(a.now)
    if built:
        doc["_build"] = uuid.uuid4().hex


def founded(a: Authorised, given: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A new function's configuration, of what it need not say."""
    kind = given.get("PackageType") or "Zip"
    if kind == "Zip" and (not given.get("Handler") or not given.get("Runtime")):
        raise invalid("Runtime and Handler are mandatory parameters for functions created with deployment packages.")
    return {
        "Description": "",
        "Timeout": 3,
        "MemorySize": 128,
        "Version": LATEST,
        "PackageType": kind,
        "TracingConfig": {"Mode": "PassThrough"},
        "Architectures": ["x86_64"],
        "EphemeralStorage": {"Size": 512},
        "SnapStart": {"ApplyOn": "None", "OptimizationStatus": "Off"},
        "LoggingConfig": {"LogFormat": "Text", "LogGroup": f"/aws/lambda/{name}"},
        "StateReason": "The function is being created.",
        "StateReasonCode": "Creating",
        "_next": 1,
    }


def shown(a: Authorised, view: View, row: Row, doc: Mapping[str, Any], arn: str) -> Output:
    """A configuration as AWS shows it; row: the function's; arn: as it was asked for."""
    told: Output = {"FunctionName": row.name, "FunctionArn": arn}
    told |= {member: doc[member] for member in _SHOWN if doc.get(member) not in (None, {})}
    if doc.get("Layers"):
        told["Layers"] = [{"Arn": one["Arn"], "CodeSize": one["CodeSize"]} for one in doc["Layers"]]
    if doc.get("_config"):
        told["ImageConfigResponse"] = {"ImageConfig": doc["_config"]}
    told["State"] = row.status if doc["Version"] == LATEST else "Active"
    if told["State"] == "Active":
        told.pop("StateReason", None)
        told.pop("StateReasonCode", None)
    if row.status != "Pending":  # until a new function is there, nothing of it was updated
        told.setdefault("LastUpdateStatus", "Successful")
    function = FUNCTION.arn(row.account, row.region, row.name)
    environment = variables.shown(a, view, function, doc.get("_variables"))
    if environment is not None:
        told["Environment"] = environment
    return told


def settled(row: Row) -> None:
    """Raises ResourceConflictException while a function is being made or changed."""
    if row.status == "Pending" or row.doc.get("LastUpdateStatus") == "InProgress":
        doing = "creation" if row.status == "Pending" else "update"
        arn = FUNCTION.arn(row.account, row.region, row.name)
        raise Refused(
            "ResourceConflictException",
            f"The operation cannot be performed at this time. An {doing} is in progress for resource: {arn}",
            409,
        )


def qualified(function: str, qualifier: str) -> str:
    """An ARN with a qualifier, if there is one."""
    return f"{function}:{qualifier}" if qualifier else function


__all__ = [
    "RUNTIMES", "changed", "check", "founded", "is_number", "layer_arns", "layer_version", "qualified", "settled", "shown",
    "touch", "unsupported", "vpc_ids", "with_code", "with_image",
]  # fmt: skip
