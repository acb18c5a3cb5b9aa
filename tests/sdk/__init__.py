"""Programs as data scientists write them, run unchanged with both versions of the SageMaker Python SDK."""
