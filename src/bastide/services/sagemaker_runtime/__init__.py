"""SageMaker Runtime: invoking endpoints.

Source: Amazon SageMaker Runtime API Reference.
"""

from __future__ import annotations

from bastide.kernel import Service
from bastide.services.sagemaker_runtime import asynchronous, streamed
from bastide.services.sagemaker_runtime.invocation import INVOCATION

__all__ = ["SERVICE", "asynchronous", "streamed"]

SERVICE = Service("sagemaker-runtime", kinds=[INVOCATION], prefix="sagemaker")
