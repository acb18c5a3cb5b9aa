"""The one place where drivers meet ports."""

from __future__ import annotations

from dataclasses import dataclass

import bastide
from bastide.domain import wall
from bastide.engines.artifacts import Artifacts
from bastide.engines.keys import RootKey
from bastide.engines.placement import Placement
from bastide.engines.sandbox import Sandboxes, Volumes
from bastide.engines.sandbox.drivers.bubblewrap import Bubblewrap
from bastide.engines.sandbox.drivers.gocryptfs import Gocryptfs
from bastide.engines.serving import Serving
from bastide.engines.workflow import Workflows
from bastide.frontdoor import FrontDoor
from bastide.kernel import Calls, Endpoint, Registry, Sessions
from bastide.kernel.outbox import Outbox
from bastide.main.catalogue import SERVICES
from bastide.services import s3, sagemaker
from bastide.services.cloudtrail import Delivery
from bastide.services.iam.directory import IamDirectory
from bastide.services.organizations.tree import OrganisationTree
from bastide.store import Journal, SqliteStore, View
from bastide.store.directory import Configuration, DataDirectory


class _NoNetwork:
    """While there is no EC2, no call comes through an endpoint."""

    def endpoint(self, view: View, id: str) -> Endpoint | None:
        return None


@dataclass(slots=True)
class Platform:
    """A running platform, everything in one process."""

    configuration: Configuration
    directory: DataDirectory
    store: SqliteStore
    journal: Journal
    calls: Calls
    outbox: Outbox
    workflows: Workflows
    serving: Serving
    delivery: Delivery

    @classmethod
    async def start(cls, directory: DataDirectory) -> Platform:
        """Opens the state, takes up what an earlier run left, and starts what runs by itself."""
        configuration = directory.load()
        root = RootKey.load(directory.root_key)
        store = SqliteStore(directory.database)
        journal = Journal(directory.journal, store)
        await journal.recover()
        run = directory.run
        run.mkdir(mode=0o711, parents=True, exist_ok=True)
        sandboxes: Sandboxes = Bubblewrap(run)
        volumes: Volumes = Gocryptfs(run / "volumes")
        await sandboxes.recover()
        await volumes.recover()
        artifacts = Artifacts(directory.objects)
        placement = Placement()
        serving = Serving(run / "serving")
        engines: dict[type, object] = {
            Artifacts: artifacts,
            RootKey: root,
            Sandboxes: sandboxes,
            Volumes: volumes,
            Placement: placement,
            Serving: serving,
        }
        calls = Calls(
            store=store,
            journal=journal,
            registry=Registry(SERVICES),
            directory=IamDirectory(root),
            organisation=OrganisationTree(configuration.account),
            network=_NoNetwork(),
            sessions=Sessions(root),
            sealer=root,
            engines=engines,
            home=configuration.account,
            clock=wall,
        )
        workflows = Workflows(store, wall, sagemaker.flows(calls))
        engines[Workflows] = workflows
        outbox = Outbox(store)
        sagemaker.subscribe(outbox, calls, workflows)
        store.committed = outbox.wake
        delivery = Delivery(calls)
        with store.reading() as view:
            named = s3.files(view)
        artifacts.sweep(lambda name: bytes.fromhex(name) in named)
        platform = cls(configuration, directory, store, journal, calls, outbox, workflows, serving, delivery)
        journal.start()
        await workflows.recover()
        workflows.run()
        outbox.start()
        delivery.start()
        await sagemaker.recover(calls)
        return platform

    def door(self) -> FrontDoor:
        """The front door of this platform."""
        configuration = self.configuration
        return FrontDoor(self.calls, hosts=configuration.hosts, regions=configuration.regions, health=self.health)

    def health(self) -> dict[str, object]:
        """What `GET /_bastide/health` tells."""
        return {
            "status": "ok",
            "version": bastide.__version__,
            "regions": self.configuration.regions,
            "services": sorted(self.calls.registry.services),
            "enforcement": self.enforcement(False),
        }

    def enforcement(self, plain: bool) -> list[str]:
        """How enforcement stands, a line each. None of it can be switched off."""
        operations = self.calls.registry.operations
        lines = [
            f"enforced: every call signed (SigV4); {len(operations)} operations, each asks the policy engine",
            "enforced: identity, resource, trust and session policies, boundaries, SCPs; explicit deny first",
            "enforced: every call recorded; changes and refusals are on the disk before the answer",
            "enforced: objects, volumes and keys encrypted at rest; TLS 1.2 or later on the public listener",
        ]
        if plain:
            lines.append("notice: a plain listener stands on loopback; requests through it are not aws:SecureTransport")
        return lines

    async def close(self) -> None:
        """Drains: work in flight is left where a start finds it again."""
        await self.workflows.close()
        await self.serving.close()
        await self.delivery.close()
        await self.outbox.close()
        await self.journal.close()
        self.store.close()
