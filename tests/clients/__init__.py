"""Clients that Bastide is tried with, each in an environment of its own: what they pin does not fit what Bastide needs."""
