"""Where the objects of a platform lie: chosen once, at `bastide init` or `bastide restore`, and held to ever after.

The database keeps a word that the place knows, too: it was made up when the place was taken. So neither a changed
configuration nor the store of another platform is taken for the platform's own, and swept.
"""

from __future__ import annotations

import secrets

from bastide.engines.artifacts import Artifacts, Copies, Place, PlaceError
from bastide.engines.artifacts.drivers.files import LocalCopies, LocalFiles
from bastide.store import Transaction, View
from bastide.store.directory import Configuration, DataDirectory

_OWNER = "artifacts/owner"


def owner_of(view: View) -> str:
    """The word by which the place knows the platform; empty for local files."""
    return view.meta(_OWNER) or ""


def set_owner(tx: Transaction, owner: str) -> None:
    """Keeps it."""
    if owner or owner_of(tx):
        tx.set_meta(_OWNER, owner)


def take_place(url: str) -> str:
    """Takes a place for a new platform; the word it knows it by. Raises PlaceError."""
    if not url:
        return ""
    from bastide.engines.artifacts.drivers.bucket import Bucket  # noqa: PLC0415 - slow to load, and few need it

    owner = secrets.token_hex(16)
    Bucket(Place.parse(url)).claim(owner)
    return owner


def leave_place(url: str) -> None:
    """Undoes that, for a platform that did not come to be: removes all that it wrote there. Raises PlaceError, OSError."""
    if not url:
        return
    from bastide.engines.artifacts.drivers.bucket import Bucket  # noqa: PLC0415

    bucket = Bucket(Place.parse(url))
    for id, upload in list(bucket.uploads()):
        bucket.abort(id, upload)
    for id, _ in list(bucket.sizes()):
        bucket.delete(id)
    bucket.release()


def _checked(configuration: Configuration, owner: str) -> bool:
    """Whether objects lie in a store elsewhere; raises PlaceError where that is not as it was."""
    if configuration.objects and not owner:
        raise PlaceError("this platform's objects are local files, but its configuration names a store of objects")
    if owner and not configuration.objects:
        raise PlaceError("this platform's objects lie in a store of objects, which its configuration does not name")
    return bool(owner)


def open_artifacts(directory: DataDirectory, configuration: Configuration, owner: str) -> Artifacts:
    """The driver that a platform was made with. Raises PlaceError if its store does not answer or is not its own."""
    if not _checked(configuration, owner):
        return LocalFiles(directory.objects)
    from bastide.engines.artifacts.drivers.bucket import Bucket  # noqa: PLC0415
    from bastide.engines.artifacts.drivers.s3 import THREADS, S3Objects  # noqa: PLC0415

    bucket = Bucket(Place.parse(configuration.objects), THREADS)
    bucket.check(owner)
    return S3Objects(bucket, directory.objects)


def open_copies(directory: DataDirectory, configuration: Configuration, owner: str) -> Copies:
    """The sealed bytes of a platform's objects, for a backup or a restore. Raises PlaceError."""
    if not _checked(configuration, owner):
        return LocalCopies(directory.objects)
    from bastide.engines.artifacts.drivers.bucket import Bucket  # noqa: PLC0415
    from bastide.engines.artifacts.drivers.s3 import S3Copies  # noqa: PLC0415

    bucket = Bucket(Place.parse(configuration.objects))
    bucket.check(owner)
    return S3Copies(bucket)
