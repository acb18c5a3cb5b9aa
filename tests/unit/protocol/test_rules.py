"""What the model forbids is refused in AWS's words."""

from __future__ import annotations

import re
from typing import Any

import pytest
from botocore.loaders import Loader

from bastide.domain import Refused
from bastide.protocol import codec
from bastide.protocol.patterns import matcher


def _said(service: str, operation: str, params: dict[str, Any]) -> tuple[str, str]:
    with pytest.raises(Refused) as caught:
        codec(service).operations[operation].validate(params)
    return caught.value.code, caught.value.message


def test_length_pattern_null_and_enum_as_aws_words_them() -> None:
    name = "x" * 64
    assert _said("sagemaker", "DescribeTrainingJob", {"TrainingJobName": name}) == (
        "ValidationException",
        f"1 validation error detected: Value '{name}' at 'trainingJobName' failed to satisfy constraint: "
        "Member must have length less than or equal to 63",
    )
    pattern = codec("sagemaker").model.shape_for("TrainingJobName").metadata["pattern"]
    assert _said("sagemaker", "DescribeTrainingJob", {"TrainingJobName": "a_b"})[1] == (
        "1 validation error detected: Value 'a_b' at 'trainingJobName' failed to satisfy constraint: "
        f"Member must satisfy regular expression pattern: {pattern}"
    )
    assert _said("sagemaker", "DescribeTrainingJob", {})[1] == (
        "1 validation error detected: Value null at 'trainingJobName' failed to satisfy constraint: Member must not be null"
    )
    _code, text = _said("sagemaker", "ListTrainingJobs", {"SortOrder": "Up", "MaxResults": 1000})
    assert text == (
        "2 validation errors detected: Value 'Up' at 'sortOrder' failed to satisfy constraint: Member must satisfy enum "
        "value set: [Ascending, Descending]; Value '1000' at 'maxResults' failed to satisfy constraint: Member must have "
        "value less than or equal to 100"
    )


def test_paths_into_lists_and_maps() -> None:
    _, text = _said(
        "sagemaker", "AddTags", {"ResourceArn": "arn:aws:x", "Tags": [{"Key": "a", "Value": "b"}, {"Key": "c"}]}
    )
    assert "Value null at 'tags.2.member.value' failed to satisfy constraint: Member must not be null" in text
    _, text = _said("kms", "Encrypt", {"KeyId": "k", "Plaintext": b"x", "GrantTokens": ["t", ""]})
    assert "Value '[t, ]' at 'grantTokens' failed to satisfy constraint: Member must satisfy constraint: [" in text
    _, text = _said("sagemaker", "DeleteTags", {"ResourceArn": "arn:aws:x", "TagKeys": [None]})
    assert "Value null at 'tagKeys.1.member'" in text


def test_services_have_their_own_codes() -> None:
    assert _said("iam", "GetRole", {"RoleName": "a b"})[0] == "ValidationError"
    assert _said("sts", "AssumeRole", {"RoleArn": "x" * 30})[0] == "ValidationError"
    assert _said("logs", "CreateLogGroup", {"logGroupName": "*"})[0] == "InvalidParameterException"
    assert _said("ec2", "DeleteVpc", {}) == ("MissingParameter", "The request must contain the parameter VpcId")
    assert _said("s3", "PutObject", {"Bucket": "b", "Key": "k", "StorageClass": "PAPER"})[0] == "InvalidStorageClass"
    assert _said("s3", "PutObject", {"Bucket": "b", "Key": "k", "ACL": "mine"})[0] == "InvalidArgument"


def test_secrets_are_not_told() -> None:
    _code, text = _said("iam", "ChangePassword", {"OldPassword": "a\x01b", "NewPassword": "hunter2\x01"})
    assert "hunter2" not in text
    assert "Value at 'newPassword' failed to satisfy constraint" in text


def test_what_the_model_allows_passes() -> None:
    codec("sagemaker").operations["DescribeTrainingJob"].validate({"TrainingJobName": "job-1"})
    codec("s3").operations["PutObject"].validate({"Bucket": "b", "Key": "k"})
    codec("iam").operations["GetUser"].validate({})


@pytest.mark.parametrize(
    ("java", "yes", "no"),
    [
        (r"[\p{L}\p{Z}\p{N}_.:/=+\-@]*", ["Größe 1", "模型", ""], ["a&b", "\n"]),
        (r"\p{Print}+", ["a b~"], ["ä", "\t"]),
        (r"\P{C}*", ["ab é"], ["a\x00"]),
        (r"[\P{C}\r\n\t]{1,4}", ["a\nb"], ["", "\x01"]),
        (r"[\p{Print}&&[^|:/]]+", ["abc"], ["a|b", "a:b"]),
        (r"[\u0020-\uD7FF\uE000-\uFFFD\uD800\uDC00-\uDBFF\uDFFF\t]*", ["a\U0001f600"], ["\x01"]),
        (r"^[a-zA-Z0-9\s-_()\[\]]+$", ["a-b_[c]"], ["a.b"]),
        (r"\w+", ["abc_1"], ["é"]),
        (r".*", ["abc"], ["a\nb"]),
        (r"[\S\s]*", ["a\nb"], []),
        (r"^(?i)(true|false)$", ["TRUE"], ["no"]),
        (r"\A[a-z]+\z", ["a"], ["a\n"]),
        (r"a++b", ["aab"], ["b"]),
        (r"[\w+=,.@-]+", ["a@b-c"], ["a b"]),
    ],
)
def test_java_patterns(java: str, yes: list[str], no: list[str]) -> None:
    matches = matcher(java)
    assert matches is not None
    assert all(matches(one) for one in yes)
    assert not any(matches(one) for one in no)


def test_the_patterns_of_the_services_we_have_are_all_understood() -> None:
    loader = Loader()
    for service in ("sagemaker", "sagemaker-runtime", "iam", "sts", "s3", "kms", "logs", "cloudtrail", "organizations"):
        for shape in loader.load_service_model(service, "service-2")["shapes"].values():
            pattern = shape.get("pattern")
            if pattern is not None:
                assert matcher(pattern) is not None, pattern


def test_careful_matching_agrees_with_pythons() -> None:
    from bastide.protocol.patterns import _parser, _Positions, translate

    for java in (r"(a+)+b?", r"([a-c]|[b-d]x)*", r"(ab?){2,5}", r"^[a-z](-*[a-z]){0,7}$", r"(a|bc|)d{1,2}"):
        positions = _Positions(_parser.parse(translate(java), re.ASCII))
        for text in (
            "",
            "a",
            "ab",
            "abab",
            "aab",
            "bx",
            "dx",
            "a-b",
            "a--b-",
            "bcd",
            "dd",
            "add",
            "aaaaaaaaaa",
            "ababababab",
        ):
            assert positions.matches(text) == (re.fullmatch(java, text) is not None), (java, text)
