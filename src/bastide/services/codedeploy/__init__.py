"""CodeDeploy: aliases of functions that are led from one version to the next, checked, watched, and taken back.

Source: AWS CodeDeploy API Reference and User Guide.
"""

from __future__ import annotations

from bastide.kernel import Service
from bastide.services.codedeploy import application, config, deployment, group
from bastide.services.codedeploy.deployer import Deployer
from bastide.services.codedeploy.noun import APPLICATION, CONFIG, DEPLOYMENT, GROUP

__all__ = ["SERVICE", "Deployer"]

_DECLARED = (application, config, deployment, group)
SERVICE = Service("codedeploy", kinds=[APPLICATION, GROUP, CONFIG, DEPLOYMENT])
