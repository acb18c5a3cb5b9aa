"""The credential report: a line for every user of the account, as CSV.

Source: IAM User Guide, "Generate credential reports for your AWS account" (columns, values, and that a report is made anew
after four hours). Users here have no passwords and no certificates, and the root user has no credentials at all; the
columns say so.
"""

from __future__ import annotations

import csv
import io
from typing import Final

from bastide.domain import MICROS, Instant, Refused, iso
from bastide.kernel import Ask, Authorised, Kind, Output, anything
from bastide.services.iam.access_key import ACCESS_KEY, MOST_KEYS
from bastide.services.iam.last_use import LastUse
from bastide.services.iam.user import ENABLED_DEVICE, USER
from bastide.store import Row, Transaction, View

REPORT: Final = "iam:CredentialReport"
_FRESH: Final = 4 * 3600 * MICROS
_NONE: Final = "N/A"
_KEY: Final = ("active", "last_rotated", "last_used_date", "last_used_region", "last_used_service")
_COLUMNS: Final = (
    *("user", "arn", "user_creation_time", "password_enabled", "password_last_used", "password_last_changed"),
    *("password_next_rotation", "mfa_active"),
    *(f"access_key_{number}_{what}" for number in (1, 2) for what in _KEY),
    *("cert_1_active", "cert_1_last_rotated", "cert_2_active", "cert_2_last_rotated"),
)
_CERTIFICATES: Final = ("false", _NONE, "false", _NONE)
_NO_KEY: Final = ("false", _NONE, _NONE, _NONE, _NONE)


def _time(at: Instant) -> str:
    return f"{iso(at // MICROS * MICROS)[:19]}+00:00"


def _key(a: Authorised, view: View, row: Row) -> tuple[str, ...]:
    use = a.engine(LastUse).latest(view, row.account, row.doc["AccessKeyId"])
    active = "true" if row.doc["Status"] == "Active" else "false"
    used = (_NONE, _NONE, _NONE) if use is None else (_time(use.at), use.region, use.service)
    return (active, _time(row.created), *used)


def _line(a: Authorised, view: View, user: Row) -> tuple[str, ...]:
    keys = view.scan(ACCESS_KEY.key, user.account, "", prefix=f"{user.name}/", limit=MOST_KEYS)
    told = [_key(a, view, row) for row in sorted(keys, key=lambda row: row.created)]
    told += [_NO_KEY] * (MOST_KEYS - len(told))
    mfa = view.scan(ENABLED_DEVICE, user.account, "", prefix=f"{user.doc['UserId']}/", limit=1)
    return (
        *(user.doc["UserName"], user.doc["Arn"], _time(user.created), "false", _NONE, _NONE, _NONE),
        "true" if mfa else "false",
        *(value for key in told for value in key),
        *_CERTIFICATES,
    )


def _root(view: View, account: str) -> tuple[str, ...]:
    """The account's own line, first."""
    row = view.get("organizations:Account", "", "", account)
    made = _NONE if row is None else _time(row.created)
    return (
        *("<root_account>", f"arn:aws:iam::{account}:root", made, "false", _NONE, _NONE, _NONE, "false"),
        *(_NO_KEY * MOST_KEYS),
        *_CERTIFICATES,
    )


def _report(a: Authorised, view: View) -> str:
    written = io.StringIO()
    out = csv.writer(written, lineterminator="\n")
    out.writerow(_COLUMNS)
    out.writerow(_root(view, a.account))
    after = ""
    while rows := view.scan(USER.key, a.account, "", after=after, limit=500):
        out.writerows(_line(a, view, row) for row in rows)
        after = rows[-1].name
    return written.getvalue()


CREDENTIAL_REPORT = Kind("CredentialReport", service="iam", arn="credential-report/{}", global_=True, tags=False)


@CREDENTIAL_REPORT.operation("GenerateCredentialReport", asks=[Ask("iam:GenerateCredentialReport", anything)])
def generate(a: Authorised, tx: Transaction) -> Output:
    """Made at once, unless the last one is younger than four hours."""
    row = tx.get(REPORT, a.account, "", "report")
    if row is not None and a.now - row.doc["at"] < _FRESH:
        return {"State": "COMPLETE"}
    doc = {"at": a.now, "text": _report(a, tx)}
    if row is None:
        tx.insert(Row(REPORT, a.account, "", "report", doc), keep=False)
    else:
        row.doc = doc
        tx.update(row, keep=False)
    return {"State": "STARTED", "Description": "No report exists. Starting a new report generation task"}


@CREDENTIAL_REPORT.reads("GetCredentialReport", asks=[Ask("iam:GetCredentialReport", anything)])
def get(a: Authorised, view: View) -> Output:
    row = view.get(REPORT, a.account, "", "report")
    if row is None:
        raise Refused("ReportNotPresent", "Report does not exist. Call GenerateCredentialReport to make one.", 410)
    if a.now - row.doc["at"] >= _FRESH:
        raise Refused("ReportExpired", "The report is older than four hours. Call GenerateCredentialReport again.", 410)
    return {"Content": row.doc["text"].encode(), "ReportFormat": "text/csv", "GeneratedTime": row.doc["at"]}
