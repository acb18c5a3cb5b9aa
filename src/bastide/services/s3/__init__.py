"""S3: buckets and encrypted objects.

Source: Amazon S3 API Reference and User Guide.
"""

from __future__ import annotations

from bastide.kernel import Service
from bastide.services.s3 import completing as _completing  # declares how uploads end
from bastide.services.s3 import copying as _copying  # declares CopyObject
from bastide.services.s3 import cors
from bastide.services.s3 import deleting as _deleting  # declares how objects are deleted
from bastide.services.s3 import founding as _founding  # declares the operations that make and list buckets
from bastide.services.s3 import lifecycle as _lifecycle  # declares the lifecycle rules of buckets
from bastide.services.s3 import listing as _listing  # declares the lists
from bastide.services.s3 import notification as _notification  # declares what is told of objects
from bastide.services.s3 import object as _object  # declares PutObject
from bastide.services.s3 import ownership as _ownership  # declares whose a bucket's objects are
from bastide.services.s3 import reading as _reading  # declares how objects are read
from bastide.services.s3 import retention as _retention  # declares Object Lock
from bastide.services.s3 import settings as _settings  # declares what is set on buckets
from bastide.services.s3 import tagging as _tagging  # declares the tags of objects
from bastide.services.s3.bucket import BUCKET, NAME, facts
from bastide.services.s3.examine import examine
from bastide.services.s3.expiry import Expiry
from bastide.services.s3.telling import Notifications
from bastide.services.s3.upload import PART, UPLOAD
from bastide.services.s3.versions import MANIFEST, OBJECT, VERSION
from bastide.store import View

__all__ = ["BUCKET", "NAME", "OBJECT", "SERVICE", "Expiry", "Notifications", "cors", "examine", "files"]

SERVICE = Service("s3", kinds=[BUCKET, NAME, OBJECT, VERSION, MANIFEST, UPLOAD, PART], facts=facts)


def files(view: View) -> set[bytes]:
    """The ids of the files that some object or part names. Reads all rows once: for a start, or a backup."""
    used: set[bytes] = set()
    after_bucket: str | None = None
    while names := view.scan(NAME.key, "", "", after=after_bucket, limit=1000):
        for owner in {(str(row.doc["Account"]), str(row.doc["Region"])) for row in names}:
            _collect(view, *owner, used)
        after_bucket = names[-1].name
    return used


def _collect(view: View, account: str, region: str, used: set[bytes]) -> None:
    for kind in (OBJECT, VERSION, PART, MANIFEST):
        after: str | None = None
        while rows := view.scan(kind.key, account, region, after=after, limit=1000):
            for row in rows:
                if "id" in row.doc:
                    used.add(bytes.fromhex(row.doc["id"]))
                for part in row.doc.get("parts", ()):
                    used.add(bytes.fromhex(part["id"]))
            after = rows[-1].name


del _completing, _copying, _deleting, _founding, _lifecycle, _listing, _notification, _object, _ownership
del _reading, _retention, _settings, _tagging
