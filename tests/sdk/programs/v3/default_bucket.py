"""The session's own bucket in v3."""

import pathlib

from sagemaker.core.helper.session_helper import Session
from sagemaker.core.s3 import S3Downloader, S3Uploader

session = Session()
bucket = session.default_bucket()
assert bucket == f"sagemaker-{session.boto_region_name}-{session.account_id()}"
assert Session().default_bucket() == bucket
pathlib.Path("one.txt").write_text("one")
target = session.upload_data("one.txt", bucket, "uploaded")
assert S3Downloader.read_file(target, sagemaker_session=session) == "one"
S3Uploader.upload_string_as_file_body("two", f"s3://{bucket}/strings/two.txt", sagemaker_session=session)
assert S3Downloader.list(f"s3://{bucket}/strings", sagemaker_session=session) == [f"s3://{bucket}/strings/two.txt"]
print("bucket", bucket)
