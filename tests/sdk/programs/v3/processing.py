"""Runs a script over a table with v3's ScriptProcessor."""

import pathlib

from sagemaker.core import image_uris
from sagemaker.core.helper.session_helper import Session, get_execution_role
from sagemaker.core.processing import ScriptProcessor
from sagemaker.core.s3 import S3Downloader, S3Uploader
from sagemaker.core.shapes import ProcessingInput, ProcessingOutput, ProcessingS3Input, ProcessingS3Output

DOUBLE = """
import pandas as pd
table = pd.read_csv("/opt/ml/processing/input/data/table.csv")
(table * 2).to_csv("/opt/ml/processing/output/table.csv", index=False)
print("rows", len(table))
"""

session = Session()
bucket = session.default_bucket()
pathlib.Path("double.py").write_text(DOUBLE)
pathlib.Path("table.csv").write_text("a,b\n1,2\n3,4\n")
source = S3Uploader.upload("table.csv", f"s3://{bucket}/double/input", sagemaker_session=session)
processor = ScriptProcessor(
    role=get_execution_role(),
    image_uri=image_uris.retrieve("sklearn", session.boto_region_name, version="1.2-1", instance_type="ml.m5.large"),
    command=["python3"],
    instance_type="ml.m5.large",
    instance_count=1,
    sagemaker_session=session,
)
processor.run(
    code="double.py",
    inputs=[
        ProcessingInput(
            input_name="table",
            s3_input=ProcessingS3Input(
                s3_uri=source,
                local_path="/opt/ml/processing/input/data",
                s3_data_type="S3Prefix",
                s3_input_mode="File",
            ),
        )
    ],
    outputs=[
        ProcessingOutput(
            output_name="doubled",
            s3_output=ProcessingS3Output(
                s3_uri=f"s3://{bucket}/double/output",
                local_path="/opt/ml/processing/output",
                s3_upload_mode="EndOfJob",
            ),
        )
    ],
    wait=True,
    logs=True,
)
text = S3Downloader.read_file(f"s3://{bucket}/double/output/table.csv", sagemaker_session=session)
print(text)
assert text == "a,b\n2,4\n6,8\n"
