"""What stories of jobs work with."""

from tests.stories.sagemaker.conftest import workshop
from tests.stories.sagemaker.test_job_role import study

__all__ = ["study", "workshop"]
