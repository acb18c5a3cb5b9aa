"""Images: put, got, listed, described, deleted."""

from __future__ import annotations

import re
from typing import Any, Final

from bastide.domain import MICROS, Refused
from bastide.kernel import Ask, Authorised, Output, pages
from bastide.kernel.happened import tell
from bastide.services.ecr import manifest, scanning, sealing
from bastide.services.ecr.layer import DIGEST, layer
from bastide.services.ecr.repository import IMAGE, LAYER, REPOSITORY, SCAN, TAG, immutable, named, rows_of, this
from bastide.store import Row, Transaction, View

_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_MOST_TAGS: Final = 1000
_MOST_IMAGES: Final = 20_000
"""Of a repository. Source: Amazon ECR User Guide, "Amazon ECR service quotas"."""
_MOST_AT_ONCE: Final = 1000
_GRACE: Final = 24 * 3600 * MICROS


def _image(view: View, repository: Row, digest: str) -> Row | None:
    return IMAGE.get(view, repository.account, repository.region, f"{repository.name}@{digest}")


def _tag(view: View, repository: Row, name: str) -> Row | None:
    return TAG.get(view, repository.account, repository.region, f"{repository.name}:{name}")


def _refused(code: str, message: str) -> Refused:
    return Refused(code, message)


# -- putting -------------------------------------------------------------------------------------------------------------


@IMAGE.operation("PutImage", asks=[Ask("ecr:PutImage", this)])
def put(a: Authorised, tx: Transaction) -> Output:
    repository = named(a, tx)
    text = str(a.input["imageManifest"])
    read = manifest.read(text, a.input.get("imageManifestMediaType"))
    wanted, name = a.input.get("imageDigest"), a.input.get("imageTag")
    where = f"the repository with name '{repository.name}' in the registry with id '{repository.account}'"
    if wanted and wanted != read.digest:
        raise _refused(
            "ImageDigestDoesNotMatchException",
            f"The digest {str(wanted)[:80]} does not match that of the manifest, {read.digest}.",
        )
    if name is not None and not _TAG.fullmatch(str(name)):
        raise _refused("InvalidParameterException", "Invalid parameter: imageTag is not the name of a tag.")
    blobs = {one: layer(tx, repository, one) for one in read.blobs}
    if missing := [one for one, row in blobs.items() if row is None]:
        raise _refused("LayersNotFoundException", f"The layers {', '.join(missing[:5])} do not exist in {where}.")
    children = {one: _image(tx, repository, one) for one in read.children}
    if absent := [one for one, row in children.items() if row is None]:
        raise _refused(
            "ReferencedImagesNotFoundException", f"The images {', '.join(absent[:5])} do not exist in {where}."
        )
    held = {one: int(row.doc["size"]) for one, row in blobs.items() if row is not None}
    held |= {one: len(row.doc["manifest"].encode()) for one, row in children.items() if row is not None}
    for one, size in {**read.blobs, **read.children}.items():
        if held[one] != size:  # who pulls bounds by these, and what is shown as the image's size is their sum
            raise _refused(
                "InvalidParameterException",
                f"Invalid parameter at 'imageManifest' failed to satisfy constraint: it says that {one} has {size} "
                f"bytes, and it has {held[one]}.",
            )
    image = _image(tx, repository, read.digest)
    before = _tag(tx, repository, str(name)) if name is not None else None
    if image is not None and (name is None or (before is not None and before.doc["digest"] == read.digest)):
        tagged = f" and tag '{name}'" if name is not None else ""
        raise _refused(
            "ImageAlreadyExistsException", f"Image with digest '{read.digest}'{tagged} already exists in {where}."
        )
    if before is not None and immutable(repository, str(name)):
        raise _refused(
            "ImageTagAlreadyExistsException",
            f"The image tag '{name}' already exists in the '{repository.name}' repository and cannot be overwritten "
            "because the tag is immutable.",
        )
    if image is None:
        if len(rows_of(tx, IMAGE, repository)) >= _MOST_IMAGES:
            raise _refused(
                "LimitExceededException",
                f"The repository with name '{repository.name}' in the registry with id '{repository.account}' already has "
                f"the maximum allowed number of images which is '{_MOST_IMAGES}'. Delete some, or let a lifecycle policy.",
            )
        doc: dict[str, Any] = {
            "manifest": text,
            "media": read.media,
            "blobs": list(read.blobs),
            "children": list(read.children),
            "size": read.size,
            "artifact": read.artifact,
            "subject": read.subject,
            "annotations": read.annotations,
            "tags": [],
            "pushed": a.now,
        }
        image = Row(
            IMAGE.key, repository.account, repository.region, f"{repository.name}@{read.digest}", doc, created=a.now
        )
        tx.insert(image, keep=False)
        scanning.pushed(tx, repository, image)
        if read.subject and not repository.doc.get("referred"):
            repository.doc["referred"] = True  # only then it is looked for what is about an image
            REPOSITORY.change(tx, repository, a.operation.name, a.request.id)
    if name is not None:
        _move(tx, repository, image, str(name), before)
    _told(tx, repository, "PUSH", read.digest, str(name) if name is not None else None)
    a.touched.append(f"arn:aws:ecr:{repository.region}:{repository.account}:repository/{repository.name}")
    return {"image": _shown(repository, read.digest, str(name) if name is not None else None, image)}


