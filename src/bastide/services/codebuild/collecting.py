"""What a build makes, and what it keeps: artifacts, reports, the cache."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bastide.domain import Refused
from bastide.engines.workflow import Failed, Run
from bastide.services.codebuild import (
    archive,
    buildspec,
    checking,
    delivering,
    objects,
    report,
    results,
)
from bastide.services.codebuild.buildspec import Artifact, Buildspec
from bastide.services.codebuild.project import default_key
from bastide.services.codebuild.steps import (
    Steps,
    Work,
)
from bastide.store import Row


class Collecting(Steps):
    """The step of a build in which what it made is stored."""

    @staticmethod
    def _cache_place(row: Row) -> tuple[str, str]:
        """Bucket and key of a project's cache; empty without one."""
        cache = row.doc["cache"]
        if cache["type"] != "S3":
            return "", ""
        bucket, _, prefix = cache["location"].removeprefix("arn:aws:s3:::").strip("/").partition("/")
        name = f"{row.doc['projectName']}/{row.doc['_cache']}.zip"
        return bucket, f"{prefix}/{name}" if prefix else name

    async def _cached(self, row: Row, work: Work, packed: Path, most: int) -> None:
        """What an earlier build kept, into the folder of the source; a build does without what is not there."""
        bucket, key = self._cache_place(row)
        assert work.spec is not None and work.log is not None
        if not bucket or not work.spec.cache:
            return
        try:
            await objects.fetch(work.session, {"Bucket": bucket, "Key": key}, packed, most=most)
            await asyncio.to_thread(archive.unpack, packed, work.source, most_bytes=most)
            await work.log.say(f"Restored the cache from s3://{bucket}/{key}")
        except Refused as refused:
            await work.log.say(f"Unable to restore the cache from s3://{bucket}/{key}: {refused.code}")
        except archive.Unfit as unfit:
            await work.log.say(f"Unable to restore the cache from s3://{bucket}/{key}: {unfit}")
        finally:
            await asyncio.to_thread(packed.unlink, missing_ok=True)

    async def _keep(self, row: Row, work: Work, most: int) -> None:
        """Keeps what the buildspec's cache names; that it cannot be stored is said in the log."""
        bucket, key = self._cache_place(row)
        assert work.spec is not None and work.log is not None
        if not bucket or not work.spec.cache:
            return
        packed = work.folder / "work" / "cache.zip"
        try:
            top, beside = archive.top_of(work.source), archive.top_of(packed.parent)
            try:
                files = await asyncio.to_thread(archive.select, top, "", work.spec.cache)
                await asyncio.to_thread(archive.pack, top, files, packed, most_bytes=most)
                kms_key = self._kms_key(row, row.doc["encryptionKey"])
                await objects.store(work.session, bucket, key, beside, packed.name, kms_key)
            finally:
                os.close(top)
                os.close(beside)
        except (Refused, archive.Unfit) as error:
            await work.log.say(f"Unable to store the cache at s3://{bucket}/{key}: {error}")

    @staticmethod
    def _primary(doc: Mapping[str, Any], spec: Buildspec) -> Artifact | None:
        """What goes to the project's own place: the buildspec's artifacts; of one that has secondary ones alone, as those
        of pipelines with several outputs have, the one that is called as the place is."""
        return spec.artifacts or spec.secondary.get(str(doc["_artifacts"].get("artifactIdentifier") or ""))

    @staticmethod
    def _targets(doc: Mapping[str, Any], spec: Buildspec) -> list[tuple[str, dict[str, Any], Artifact | None]]:
        """Identifiers, empty for the project's own, places, and what goes there."""
        found = [("", doc["_artifacts"], Collecting._primary(doc, spec))]
        return found + [
            (one["artifactIdentifier"], one, spec.secondary[one["artifactIdentifier"]])
            for one in doc["_secondaryArtifacts"]
        ]

    @staticmethod
    def _fits(doc: Mapping[str, Any], spec: Buildspec) -> None:
        """Raises Failed where project and buildspec do not go together."""
        wanted = {one["artifactIdentifier"] for one in doc["_secondaryArtifacts"]}
        if lacking := sorted(wanted - set(spec.secondary)):
            raise Failed(
                "CLIENT_ERROR",
                f"The buildspec has no secondary artifact {lacking[0]}, for which the project has a place.",
            )
        if doc["_artifacts"]["type"] == "S3" and Collecting._primary(doc, spec) is None:
            raise Failed("CLIENT_ERROR", "The project has a place for artifacts, and the buildspec has no artifacts.")

    async def deliver(self, run: Run) -> dict[str, Any]:
        """Reports, artifacts and the cache."""
        row, work = self.row(run), self._work(run)
        state = run.state
        if state["upload"]:
            await self._through(run, "UPLOAD_ARTIFACTS")
        made = await self._while(run, self._delivered(run, row, work)) if state["upload"] else {}
        if not state["upload"]:
            await self._while(run, self._reported(run, work))
        return {"delivered": made, "reports": run.held.get("reports", [])}

    async def _delivered(self, run: Run, row: Row, work: Work) -> dict[str, Any]:
        assert work.spec is not None and work.log is not None
        await self._reported(run, work)
        doc, found = row.doc, dict[str, Any]()
        disk = checking.COMPUTE[doc["environment"]["computeType"]].disk
        targets = self._targets(doc, work.spec)
        for id, target, wanted in targets:
            if target["type"] != "S3" or wanted is None:
                continue
            key = "" if target.get("encryptionDisabled") else doc["encryptionKey"]
            found[id] = await delivering.deliver(
                work.session,
                target,
                wanted,
                work.source,
                work.folder / "work" / "artifact.zip",
                name=run.state["called"].get(id, ""),
                id=row.name.rpartition(":")[2],
                kms_key=self._kms_key(row, key),
                most=disk,
            )
            await work.log.say(f"Uploaded artifacts to {found[id]['location']}")
        if not run.state["failed"]:
            await self._keep(row, work, disk)
        return found

    @staticmethod
    def _kms_key(row: Row, key: str) -> str:
        """What objects are encrypted under; the key that AWS manages is the bucket's own way."""
        return "" if key == default_key(row.account, row.region) else key

    async def _reported(self, run: Run, work: Work) -> None:
        """A report that cannot be made fails the build, as on AWS."""
        assert work.spec is not None and work.log is not None
        arns: list[str] = run.held.setdefault("reports", [])
        for wanted in work.spec.reports:
            kind = buildspec.FORMATS[wanted.format]
            try:
                found = await asyncio.to_thread(self._results, work, wanted, kind)
            except (results.Unreadable, archive.Unfit) as wrong:
                await work.log.say(f"Error while preparing the report {wanted.group}: {wrong}")
                raise Failed("CLIENT_ERROR", f"The report {wanted.group} cannot be made: {wrong}.") from None
            if found is None:
                await work.log.say(
                    f"No matching report paths found for {wanted.group}: {', '.join(wanted.files)[:500]}"
                )
                continue
            try:
                arns.append(await report.put(work.session, wanted.group, kind, run.id, found))
            except Refused as refused:
                raise Failed(
                    "CLIENT_ERROR", f"The report {wanted.group} cannot be made: {refused.code}: {refused.message}"
                ) from None

    @staticmethod
    def _results(work: Work, wanted: buildspec.Report, kind: str) -> Any:
        top = archive.top_of(work.source)
        try:
            files = archive.select(top, wanted.base, wanted.files)
            if not files:
                return None
            read: Any = results.cases if kind == "TEST" else results.coverage
            found: list[Any] = []
            left = results.MOST_TOGETHER
            for name, path in files:
                content = archive.text_of(top, path, results.MOST_BYTES + 1) or b""
                left -= len(content)
                if left < 0:
                    raise results.Unreadable(f"its files together are longer than {results.MOST_TOGETHER} bytes")
                try:
                    found += read(content)
                except results.Unreadable as wrong:
                    raise results.Unreadable(f"{name[:200]}: {wrong}") from None
            return found
        finally:
            os.close(top)
