"""S3's and KMS's types."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from bastide.domain import Refused
from bastide.services.cloudformation.resource import Resource, Type
from bastide.services.cloudformation.types.identity import document
from bastide.services.cloudformation.types.regular import Tagging, at, calls_of, regular, retag

# -- buckets -----------------------------------------------------------------------------------------------------------


def _encryption(given: Any) -> dict[str, Any]:
    rules = [
        {
            **(
                {"ApplyServerSideEncryptionByDefault": one["ServerSideEncryptionByDefault"]}
                if "ServerSideEncryptionByDefault" in one
                else {}
            ),
            **({"BucketKeyEnabled": one["BucketKeyEnabled"]} if "BucketKeyEnabled" in one else {}),
        }
        for one in given["ServerSideEncryptionConfiguration"]
    ]
    return {"ServerSideEncryptionConfiguration": {"Rules": rules}}


def _age(rule: dict[str, Any]) -> dict[str, Any]:
    """A lifecycle rule in the API's words."""
    made: dict[str, Any] = {"Status": rule["Status"]}
    if "Id" in rule:
        made["ID"] = rule["Id"]
    tags = [{"Key": one["Key"], "Value": one["Value"]} for one in rule.get("TagFilters") or ()]
    parts: dict[str, Any] = {
        name: rule[name] for name in ("Prefix", "ObjectSizeGreaterThan", "ObjectSizeLessThan") if name in rule
    }
    if len(tags) + len(parts) > 1:
        made["Filter"] = {"And": {**parts, **({"Tags": tags} if tags else {})}}
    elif tags:
        made["Filter"] = {"Tag": tags[0]}
    else:
        made["Filter"] = parts or {"Prefix": ""}
    expiration = {
        member: rule[name]
        for name, member in (
            ("ExpirationInDays", "Days"),
            ("ExpirationDate", "Date"),
            ("ExpiredObjectDeleteMarker", "ExpiredObjectDeleteMarker"),
        )
        if name in rule
    }
    if expiration:
        made["Expiration"] = expiration
    if "NoncurrentVersionExpiration" in rule:
        made["NoncurrentVersionExpiration"] = rule["NoncurrentVersionExpiration"]
    elif "NoncurrentVersionExpirationInDays" in rule:
        made["NoncurrentVersionExpiration"] = {"NoncurrentDays": rule["NoncurrentVersionExpirationInDays"]}
    if "AbortIncompleteMultipartUpload" in rule:
        made["AbortIncompleteMultipartUpload"] = rule["AbortIncompleteMultipartUpload"]
    for name in ("Transition", "Transitions", "NoncurrentVersionTransition", "NoncurrentVersionTransitions"):
        if rule.get(name):
            raise Refused(
                "ValidationError", f"LifecycleConfiguration.Rules.{name}: there are no storage classes to go to."
            )
    return made


def _notifications(given: Any) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for mine, theirs, arn, member in (
        ("LambdaConfigurations", "LambdaFunctionConfigurations", "Function", "LambdaFunctionArn"),
        ("QueueConfigurations", "QueueConfigurations", "Queue", "QueueArn"),
        ("TopicConfigurations", "TopicConfigurations", "Topic", "TopicArn"),
    ):
        found = []
        for one in given.get(mine) or ():
            entry: dict[str, Any] = {member: one[arn], "Events": [one["Event"]]}
            rules = at(one, "Filter.S3Key.Rules")
            if rules:
                entry["Filter"] = {"Key": {"FilterRules": [{"Name": r["Name"], "Value": r["Value"]} for r in rules]}}
            found.append(entry)
        if found:
            made[theirs] = found
    if "EventBridgeConfiguration" in given and at(given, "EventBridgeConfiguration.EventBridgeEnabled") is not False:
        made["EventBridgeConfiguration"] = {}
    return {"NotificationConfiguration": made}


def _cors(given: Any) -> dict[str, Any]:
    words = {"Id": "ID", "MaxAge": "MaxAgeSeconds", "ExposedHeaders": "ExposeHeaders"}
    rules = [{words.get(name, name): value for name, value in one.items()} for one in given["CorsRules"]]
    return {"CORSConfiguration": {"CORSRules": rules}}


