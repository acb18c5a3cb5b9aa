"""The remote of git: the smart HTTP protocol over CodeCommit's repositories, ``/v1/repos/NAME``.

A client like any other: every fetch and every push is a call that is authorised and recorded.
"""

from bastide.remote.application import RemotePages

__all__ = ["RemotePages"]
