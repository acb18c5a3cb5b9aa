"""`bastide demo`: a bank's mortgage model, by hand and from a commit to production, told as its clients would."""

from bastide.commands.demo.command import demo

__all__ = ["demo"]