_Put = Callable[[Any], dict[str, Any]]
_SETTINGS: Final[tuple[tuple[str, str, _Put, str], ...]] = (
    ("BucketEncryption", "PutBucketEncryption", _encryption, "DeleteBucketEncryption"),
    ("VersioningConfiguration", "PutBucketVersioning", lambda v: {"VersioningConfiguration": v}, ""),
    ("PublicAccessBlockConfiguration", "PutPublicAccessBlock", lambda v: {"PublicAccessBlockConfiguration": v},
    "DeletePublicAccessBlock"),
    ("OwnershipControls", "PutBucketOwnershipControls", lambda v: {"OwnershipControls": v},
    "DeleteBucketOwnershipControls"),
    ("ObjectLockConfiguration", "PutObjectLockConfiguration", lambda v: {"ObjectLockConfiguration": v}, ""),
    ("LifecycleConfiguration", "PutBucketLifecycleConfiguration",
    lambda v: {"LifecycleConfiguration": {"Rules": [_age(one) for one in v["Rules"]]}}, "DeleteBucketLifecycle"),
    ("NotificationConfiguration", "PutBucketNotificationConfiguration", _notifications, ""),
    ("CorsConfiguration", "PutBucketCors", _cors, "DeleteBucketCors"),
)  # fmt: skip
"""A bucket's settings: the property, the operation that puts it, its input, and the operation that takes it away."""
_IGNORED: Final = ("Private", "BucketOwnerRead", "BucketOwnerFullControl")
"""Access control lists that give nobody else anything; the last two S3 ignores for buckets."""
_OWN: Final = {"BucketName", "Tags", "ObjectLockEnabled", "AccessControl", *(one[0] for one in _SETTINGS)}


async def _settings(r: Resource) -> None:
    named = {"Bucket": r.physical}
    lacking = sorted(set(r.properties) - _OWN)
    if lacking:
        raise Refused("ValidationError", f"Bastide's buckets do not have {', '.join(lacking)} yet; leave it out.")
    if r.get("AccessControl") not in (None, *_IGNORED):
        raise Refused(
            "ValidationError",
            "Bucket cannot have ACLs set with ObjectOwnership's BucketOwnerEnforced setting: AccessControl; use a policy.",
        )
    for member, put, shape, away in _SETTINGS:
        if not r.changed(member):
            continue
        value = r.get(member)
        if value is not None:
            await r.do(put, {**named, **shape(value)})
        elif away:
            await r.drop(away, named)
        elif member == "VersioningConfiguration":
            await r.do(put, {**named, member: {"Status": "Suspended"}})
        elif member == "NotificationConfiguration":
            await r.do(put, {**named, member: {}})
    tags = r.tags()
    if tags != [{"Key": one["Key"], "Value": str(one["Value"])} for one in r.old.get("Tags") or ()]:
        if tags:
            await r.do("PutBucketTagging", {**named, "Tagging": {"TagSet": tags}})
        else:
            await r.drop("DeleteBucketTagging", named)


async def _create_bucket(r: Resource) -> None:
    name = r.name(63, lower=True, given=r.get("BucketName"))
    asked: dict[str, Any] = {"Bucket": name}
    if r.stack.region != "us-east-1":
        asked["CreateBucketConfiguration"] = {"LocationConstraint": r.stack.region}
    if r.get("ObjectLockEnabled"):
        asked["ObjectLockEnabledForBucket"] = True
    await r.do("CreateBucket", asked, key="create")
    r.thing.physical = name
    r.thing.attributes = {
        "Arn": f"arn:aws:s3:::{name}",
        "DomainName": f"{name}.s3.amazonaws.com",
        "RegionalDomainName": f"{name}.s3.{r.stack.region}.amazonaws.com",
        "DualStackDomainName": f"{name}.s3.dualstack.{r.stack.region}.amazonaws.com",
        "WebsiteURL": f"http://{name}.s3-website-{r.stack.region}.amazonaws.com",
    }
    await _settings(r)


async def _delete_bucket(r: Resource) -> None:
    await r.drop("DeleteBucket", {"Bucket": r.physical})


async def _read_bucket(r: Resource) -> dict[str, Any] | None:
    named = {"Bucket": r.physical}
    if await r.seen("HeadBucket", named) is None:
        return None
    found: dict[str, Any] = {}
    for member, operation, path in (
        ("PublicAccessBlockConfiguration", "GetPublicAccessBlock", "PublicAccessBlockConfiguration"),
        ("OwnershipControls", "GetBucketOwnershipControls", "OwnershipControls"),
    ):
        if member in r.properties:
            told = await r.seen(operation, named)
            found[member] = at(told, path)
    if "VersioningConfiguration" in r.properties:
        found["VersioningConfiguration"] = {
            "Status": (await r.read("GetBucketVersioning", named)).get("Status", "Suspended")
        }
    return found