def _told(tx: Transaction, repository: Row, action: str, digest: str, name: str | None) -> None:
    """Tells EventBridge. Source: Amazon ECR User Guide, "Amazon ECR events and EventBridge"."""
    detail = {
        "result": "SUCCESS", "repository-name": repository.name, "image-digest": digest, "action-type": action,
    }  # fmt: skip
    if name is not None:
        detail["image-tag"] = name
    tell(
        tx, account=repository.account, region=repository.region, source="aws.ecr", detail_type="ECR Image Action",
        resources=[], detail=detail,
    )  # fmt: skip


def _move(tx: Transaction, repository: Row, image: Row, name: str, before: Row | None) -> None:
    digest = image.name.rpartition("@")[2]
    if len(image.doc["tags"]) >= _MOST_TAGS:
        raise _refused("LimitExceededException", f"An image has {_MOST_TAGS} tags at most.")
    if before is not None:
        earlier = _image(tx, repository, before.doc["digest"])
        if earlier is not None:
            earlier.doc["tags"].remove(name)
            IMAGE.change(tx, earlier, "PutImage")
        before.doc["digest"] = digest
        TAG.change(tx, before, "PutImage")
    else:
        row = Row(TAG.key, repository.account, repository.region, f"{repository.name}:{name}", {"digest": digest})
        tx.insert(row, keep=False)
    image.doc["tags"].append(name)
    IMAGE.change(tx, image, "PutImage")


def _shown(repository: Row, digest: str, name: str | None, image: Row) -> Output:
    id = {"imageDigest": digest, **({"imageTag": name} if name is not None else {})}
    return {
        "registryId": repository.account,
        "repositoryName": repository.name,
        "imageId": id,
        "imageManifest": image.doc["manifest"],
        "imageManifestMediaType": image.doc["media"],
    }


# -- getting -------------------------------------------------------------------------------------------------------------


def _meant(view: View, repository: Row, id: dict[str, Any]) -> tuple[str, Row | None, str, str]:
    """Digest and image that an imageId means; or code and reason of the failure."""
    digest, name = id.get("imageDigest"), id.get("imageTag")
    if not digest and not name:
        return "", None, "MissingDigestAndTag", "Invalid request parameters: both tag and digest are absent"
    if digest and not DIGEST.fullmatch(str(digest)):
        return "", None, "InvalidImageDigest", "Invalid request parameters: image digest should satisfy sha256:<64 hex>"
    if name and not _TAG.fullmatch(str(name)):
        return "", None, "InvalidImageTag", "Invalid request parameters: the tag is not the name of a tag"
    if name:
        tag = _tag(view, repository, str(name))
        if tag is None:
            return "", None, "ImageNotFound", "Requested image not found"
        if digest and tag.doc["digest"] != digest:
            return "", None, "ImageTagDoesNotMatchDigest", "The requested tag does not mean the requested digest"
        digest = tag.doc["digest"]
    image = _image(view, repository, str(digest))
    return str(digest), image, "" if image is not None else "ImageNotFound", "Requested image not found"


