"""Model servers that stay: started, asked whether they are well, started again when they fall, and called.

A server is a program that speaks HTTP on a unix socket. How it is started, and what it runs in, whoever deploys it says.
"""

from bastide.engines.serving.client import Answer, Client, Lost
from bastide.engines.serving.fleet import Instance, NotReady, Process, Serving, Unhealthy, Variant

__all__ = ["Answer", "Client", "Instance", "Lost", "NotReady", "Process", "Serving", "Unhealthy", "Variant"]
