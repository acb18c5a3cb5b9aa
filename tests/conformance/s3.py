"""The public S3 compatibility suite (github.com/ceph/s3-tests), run against a platform of its own.

It is not part of this repository: `BASTIDE_S3_TESTS` names a checkout (default ``.fetched/s3-tests``), and
`BASTIDE_S3_PYTHON` a Python with its requirements (default ``.fetched/venv/bin/python``). Which of its tests do not count
is said in `MARKS_OUT`, `NAMES_OUT` and ``s3_out.txt``; which of those that count are known to fail, and why,
in ``s3_gaps.txt``.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from tests.platform import Account, Running

CHECKOUT = Path(os.environ.get("BASTIDE_S3_TESTS", ".fetched/s3-tests")).absolute()
PYTHON = Path(os.environ.get("BASTIDE_S3_PYTHON", ".fetched/venv/bin/python")).absolute()
ELSEWHERE = "eu-west-1"
"""A region that a bucket may be asked for; S3 takes no location constraint for us-east-1."""
GAPS = Path(__file__).with_name("s3_gaps.txt")
MARKS_OUT = (
    "fails_on_aws", "fails_on_s3", "auth_aws2", "appendobject", "cloud_transition", "cloud_restore", "target_by_bucket",
    "s3select", "iam_tenant", "webidentity_test", "bucket_logging", "bucket_logging_cleanup", "s3website",
    "s3website_routing_rules", "s3website_redirect_location", "lifecycle_expiration", "lifecycle_transition",
)  # fmt: skip
"""AWS itself fails them, they are Ceph's own, or about what buckets do not have here: websites, access logs, a clock whose
days are seconds."""
OUT = Path(__file__).with_name("s3_out.txt")
"""Further tests that do not count, by name, each with its reason."""
NAMES_OUT = re.compile(r"(^|_)(acl|acls|grant|grants|website|logging)(_|$)")
"""ACL grants: buckets have ownership enforced, as AWS makes them today."""


def _section(name: str, account: Account, email: str) -> str:
    keys = _user(account)
    return (
        f"[{name}]\ndisplay_name = {account.name}\nuser_id = {account.id}\nemail = {email}\napi_name = {ELSEWHERE}\n"
        f"access_key = {keys[0]}\nsecret_key = {keys[1]}\n"
    )


def _user(account: Account) -> tuple[str, str]:
    iam = account.client("iam")
    if not any(one["UserName"] == "tester" for one in iam.list_users()["Users"]):
        iam.create_user(UserName="tester")
        iam.attach_user_policy(UserName="tester", PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess")
    made = iam.create_access_key(UserName="tester")["AccessKey"]
    return made["AccessKeyId"], made["SecretAccessKey"]


def configuration(platform: Running) -> str:
    """What the suite is told: host, port, and the users of several accounts."""
    host, _, port = platform.url.removeprefix("https://").partition(":")
    main, other, tenant, iam = (platform.account(f"s3-{name}") for name in ("main", "alt", "tenant", "iam"))
    kms = main.client("kms")
    first, second = (kms.create_key()["KeyMetadata"]["Arn"] for _ in range(2))
    whole = f"[DEFAULT]\nhost = {host}\nport = {port}\nis_secure = True\nssl_verify = False\n"
    whole += "[fixtures]\nbucket prefix = s3t-{random}-\niam name prefix = s3t-\niam path prefix = /s3t/\n"
    whole += _section("s3 main", main, "main@example.com") + f"kms_keyid = {first}\nkms_keyid2 = {second}\n"
    whole += _section("s3 alt", other, "alt@example.com")
    whole += _section("s3 tenant", tenant, "tenant@example.com") + "tenant =\n"
    whole += _section("iam", iam, "iam@example.com")
    whole += _section("iam root", iam, "iam@example.com")
    whole += _section("iam alt root", other, "alt@example.com")
    return whole


def run(folder: Path, verbose: bool) -> tuple[int, int]:
    """Runs the tests that count; returns how many passed and failed."""
    if not (CHECKOUT / "s3tests").is_dir() or not PYTHON.exists():
        print(f"no checkout of the suite at {CHECKOUT}, or no Python for it at {PYTHON}")
        return 0, 1
    with tempfile.TemporaryDirectory() as place:
        platform = Running(Path(place) / "data")
        platform.start()
        try:
            platform.found()
            told = Path(place) / "s3tests.conf"
            told.write_text(configuration(platform))
            report = Path(place) / "report.xml"
            trusting = dict.fromkeys(("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"), platform.authority)
            chosen = os.environ.get("BASTIDE_S3_ONLY", "")
            subprocess.run(
                [
                    str(PYTHON), "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=line", f"--junitxml={report}",
                    "-m", " and ".join(f"not {mark}" for mark in MARKS_OUT), *(("-k", chosen) if chosen else ()),
                    "s3tests/functional/test_s3.py", "s3tests/functional/test_headers.py",
                ],
                cwd=CHECKOUT, env={**os.environ, "S3TEST_CONF": str(told), **trusting}, check=False, timeout=3600,
                stdout=None if verbose else subprocess.DEVNULL,
            )  # fmt: skip
            return _count(report)
        finally:
            platform.stop()


def _listed(file: Path) -> set[str]:
    return {line.split()[0] for line in file.read_text().splitlines() if line and not line.startswith("#")}


def _count(report: Path) -> tuple[int, int]:
    gaps, out = _listed(GAPS), _listed(OUT)
    passed: set[str] = set()
    failed: dict[str, str] = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        name = str(case.get("name"))
        if NAMES_OUT.search(name) or name in out:
            continue
        trouble = case.find("failure") if case.find("failure") is not None else case.find("error")
        if trouble is not None:
            failed[name] = str(trouble.get("message"))[:160].replace("\n", " ")
        elif case.find("skipped") is None:
            passed.add(name)
    for name, why in sorted(failed.items()):
        print(f"{'gap ' if name in gaps else 'FAILED'} {name}: {why}")
    for name in sorted(gaps & passed):
        print(f"passes now, take it out of the gaps: {name}")
    return len(passed), len(failed)
