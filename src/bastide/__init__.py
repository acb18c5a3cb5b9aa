"""Bastide: the governed SageMaker that you can run, prove and audit offline."""

__version__ = "0.1.0"
