"""AWS, as whoever deploys reaches it: the management account with one's own credentials, others by a role in each."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

import botocore.exceptions

from bastide.landing.blueprint import MANAGEMENT

SESSION: Final = "landing-zone"
Make = Callable[[str, dict[str, str] | None], Any]
"""A boto3 client of a service; the second argument is a role's credentials as STS gives them, None for one's own."""


class Unreachable(Exception):  # noqa: N818
    """An account that the deploying role does not lead into."""


class Cloud:
    """Clients by service and account; may be used by several threads."""

    def __init__(self, make: Make, role: str) -> None:
        self._make = make
        self._role = role
        self._lock = threading.RLock()
        self._sessions: dict[str, dict[str, str]] = {}
        self._clients: dict[tuple[str, str], Any] = {}

    def client(self, service: str, account: str = MANAGEMENT) -> Any:
        """A client in an account, given by its id; raises Unreachable."""
        with self._lock:
            key = (service, account)
            if key not in self._clients:
                held = None if account == MANAGEMENT else self._session(account)
                self._clients[key] = self._make(service, held)
            return self._clients[key]

    def _session(self, account: str) -> dict[str, str]:
        if account not in self._sessions:
            arn = f"arn:aws:iam::{account}:role/{self._role}"
            try:
                told = self.client("sts").assume_role(RoleArn=arn, RoleSessionName=SESSION)
            except botocore.exceptions.ClientError as error:
                raise Unreachable(f"{arn} cannot be assumed: {error.response['Error']['Message']}") from None
            self._sessions[account] = told["Credentials"]
        return self._sessions[account]

    def forget(self) -> None:
        """Sessions end after an hour; what follows begins with new ones."""
        with self._lock:
            self._sessions.clear()
            self._clients = {key: one for key, one in self._clients.items() if key[1] == MANAGEMENT}
