"""A day with pyarrow's own S3 file system (the C++ SDK), and with datasets through s3fs. Argument: a bucket."""

import os
import sys

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import s3fs

bucket = sys.argv[1]
where = {"region": os.environ["AWS_REGION"], "endpoint_override": os.environ["AWS_ENDPOINT_URL"]}
s3 = pafs.S3FileSystem(**where, tls_ca_file_path=os.environ["AWS_CA_BUNDLE"], allow_bucket_creation=True)
s3.create_dir(bucket)
rows = pa.table(
    {"year": [2024] * 500 + [2025] * 500, "id": list(range(1000)), "amount": [one / 7 for one in range(1000)]}
)
ds.write_dataset(
    rows,
    f"{bucket}/loans",
    filesystem=s3,
    format="parquet",
    partitioning=ds.partitioning(pa.schema([("year", pa.int64())]), flavor="hive"),
)
loans = ds.dataset(f"{bucket}/loans", filesystem=s3, format="parquet", partitioning="hive")
assert sorted(loans.files) == [f"{bucket}/loans/year={one}/part-0.parquet" for one in (2024, 2025)]
assert loans.count_rows() == 1000
some = loans.to_table(columns=["id"], filter=(pc.field("year") == 2025) & (pc.field("id") < 510))
assert some["id"].to_pylist() == list(range(500, 510))

# One column, one group of rows.
pq.write_table(rows, f"{bucket}/groups.parquet", filesystem=s3, row_group_size=100)
with s3.open_input_file(f"{bucket}/groups.parquet") as file:
    groups = pq.ParquetFile(file)
    assert groups.num_row_groups == 10
    assert groups.read_row_group(3, columns=["id"])["id"].to_pylist() == list(range(300, 400))
assert pq.read_table(f"{bucket}/groups.parquet", filesystem=s3, columns=["amount"], pre_buffer=True).num_rows == 1000

# Long streams go in parts.
with s3.open_output_stream(f"{bucket}/stream.bin", metadata={"Content-Type": "application/x-bytes"}) as stream:
    for _ in range(12):
        stream.write(b"x" * (1 << 20))
found = s3.get_file_info(f"{bucket}/stream.bin")
assert found.size == 12 << 20 and found.type == pafs.FileType.File
with s3.open_input_stream(f"{bucket}/stream.bin") as stream:
    assert stream.read(3) == b"xxx" and stream.metadata()["Content-Type"] == b"application/x-bytes"

names = {one.path for one in s3.get_file_info(pafs.FileSelector(f"{bucket}/loans", recursive=True))}
assert {f"{bucket}/loans/year=2024", f"{bucket}/loans/year=2024/part-0.parquet"} <= names
s3.copy_file(f"{bucket}/groups.parquet", f"{bucket}/copy of+groups.parquet")
s3.move(f"{bucket}/copy of+groups.parquet", f"{bucket}/moved.parquet")
assert s3.get_file_info(f"{bucket}/copy of+groups.parquet").type == pafs.FileType.NotFound
s3.create_dir(f"{bucket}/folder/inner")
s3.delete_dir_contents(f"{bucket}/folder")
s3.delete_file(f"{bucket}/stream.bin")
s3.delete_dir(f"{bucket}/loans/year=2024")
assert ds.dataset(f"{bucket}/loans", filesystem=s3, format="parquet", partitioning="hive").count_rows() == 500
try:
    s3.open_input_file(f"{bucket}/nothing")
    raise SystemExit("what does not exist was opened")
except FileNotFoundError:
    pass
try:
    pafs.S3FileSystem(**where).get_file_info(f"{bucket}/moved.parquet")
    raise SystemExit("the platform was believed without its authority")
except OSError:
    pass

# The same through s3fs.
through = s3fs.S3FileSystem()
pq.write_to_dataset(rows, f"{bucket}/second", partition_cols=["year"], filesystem=through)
again = pq.read_table(f"{bucket}/second", filesystem=through, filters=[("year", "=", 2024)])
assert again.num_rows == 500
print("done", flush=True)
os._exit(0)  # pyarrow's own threads now and then abort while the interpreter ends, after all is done
