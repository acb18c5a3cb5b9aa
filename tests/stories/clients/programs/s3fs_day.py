"""A day with s3fs. Arguments: a bucket, a KMS key."""

import os
import sys
from pathlib import Path

import fsspec
import pandas as pd
import s3fs

bucket, key = sys.argv[1:]
fs = s3fs.S3FileSystem()

fs.mkdir(bucket)
assert fs.exists(bucket) and bucket in fs.ls("")
with fs.open(f"{bucket}/notes/first.txt", "w") as file:
    file.write("one\n")
with fs.open(f"{bucket}/notes/first.txt", "a") as file:
    file.write("two\n")
assert fs.cat_file(f"{bucket}/notes/first.txt") == b"one\ntwo\n"

# A long file goes in parts, and grows by a part that copies what is there.
long = os.urandom(11 << 20)
with fs.open(f"{bucket}/long.bin", "wb", block_size=5 << 20) as file:
    file.write(long)
with fs.open(f"{bucket}/long.bin", "ab", block_size=5 << 20) as file:
    file.write(b"end")
assert fs.size(f"{bucket}/long.bin") == len(long) + 3
assert fs.cat_file(f"{bucket}/long.bin", start=-6) == long[-3:] + b"end"
with fs.open(f"{bucket}/long.bin", "rb", block_size=1 << 20) as file:
    file.seek(7 << 20)
    assert file.read(10) == long[7 << 20 : (7 << 20) + 10]
assert fs.cat_ranges([f"{bucket}/long.bin"] * 2, [0, 5], [5, 9]) == [long[:5], long[5:9]]

# Names are names: spaces, plus signs, percent signs, letters that are not ASCII.
odd = f"{bucket}/odd/a b+c%20ü=&?#/~'(x).txt"
fs.pipe_file(odd, b"odd")
assert fs.cat_file(odd) == b"odd" and fs.find(f"{bucket}/odd") == [odd]

fs.pipe({f"{bucket}/tree/{one}/part-{two}.csv": f"a\n{two}\n".encode() for one in "xy" for two in range(3)})
assert fs.ls(f"{bucket}/tree") == [f"{bucket}/tree/x", f"{bucket}/tree/y"]
assert len(fs.find(f"{bucket}/tree")) == 6
assert fs.glob(f"{bucket}/tree/*/part-1.csv") == [f"{bucket}/tree/x/part-1.csv", f"{bucket}/tree/y/part-1.csv"]
assert [len(files) for _, _, files in fs.walk(f"{bucket}/tree")] == [0, 3, 3]
assert fs.isdir(f"{bucket}/tree/x") and not fs.isfile(f"{bucket}/tree/x")
assert fs.du(f"{bucket}/tree") == 6 * 4
fs.cp(f"{bucket}/tree/x", f"{bucket}/copied", recursive=True)
for one in fs.find(f"{bucket}/tree/y"):  # fsspec's recursive `mv` copies the folder's own key, which no S3 has
    fs.mv(one, one.replace("/tree/y/", "/moved/"))
assert len(fs.find(f"{bucket}/copied")) == 3 == len(fs.find(f"{bucket}/moved"))
assert not fs.exists(f"{bucket}/tree/y/part-1.csv")
fs.cp_file(f"{bucket}/long.bin", f"{bucket}/longer.bin")
assert fs.checksum(f"{bucket}/longer.bin") and fs.info(f"{bucket}/longer.bin")["size"] == len(long) + 3
fs.get(f"{bucket}/copied", "here", recursive=True)
assert sorted(one.name for one in Path("here").iterdir()) == ["part-0.csv", "part-1.csv", "part-2.csv"]
fs.put("here", f"{bucket}/put", recursive=True)
fs.touch(f"{bucket}/empty")
assert fs.info(f"{bucket}/empty")["size"] == 0
fs.rm(f"{bucket}/put", recursive=True)
assert not fs.exists(f"{bucket}/put")
try:
    fs.open(f"{bucket}/nothing", "rb")
    raise SystemExit("what does not exist was opened")
except FileNotFoundError:
    pass
try:
    with fs.open(f"{bucket}/empty", "xb") as file:
        file.write(b"over")
    raise SystemExit("what exists was made again")
except FileExistsError:
    pass

fs.setxattr(f"{bucket}/empty", owner="me")
assert fs.metadata(f"{bucket}/empty")["owner"] == "me"
fs.put_tags(f"{bucket}/empty", {"stage": "raw"})
assert fs.get_tags(f"{bucket}/empty") == {"stage": "raw"}

# Pandas goes through fsspec with the same words.
frame = pd.DataFrame({"a": range(5), "b": list("vwxyz")})
frame.to_csv(f"s3://{bucket}/frames/frame.csv.gz", index=False)
frame.to_parquet(f"s3://{bucket}/frames/frame.parquet")
assert pd.read_csv(f"s3://{bucket}/frames/frame.csv.gz").equals(frame)
assert pd.read_parquet(f"s3://{bucket}/frames/frame.parquet", columns=["b"])["b"].tolist() == list("vwxyz")
with fsspec.open(f"simplecache::s3://{bucket}/frames/frame.csv.gz", "rb") as file:
    assert file.read(2) == b"\x1f\x8b"

# Encrypted under a key of one's own, by arguments of the file system.
sealed = s3fs.S3FileSystem(s3_additional_kwargs={"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key})
sealed.pipe_file(f"{bucket}/sealed/short", b"short")
with sealed.open(f"{bucket}/sealed/long", "wb", block_size=5 << 20) as file:
    file.write(long)
for name in ("short", "long"):
    head = sealed.call_s3("head_object", Bucket=bucket, Key=f"sealed/{name}")
    assert head["ServerSideEncryption"] == "aws:kms" and head["SSEKMSKeyId"] == key, head

# Versions.
fs.call_s3("put_bucket_versioning", Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
versioned = s3fs.S3FileSystem(version_aware=True)
for body in (b"1", b"2", b"3"):
    versioned.pipe_file(f"{bucket}/kept", body)
told = versioned.object_version_info(f"{bucket}/kept")
assert len(told) == 3
first = next(one["VersionId"] for one in told if not one["IsLatest"])
assert versioned.cat_file(f"{bucket}/kept", version_id=first) in (b"1", b"2")
versioned.rm(f"{bucket}/kept")
assert versioned.cat_file(f"{bucket}/kept?versionId={first}") in (b"1", b"2")

# botocore's links are of signature version 2 unless told otherwise, which AWS refuses for new buckets.
links = s3fs.S3FileSystem(config_kwargs={"signature_version": "s3v4"})
print(links.sign(f"{bucket}/notes/first.txt", expiration=120))
