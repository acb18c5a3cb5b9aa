"""What s3fs, pyarrow and DuckDB say of a bucket that may be read and not written. Argument: the bucket."""

import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

import duckdb
import duckdb_extension_httpfs
import pyarrow.fs as pafs
import s3fs

bucket = sys.argv[1]
fs = s3fs.S3FileSystem()
assert fs.cat_file(f"{bucket}/readable") == b"text"
try:
    fs.pipe_file(f"{bucket}/new", b"new")
    raise SystemExit("s3fs wrote")
except PermissionError as error:
    print("s3fs:", error)

arrow = pafs.S3FileSystem(
    region=os.environ["AWS_REGION"],
    endpoint_override=os.environ["AWS_ENDPOINT_URL"],
    tls_ca_file_path=os.environ["AWS_CA_BUNDLE"],
)
assert arrow.open_input_file(f"{bucket}/readable").read() == b"text"
try:
    with arrow.open_output_stream(f"{bucket}/new") as stream:
        stream.write(b"new")
    raise SystemExit("pyarrow wrote")
except OSError as error:
    print("pyarrow:", error)

db = duckdb.connect()
db.execute(f"INSTALL '{next(Path(duckdb_extension_httpfs.__file__).parent.rglob('*.duckdb_extension'))}'")
db.execute("LOAD httpfs")
db.execute(f"SET ca_cert_file = '{os.environ['AWS_CA_BUNDLE']}'; SET enable_server_cert_verification = true")
db.execute(f"""CREATE SECRET (TYPE s3, KEY_ID '{os.environ["AWS_ACCESS_KEY_ID"]}', URL_STYLE 'path',
    SECRET '{os.environ["AWS_SECRET_ACCESS_KEY"]}', SESSION_TOKEN '{os.environ["AWS_SESSION_TOKEN"]}',
    ENDPOINT '{urlsplit(os.environ["AWS_ENDPOINT_URL"]).netloc}')""")
try:
    db.execute(f"COPY (SELECT 1) TO 's3://{bucket}/new' (FORMAT csv)")
    raise SystemExit("DuckDB wrote")
except duckdb.Error as error:
    print("DuckDB:", error)
