"""Application Auto Scaling: how many instances a variant of an endpoint has follows its load, or the clock.

Source: Application Auto Scaling API Reference and User Guide; SageMaker developer guide, "Automatic scaling of models".
"""

from __future__ import annotations

from bastide.kernel import Service
from bastide.services.application_autoscaling import tagging
from bastide.services.application_autoscaling.activity import ACTIVITY
from bastide.services.application_autoscaling.policy import POLICY
from bastide.services.application_autoscaling.scaler import Scaler
from bastide.services.application_autoscaling.schedule import ACTION
from bastide.services.application_autoscaling.target import TARGET

__all__ = ["SERVICE", "Scaler", "tagging"]

SERVICE = Service("application-autoscaling", kinds=[TARGET, POLICY, ACTION, ACTIVITY])
