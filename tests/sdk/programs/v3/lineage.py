"""Says what came from what, with v3's resources."""

from sagemaker.core.helper.session_helper import Session
from sagemaker.core.lineage.artifact import Artifact
from sagemaker.core.lineage.association import Association
from sagemaker.core.lineage.query import LineageQuery, LineageQueryDirectionEnum

session = Session()
data = Artifact.create(
    artifact_name="rows", source_uri="s3://somewhere/rows", artifact_type="DataSet", sagemaker_session=session
)
model = Artifact.create(
    artifact_name="model", source_uri="s3://somewhere/model", artifact_type="Model", sagemaker_session=session
)
Association.create(
    source_arn=data.artifact_arn,
    destination_arn=model.artifact_arn,
    association_type="ContributedTo",
    sagemaker_session=session,
)
found = LineageQuery(session).query(start_arns=[model.artifact_arn], direction=LineageQueryDirectionEnum.ASCENDANTS)
print("from", [one.arn for one in found.vertices])
assert data.artifact_arn in [one.arn for one in found.vertices]
