"""What stories of jobs work with."""

from tests.stories.sagemaker.conftest import workshop

__all__ = ["workshop"]
