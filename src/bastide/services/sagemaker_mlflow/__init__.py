"""SageMaker with MLflow: the REST API of tracking servers, each request of which is an action that policies name.

Source: Service Authorization Reference, "Amazon SageMaker with MLflow".
"""

from __future__ import annotations

from bastide.kernel import Service
from bastide.services.sagemaker_mlflow.tracking import TRACKING

__all__ = ["SERVICE"]

SERVICE = Service("sagemaker-mlflow", kinds=[TRACKING])
