"""Judges how old images in use are, a rule of AWS Config: its parameters say which images, and how many days are many."""

import datetime
import json
from typing import Any

import boto3


def handler(event: dict[str, Any], _: object) -> None:
    asked, now = json.loads(event["ruleParameters"]), datetime.datetime.now(datetime.UTC)
    ecr, found = boto3.client("ecr"), []
    for image in asked["images"].split():
        repository, _, tag = image.rpartition(":")
        try:
            [held] = ecr.describe_images(repositoryName=repository, imageIds=[{"imageTag": tag}])["imageDetails"]
            days = (now - held["imagePushedAt"]).days
            word = "NON_COMPLIANT" if days > int(asked["days"]) else "COMPLIANT"
            why = f"{image} was built {days} days ago"
        except ecr.exceptions.ImageNotFoundException:
            word, why = "NOT_APPLICABLE", f"{image} was never promoted"
        print(word, why)
        which = {"ComplianceResourceType": "AWS::ECR::Repository", "ComplianceResourceId": repository}
        found.append({**which, "ComplianceType": word, "Annotation": why, "OrderingTimestamp": now})
    boto3.client("config").put_evaluations(Evaluations=found, ResultToken=event["resultToken"])
