"""A day with the AWS CLI and boto3's transfer manager: folders synced, long files in parts, links for others."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

from boto3.s3.transfer import TransferConfig

from tests.platform import Account

_CONFIGURATION = Path(__file__).with_name("aws.config")
"""The CLI's first version makes links of signature version 2 unless told otherwise, which AWS refuses for new buckets."""


def _aws(account: Account, *words: str) -> str:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        "AWS_ACCESS_KEY_ID": account.keys.access_key,
        "AWS_SECRET_ACCESS_KEY": account.keys.secret,
        "AWS_SESSION_TOKEN": account.keys.token or "",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": account.platform.http,
        "AWS_CONFIG_FILE": str(_CONFIGURATION),
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    program = Path(sys.executable).with_name("aws")
    ended = subprocess.run(
        [str(program), *words], check=False, capture_output=True, text=True, timeout=60, env=environment
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_folders_are_synced_both_ways_and_links_open(account: Account, tmp_path: Path) -> None:
    here, back = tmp_path / "here", tmp_path / "back"
    (here / "deep").mkdir(parents=True)
    bodies = {
        "a.csv": os.urandom(1000),
        "deep/b c+ü.bin": os.urandom(40_000),
        "deep/empty": b"",
        "long": os.urandom(9 << 20),
    }
    for name, body in bodies.items():
        (here / name).write_bytes(body)
    bucket = f"day-{account.id}"
    _aws(account, "s3", "mb", f"s3://{bucket}")
    _aws(account, "s3", "sync", str(here), f"s3://{bucket}/data")
    assert _aws(account, "s3", "sync", str(here), f"s3://{bucket}/data") == ""  # nothing is left to do
    _aws(account, "s3", "sync", f"s3://{bucket}/data", str(back))
    assert {str(one.relative_to(back)): one.read_bytes() for one in back.rglob("*") if one.is_file()} == bodies
    (here / "a.csv").unlink()
    _aws(account, "s3", "sync", "--delete", str(here), f"s3://{bucket}/data")
    listed = _aws(account, "s3", "ls", "--recursive", f"s3://{bucket}/data")
    assert "a.csv" not in listed and "deep/b c+ü.bin" in listed
    link = _aws(account, "s3", "presign", f"s3://{bucket}/data/deep/b c+ü.bin").strip()
    assert "X-Amz-Signature" in link
    with urllib.request.urlopen(link, timeout=60) as answer:
        assert answer.read() == bodies["deep/b c+ü.bin"]
    _aws(account, "s3", "rm", "--recursive", f"s3://{bucket}")
    _aws(account, "s3", "rb", f"s3://{bucket}")


def test_long_files_go_in_parts(account: Account, tmp_path: Path) -> None:
    s3 = account.client("s3")
    bucket = f"parts-{account.id}"
    s3.create_bucket(Bucket=bucket)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(21 << 20))
    parts = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20, max_concurrency=4)
    s3.upload_file(str(source), bucket, "long", Config=parts)
    assert s3.head_object(Bucket=bucket, Key="long")["ETag"].endswith('-5"')
    s3.download_file(bucket, "long", str(target), Config=parts)
    assert hashlib.sha256(target.read_bytes()).digest() == hashlib.sha256(source.read_bytes()).digest()
