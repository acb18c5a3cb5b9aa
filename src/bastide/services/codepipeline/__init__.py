"""CodePipeline: pipelines, their executions, and what their stages and actions did.

Source: CodePipeline API Reference and User Guide.
"""

from __future__ import annotations

from bastide.engines.workflow import Flow
from bastide.kernel import Calls, Service
from bastide.services.codepipeline import action_type, execution, pipeline, results, rule_type, state
from bastide.services.codepipeline.bells import Bells
from bastide.services.codepipeline.noun import PIPELINE, facts
from bastide.services.codepipeline.polling import Poller
from bastide.services.codepipeline.runner import ReleaseFlow, subscribe

__all__ = ["SERVICE", "Bells", "Poller", "flows", "subscribe"]

_DECLARED = (action_type, execution, pipeline, results, rule_type, state)
SERVICE = Service("codepipeline", kinds=[PIPELINE], facts=facts)


def flows(calls: Calls) -> list[Flow]:
    """The workflow of executions."""
    return [ReleaseFlow(calls).flow()]
