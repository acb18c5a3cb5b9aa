"""Says what came from what, and asks for it again."""

import sagemaker
from sagemaker.lineage.action import Action
from sagemaker.lineage.artifact import Artifact
from sagemaker.lineage.association import Association
from sagemaker.lineage.context import Context
from sagemaker.lineage.query import LineageFilter, LineageQuery, LineageQueryDirectionEnum

session = sagemaker.Session()
data = Artifact.create(artifact_name="rows", source_uri="s3://somewhere/rows", artifact_type="DataSet")
model = Artifact.create(artifact_name="model", source_uri="s3://somewhere/model", artifact_type="Model")
training = Action.create(action_name="training", action_type="Training", source_uri="train", sagemaker_session=session)
credit = Context.create(context_name="credit", context_type="Project", source_uri="credit")
Association.create(source_arn=data.artifact_arn, destination_arn=training.action_arn, association_type="ContributedTo")
Association.create(source_arn=training.action_arn, destination_arn=model.artifact_arn, association_type="Produced")
Association.create(source_arn=model.artifact_arn, destination_arn=credit.context_arn, association_type="AssociatedWith")
assert [one.artifact_arn for one in Artifact.list(source_uri="s3://somewhere/rows")] == [data.artifact_arn]
found = LineageQuery(session).query(
    start_arns=[model.artifact_arn],
    direction=LineageQueryDirectionEnum.ASCENDANTS,
    query_filter=LineageFilter(sources=["DataSet"]),
)
print("from", [one.arn for one in found.vertices])
assert [one.arn for one in found.vertices] == [data.artifact_arn]
alone = LineageQuery(session).query(start_arns=[model.artifact_arn], include_edges=False)
assert data.artifact_arn in [one.arn for one in alone.vertices] and not alone.edges
