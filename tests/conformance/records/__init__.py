"""Answers recorded from AWS by others (LocalStack's tests validated against it), asked of a platform of its own.

They are not part of this repository: `BASTIDE_RECORDS` names a checkout of github.com/localstack/localstack (default
``.fetched/localstack``), and `BASTIDE_RECORDS_PYTHON` a Python with what its tests need (default
``.fetched/records/venv/bin/python``; docs/records.md says how to make one). The tests run unchanged and believe that they
talk to AWS; `plugin/bastide_records.py` leads them here. Which tests may fail, and why, is said in ``gaps.txt``.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

from bastide.main.catalogue import SERVICES as REGISTRY
from tests.platform import Account, Running

CHECKOUT = Path(os.environ.get("BASTIDE_RECORDS", ".fetched/localstack")).absolute()
PYTHON = Path(os.environ.get("BASTIDE_RECORDS_PYTHON", ".fetched/records/venv/bin/python")).absolute()
HERE = Path(__file__).parent
GAPS = HERE / "gaps.txt"
BELOW = "tests/aws/services/"
SERVICES = (
    "stepfunctions", "events", "scheduler", "sns", "sqs", "secretsmanager", "kms", "ssm", "sts", "iam", "logs",
    "cloudwatch", "s3", "lambda_", "apigateway", "firehose", "ec2", "route53", "cloudformation",
    "resourcegroupstaggingapi",
)  # fmt: skip
"""Folders of the tests whose service is here."""
HOW = ("passed", "worded", "gap", "failed", "refused", "out", "skipped")
"""How a test ends. `worded`: AWS's sentences are others; `gap`: it may fail; `refused`: it asks for what is not here,
and is told so; `out`: it needs a service that is not here."""
Ended = dict[str, tuple[str, str]]
"""How each test ended, and why, by its name."""


def _keys(account: Account) -> tuple[str, str]:
    iam = account.client("iam")
    iam.create_user(UserName="tester")
    iam.attach_user_policy(UserName="tester", PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess")
    made = iam.create_access_key(UserName="tester")["AccessKey"]
    return made["AccessKeyId"], made["SecretAccessKey"]


def _settings(platform: Running, place: Path) -> dict[str, str]:
    """What leads the tests to a platform: the users of two fresh accounts, the endpoint, the authority."""
    key, secret = _keys(platform.account())
    other, kept = _keys(platform.account())
    profiles, told = place / "profiles", place / "configuration"
    profiles.write_text(f"[other]\naws_access_key_id = {other}\naws_secret_access_key = {kept}\n")
    told.write_text("[default]\ns3 =\n  addressing_style = path\n[profile other]\ns3 =\n  addressing_style = path\n")
    core = CHECKOUT / "localstack-core"
    return {
        "AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": platform.url, "AWS_CA_BUNDLE": platform.authority, "AWS_CONFIG_FILE": str(told),
        "AWS_SHARED_CREDENTIALS_FILE": str(profiles), "SECONDARY_TEST_AWS_PROFILE": "other",
        "TEST_TARGET": "AWS_CLOUD", "PYTHONPATH": f"{core}:{HERE / 'plugin'}",
        "AWS_DATA_PATH": str(core / "localstack" / "aws" / "data"),  # SQS as it was asked in form fields
        "BASTIDE_RECORDS_SERVICES": " ".join(one.name for one in REGISTRY),
        "BASTIDE_RECORDS_REPORT": str(place / "ended.jsonl"),
    }  # fmt: skip


def gaps() -> dict[str, str]:
    """The reasons why tests may fail, by the beginning of their name."""
    lines = [line for line in GAPS.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("  ", 1) for line in lines)


def run(folder: Path, verbose: bool) -> tuple[int, int]:
    """Runs each service's tests, with accounts of its own; returns how many passed and failed. `BASTIDE_RECORDS_ONLY`: the
    services, each with an expression of pytest's behind an @ if not all of its tests are meant."""
    if not (CHECKOUT / BELOW).is_dir() or not PYTHON.exists():
        print(f"no checkout of the tests at {CHECKOUT}, or no Python for them at {PYTHON}")
        return 0, 1
    with tempfile.TemporaryDirectory() as place:
        platform = Running(Path(place) / "data")
        platform.start()
        try:
            platform.found()
            ended: Ended = {}
            for one in os.environ.get("BASTIDE_RECORDS_ONLY", "").split() or SERVICES:
                ended |= _asked(platform, Path(place), *one.split("@"))
            return _count(ended)
        finally:
            platform.stop()


def _asked(platform: Running, place: Path, service: str, names: str = "") -> Ended:
    settings = _settings(platform, place)
    report = Path(settings["BASTIDE_RECORDS_REPORT"])
    report.unlink(missing_ok=True)
    with Path(os.environ.get("BASTIDE_RECORDS_LOG", os.devnull)).open("a") as log:
        subprocess.run(
            [
                str(PYTHON), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "bastide_records", "-W", "ignore",
                "-p", "no:localstack.testing.pytest.validation_tracking", "--timeout", "150", "--tb", "short",
                "--show-capture", "no", "-m", "aws_validated", *(("-k", names) if names else ()), BELOW + service,
            ],
            cwd=CHECKOUT, env={**os.environ, **settings}, check=False, stdout=log,
        )  # fmt: skip
    held = [json.loads(line) for line in report.read_text().splitlines()] if report.exists() else []
    if kept := os.environ.get("BASTIDE_RECORDS_KEEP"):
        with Path(kept).open("a") as file:
            file.writelines(json.dumps(one) + "\n" for one in held)
    return {one["name"]: (one["ended"], one["why"]) for one in held}


def _count(ended: Ended) -> tuple[int, int]:
    known = gaps()
    counted: dict[str, Counter[str]] = {}
    for name, (how, why) in sorted(ended.items()):
        expected = any(name.startswith(one) for one in known)
        if how == "failed" and not expected:
            print(f"FAILED {name}: {why[:300]}")
        if how == "passed" and name in known:
            print(f"passes now, take it out of the gaps: {name}")
        bad = how in ("failed", "worded") and expected
        counted.setdefault(name.split("/")[0], Counter())["gap" if bad else how] += 1
    total: Counter[str] = Counter()
    for service, found in counted.items():
        total += found
        print(f"{service}: {', '.join(f'{found[how]} {how}' for how in HOW)}")
    return total["passed"], total["failed"] + (0 if ended else 1)
