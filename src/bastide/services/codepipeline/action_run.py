"""One action of an execution, from its beginning to its end."""

from __future__ import annotations

import logging
from typing import Any

from bastide.domain import Refused, new_id
from bastide.engines.workflow import reach
from bastide.kernel import Calls, Unforeseen
from bastide.services.codepipeline import telling
from bastide.services.codepipeline.acting import Actor, Denied
from bastide.services.codepipeline.action_type import TYPES
from bastide.services.codepipeline.actions import PROVIDERS
from bastide.services.codepipeline.bells import Bells
from bastide.services.codepipeline.declaration import store_of
from bastide.services.codepipeline.noun import PRINCIPAL, Doc, arn_of, execution, put, stage_row
from bastide.services.codepipeline.variables import Unresolved, resolved
from bastide.services.codepipeline.work import Abandoned, ActionFailed, Gone, Work, cause, denied
from bastide.store import Row, Transaction

_log = logging.getLogger("bastide.codepipeline")
_INTERNAL = "An internal error occurred. Please retry the stage."


class ActionRun:
    """An action on its way. where: account, region, pipeline and execution; doc: the pipeline as declared."""

    def __init__(
        self, calls: Calls, bells: Bells, where: tuple[str, str, str, str], doc: Doc, stage: str, declared: Doc
    ) -> None:
        self.calls = calls
        self.bells = bells
        self.where = where
        self.doc = doc
        self.stage = stage
        self.declared = declared

    async def go(self) -> None:
        """Until it is over."""
        row, record = await self.calls.store.write(self._begin)
        if row is None or record is None or record["status"] != "InProgress":
            return
        reach("release/begin:after")
        work = self._work(row, record)
        try:
            if "unresolved" in record:
                raise ActionFailed("ConfigurationError", record["unresolved"])
            self._resolvable(work)
            provider = PROVIDERS[self.declared["actionTypeId"]["category"], self.declared["actionTypeId"]["provider"]]
            with self.bells.listening(arn_of(row)) as listener:
                work.listener = listener
                summary = await provider(work)
        except Gone:
            return
        except Abandoned:
            await self._end(work, "Abandoned")
        except ActionFailed as failed:
            await self._fail(work, failed)
        except Denied as error:
            await self._fail(work, denied(error))
        except Refused as refused:
            await self._fail(work, cause(refused))
        except Unforeseen:
            _log.exception("a call of the action %s of %s failed", self.declared["name"], arn_of(row))
            await self._fail(work, ActionFailed("SystemUnavailable", _INTERNAL))
        except Exception:
            _log.exception("the action %s of %s failed", self.declared["name"], arn_of(row))
            await self._fail(work, ActionFailed("SystemUnavailable", _INTERNAL))
        else:
            reach("release/end:before")
            await self._end(work, "Succeeded", summary=summary)

    @staticmethod
    def _resolvable(work: Work) -> None:
        """Raises ActionFailed where the store's key is an alias and the action is of another account, which has not got it.

        Source: CodePipeline User Guide, "Create a pipeline in CodePipeline that uses resources from another account".
        """
        key = str((work.store.get("encryptionKey") or {}).get("id") or "")
        elsewhere = work.actor.further and work.actor.further.split(":")[4] != work.account
        if elsewhere and (key.startswith("alias/") or ":alias/" in key):
            raise ActionFailed(
                "ConfigurationError",
                f"The artifact store's key is named by the alias {key}, which means nothing in the account of the action's "
                f"role {work.actor.further}; name it by its ARN.",
            )

    def _work(self, row: Row, record: Doc) -> Work:
        account, region, _, _ = self.where
        arn = arn_of(row)
        id = self.declared["actionTypeId"]
        actor = Actor(
            self.calls,
            self.doc["roleArn"],
            self.declared.get("roleArn") or "",
            account=account,
            region=region,
            arn=arn,
            name=record["id"].replace("-", ""),
        )
        minutes = int(self.declared.get("timeoutInMinutes") or TYPES[id["category"], id["provider"]].minutes)
        store = store_of(self.doc, region)
        return Work(self.calls, self.bells, row, self.stage, self.declared, store, actor, record, minutes)

    def _begin(self, tx: Transaction) -> tuple[Row | None, Doc | None]:
        account, region, pipeline, id = self.where
        row = execution(tx, *self.where)
        if row is None:
            return None, None
        name = self.declared["name"]
        actions = row.doc["stages"][self.stage]["actions"]
        if name in actions:
            return row, actions[name]
        record: Doc = {"id": new_id(), "status": "InProgress", "started": tx.now, "updated": tx.now, "by": PRINCIPAL}
        try:
            record["resolved"] = {
                key: resolved(value, scope(row)) for key, value in self.declared["configuration"].items()
            }
        except Unresolved as error:
            record |= {"resolved": {}, "unresolved": str(error)}
        actions[name] = record
        row.doc["updated"] = tx.now
        put(tx, row)
        stage = stage_row(tx, account, region, pipeline, self.stage)
        stage.doc.setdefault("seen", {})[name] = id
        put(tx, stage)
        telling.action(tx, row, self.stage, self.declared, record)
        return row, record

    async def _fail(self, work: Work, failed: ActionFailed) -> None:
        error = {"code": failed.code, "message": failed.message[:5000]}
        await self._end(work, "Failed", error=error)

    async def _end(self, work: Work, status: str, **known: Any) -> None:
        def done(tx: Transaction) -> None:
            row = execution(tx, *self.where)
            if row is None:
                return
            record = row.doc["stages"][self.stage]["actions"].get(self.declared["name"])
            if record is None or record["id"] != work.id or record["status"] != "InProgress":
                return
            record |= {"status": status, "updated": tx.now, **{key: one for key, one in known.items() if one}}
            record.pop("token", None)
            if status == "Succeeded":
                record["outputs"] = work.outputs
                if self.declared.get("namespace"):
                    row.doc["outputs"][self.declared["namespace"]] = work.outputs
            row.doc["updated"] = tx.now
            put(tx, row)
            telling.action(tx, row, self.stage, self.declared, record)

        await self.calls.store.write(done)


def scope(row: Row) -> dict[str, dict[str, str]]:
    """What variables an execution has by now, by namespace."""
    return {
        **row.doc["outputs"],
        "variables": row.doc["variables"],
        "codepipeline": {"PipelineExecutionId": row.name},
    }