@IMAGE.reads("BatchGetImage", asks=[Ask("ecr:BatchGetImage", this)])
def get(a: Authorised, view: View) -> Output:
    repository = named(a, view)
    accepted = a.input.get("acceptedMediaTypes") or ()
    images, failures = [], []
    for id in a.input["imageIds"]:
        digest, image, code, reason = _meant(view, repository, id)
        if image is not None and accepted and image.doc["media"] not in accepted:
            image, code = None, "ImageNotFound"
            reason = "The image's media type is not among acceptedMediaTypes"
        if image is None:
            failures.append({"imageId": dict(id), "failureCode": code, "failureReason": reason})
        else:
            images.append(_shown(repository, digest, id.get("imageTag"), image))
    return {"images": images, "failures": failures}


def _wanted(a: Authorised) -> tuple[str, int]:
    given = a.input.get("filter") or {}
    if given.get("imageStatus") not in (None, "ACTIVE", "ANY"):
        raise _refused("InvalidParameterException", "Invalid parameter: images are not archived by Bastide.")
    return str(given.get("tagStatus") or "ANY"), min(int(a.input.get("maxResults") or 100), _MOST_AT_ONCE)


def _page(a: Authorised, view: View, repository: Row) -> tuple[list[Row], str | None]:
    status, limit = _wanted(a)
    after = pages.position(a, a.input.get("nextToken"), code="InvalidParameterException")
    rows = view.scan(
        IMAGE.key,
        repository.account,
        repository.region,
        prefix=f"{repository.name}@",
        after=after,
        limit=limit + 1,
    )
    token = pages.seal(a, rows[limit - 1].name) if len(rows) > limit else None
    return [row for row in rows[:limit] if status == "ANY" or bool(row.doc["tags"]) == (status == "TAGGED")], token


@IMAGE.reads("ListImages", asks=[Ask("ecr:ListImages", this)])
def listed(a: Authorised, view: View) -> Output:
    rows, token = _page(a, view, named(a, view))
    ids = []
    for row in rows:
        digest = row.name.rpartition("@")[2]
        ids += [{"imageDigest": digest, "imageTag": name} for name in row.doc["tags"]] or [{"imageDigest": digest}]
    return {"imageIds": ids, "nextToken": token}


@IMAGE.reads("DescribeImages", asks=[Ask("ecr:DescribeImages", this)])
def described(a: Authorised, view: View) -> Output:
    repository = named(a, view)
    token: str | None = None
    if a.input.get("imageIds"):
        rows = []
        for id in a.input["imageIds"]:
            _, image, _, _ = _meant(view, repository, id)
            if image is None:
                raise _refused(
                    "ImageNotFoundException",
                    f"The image with imageId {{imageDigest:'{id.get('imageDigest') or 'null'}', "
                    f"imageTag:'{id.get('imageTag') or 'null'}'}} does not exist within the repository with name "
                    f"'{repository.name}' in the registry with id '{repository.account}'",
                )
            rows.append(image)
    else:
        rows, token = _page(a, view, repository)
    details = []
    for row in {one.name: one for one in rows}.values():
        found = {
            "registryId": repository.account,
            "repositoryName": repository.name,
            "imageDigest": row.name.rpartition("@")[2],
            "imageSizeInBytes": row.doc["size"],
            "imagePushedAt": row.doc["pushed"],
            "imageManifestMediaType": row.doc["media"],
            "imageStatus": "ACTIVE",
        }
        if row.doc["tags"]:
            found["imageTags"] = list(row.doc["tags"])
        if row.doc["artifact"]:
            found["artifactMediaType"] = row.doc["artifact"]
        if row.doc.get("subject"):
            found["subjectManifestDigest"] = row.doc["subject"]
        found |= scanning.summary(view, row)
        details.append(found)
    return {"imageDetails": details, "nextToken": token}


# -- deleting ------------------------------------------------------------------------------------------------------------


async def _nothing(_: Authorised) -> list[str]:
    return []


async def _forget(a: Authorised, output: Output) -> Output:
    for part in a.staged:
        await sealing.drop(a, part)
    return output


