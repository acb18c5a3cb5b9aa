"""The session's own bucket: made once, used for files up and down, and refused where it is somebody else's."""

import pathlib

import sagemaker
from sagemaker.s3 import S3Downloader, S3Uploader

session = sagemaker.Session()
bucket = session.default_bucket()
assert bucket == f"sagemaker-{session.boto_region_name}-{session.account_id()}"
assert sagemaker.Session().default_bucket() == bucket  # found, not made again

folder = pathlib.Path("files")
(folder / "deep").mkdir(parents=True)
(folder / "one.txt").write_text("one")
(folder / "deep" / "two.txt").write_text("two")
target = session.upload_data(str(folder), key_prefix="uploaded")
assert sorted(S3Downloader.list(target)) == [f"{target}/deep/two.txt", f"{target}/one.txt"]
assert S3Downloader.read_file(f"{target}/deep/two.txt") == "two"
S3Downloader.download(target, "back")
assert pathlib.Path("back/deep/two.txt").read_text() == "two"
S3Uploader.upload_string_as_file_body("three", f"s3://{bucket}/strings/three.txt")
assert session.read_s3_file(bucket, "strings/three.txt") == "three"
assert sorted(session.list_s3_files(bucket, "strings")) == ["strings/three.txt"]
session.download_data("single", bucket, "strings/three.txt")
assert pathlib.Path("single/three.txt").read_text() == "three"
print("bucket", bucket)
