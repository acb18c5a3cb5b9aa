"""A day with the tools that analysts reach S3 by: s3fs and pandas, pyarrow, DuckDB. Each runs as it comes, elsewhere."""

from __future__ import annotations

import ssl
import urllib.request
from pathlib import Path

from tests.clients.program import run, surroundings
from tests.platform import Account, Keys, allow

_PROGRAMS = Path(__file__).with_name("programs")


def _run(account: Account, home: Path, name: str, *words: str, keys: Keys | None = None, **more: str) -> str:
    environment = surroundings(account.platform, keys or account.keys, home) | more
    ended = run("s3", _PROGRAMS / f"{name}.py", *words, environment=environment)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_s3fs_and_pandas(account: Account, tmp_path: Path) -> None:
    bucket = f"analyst-{account.id}"
    key = account.client("kms").create_key()["KeyMetadata"]["Arn"]
    # Pandas lets pyarrow read and write Parquet, whose C++ looks at SSL_CERT_FILE instead of AWS_CA_BUNDLE.
    authority = account.platform.authority
    link = _run(account, tmp_path, "s3fs_day", bucket, key, SSL_CERT_FILE=authority).strip()
    with urllib.request.urlopen(link, timeout=60, context=ssl.create_default_context(cafile=authority)) as answer:
        assert answer.read() == b"one\ntwo\n"
    s3 = account.client("s3")
    assert s3.head_object(Bucket=bucket, Key="long.bin")["ETag"].endswith(
        '-2"'
    )  # what was, copied by a part; what came
    assert s3.head_object(Bucket=bucket, Key="sealed/long")["SSEKMSKeyId"] == key
    assert s3.get_object(Bucket=bucket, Key="odd/a b+c%20ü=&?#/~'(x).txt")["Body"].read() == b"odd"
    kept = s3.list_object_versions(Bucket=bucket, Prefix="kept")
    assert len(kept["Versions"]) == 3 and len(kept["DeleteMarkers"]) == 1
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


def test_pyarrow_datasets(account: Account, tmp_path: Path) -> None:
    bucket = f"arrow-{account.id}"
    _run(account, tmp_path, "arrow_day", bucket)
    s3 = account.client("s3")
    found = {one["Key"] for one in s3.list_objects_v2(Bucket=bucket)["Contents"]}
    assert {"groups.parquet", "moved.parquet", "loans/year=2025/part-0.parquet"} <= found
    assert not {"stream.bin", "copy of+groups.parquet", "loans/year=2024/part-0.parquet"} & found
    assert s3.get_object(Bucket=bucket, Key="moved.parquet")["Body"].read(4) == b"PAR1"


def test_duckdb_reads_and_writes_with_a_session(account: Account, tmp_path: Path) -> None:
    bucket = f"duckdb-{account.id}"
    s3 = account.client("s3")
    s3.create_bucket(Bucket=bucket)
    _run(account, tmp_path, "duckdb_day", bucket)
    found = {one["Key"] for one in s3.list_objects_v2(Bucket=bucket)["Contents"]}
    assert {"some rows+1.csv", "few.json.gz", "long.parquet"} <= found
    assert {one.split("/")[1] for one in found if one.startswith("loans/")} == {
        f"year={year}" for year in (2020, 2021, 2022)
    }
    assert s3.get_object(Bucket=bucket, Key="some rows+1.csv")["Body"].readline() == b"year,id,amount\n"
    assert s3.head_object(Bucket=bucket, Key="long.parquet")["ETag"].count("-") == 1


def test_what_a_role_may_not_write_no_tool_writes(account: Account, tmp_path: Path) -> None:
    bucket = f"readable-{account.id}"
    s3 = account.client("s3")
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="readable", Body=b"text")
    account.role("Reader", allow("s3:GetObject", "s3:ListBucket"))
    told = _run(account, tmp_path, "refused", bucket, keys=account.as_role("Reader"))
    assert all(tool in told for tool in ("s3fs:", "pyarrow:", "DuckDB:"))
    assert [one["Key"] for one in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["readable"]
