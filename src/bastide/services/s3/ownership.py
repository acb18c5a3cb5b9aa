"""Object ownership: everything in a bucket is its owner's, and ACLs give nobody anything.

That is what AWS makes buckets with. Its other two settings would let writers own what they write, under grants that are not
there; they are refused. Taking the controls away leaves a bucket without a say on this, and what holds is the same.

Source: S3 User Guide, "Controlling ownership of objects and disabling ACLs for your bucket"; S3 API Reference,
PutBucketOwnershipControls.
"""

from __future__ import annotations

from typing import Final

from bastide.domain import Refused
from bastide.kernel import Ask, Authorised, Output
from bastide.services.s3 import lock
from bastide.services.s3.asking import bucket_asked, keys
from bastide.services.s3.bucket import BUCKET, bucket_of, fresh, not_implemented
from bastide.store import Transaction, View

ENFORCED: Final = "BucketOwnerEnforced"
_OTHERS: Final = ("BucketOwnerPreferred", "ObjectWriter")


def check(wanted: object) -> None:
    """Raises NotImplemented for the settings that need ACLs, InvalidArgument for what is none."""
    if wanted in _OTHERS:
        raise not_implemented(f"The object ownership {wanted}, which needs ACLs,")
    if wanted != ENFORCED:
        raise Refused("InvalidArgument", f"Invalid x-amz-object-ownership header: {str(wanted)[:64]}", 400)


@BUCKET.operation("PutBucketOwnershipControls", asks=[Ask("s3:PutBucketOwnershipControls", bucket_asked, more=keys)])
def put(a: Authorised, tx: Transaction) -> Output:
    rules = a.input["OwnershipControls"].get("Rules") or []
    if len(rules) != 1 or rules[0].get("ObjectOwnership") not in (ENFORCED, *_OTHERS):
        raise lock.malformed()
    check(rules[0]["ObjectOwnership"])
    row = fresh(tx, bucket_of(a, tx))
    row.doc.pop("NoOwnership", None)
    BUCKET.change(tx, row, a.operation.name, a.request.id)
    return {}


@BUCKET.reads("GetBucketOwnershipControls", asks=[Ask("s3:GetBucketOwnershipControls", bucket_asked, more=keys)])
def get(a: Authorised, view: View) -> Output:
    bucket = bucket_of(a, view)
    if bucket.row.doc.get("NoOwnership"):
        raise Refused(
            "OwnershipControlsNotFoundError",
            "The bucket ownership controls were not found",
            404,
            members={"BucketName": bucket.name},
        )
    return {"OwnershipControls": {"Rules": [{"ObjectOwnership": ENFORCED}]}}


@BUCKET.operation("DeleteBucketOwnershipControls", asks=[Ask("s3:PutBucketOwnershipControls", bucket_asked, more=keys)])
def delete(a: Authorised, tx: Transaction) -> Output:
    row = fresh(tx, bucket_of(a, tx))
    row.doc["NoOwnership"] = True
    BUCKET.change(tx, row, a.operation.name, a.request.id)
    return {}
