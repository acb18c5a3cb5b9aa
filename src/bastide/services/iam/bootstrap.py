"""The first administrator of a new platform."""

from __future__ import annotations

from typing import Final

from bastide.domain import Instant
from bastide.kernel import Sealer
from bastide.services.iam.access_key import new_key
from bastide.services.iam.managed import ADMINISTRATOR
from bastide.services.iam.user import USER, user_doc
from bastide.store import Row, Transaction

NAME: Final = "administrator"


def bootstrap(tx: Transaction, management_account: str, now: Instant, sealer: Sealer) -> tuple[str, str]:
    """Makes the user `administrator` of the management account, with AdministratorAccess; returns its access key and
    secret. Raises Taken if the platform has one."""
    doc = {**user_doc(management_account, NAME, "/"), "attached": [ADMINISTRATOR]}
    user = Row(USER.key, management_account, "", NAME, doc, created=now)
    tx.insert(user, event="Bootstrap")
    row, secret = new_key(tx, sealer, user, now)
    return row.doc["AccessKeyId"], secret
