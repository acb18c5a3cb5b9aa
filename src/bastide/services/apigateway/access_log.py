"""Access logs: a line for each call, as the stage's format says, into a log group, with the account's role.

Source: API Gateway Developer Guide, "Set up CloudWatch logging for REST APIs", "Variables for access logging".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from bastide.domain import MICROS, Refused
from bastide.kernel import Calls
from bastide.services.apigateway.noun import GATEWAY, bad

_GROUP: Final = re.compile(r"arn:aws:logs:([a-z0-9-]+):(\d{12}):log-group:([A-Za-z0-9_/.#-]{1,512}?)(?::\*)?")
_WORD: Final = re.compile(r"\$context\.([A-Za-z.]+)")
KNOWN: Final = frozenset(
    {
        "requestId", "extendedRequestId", "accountId", "apiId", "stage", "httpMethod", "path", "resourcePath", "resourceId",
        "protocol", "requestTime", "requestTimeEpoch", "status", "responseLength", "responseLatency", "domainName",
        "identity.sourceIp", "identity.userAgent", "identity.userArn", "identity.user", "identity.caller",
        "identity.accountId", "error.message", "integration.status", "identity.vpceId",
    }
)  # fmt: skip
_STREAM: Final = "access"


def checked(log: Mapping[str, str], account: str, region: str) -> None:
    """Raises BadRequestException for settings that nothing could be written by."""
    found = _GROUP.fullmatch(log.get("destinationArn") or "")
    if found is None or (found[1], found[2]) != (region, account):
        raise bad("accessLogSettings.destinationArn is the ARN of a log group of this account and Region.")
    words = _WORD.findall(log.get("format") or "")
    if "requestId" not in words and "extendedRequestId" not in words:
        raise bad("accessLogSettings.format has $context.requestId in it, or $context.extendedRequestId.")
    unknown = [one for one in words if one not in KNOWN]
    if unknown:
        raise bad(f"accessLogSettings.format: $context.{unknown[0]} is not known to Bastide.")


def line(format: str, about: Mapping[str, str]) -> str:
    """A call's line; what is not there is ``-``."""
    text = _WORD.sub(lambda found: about.get(found[1]) or "-", format)
    return text.replace("\n", " ").replace("\r", " ")


async def write(
    calls: Calls, log: Mapping[str, str], about: Mapping[str, str], *, role: str, account: str, region: str
) -> None:
    """Writes a line; raises Refused where the account's role may not."""
    found = _GROUP.fullmatch(log["destinationArn"])
    if found is None or not role:
        return
    caller = await calls.assume(GATEWAY, role, "apigateway", account=account, region=region, seconds=900)
    stream = f"{about['apiId']}/{about['stage']}/{_STREAM}"
    named = {"logGroupName": found[3], "logStreamName": stream}
    event = {"timestamp": calls.clock() // (MICROS // 1000), "message": line(log["format"], about)}
    asked = {**named, "logEvents": [event]}
    try:
        await calls.act(caller, "logs", "PutLogEvents", asked, region=region, source=GATEWAY)
    except Refused as refused:
        if refused.code != "ResourceNotFoundException":
            raise
        await calls.act(caller, "logs", "CreateLogStream", named, region=region, source=GATEWAY)
        await calls.act(caller, "logs", "PutLogEvents", asked, region=region, source=GATEWAY)
