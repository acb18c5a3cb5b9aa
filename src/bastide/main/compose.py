"""The one place where drivers meet ports."""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import bastide
from bastide.domain import Clock, wall
from bastide.engines.advisories import Advisories
from bastide.engines.artifacts import Artifacts
from bastide.engines.cluster import Cluster
from bastide.engines.functions import Functions
from bastide.engines.git import Git
from bastide.engines.idp import Issuers
from bastide.engines.images import Containers
from bastide.engines.indexes import PublicIndex
from bastide.engines.indexes.channels import Channels
from bastide.engines.keys import RootKey, Safe, open_root
from bastide.engines.lazy import Folders
from bastide.engines.lazy.fuse import Fuse
from bastide.engines.mail import Mail
from bastide.engines.network import Door, NetworkError, Networks, Plan, Transit, TransitPlan, Vpc
from bastide.engines.network.links import Links
from bastide.engines.network.namespaces import Namespaces
from bastide.engines.outgoing import Outgoing
from bastide.engines.placement import Placement
from bastide.engines.placement.machine import Machine
from bastide.engines.placement.nodes import Nodes
from bastide.engines.sandbox import Sandboxes, Volumes
from bastide.engines.sandbox.drivers.gocryptfs import Gocryptfs
from bastide.engines.sandbox.drivers.gvisor import Gvisor
from bastide.engines.sandbox.drivers.remote import Spread
from bastide.engines.serving import Serving, Standing
from bastide.engines.spool import Spools
from bastide.engines.telemetry import Meter
from bastide.engines.tuning import Optimiser
from bastide.engines.workflow import Workflows
from bastide.frontdoor import FrontDoor
from bastide.kernel import Calls, Registry, Sessions
from bastide.kernel.address import Address
from bastide.kernel.circuits import Gateways
from bastide.kernel.outbox import Outbox
from bastide.main import authority
from bastide.main.catalogue import SERVICES
from bastide.main.objects import open_artifacts, owner_of
from bastide.notebooks import NotebookPages
from bastide.registry import PackagePages, RegistryPages
from bastide.remote import RemotePages
from bastide.services import (
    application_autoscaling,
    cloudformation,
    cloudwatch,
    codeartifact,
    codebuild,
    codecommit,
    codedeploy,
    codepipeline,
    config,
    ec2,
    ecr,
    events,
    firehose,
    identity_center,
    kms,
    lambda_,
    logs,
    route53,
    s3,
    sagemaker,
    scheduler,
    servicecatalog,
    sns,
    sqs,
    ssm,
    states,
)
from bastide.services.cloudtrail import Delivery, Logging
from bastide.services.iam.directory import IamDirectory
from bastide.services.iam.last_use import LastUse
from bastide.services.organizations.tree import OrganisationTree
from bastide.signin import DevelopmentProvider, SignIn
from bastide.store import Journal, SqliteStore
from bastide.store.directory import Configuration, DataDirectory


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
    network: ec2.Ec2Network
    networks: Namespaces
    issuers: Issuers
    portal: identity_center.Portal
    sign_in: SignIn
    development: DevelopmentProvider | None
    last_use: LastUse
    expiry: s3.Expiry
    keeper: kms.Keeper
    capture: sagemaker.Capture
    scaler: application_autoscaling.Scaler
    volumes: Volumes
    meter: Meter
    watch: cloudwatch.Watch
    retention: logs.Retention
    images: ecr.Upkeep
    rules: events.Rules
    executions: states.Executions
    queues: sqs.Upkeep
    post: sns.Post
    clockwork: scheduler.Clockwork
    evaluator: config.Evaluator
    monitors: sagemaker.Monitors
    streams: firehose.Flusher
    telling: cloudwatch.Telling
    notifications: s3.Notifications
    flow_logs: ec2.FlowLogs
    triggers: codecommit.Triggers
    poller: codepipeline.Poller
    deployer: codedeploy.Deployer
    cluster: Cluster | None

    @classmethod
    async def start(
        cls,
        directory: DataDirectory,
        url: str,
        *,
        root: RootKey | None = None,
        development: bool = False,
        outgoing: Outgoing | None = None,
        mail: Mail | None = None,
        clock: Clock = wall,
        cluster: str | None = None,
        package_index: str = "",
    ) -> Platform:
        """Opens the state, takes up what an earlier run left, and starts what runs by itself.

        url: where people reach it. root: the platform's key, if it was opened already. development: with the development
        identity provider. outgoing: what reaches addresses elsewhere. mail: what takes letters. clock: the time, which only
        tests move. cluster: HOST:PORT of Ray, instead of the configuration's. Raises ClusterError where that cannot be
        used. package_index: the URL of the public package index that repositories may be connected to.
        """
        outgoing = outgoing or Outgoing(directory.authority)
        configuration = directory.load()
        if cluster is not None:
            configuration = replace(configuration, cluster=cluster)
        root = root or open_root(directory.root)
        store = SqliteStore(directory.database, clock)
        safe = Safe(directory.safe, root)
        kms.migrate(store, safe, root)
        journal = Journal(directory.journal, store)
        await journal.recover()
        run = directory.run
        run.mkdir(mode=0o711, parents=True, exist_ok=True)
        sandboxes: Sandboxes = Gvisor(run)
        volumes: Volumes = Gocryptfs(run / "volumes")
        folders: Folders = Fuse(run / "lazy")
        await sandboxes.recover()
        await folders.recover()
        await volumes.recover()
        with store.reading() as view:
            owner = owner_of(view)
        artifacts = await asyncio.to_thread(open_artifacts, directory, configuration, owner)
        placement: Placement = Machine(quotas=configuration.quotas)
        ray: Cluster | None = None
        if configuration.cluster:
            ray = Cluster(configuration.cluster, directory.cluster_secret())
            await ray.start()
            placement = nodes = Nodes(placement, ray, configuration.quotas)
            await nodes.start()
            sandboxes = volumes = Spread(sandboxes, volumes, ray)
        serving = Serving(run / "serving")
        registry = Registry(SERVICES)

        clear: list[Path] = []

        async def copies() -> Path:
            if not clear or volumes.lost("git"):
                await volumes.close("git")
                clear[:] = [await volumes.create("git", os.urandom(32))]
            return clear[0]

        links = Links(directory.links)
        network = ec2.Ec2Network(registry.services, links, route53.zones_of, root)

        def planned(vpc: Vpc) -> Plan | None:
            with store.reading() as view:
                return network.plan(view, vpc)

        def planned_transit(transit: Transit) -> TransitPlan | None:
            with store.reading() as view:
                return network.transit(view, transit)

        networks = Namespaces(planned, directory.authority, planned_transit, clock)
        portal = identity_center.Portal((*configuration.hosts, str(urlsplit(url).hostname)), url)
        issuers = Issuers(directory.authority)
        room = configuration.metrics_bytes
        meter = Meter(directory.metrics, clock, limit_bytes=room, days=configuration.metrics_days)
        last_use = LastUse(store)
        engines: dict[type, object] = {
            Artifacts: artifacts,
            RootKey: root,
            Safe: safe,
            Sandboxes: sandboxes,
            Volumes: volumes,
            Folders: folders,
            Placement: placement,
            Serving: serving,
            Standing: Standing(),
            Spools: Spools(directory.captured, root.derive("captured")),
            Optimiser: Optimiser(),
            Networks: networks,
            Links: links,
            Gateways: ec2.CircuitGateways(),
            Configuration: configuration,
            identity_center.Portal: portal,
            Issuers: issuers,
            LastUse: last_use,
            Address: Address(url, (*configuration.hosts, str(urlsplit(url).hostname))),
            sqs.Queues: sqs.Queues(),
            Outgoing: outgoing,
            Advisories: Advisories(directory.advisories),
            PublicIndex: PublicIndex(directory.packages, package_index, outgoing.stream),
            Channels: Channels(directory.packages / "channels"),
            Mail: mail or Mail(),
            sns.Signer: sns.Signer(*authority.signing(directory.tls), url),
            Functions: Functions(clock),
            Meter: meter,
            Git: Git(copies),
            codepipeline.Bells: codepipeline.Bells(),
        }
        calls = Calls(
            store=store,
            journal=journal,
            registry=registry,
            directory=IamDirectory(root, last_use, identity_center.stands),
            organisation=OrganisationTree(configuration.account),
            network=network,
            sessions=Sessions(root),
            sealer=root,
            engines=engines,
            home=configuration.account,
            clock=clock,
        )
        engines[Containers] = Containers(volumes, ecr.Downloads(calls))
        capture = engines[sagemaker.Capture] = sagemaker.Capture(calls)
        engines[sagemaker.Trackers] = sagemaker.Trackers(calls, directory.tracking)
        engines[sagemaker.Notebooks] = sagemaker.Notebooks(calls, directory.notebooks)
        durable = (sagemaker, cloudformation, codebuild, codepipeline, servicecatalog, ssm)
        workflows = Workflows(store, clock, [flow for service in durable for flow in service.flows(calls)])
        engines[Workflows] = workflows
        executions = engines[states.Executions] = states.Executions(calls)
        outbox = Outbox(store)
        engines[lambda_.Runner] = lambda_.Runner(calls)
        engines[lambda_.Events] = lambda_.Events(calls)
        mappings = engines[lambda_.Mappings] = lambda_.Mappings(calls)
        for service in durable:
            service.subscribe(outbox, calls, workflows)
        lambda_.subscribe(outbox, calls)
        mappings.subscribe(outbox)
        store.committed = outbox.wake
        store.tell_recorded(events.Recorded(Logging(calls)).told)
        rules = events.Rules(calls)
        post = sns.Post(calls)
        engines[sns.Sender] = post.sender
        scaler = application_autoscaling.Scaler(calls)
        outbox.subscribe(cloudwatch.ACTION, scaler.heard)
        rules.subscribe(outbox)
        executions.subscribe(outbox)
        telling, notifications = cloudwatch.Telling(calls), s3.Notifications(calls)
        telling.subscribe(outbox)
        triggers = codecommit.Triggers(calls)
        triggers.subscribe(outbox)
        notifications.subscribe(outbox)
        poller = codepipeline.Poller(calls)
        poller.subscribe(outbox)
        deployer = codedeploy.Deployer(calls)
        deployer.subscribe(outbox)
        delivery = Delivery(calls)
        expiry = s3.Expiry(calls)
        with store.reading() as view:
            named = (
                s3.files(view)
                | ecr.files(view)
                | lambda_.files(view)
                | codeartifact.files(view)
                | codecommit.files(view)
            )
        await artifacts.sweep(lambda name: bytes.fromhex(name) in named)
        invented = None
        if development:
            secret = root.derive("development-provider/client").hex()
            invented = DevelopmentProvider(portal, directory, root, secret, wall)
        sign_in = SignIn(
            calls, portal, directory.identity_provider, invented.relying() if invented is not None else None
        )
        keeper = kms.Keeper(calls)
        await keeper.settle()
        keeper.start()
        watch = cloudwatch.Watch(calls)
        retention = logs.Retention(calls)
        platform = cls(
            configuration,
            directory,
            store,
            journal,
            calls,
            outbox,
            workflows,
            serving,
            delivery,
            network,
            networks,
            issuers,
            portal,
            sign_in,
            invented,
            last_use,
            expiry,
            keeper,
            capture,
            scaler,
            volumes,
            meter,
            watch,
            retention,
            ecr.Upkeep(calls),
            rules,
            executions,
            sqs.Upkeep(calls),
            post,
            scheduler.Clockwork(calls),
            config.Evaluator(calls),
            sagemaker.Monitors(calls),
            firehose.Flusher(calls),
            telling,
            notifications,
            ec2.FlowLogs(calls),
            triggers,
            poller,
            deployer,
            ray,
        )
        journal.start()
        meter.start()
        await workflows.recover()
        workflows.run()
        rules.start()
        platform.queues.start()
        post.start()
        platform.clockwork.start()
        platform.evaluator.start()
        platform.monitors.start()
        platform.streams.start()
        telling.start()
        notifications.start()
        platform.flow_logs.start()
        triggers.start()
        calls.engine(Functions).start()
        calls.engine(lambda_.Events).start()
        await mappings.start()
        outbox.start()
        delivery.start()
        sign_in.start()
        last_use.start()
        expiry.start()
        watch.start()
        retention.start()
        platform.images.start()
        capture.start()
        platform.scaler.start()
        await sagemaker.recover(calls)
        poller.start()
        deployer.start()
        await executions.start()
        await states.recover(executions)
        return platform

    def door(self) -> FrontDoor:
        """The front door of this platform."""
        configuration = self.configuration
        inside = ["amazonaws.com", *(f"{region}.amazonaws.com" for region in configuration.regions)]
        hosts = [*configuration.hosts, *inside]
        registry = RegistryPages(self.calls, configuration.hosts, configuration.regions)
        remote = RemotePages(self.calls, configuration.regions)
        signals = cloudformation.Signals(self.calls)
        code = lambda_.CodePages(self.calls)
        browsers = (self.sign_in,) if self.development is None else (self.sign_in, self.development)
        packages = PackagePages(self.calls, configuration.hosts, configuration.regions)
        notebooks = NotebookPages(self.calls, self.calls.engine(Address).hosts)
        pages = (notebooks, registry, remote, packages, code, signals, sns.Links(self.calls), *browsers)
        return FrontDoor(
            self.calls,
            hosts=hosts,
            regions=configuration.regions,
            health=self.health,
            origins=s3.cors,
            pages=pages,
        )

    async def open_networks(self, door: Door) -> None:
        """Makes every VPC that has endpoints, and starts notebook instances. A VPC that cannot be made is cut off, and the
        log says why."""
        self.networks.door = door
        with self.store.reading() as view:
            vpcs = self.network.vpcs(view)
            transits = self.network.transits(view, self.configuration.regions)
        for vpc in vpcs:
            with contextlib.suppress(NetworkError):
                await ec2.settle(self.calls, vpc)
        for transit in transits:
            with contextlib.suppress(NetworkError):
                await self.networks.settle(transit)
        await self.calls.engine(sagemaker.Notebooks).open()

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
            "enforced: identity, resource, trust, session and endpoint policies, boundaries, SCPs, RCPs; a deny wins",
            "enforced: every call recorded; changes and refusals are on the disk before the answer",
            "enforced: objects, volumes and keys encrypted at rest; TLS 1.2 or later on the public listener",
        ]
        lacking = self.networks.lacking()
        if lacking:
            lines.append(f"notice: there are no VPC endpoints, this machine lacks {lacking}")
        else:
            lines.append(
                "enforced: VPC endpoints are listeners inside their VPC; security groups and routes filter packets"
            )
        if self.issuers.loopback:
            lines.append("notice: OIDC issuers on this machine are believed, as the platform listens on loopback only")
        if plain:
            lines.append("notice: a plain listener stands on loopback; requests through it are not aws:SecureTransport")
        if self.development is not None:
            lines.append("notice: people sign in at the DEVELOPMENT identity provider, which is not for real accounts")
        return lines

    async def close(self) -> None:
        """Drains: work in flight is left where a start finds it again."""
        await self.watch.close()
        await self.retention.close()
        await self.flow_logs.close()
        await self.images.close()
        await self.networks.close()
        await self.scaler.close()
        await self.sign_in.close()
        await self.executions.close()
        await self.calls.engine(lambda_.Mappings).close()
        await self.calls.engine(lambda_.Events).close()
        await self.calls.engine(Functions).close()
        await self.workflows.close()
        await self.calls.engine(sagemaker.Trackers).close()
        await self.calls.engine(sagemaker.Notebooks).close()
        await self.serving.close()
        await self.capture.close()
        await self.calls.engine(Optimiser).close()
        await self.volumes.close_all()
        if self.cluster is not None:
            await self.cluster.close()
        await self.expiry.close()
        await self.delivery.close()
        await self.rules.close()
        await self.queues.close()
        await self.post.close()
        await self.clockwork.close()
        await self.evaluator.close()
        await self.monitors.close()
        await self.streams.close()
        await self.telling.close()
        await self.notifications.close()
        await self.triggers.close()
        await self.poller.close()
        await self.deployer.close()
        await self.outbox.close()
        await self.keeper.close()
        await self.last_use.close()
        await self.journal.close()
        await self.meter.close()
        self.store.close()
