"""Flow logs are written: what the kernel counted, every few seconds, as the role or under the bucket's policy.

AWS writes at the latest after the aggregation interval; here it is sooner. Lines that cannot be written are lost, and the
flow log says why.
"""

from __future__ import annotations

import gzip
import hashlib
import logging
from typing import Any, Final

from bastide.domain import MICROS, Instant, Refused, iso
from bastide.engines.network import Flow, NetworkError, Networks, Vpc
from bastide.kernel import Bytes, Rounds, service_caller
from bastide.services.ec2.flow_log import FORMAT, OF, PRINCIPAL, covers
from bastide.services.ec2.nouns import FLOW_LOG, NETWORK_INTERFACE
from bastide.store import Row, Transaction

_DELIVERY: Final = "delivery.logs.amazonaws.com"
_HEADER: Final = FORMAT.replace("${", "").replace("}", "")
_MOST: Final = 5_000
"""Lines of a call of PutLogEvents; the API's limit is twice that."""
_log = logging.getLogger("bastide.network")


class FlowLogs(Rounds):
    """Writes them."""

    seconds = 2.0

    async def round(self) -> None:
        """See the base."""
        before, now = self._since, self._calls.clock()
        self._since = now
        logs: dict[Vpc, list[Row]] = {}
        for name in self.names(OF):
            account, region, id = name.split("/")
            with self._calls.store.reading() as view:
                row = FLOW_LOG.get(view, account, region, id)
            if row is not None:
                logs.setdefault(Vpc(account, region, row.doc["VpcId"]), []).append(row)
        for vpc, rows in logs.items():
            try:
                flows = await self._calls.engine(Networks).flows(vpc)
            except NetworkError as error:
                _log.warning("flows of %s could not be read: %s", vpc.id, error)
                continue
            if flows:
                await self._written(vpc, rows, flows, before, now)

    _since: Instant = 0

    async def _written(self, vpc: Vpc, logs: list[Row], flows: list[Flow], before: Instant, now: Instant) -> None:
        with self._calls.store.reading() as view:
            ids = {flow.interface for flow in flows}
            interfaces = {id: NETWORK_INTERFACE.get(view, vpc.account, vpc.region, id) for id in ids}
        start, end = (before or now) // MICROS, now // MICROS
        for row in logs:
            lines: dict[str, list[str]] = {}
            for flow in flows:
                held = interfaces[flow.interface]
                action = "ACCEPT" if flow.accepted else "REJECT"
                if held is not None and covers(row, held) and row.doc["Traffic"] in ("ALL", action):
                    lines.setdefault(flow.interface, []).append(
                        f"2 {vpc.account} {flow.interface} {flow.source} {flow.target} {flow.source_port} "
                        f"{flow.target_port} {flow.protocol} {flow.packets} {flow.size} {start} {end} {action} OK"
                    )
            if lines:
                await self._deliver(row, lines, now)

    async def _deliver(self, row: Row, lines: dict[str, list[str]], now: Instant) -> None:
        error = ""
        try:
            if row.doc["To"]["Type"] == "s3":
                await self._to_bucket(row, lines, now)
            else:
                await self._to_group(row, lines, now)
        except Refused as refused:
            error = "Access error" if "Denied" in refused.code or refused.status == 403 else refused.code
        if error != row.doc["Error"]:
            await self._told(row, error)

    async def _told(self, row: Row, error: str) -> None:
        def work(tx: Transaction) -> None:
            held = FLOW_LOG.get(tx, row.account, row.region, row.name)
            if held is not None and held.doc["Error"] != error:
                held.doc["Error"] = error
                tx.update(held, keep=False)

        await self._calls.store.write(work)

    async def _to_group(self, row: Row, lines: dict[str, list[str]], now: Instant) -> None:
        to = row.doc["To"]
        caller = await self._calls.assume(
            PRINCIPAL, to["Role"], row.name, account=row.account, region=row.region,
            source_arn=FLOW_LOG.arn(row.account, row.region, row.name),
        )  # fmt: skip

        async def act(operation: str, asked: dict[str, Any]) -> None:
            await self._calls.act(caller, "logs", operation, asked, region=row.region, source=PRINCIPAL)

        for id, held in sorted(lines.items()):
            where = {"logGroupName": to["Group"], "logStreamName": f"{id}-{row.doc['Traffic'].lower()}"}
            for first in range(0, len(held), _MOST):
                events = [{"timestamp": now // 1000, "message": one} for one in held[first : first + _MOST]]
                try:
                    await act("PutLogEvents", {**where, "logEvents": events})
                except Refused as refused:
                    if refused.code != "ResourceNotFoundException":
                        raise
                    await self._made(act, where)
                    await act("PutLogEvents", {**where, "logEvents": events})

    @staticmethod
    async def _made(act: Any, where: dict[str, str]) -> None:
        """The stream, and the group if there is none."""
        for operation, asked in (
            ("CreateLogGroup", {"logGroupName": where["logGroupName"]}),
            ("CreateLogStream", where),
        ):
            try:
                await act(operation, asked)
            except Refused as refused:
                if operation == "CreateLogStream" and refused.code != "ResourceAlreadyExistsException":
                    raise

    async def _to_bucket(self, row: Row, lines: dict[str, list[str]], now: Instant) -> None:
        to = row.doc["To"]
        text = "\n".join([_HEADER, *(one for id in sorted(lines) for one in lines[id])]) + "\n"
        mark = hashlib.sha256(f"{now}{text}".encode()).hexdigest()[:8]
        at = iso(now)
        prefix = f"{to['Prefix']}/" if to["Prefix"] else ""
        key = (
            f"{prefix}AWSLogs/{row.account}/vpcflowlogs/{row.region}/{at[:10].replace('-', '/')}/{row.account}_vpcflowlogs_"
            f"{row.region}_{row.name}_{at.replace('-', '').replace(':', '')[:13]}Z_{mark}.log.gz"
        )
        source = f"arn:aws:logs:{row.region}:{row.account}:*"
        asked = {"Bucket": to["Bucket"], "Key": key, "ACL": "bucket-owner-full-control"}
        await self._calls.act(
            service_caller(_DELIVERY, row.account, source), "s3", "PutObject", asked, region=row.region, source=_DELIVERY,
            body=Bytes(gzip.compress(text.encode(), mtime=0)),
        )  # fmt: skip
