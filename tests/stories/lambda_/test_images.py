"""Images of one's own as functions: any program that speaks the Runtime API."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.platform import Account, allow
from tests.stories.ecr import oci
from tests.stories.ecr.registry import Registry
from tests.stories.lambda_.conftest import Bench

# The Runtime API in a shell: what it answers says what it was given.
SERVE = r"""
base="http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation"
while true; do
  event=$(wget -q -S -O - "$base/next" 2>/tmp/head)
  id=$(grep -i aws-request-id /tmp/head | tr -d '\r' | cut -d: -f2 | tr -d ' ')
  echo "handling $event"
  echo scratch >/written || exit 9
  answer="{\"event\": $event, \"said\": \"$1\", \"user\": $(id -u), \"at\": \"$PWD\"}"
  wget -q -O - --post-data "$answer" "$base/$id/response" >/dev/null
done
"""


def test_an_image_is_a_function(bench: Bench, tmp_path: Path, neighbour: Account) -> None:
    client, registry = bench.client, Registry(bench.account, tmp_path)
    uri = registry.create("team/function")
    config = {"Env": ["PATH=/usr/local/bin:/bin"], "Entrypoint": ["serve"], "Cmd": ["by-itself"], "WorkingDir": "/home"}
    digest = registry.push(f"{uri}:one", [oci.system, oci.scripts(serve=SERVE)], config)
    given = {"Role": bench.role, "PackageType": "Image", "Timeout": 10}

    # Who may not change the repository's policy cannot let Lambda in; who may, does.
    bench.account.role("maker", allow("lambda:*", "iam:PassRole"))
    maker = bench.account.client("lambda", bench.account.as_role("maker"))
    with pytest.raises(ClientError, match="does not have permission to access the ECR image"):
        maker.create_function(FunctionName="imaged", Code={"ImageUri": f"{uri}:one"}, **given)
    made = client.create_function(FunctionName="imaged", Code={"ImageUri": f"{uri}:one"}, **given)
    assert (made["PackageType"], made["CodeSha256"]) == ("Image", digest.removeprefix("sha256:"))
    assert "Runtime" not in made and "Handler" not in made
    assert (
        "LambdaECRImageRetrievalPolicy"
        in registry.ecr.get_repository_policy(repositoryName="team/function")["policyText"]
    )
    bench.settled("imaged")
    said = bench.invoke("imaged", {"n": 1})
    assert said.payload == {"event": {"n": 1}, "said": "by-itself", "user": 1000, "at": "/home"}, said
    assert 'handling {"n": 1}' in said.log and bench.invoke("imaged", {"n": 2}).payload["event"] == {"n": 2}
    shown = client.get_function(FunctionName="imaged")["Code"]
    assert shown["RepositoryType"] == "ECR" and shown["ResolvedImageUri"].endswith(f"/team/function@{digest}")

    changed = client.update_function_configuration(
        FunctionName="imaged", ImageConfig={"Command": ["told"], "WorkingDirectory": "/tmp"}
    )
    assert changed["ImageConfigResponse"]["ImageConfig"]["Command"] == ["told"]
    bench.settled("imaged")
    assert bench.invoke("imaged").payload | {"event": 0} == {"event": 0, "said": "told", "user": 1000, "at": "/tmp"}

    # A tag that moves is another function only when it is told so; a policy that closes ends cold starts.
    two = registry.push(f"{uri}:one", [oci.system, oci.scripts(serve=SERVE.replace("user", "who"))], config)
    assert "user" in bench.invoke("imaged").payload
    updated = client.update_function_code(FunctionName="imaged", ImageUri=f"{uri}:one", Publish=True)
    assert updated["CodeSha256"] == two.removeprefix("sha256:")
    bench.settled("imaged")
    assert "who" in bench.invoke("imaged:1").payload
    registry.ecr.delete_repository_policy(repositoryName="team/function")
    client.update_function_configuration(FunctionName="imaged", MemorySize=256)
    bench.settled("imaged")
    with pytest.raises(ClientError, match="does not have permission"):
        bench.invoke("imaged")
    client.delete_function(FunctionName="imaged")

    # Another account's image is its policy's to give.
    other = neighbour.client("lambda")
    role = neighbour.role("functions", trust={"Service": "lambda.amazonaws.com"})
    with pytest.raises(ClientError, match="does not have permission"):
        other.create_function(FunctionName="x", Code={"ImageUri": f"{uri}:one"}, **given | {"Role": role})
    with pytest.raises(ClientError, match="does not exist"):
        client.create_function(FunctionName="x", Code={"ImageUri": f"{uri}:none"}, **given)
    with pytest.raises(ClientError, match="Handler or Runtime or Layer"):
        client.create_function(FunctionName="x", Code={"ImageUri": f"{uri}:one"}, Handler="a.b", **given)
    assert json.dumps(client.list_functions()["Functions"]) == "[]"
