"""`bastide demo`: a bank's mortgage model, from real data to a governed endpoint, told on the wire with boto3 only."""

from bastide.commands.demo.command import demo

__all__ = ["demo"]
