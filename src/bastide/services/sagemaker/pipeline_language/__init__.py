"""The language of pipeline definitions (version 2020-12-01): read, checked, and computed, without a socket or a database.

Source: SageMaker developer guide, "Pipelines"; the published JSON schema of pipeline definitions.
"""

from bastide.services.sagemaker.pipeline_language.caching import key, lifetime
from bastide.services.sagemaker.pipeline_language.condition import holds
from bastide.services.sagemaker.pipeline_language.definition import (
    CHECKS,
    MOST_BYTES,
    Definition,
    Parameter,
    PropertyFile,
    Step,
    parse,
)
from bastide.services.sagemaker.pipeline_language.expression import Malformed, Scope, Unresolved, resolve, wanted
from bastide.services.sagemaker.pipeline_language.retrying import Policy, policy_for

__all__ = [
    "CHECKS",
    "MOST_BYTES",
    "Definition",
    "Malformed",
    "Parameter",
    "Policy",
    "PropertyFile",
    "Scope",
    "Step",
    "Unresolved",
    "holds",
    "key",
    "lifetime",
    "parse",
    "policy_for",
    "resolve",
    "wanted",
]
