"""Functions, versions, aliases, layers and policies: made, changed, shown, and what is refused."""

from __future__ import annotations

import io
import json
import stat
import urllib.request
import zipfile
from collections import Counter
from ssl import create_default_context
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import REGION, Account, allow
from tests.stories.lambda_.conftest import LAMBDA, Bench, archive

ONE = "import os\ndef handler(event, context): return [1, context.function_version, context.invoked_function_arn]"
TWO = ONE.replace("[1", "[2")


def refused(ask: Any, **given: Any) -> tuple[str, str]:
    """Code and message of a refusal."""
    with pytest.raises(ClientError) as found:
        ask(**given)
    error = found.value.response["Error"]
    return str(error["Code"]), str(error["Message"])


def zipped(*entries: tuple[str, bytes, int]) -> bytes:
    """An archive of entries with modes."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content, mode in entries:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            made.writestr(info, content)
    return packed.getvalue()


def test_versions_and_aliases(bench: Bench) -> None:
    client, name = bench.client, bench.make(ONE, "shop")
    arn = f"arn:aws:lambda:{REGION}:{bench.account.id}:function:shop"
    first = client.publish_version(FunctionName=name, Description="the first")
    assert (first["Version"], first["FunctionArn"], first["Description"]) == ("1", f"{arn}:1", "the first")
    assert client.publish_version(FunctionName=name)["Version"] == "1", "nothing has changed"
    bench.settled(name)
    changed = client.update_function_code(FunctionName=name, ZipFile=archive(index=TWO))
    assert changed["LastUpdateStatus"] == "InProgress" and changed["CodeSha256"] != first["CodeSha256"]
    bench.settled(name)
    assert client.publish_version(FunctionName=name, CodeSha256=changed["CodeSha256"])["Version"] == "2"
    assert refused(client.publish_version, FunctionName=name, CodeSha256="x")[0] == "InvalidParameterValueException"
    assert bench.invoke(f"{arn}:1").payload == [1, "1", f"{arn}:1"]
    assert bench.invoke(name).payload == [2, "$LATEST", arn]
    listed = client.list_versions_by_function(FunctionName=name)["Versions"]
    assert [one["Version"] for one in listed] == ["$LATEST", "1", "2"]
    alias = client.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    assert alias["AliasArn"] == f"{arn}:live" and bench.invoke(name, Qualifier="live").payload == [
        1,
        "1",
        f"{arn}:live",
    ]
    routing = {"AdditionalVersionWeights": {"2": 0.5}}
    assert client.update_alias(FunctionName=name, Name="live", RoutingConfig=routing)["RoutingConfig"] == routing
    seen = Counter(bench.invoke(f"{name}:live").version for _ in range(40))
    assert set(seen) == {"1", "2"}
    assert refused(client.delete_function, FunctionName=name, Qualifier="2")[0] == "ResourceConflictException"
    assert refused(client.create_alias, FunctionName=name, Name="7", FunctionVersion="1")[0] == "ValidationException"
    assert (
        refused(client.create_alias, FunctionName=name, Name="x", FunctionVersion="9")[0] == "ResourceNotFoundException"
    )
    stale = {"FunctionName": name, "Name": "live", "RevisionId": alias["RevisionId"]}
    assert refused(client.update_alias, **stale)[0] == "PreconditionFailedException"
    assert [one["Name"] for one in client.list_aliases(FunctionName=name)["Aliases"]] == ["live"]
    client.delete_alias(FunctionName=name, Name="live")
    client.delete_function(FunctionName=name, Qualifier="1")
    assert refused(bench.invoke, name=f"{name}:1")[0] == "ResourceNotFoundException"
    client.delete_function(FunctionName=name)
    assert refused(client.get_function, FunctionName=name)[0] == "ResourceNotFoundException"


def test_configurations(bench: Bench) -> None:
    client, s3 = bench.client, bench.account.client("s3")
    bucket = f"code-{bench.account.id}"
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="code.zip", Body=archive(index=ONE))
    made = client.create_function(
        FunctionName="here", Role=bench.role, Runtime="python3.9", Handler="index.handler", Tags={"team": "red"},
        Code={"S3Bucket": bucket, "S3Key": "code.zip"}, Environment={"Variables": {"COLOUR": "red"}}, Publish=True,
    )  # fmt: skip
    assert (made["Version"], made["Timeout"], made["MemorySize"]) == ("1", 3, 128)
    bench.settled("here")
    config = client.update_function_configuration(
        FunctionName="here", MemorySize=512, Timeout=900, Handler="index.other"
    )
    assert (config["MemorySize"], config["Environment"]) == (512, {"Variables": {"COLOUR": "red"}})
    stale = {"FunctionName": "here", "RevisionId": made["RevisionId"], "Timeout": 4}
    bench.settled("here")
    assert refused(client.update_function_configuration, **stale)[0] == "PreconditionFailedException"
    shown = client.get_function(FunctionName="here")
    assert shown["Tags"] == {"team": "red"} and shown["Code"]["RepositoryType"] == "S3"
    trusting = create_default_context(cafile=bench.account.platform.authority)
    with urllib.request.urlopen(shown["Code"]["Location"], context=trusting) as answer:
        assert answer.read() == archive(index=ONE)
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(shown["Code"]["Location"] + "x", context=trusting)
    assert [one["FunctionName"] for one in client.list_functions()["Functions"]] == ["here"]
    assert len(client.list_functions(FunctionVersion="ALL")["Functions"]) == 2
    arn = shown["Configuration"]["FunctionArn"]
    client.tag_resource(Resource=arn, Tags={"more": "x"})
    client.untag_resource(Resource=arn, TagKeys=["team"])
    assert client.list_tags(Resource=arn)["Tags"] == {"more": "x"}
    assert client.get_account_settings()["AccountUsage"]["FunctionCount"] == 1


def test_what_is_refused(bench: Bench) -> None:
    def why(**more: Any) -> str:
        given = {
            "FunctionName": "no", "Role": bench.role, "Runtime": "python3.11", "Handler": "index.handler",
            "Code": {"ZipFile": archive(index=ONE)},
        } | more  # fmt: skip
        code, message = refused(bench.client.create_function, **given)
        assert code in ("InvalidParameterValueException", "ValidationException"), (code, message)
        return message

    assert "not supported" in why(Runtime="nodejs20.x")
    assert "less than or equal to 900" in why(Timeout=901)
    assert "less than or equal to 10240" in why(MemorySize=10_241)
    assert "reserved keys" in why(Environment={"Variables": {"AWS_REGION": "x"}})
    assert "zero byte" in why(Environment={"Variables": {"CUT": "a\0b"}})
    assert "4KB" in why(Environment={"Variables": {"LARGE": "x" * 4096}})
    assert "x86_64" in why(Architectures=["arm64"])
    assert "one of ECR" in why(PackageType="Image", Code={"ImageUri": "x"})
    assert "CodeSigningConfigArn" in why(
        CodeSigningConfigArn=f"arn:aws:lambda:{REGION}:{bench.account.id}:code-signing-config:csc-{'0' * 17}"
    )
    assert "X-Ray" in why(TracingConfig={"Mode": "Active"})
    assert "does not exist" in why(Layers=[f"arn:aws:lambda:{REGION}:{bench.account.id}:layer:none:1"])
    assert "NoSuchBucket" in why(Code={"S3Bucket": "nobody-has-this-bucket", "S3Key": "k"})


@pytest.mark.parametrize(
    ("entries", "word"),
    [
        (None, "Could not unzip"),
        ([], "non-empty"),
        ([("../index.py", b"x", 0o644)], "no path below"),
        ([("/etc/index.py", b"x", 0o644)], "no path below"),
        ([("a\\b.py", b"x", 0o644)], "no path below"),
        ([("out", b"/etc/passwd", stat.S_IFLNK | 0o777), ("index.py", b"x", 0o644)], "leads out"),
        ([("out", b"../../x", stat.S_IFLNK | 0o777), ("index.py", b"x", 0o644)], "leads out"),
        ([("in", b"here", stat.S_IFLNK | 0o777), ("in/index.py", b"x", 0o644)], "file and a folder"),
        ([("pipe", b"", stat.S_IFIFO | 0o644), ("index.py", b"x", 0o644)], "neither a file"),
        ([("bomb", bytes(270_000_000), 0o644)], "must be smaller"),
    ],
    ids=["none", "empty", "up", "absolute", "backslash", "link out", "link up", "behind a link", "pipe", "bomb"],
)
def test_hostile_archives_are_refused(bench: Bench, entries: Any, word: str) -> None:
    archived = b"no archive" if entries is None else zipped(*entries)
    given = {"FunctionName": "no", "Role": bench.role, "Runtime": "python3.11", "Handler": "index.handler"}
    code, message = refused(bench.client.create_function, **given, Code={"ZipFile": archived})
    assert code == "InvalidParameterValueException" and word in message, message


def test_layers(bench: Bench, neighbour: Account) -> None:
    client = bench.client
    content = zipped(
        ("python/helping.py", b"WORD = 'of the layer'", 0o644),
        ("lib/real.txt", b"text", 0o644),
        ("lib/link.txt", b"real.txt", stat.S_IFLNK | 0o777),
    )
    made = client.publish_layer_version(
        LayerName="tools", Content={"ZipFile": content}, CompatibleRuntimes=["python3.11"], Description="d"
    )
    assert made["Version"] == 1 and made["LayerVersionArn"].endswith(":layer:tools:1")
    code = "import helping\ndef handler(e, c): return [helping.WORD, open('/opt/lib/link.txt').read()]"
    name = bench.make(code, Layers=[made["LayerVersionArn"]])
    assert bench.invoke(name).payload == ["of the layer", "text"]
    assert client.publish_layer_version(LayerName="tools", Content={"ZipFile": content})["Version"] == 2
    assert [one["Version"] for one in client.list_layer_versions(LayerName="tools")["LayerVersions"]] == [2, 1]
    [listed] = client.list_layers(CompatibleRuntime="python3.11")["Layers"]
    assert listed["LatestMatchingVersion"]["Version"] == 1
    other, arn = neighbour.client("lambda"), made["LayerVersionArn"]
    assert refused(other.get_layer_version_by_arn, Arn=arn)[0] == "AccessDeniedException"
    client.add_layer_version_permission(
        LayerName="tools", VersionNumber=1, StatementId="s", Action="lambda:GetLayerVersion", Principal=neighbour.id
    )
    assert other.get_layer_version_by_arn(Arn=arn)["Description"] == "d"
    assert neighbour.id in client.get_layer_version_policy(LayerName="tools", VersionNumber=1)["Policy"]
    client.remove_layer_version_permission(LayerName="tools", VersionNumber=1, StatementId="s")
    assert refused(other.get_layer_version_by_arn, Arn=arn)[0] == "AccessDeniedException"
    client.delete_layer_version(LayerName="tools", VersionNumber=1)
    assert refused(client.get_layer_version, LayerName="tools", VersionNumber=1)[0] == "ResourceNotFoundException"
    client.update_function_configuration(FunctionName=name, MemorySize=256)
    bench.settled(name)
    assert bench.invoke(name).error == "", "who had the layer has it still"


def test_permissions_and_passing_roles(bench: Bench) -> None:
    client, name = bench.client, bench.make(ONE)
    assert refused(client.get_policy, FunctionName=name)[0] == "ResourceNotFoundException"
    given = {"FunctionName": name, "StatementId": "rule", "Action": "lambda:InvokeFunction"}
    told = client.add_permission(
        **given, Principal="events.amazonaws.com", SourceArn=f"arn:aws:events:{REGION}:{bench.account.id}:rule/r",
        SourceAccount=bench.account.id,
    )  # fmt: skip
    statement = json.loads(told["Statement"])
    assert statement["Condition"]["ArnLike"]["AWS:SourceArn"].endswith(":rule/r")
    again = refused(client.add_permission, **given, Principal="events.amazonaws.com")
    assert again[0] == "ResourceConflictException"
    assert refused(client.add_permission, **given | {"StatementId": "x"}, Principal="nobody")[0].startswith("Invalid")
    assert json.loads(client.get_policy(FunctionName=name)["Policy"])["Statement"] == [statement]
    client.remove_permission(FunctionName=name, StatementId="rule")
    maker = bench.account.role("maker", allow("lambda:*"))
    assert maker
    limited = bench.account.client("lambda", bench.account.as_role("maker"))
    code, message = refused(
        limited.create_function, FunctionName="x", Role=bench.role, Runtime="python3.11", Handler="index.handler",
        Code={"ZipFile": archive(index=ONE)},
    )  # fmt: skip
    assert code == "AccessDeniedException" and "iam:PassRole" in message
    assert LAMBDA
