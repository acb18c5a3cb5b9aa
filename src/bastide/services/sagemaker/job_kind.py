"""What a kind of job says of itself, and its rows."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol

from bastide.engines import images
from bastide.engines.placement import Grant
from bastide.engines.workflow import Run
from bastide.kernel import Calls, Kind
from bastide.services.sagemaker import channels, own_image
from bastide.services.sagemaker.channels import Source
from bastide.services.sagemaker.host import Host
from bastide.services.sagemaker.metrics import Metrics
from bastide.services.sagemaker.mirror import Mirror
from bastide.services.sagemaker.untrusted import untrusted
from bastide.store import Row, Transaction

HOMOGENEOUS: Final = "homogeneousCluster"


class Beside(Protocol):
    """What goes on beside a job that runs."""

    def start(self) -> None:
        """Begins; the job's programs have begun."""

    async def finish(self) -> None:
        """The job's programs have ended, and their folders are still there. Does not raise for what the job did."""

    async def abandon(self) -> None:
        """Ends at once; also after `finish`."""


class JobKind(ABC):
    """What the steps of a job ask of its kind. `name` is the flow's name."""

    name: ClassVar[str]
    kind: ClassVar[Kind]
    log_group: ClassVar[str]

    def __init__(self, calls: Calls, grace_seconds: float) -> None:
        self.calls = calls
        self.grace = grace_seconds
        self.live: dict[str, Metrics] = {}
        """What running jobs told of themselves so far, by their ARN."""

    # -- what a kind of job says -------------------------------------------------------------------------------------------

    @abstractmethod
    def image(self, row: Row) -> str: ...

    @abstractmethod
    def resources(self, row: Row) -> dict[str, Any]:
        """InstanceType, VolumeSizeInGB, VolumeKmsKeyId."""

    @abstractmethod
    def sources(self, row: Row) -> list[Source]: ...

    def hosts(self, row: Row) -> list[Host]:
        """The job's hosts, none of them there yet."""
        resources = self.resources(row)
        groups = resources.get("InstanceGroups") or [{"InstanceGroupName": HOMOGENEOUS, **resources}]
        made: list[Host] = []
        for group in groups:
            for _ in range(int(group.get("InstanceCount") or 1)):
                made.append(Host(len(made), group["InstanceType"], group["InstanceGroupName"]))
        return made

    @abstractmethod
    def configure(self, row: Row, host: Host, hosts: Sequence[Host], ml: Path) -> None:
        """Writes what the job finds below ``/opt/ml`` of a host beside its inputs."""

    @abstractmethod
    def command(self, row: Row, environment: images.Environment) -> Sequence[str]: ...

    @abstractmethod
    def variables(self, row: Row) -> Mapping[str, str]: ...

    @abstractmethod
    async def deliver(self, run: Run, row: Row, hosts: Sequence[Host]) -> dict[str, Any]:
        """Uploads what the job made; returns what its row then says."""

    @abstractmethod
    def ended(self, row: Row, ml: Path, outcome: dict[str, Any]) -> None:
        """Adds to the outcome what the job left in the folder of the host that decided it."""

    def bound(self, row: Row) -> str:
        """What of the job only the platform's own machine can do; empty for a job that a cluster's node can run."""
        config, isolated, _ = self.network(row)
        if config and not isolated:
            return "VpcConfig"
        if self.further(row):
            return "DebugRuleConfigurations"
        with self.calls.store.reading() as view:
            if own_image.named(self.calls, view, self.image(row), row.account) is not None:
                return "an image of one's own"
        if self.untrusted(row):
            return "code that is not trusted"
        modes = sorted({one.mode for one in self.sources(row) if one.mode != channels.FILE})
        return modes[0] if modes else "EnableManagedSpotTraining" if self.spot(row) else self.follows(row)

    def follows(self, row: Row) -> str:
        """The member by which S3 is to follow folders of the job while it runs; empty if there is none."""
        return ""

    def spot(self, row: Row) -> bool:
        """Whether others may take the job's place."""
        return False

    async def mirror(self, run: Run, row: Row, host: Host) -> list[Mirror]:
        """Folders of a host that S3 is to follow while the job runs, as they are to be when it begins."""
        return []

    def further(self, row: Row) -> list[Grant]:
        """What is booked beside the hosts."""
        return []

    def beside(self, run: Run, row: Row, hosts: Sequence[Host]) -> Beside | None:
        """What is to go on while the job runs."""
        return None

    @abstractmethod
    def network(self, row: Row) -> tuple[Any, bool, bool]:
        """VpcConfig, EnableNetworkIsolation, EnableInterContainerTrafficEncryption."""

    def secondary(self, row: Row, status: str, message: str, now: int) -> bool:
        """Shows a step to whoever describes the job; False if there is nothing to show."""
        return False

    @abstractmethod
    def finish(self, row: Row, status: str, run: Run, now: int) -> None:
        """Fills the row's last members."""

    def over(self, tx: Transaction, row: Row, run: Run) -> None:  # noqa: B027 - most kinds have nothing more
        """What else a job that has its last status leaves."""

    # -- rows --------------------------------------------------------------------------------------------------------------

    def row(self, run: Run) -> Row:
        """The job as it stands."""
        with self.calls.store.reading() as view:
            return self.kind.find(view, run.state["account"], run.state["region"], run.state["name"])

    async def show(self, run: Run, status: str, message: str) -> None:
        """Shows where the job is, unless it is being stopped."""

        def work(tx: Transaction) -> None:
            row = self.kind.find(tx, run.state["account"], run.state["region"], run.state["name"])
            if row.status == "InProgress" and self.secondary(row, status, message, tx.now):
                self.kind.change(tx, row, f"{self.kind.name}StateChange")

        await self.calls.store.write(work)

    @staticmethod
    def place(run: Run, host: Host) -> str:
        """The name of a host's volume and sandbox."""
        name = f"job-{hashlib.sha256(run.id.encode()).hexdigest()[:24]}"
        return name if host.number == 0 else f"{name}-{host.number + 1}"

    def untrusted(self, row: Row) -> bool:
        """Whether its code is not trusted."""
        return untrusted(self.calls, row.account, self.image(row))
