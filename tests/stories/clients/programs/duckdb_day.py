"""A day with DuckDB's httpfs. Argument: a bucket that exists."""

import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

import duckdb
import duckdb_extension_aws
import duckdb_extension_httpfs

bucket = sys.argv[1]
db = duckdb.connect()
for package, name in ((duckdb_extension_httpfs, "httpfs"), (duckdb_extension_aws, "aws")):
    db.execute(f"INSTALL '{next(Path(package.__file__).parent.rglob('*.duckdb_extension'))}'")
    db.execute(f"LOAD {name}")
db.execute(f"SET ca_cert_file = '{os.environ['AWS_CA_BUNDLE']}'")
db.execute("SET enable_server_cert_verification = true")
db.execute(f"""
    CREATE SECRET platform (
        TYPE s3,
        KEY_ID '{os.environ["AWS_ACCESS_KEY_ID"]}',
        SECRET '{os.environ["AWS_SECRET_ACCESS_KEY"]}',
        SESSION_TOKEN '{os.environ["AWS_SESSION_TOKEN"]}',
        REGION '{os.environ["AWS_REGION"]}',
        ENDPOINT '{urlsplit(os.environ["AWS_ENDPOINT_URL"]).netloc}',
        URL_STYLE 'path',
        SCOPE 's3://{bucket}'
    )
""")


def one(query: str) -> object:
    return db.execute(query).fetchone()


db.execute("CREATE TABLE loans AS SELECT 2020 + i % 3 AS year, i AS id, i / 7 AS amount FROM range(30000) t(i)")
db.execute(f"COPY loans TO 's3://{bucket}/loans' (FORMAT parquet, PARTITION_BY (year))")
assert one(f"SELECT count(*), sum(id) FROM read_parquet('s3://{bucket}/loans/*/*.parquet')") == (30000, 449985000)
assert one(
    f"SELECT count(*) FROM read_parquet('s3://{bucket}/loans/**', hive_partitioning = true) WHERE year = 2021"
) == (10000,)
assert one(f"SELECT count(*) FROM glob('s3://{bucket}/loans/year=202[01]/*.parquet')") == (2,)

db.execute(f"COPY (SELECT * FROM loans WHERE id < 100) TO 's3://{bucket}/some rows+1.csv' (HEADER)")
assert one(f"SELECT max(id) FROM read_csv('s3://{bucket}/some rows+1.csv')") == (99,)
assert one(f"SELECT count(*) FROM read_csv('s3://{bucket}/*.csv', filename = true)") == (100,)
db.execute(f"COPY (SELECT * FROM loans LIMIT 3) TO 's3://{bucket}/few.json.gz' (FORMAT json, COMPRESSION gzip)")
assert one(f"SELECT count(*) FROM read_json('s3://{bucket}/few.json.gz')") == (3,)

# Large enough for parts.
db.execute("SET s3_uploader_max_filesize = '50GB'")
db.execute("CREATE TABLE long AS SELECT i, md5(i::VARCHAR) AS text FROM range(600000) t(i)")
db.execute(f"COPY long TO 's3://{bucket}/long.parquet' (COMPRESSION uncompressed)")
assert one(f"SELECT count(DISTINCT text) FROM 's3://{bucket}/long.parquet'") == (600000,)
assert one(
    f"SELECT sum(num_values) FROM parquet_metadata('s3://{bucket}/long.parquet') WHERE path_in_schema = 'i'"
) == (600000,)

# The same session, found in the environment as boto3 finds it.
db.execute("DROP SECRET platform")
db.execute(f"""
    CREATE SECRET found (
        TYPE s3,
        PROVIDER credential_chain,
        CHAIN 'env',
        ENDPOINT '{urlsplit(os.environ["AWS_ENDPOINT_URL"]).netloc}',
        URL_STYLE 'path'
    )
""")
assert one(f"SELECT count(*) FROM 's3://{bucket}/few.json.gz'") == (3,)

for query, said in (
    (f"SELECT * FROM 's3://{bucket}/nothing.parquet'", "404"),
    ("SELECT * FROM 's3://somebody-elses-bucket/x.parquet'", ""),
):
    try:
        db.execute(query).fetchall()
        raise SystemExit(f"answered: {query}")
    except duckdb.Error as error:
        assert said in str(error), error
print("done")