async def _put_bucket_policy(r: Resource) -> None:
    await r.do("PutBucketPolicy", {"Bucket": r.get("Bucket"), "Policy": document(r.get("PolicyDocument"))})
    r.thing.physical = str(r.get("Bucket"))


async def _delete_bucket_policy(r: Resource) -> None:
    await r.drop("DeleteBucketPolicy", {"Bucket": r.get("Bucket")})


# -- keys --------------------------------------------------------------------------------------------------------------


async def _create_key(r: Resource) -> None:
    asked = r.only("Description", "KeyUsage", "KeySpec", "Origin", "MultiRegion", "BypassPolicyLockoutSafetyCheck")
    if r.get("KeyPolicy"):
        asked["Policy"] = document(r.get("KeyPolicy"))
    tags = r.tags()
    if tags:
        asked["Tags"] = tags
    made = (await r.do("CreateKey", asked, key="create"))["KeyMetadata"]
    r.thing.physical = made["KeyId"]
    r.thing.attributes = {"Arn": made["Arn"], "KeyId": made["KeyId"]}
    await _key_state(r)


async def _key_state(r: Resource) -> None:
    named = {"KeyId": r.physical}
    if r.changed("EnableKeyRotation", "RotationPeriodInDays"):
        if r.get("EnableKeyRotation"):
            await r.do("EnableKeyRotation", {**named, **r.only("RotationPeriodInDays")})
        elif r.old.get("EnableKeyRotation"):
            await r.do("DisableKeyRotation", named)
    if r.changed("Enabled") and (r.old or r.get("Enabled") is False):
        await r.do("EnableKey" if r.get("Enabled", True) else "DisableKey", named)


async def _update_key(r: Resource) -> None:
    named = {"KeyId": r.physical}
    if r.changed("KeyPolicy") and r.get("KeyPolicy"):
        asked = {**named, "PolicyName": "default", "Policy": document(r.get("KeyPolicy"))}
        await r.do("PutKeyPolicy", {**asked, **r.only("BypassPolicyLockoutSafetyCheck")})
    if r.changed("Description"):
        await r.do("UpdateKeyDescription", {**named, "Description": r.get("Description") or ""})
    await _key_state(r)
    await retag(r, Tagging("TagResource", "UntagResource", "KeyId", "Ref"))


async def _delete_key(r: Resource) -> None:
    held = await r.seen("DescribeKey", {"KeyId": r.physical})
    if held is not None and held["KeyMetadata"]["KeyState"] != "PendingDeletion":
        await r.drop("ScheduleKeyDeletion", {"KeyId": r.physical, **r.only("PendingWindowInDays")})


async def _read_key(r: Resource) -> dict[str, Any] | None:
    held = await r.seen("DescribeKey", {"KeyId": r.physical})
    if held is None or held["KeyMetadata"]["KeyState"] == "PendingDeletion":
        return None
    found = {"Description": held["KeyMetadata"].get("Description", ""), "Enabled": held["KeyMetadata"]["Enabled"]}
    if "EnableKeyRotation" in r.properties:
        found["EnableKeyRotation"] = (await r.read("GetKeyRotationStatus", {"KeyId": r.physical}))["KeyRotationEnabled"]
    return {name: value for name, value in found.items() if name in r.properties}


_s3: Final = [put for _, put, _, _ in _SETTINGS]
_Action = Callable[[Resource], Awaitable[None]]
TYPES: Final = (
    Type(
        "AWS::S3::Bucket", "s3", _create_bucket, _delete_bucket, _settings, _read_bucket,
        calls_of("s3", ["CreateBucket", "DeleteBucket", "PutBucketTagging", *_s3]), named="BucketName",
        replaces=frozenset({"ObjectLockEnabled"}), mark=lambda r: f"arn:aws:s3:::{r.physical}",
    ),
    Type(
        "AWS::S3::BucketPolicy", "s3", _put_bucket_policy, _delete_bucket_policy, _put_bucket_policy, None,
        calls_of("s3", ["PutBucketPolicy", "DeleteBucketPolicy"]),
    ),
    Type(
        "AWS::KMS::Key", "kms", _create_key, _delete_key, _update_key, _read_key,
        calls_of("kms", ["CreateKey", "ScheduleKeyDeletion", "PutKeyPolicy", "EnableKeyRotation", "DescribeKey",
        "TagResource"]),
        mark=lambda r: str(r.thing.attributes["Arn"]),
    ),
    regular(
        "AWS::KMS::Alias", "kms", create="CreateAlias", delete="DeleteAlias", update="UpdateAlias", key=("AliasName",),
        ref="AliasName", tags="",
    ),
)  # fmt: skip
"""S3's and KMS's types."""
