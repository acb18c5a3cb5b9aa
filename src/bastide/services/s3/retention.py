"""The operations of Object Lock: a bucket's configuration, a version's retention and its legal hold.

Source: S3 API Reference, PutObjectLockConfiguration, GetObjectLockConfiguration, PutObjectRetention, GetObjectRetention,
PutObjectLegalHold, GetObjectLegalHold.
"""

from __future__ import annotations

from bastide.domain import Refused
from bastide.kernel import Ask, Authorised, Output
from bastide.services.s3 import lock
from bastide.services.s3.asking import bucket_asked, keys, object_asked
from bastide.services.s3.bucket import BUCKET, Bucket, bucket_of, fresh
from bastide.services.s3.object import bypassed, bypassing
from bastide.services.s3.reading import find_version
from bastide.services.s3.versions import OBJECT
from bastide.store import Row, Transaction, View

# -- buckets -----------------------------------------------------------------------------------------------------------


@BUCKET.operation(
    "PutObjectLockConfiguration", asks=[Ask("s3:PutBucketObjectLockConfiguration", bucket_asked, more=keys)]
)
def put_configuration(a: Authorised, tx: Transaction) -> Output:
    """Turns Object Lock on, for good, and sets the default retention of new versions."""
    default = lock.default_of(a.input.get("ObjectLockConfiguration"))
    bucket = bucket_of(a, tx)
    if bucket.versioning != "Enabled":
        raise Refused(
            "InvalidBucketState",
            "Versioning must be 'Enabled' on the bucket to apply a Object Lock configuration",
            409,
        )
    row = fresh(tx, bucket)
    row.doc["ObjectLock"] = default
    BUCKET.change(tx, row, a.operation.name, a.request.id)
    return {}


@BUCKET.reads("GetObjectLockConfiguration", asks=[Ask("s3:GetBucketObjectLockConfiguration", bucket_asked, more=keys)])
def get_configuration(a: Authorised, view: View) -> Output:
    bucket = bucket_of(a, view)
    if bucket.lock is None:
        raise Refused(
            "ObjectLockConfigurationNotFoundError",
            "Object Lock configuration does not exist for this bucket",
            404,
            members={"BucketName": bucket.name},
        )
    found: Output = {"ObjectLockEnabled": "Enabled"}
    if bucket.lock:
        found["Rule"] = {"DefaultRetention": dict(bucket.lock)}
    return {"ObjectLockConfiguration": found}


# -- versions ----------------------------------------------------------------------------------------------------------


def _version(a: Authorised, view: View) -> tuple[Bucket, Row]:
    bucket = bucket_of(a, view)
    if bucket.lock is None:
        raise lock.missing()
    return bucket, find_version(a, view, bucket, a.input["Key"], a.input.get("VersionId"))


def _none() -> Refused:
    return Refused(
        "NoSuchObjectLockConfiguration", "The specified object does not have a ObjectLock configuration", 404
    )


@OBJECT.operation(
    "PutObjectRetention",
    asks=[
        Ask("s3:PutObjectRetention", object_asked, more=lock.retaining),
        Ask(lock.BYPASS, object_asked, more=keys, when=bypassing),
    ],
    data=True,
)
def put_retention(a: Authorised, tx: Transaction) -> Output:
    """An empty retention takes one in governance mode away."""
    _, row = _version(a, tx)
    lock.change(row.doc, a.input.get("Retention") or {}, a.now, bypass=bypassed(a))
    tx.update(row, keep=False)
    return {}


@OBJECT.reads("GetObjectRetention", asks=[Ask("s3:GetObjectRetention", object_asked, more=keys)], data=True)
def get_retention(a: Authorised, view: View) -> Output:
    _, row = _version(a, view)
    found = row.doc.get("lock") or {}
    if "mode" not in found:
        raise _none()
    return {"Retention": {"Mode": found["mode"], "RetainUntilDate": found["until"]}}


@OBJECT.operation("PutObjectLegalHold", asks=[Ask("s3:PutObjectLegalHold", object_asked, more=lock.holding)], data=True)
def put_legal_hold(a: Authorised, tx: Transaction) -> Output:
    status = (a.input.get("LegalHold") or {}).get("Status")
    if status not in ("ON", "OFF"):
        raise lock.malformed()
    _, row = _version(a, tx)
    row.doc["lock"] = {**(row.doc.get("lock") or {}), "hold": status == "ON"}
    tx.update(row, keep=False)
    return {}


@OBJECT.reads("GetObjectLegalHold", asks=[Ask("s3:GetObjectLegalHold", object_asked, more=keys)], data=True)
def get_legal_hold(a: Authorised, view: View) -> Output:
    _, row = _version(a, view)
    found = row.doc.get("lock") or {}
    if "hold" not in found:
        raise _none()
    return {"LegalHold": {"Status": "ON" if found["hold"] else "OFF"}}