@IMAGE.operation("BatchDeleteImage", asks=[Ask("ecr:BatchDeleteImage", this)], before=_nothing, after=_forget)
def deleted(a: Authorised, tx: Transaction) -> Output:
    repository = named(a, tx)
    gone: list[dict[str, Any]] = []
    failures: list[dict[str, Any]] = []
    freed: set[str] = set()
    for id in a.input["imageIds"]:
        digest, image, code, reason = _meant(tx, repository, id)
        holders = (
            [] if image is None else [one for one in rows_of(tx, IMAGE, repository) if digest in one.doc["children"]]
        )
        last = image is not None and (not id.get("imageTag") or len(image.doc["tags"]) == 1)
        if holders and last:
            image, code = None, "ImageReferencedByManifestList"
            reason = f"Requested image is referenced by manifest list: [{holders[0].name.rpartition('@')[2]}]"
        if image is None:
            failures.append({"imageId": dict(id), "failureCode": code, "failureReason": reason})
            continue
        names = [str(id["imageTag"])] if id.get("imageTag") else list(image.doc["tags"])
        gone += [{"imageDigest": digest, "imageTag": name} for name in names]
        if last:
            if not names:
                gone.append({"imageDigest": digest})
            freed |= take_away(tx, repository, image, a.operation.name)
        else:
            for name in names:
                _untag(tx, repository, image, name, a.operation.name)
            IMAGE.change(tx, image, a.operation.name)
    a.staged.extend(swept(tx, repository, freed, a.now))
    return {"imageIds": gone, "failures": failures}


def _untag(tx: Transaction, repository: Row, image: Row, name: str, event: str) -> None:
    tag = _tag(tx, repository, name)
    if tag is not None:
        TAG.remove(tx, tag, event)
    image.doc["tags"].remove(name)


def take_away(tx: Transaction, repository: Row, image: Row, event: str) -> set[str]:
    """An image goes, with its tags, what a scan found, and what is about it (signatures, SBOMs); the layers that it had."""
    digest = image.name.rpartition("@")[2]
    names = list(image.doc["tags"])
    for name in names:
        _untag(tx, repository, image, name, event)
    IMAGE.remove(tx, image, event)
    scan = SCAN.get(tx, repository.account, repository.region, image.name)
    if scan is not None:
        SCAN.remove(tx, scan, event)
    _told(tx, repository, "DELETE", digest, names[0] if names else None)
    freed = set(image.doc["blobs"])
    for one in rows_of(tx, IMAGE, repository) if repository.doc.get("referred") else ():
        if one.doc.get("subject") == digest:
            freed |= take_away(tx, repository, one, event)
    return freed


def swept(tx: Transaction, repository: Row, freed: set[str], now: int) -> list[str]:
    """Layers that no image names any more go; the files that they were in. One that none named before may belong to a push
    that goes on, unless it is old."""
    files: list[str] = []
    used = {blob for one in rows_of(tx, IMAGE, repository) for blob in one.doc["blobs"]}
    for row in rows_of(tx, LAYER, repository):
        digest = row.name.rpartition("@")[2]
        if digest not in used and (digest in freed or row.created < now - _GRACE):
            files.extend(row.doc["parts"])
            LAYER.remove(tx, row, "LayerSwept")
    return files


# -- what is about an image ----------------------------------------------------------------------------------------------


@IMAGE.reads("ListImageReferrers", asks=[Ask("ecr:ListImageReferrers", this)])
def referrers(a: Authorised, view: View) -> Output:
    """Artifacts whose subject is an image: signatures, SBOMs, attestations."""
    repository, subject = named(a, view), str(a.input["subjectId"]["imageDigest"])
    given = a.input.get("filter") or {}
    if given.get("artifactStatus") not in (None, "ACTIVE", "ANY"):
        raise _refused("InvalidParameterException", "Invalid parameter: artifacts are not archived by Bastide.")
    types, limit = given.get("artifactTypes"), min(int(a.input.get("maxResults") or 50), 50)
    after = pages.position(a, a.input.get("nextToken"), code="InvalidParameterException")
    found = [
        one
        for one in rows_of(view, IMAGE, repository)
        if one.doc.get("subject") == subject
        and (not types or one.doc["artifact"] in types)
        and (after is None or one.name > after)
    ]
    shown = [
        {
            "digest": one.name.rpartition("@")[2],
            "mediaType": one.doc["media"],
            "artifactType": one.doc["artifact"],
            "size": len(one.doc["manifest"].encode()),
            "annotations": one.doc["annotations"],
            "artifactStatus": "ACTIVE",
        }
        for one in found[:limit]
    ]
    token = pages.seal(a, found[limit - 1].name) if len(found) > limit else None
    return {"referrers": shown, "nextToken": token}
