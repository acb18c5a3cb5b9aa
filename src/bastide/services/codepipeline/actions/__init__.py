"""What each provider's actions do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from bastide.services.codepipeline.actions import approval, build, copying, invoke, source, stack_sets, stacks
from bastide.services.codepipeline.work import Work

PROVIDERS: Final[dict[tuple[str, str], Callable[[Work], Awaitable[str]]]] = {
    ("Source", "CodeCommit"): source.code_commit,
    ("Source", "S3"): source.s3,
    ("Source", "ECR"): source.ecr,
    ("Build", "CodeBuild"): build.build,
    ("Test", "CodeBuild"): build.build,
    ("Approval", "Manual"): approval.approve,
    ("Deploy", "CloudFormation"): stacks.deploy,
    ("Deploy", "CloudFormationStackSet"): stack_sets.stack_set,
    ("Deploy", "CloudFormationStackInstances"): stack_sets.instances,
    ("Deploy", "S3"): copying.deploy,
    ("Invoke", "Lambda"): invoke.function,
    ("Invoke", "StepFunctions"): invoke.machine,
}
"""By category and provider: until the action is over; returns its summary, or raises what it fails with."""
