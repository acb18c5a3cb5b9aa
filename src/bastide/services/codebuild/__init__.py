"""CodeBuild: projects whose builds run in sandboxes, with the role, the network and the sizes that they name.

Source: AWS CodeBuild API Reference and User Guide.
"""

from __future__ import annotations

from typing import Any

from bastide.engines.workflow import Flow, Workflows
from bastide.kernel import Calls, Service
from bastide.kernel.outbox import Outbox
from bastide.services.codebuild import build as _build  # declares the operations on builds
from bastide.services.codebuild import project as _project  # declares the operations on projects
from bastide.services.codebuild import report as _report  # declares the operations on reports
from bastide.services.codebuild.flow import FLOW, BuildFlow
from bastide.services.codebuild.noun import BUILD, PROJECT, REPORT, REPORT_GROUP

__all__ = ["SERVICE", "flows", "subscribe"]


SERVICE = Service("codebuild", kinds=[PROJECT, BUILD, REPORT_GROUP, REPORT])


def flows(calls: Calls) -> list[Flow]:
    """The workflow of builds. `calls` needs the engines Sandboxes, Volumes, Placement, Networks and Containers by the time
    it runs."""
    return [BuildFlow(calls).flow()]


def subscribe(outbox: Outbox, calls: Calls, workflows: Workflows) -> None:
    """A build that was asked for begins, and one that is to stop is told, once the asking is on the disk."""

    async def build(body: dict[str, Any]) -> None:
        if body["event"] in ("StartBuild", "RetryBuild"):
            await workflows.begin(FLOW, body["arn"], {key: body[key] for key in ("account", "region", "name")})
        elif body["event"] == "StopBuild":
            await workflows.signal(body["arn"], "stop")

    outbox.subscribe(BUILD.key, build)


del _build, _project, _report
