"""Signing in: the pages that people see, the platform as client of an identity provider, and one for development."""

from bastide.signin.application import SignIn
from bastide.signin.development import DevelopmentProvider

__all__ = ["DevelopmentProvider", "SignIn"]
