"""Model servers that stay: started, asked whether they are well, started again when they fall, and called.

A server is a program, or several that pass a call on, that speak HTTP on unix sockets. How they are started, and what they
run in, whoever deploys them says.
"""

from bastide.engines.serving.client import Answer, Body, Client, Lost, reach
from bastide.engines.serving.fleet import Observer, OnDemand, Serving, Throttled, Variant
from bastide.engines.serving.models import Models, NoModel, NotLoaded
from bastide.engines.serving.server import (
    MOST_ANSWER,
    Container,
    Instance,
    Invocation,
    Loading,
    NotReady,
    Process,
    Slow,
    Unhealthy,
)
from bastide.engines.serving.standing import Standing

__all__ = [
    "MOST_ANSWER",
    "Answer",
    "Body",
    "Client",
    "Container",
    "Instance",
    "Invocation",
    "Loading",
    "Lost",
    "Models",
    "NoModel",
    "NotLoaded",
    "NotReady",
    "Observer",
    "OnDemand",
    "Process",
    "Serving",
    "Slow",
    "Standing",
    "Throttled",
    "Unhealthy",
    "Variant",
    "reach",
]
