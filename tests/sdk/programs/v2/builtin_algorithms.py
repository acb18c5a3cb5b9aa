"""Trains built-in algorithms by their own estimators, from arrays that the SDK writes as RecordIO."""

import numpy
import sagemaker
from sagemaker import PCA, KMeans, LinearLearner

session = sagemaker.Session()
common = {
    "role": sagemaker.get_execution_role(),
    "instance_count": 1,
    "instance_type": "ml.m5.large",
    "sagemaker_session": session,
}
chance = numpy.random.default_rng(0)
rows = numpy.concatenate([chance.normal(0, 0.1, (50, 4)), chance.normal(5, 0.1, (50, 4))]).astype("float32")
labels = numpy.array([0] * 50 + [1] * 50, dtype="float32")

clusters = KMeans(k=2, **common)
clusters.fit(clusters.record_set(rows))
predictor = clusters.deploy(initial_instance_count=1, instance_type="ml.m5.large")
try:
    near = [one.label["closest_cluster"].float32_tensor.values[0] for one in predictor.predict(rows[[0, 1, 60]])]
    print("clusters", near)
    assert near[0] == near[1] != near[2]
finally:
    predictor.delete_model()
    predictor.delete_endpoint()

learner = LinearLearner(predictor_type="binary_classifier", **common)
learner.fit(learner.record_set(rows, labels), mini_batch_size=10)
bucket = session.default_bucket()
session.upload_string_as_file_body("0,0,0,0\n5,5,5,5\n", bucket, "questions/two.csv")
transformer = learner.transformer(
    1, "ml.m5.large", output_path=f"s3://{bucket}/answers", accept="application/jsonlines", assemble_with="Line"
)
transformer.transform(f"s3://{bucket}/questions", content_type="text/csv", split_type="Line")
answers = session.read_s3_file(bucket, "answers/two.csv.out")
print("answers", answers)
assert answers.count("predicted_label") == 2

components = PCA(num_components=2, **common)
components.fit(components.record_set(rows), mini_batch_size=10)
