"""Machines that jobs run on beside the platform's own: how they are reached, and how what is said stays between the two.

A node is a machine with an agent (``bastide.main.agent``). What goes to it and comes back is sealed from end to end, so
that whoever carries it (Ray) sees neither data nor keys nor credentials.
"""

from __future__ import annotations

from bastide.engines.cluster.channel import Answering, Asking
from bastide.engines.cluster.cluster import Booked, Cluster, ClusterError, Node, frame, read_frame, token

__all__ = ["Answering", "Asking", "Booked", "Cluster", "ClusterError", "Node", "frame", "read_frame", "token"]
