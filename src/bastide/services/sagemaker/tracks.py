"""Where MLflow tracking servers keep what they are told: for whoever runs them, and for backups."""

from __future__ import annotations

from typing import Final

from bastide.engines.keys import RootKey
from bastide.services.sagemaker.tracking_server import INDEX, TRACKING_SERVER
from bastide.store import View

STORE: Final = "server/mlflow.db"
"""The database, on a server's volume."""


def volume_of(id: str) -> str:
    """A server's volume, by name."""
    return f"tracking-{id}"


def key_of(root: RootKey, arn: str, id: str) -> bytes:
    """The key of a server's volume."""
    return root.derive(f"tracking/{arn}/{id}")


def volumes(view: View, root: RootKey) -> list[tuple[str, str, bytes]]:
    """Every server's id, and its volume's name and key."""
    found = []
    for held in view.scan(INDEX, "", "", limit=100_000):
        row = TRACKING_SERVER.get(view, *TRACKING_SERVER.locate(held.name, "", ""))
        if row is not None:
            id = row.doc["_id"]
            found.append((id, volume_of(id), key_of(root, held.name, id)))
    return found
