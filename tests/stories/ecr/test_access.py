"""Who may push and pull: identity policies, policies of repositories, tags, tokens."""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.platform import Account, Keys, allow
from tests.stories.ecr import oci
from tests.stories.ecr.registry import Registry
from tests.stories.ecr.test_repositories import code

UNKNOWN = "00000000-0000-4000-8000-000000000000"
PULL = ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer", "ecr:BatchCheckLayerAvailability"]
PUSH = ["ecr:PutImage", "ecr:InitiateLayerUpload", "ecr:UploadLayerPart", "ecr:CompleteLayerUpload"]


def sample(mission: Path, name: str, **values: str) -> dict[str, Any]:
    """A policy of the mission with its names filled in."""
    text = (mission / "policies" / name).read_text()
    for key, value in values.items():
        text = text.replace(f"<{key}>", value)
    found: dict[str, Any] = json.loads(text)
    return found


def get(
    registry: Registry, path: str, password: str | None, method: str = "GET", body: bytes | None = None
) -> tuple[int, dict[str, str], bytes]:
    """A request of no known client."""
    request = urllib.request.Request(f"{registry.account.platform.url}{path}", data=body, method=method)
    if password is not None:
        given = base64.b64encode(f"AWS:{password}".encode()).decode()
        request.add_header("authorization", f"Basic {given}")
    context = ssl.create_default_context(cafile=registry.account.platform.authority)
    try:
        with urllib.request.urlopen(request, context=context) as answer:
            return answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, {k.lower(): v for k, v in error.headers.items()}, error.read()


@pytest.mark.control("PRM-08", "PRM-09")
def test_a_notebook_role_uses_what_it_tagged_and_nothing_else(registry: Registry, mission: Path) -> None:
    document = sample(
        mission, "07-notebook-execution-role-ecr-build-push.json", ACCOUNT_ID=registry.account.id, TEAM_NAMESPACE="team"
    )
    registry.account.role("Notebook", document)
    keys = registry.account.as_role("Notebook")
    ecr = registry.account.client("ecr", keys)
    right = [{"Key": "CreatedBy", "Value": "SageMaker"}]
    assert code(ecr.create_repository, repositoryName="team/a") == "AccessDeniedException"
    assert code(ecr.create_repository, repositoryName="team/a", tags=[{"Key": "CreatedBy", "Value": "Me"}]) == (
        "AccessDeniedException"
    )
    assert code(ecr.create_repository, repositoryName="other/a", tags=right) == "AccessDeniedException"
    uri = ecr.create_repository(repositoryName="team/a", tags=right)["repository"]["repositoryUri"]
    assert ecr.describe_repositories(repositoryNames=["team/a"])["repositories"]
    digest = registry.push(f"{uri}:one", keys=keys)
    pulled = registry.skopeo("copy", "SRC", f"docker://{uri}@{digest}", f"dir:{registry.folder / 'pulled'}", keys=keys)
    assert pulled.returncode == 0, pulled.stderr

    other = registry.create("other/a")
    arn = f"arn:aws:ecr:us-east-1:{registry.account.id}:repository/other/a"
    assert code(ecr.tag_resource, resourceArn=arn, tags=right) == "AccessDeniedException"
    layout = registry.folder / "once"
    oci.layout(layout, [oci.system])
    refused = registry.skopeo("copy", "DEST", f"oci:{layout}", f"docker://{other}:one", keys=keys)
    assert refused.returncode and "403" in refused.stderr
    text = ecr.batch_get_image(repositoryName="team/a", imageIds=[{"imageTag": "one"}])["images"][0]["imageManifest"]
    assert code(ecr.put_image, repositoryName="other/a", imageManifest=text) == "AccessDeniedException"


@pytest.mark.control("IMG-13", "STG-06")
def test_policies_of_repositories_and_of_callers(registry: Registry, neighbour: Account, mission: Path) -> None:
    uri = registry.create("shared")
    registry.push(f"{uri}:one")
    ecr = registry.ecr
    assert code(ecr.get_repository_policy, repositoryName="shared") == "RepositoryPolicyNotFoundException"
    for wrong in ("{", '{"Statement":[]}', json.dumps(allow("s3:GetObject"))):
        assert code(ecr.set_repository_policy, repositoryName="shared", policyText=wrong) == "InvalidParameterException"
    asked = {"repositoryName": "shared", "imageIds": [{"imageTag": "one"}], "registryId": registry.account.id}
    role = neighbour.role("Reader", allow("ecr:*"))
    theirs = neighbour.client("ecr", neighbour.as_role("Reader"))
    assert code(theirs.batch_get_image, **asked) == "AccessDeniedException"
    text = json.dumps(
        sample(mission, "40-ecr-repository-cross-account.json", SAGEMAKER_PRINCIPAL_ARN_IN_OTHER_ACCOUNT=role)
    )
    ecr.set_repository_policy(repositoryName="shared", policyText=text)
    assert json.loads(ecr.get_repository_policy(repositoryName="shared")["policyText"]) == json.loads(text)
    assert theirs.batch_get_image(**asked)["images"]
    pulled = registry.skopeo(
        "copy",
        "SRC",
        f"docker://{uri}:one",
        f"dir:{registry.folder / 'pulled'}",
        password=Registry.password(registry, neighbour.as_role("Reader")),
    )
    assert pulled.returncode == 0, pulled.stderr
    # The other account's role also needs its own permission; its name made anew is somebody else.
    neighbour.client("iam").put_role_policy(
        RoleName="Reader", PolicyName="inline", PolicyDocument=json.dumps(allow("ecr:GetAuthorizationToken"))
    )
    assert code(theirs.batch_get_image, **asked) == "AccessDeniedException"
    ecr.delete_repository_policy(repositoryName="shared")

    # Within the account either is enough, and a deny in either is final.
    arn = registry.account.role("Nobody")
    mine = registry.account.client("ecr", registry.account.as_role("Nobody"))
    assert code(mine.batch_get_image, **asked) == "AccessDeniedException"
    statement: dict[str, Any] = {"Effect": "Allow", "Principal": {"AWS": arn}, "Action": PULL}
    put = {"repositoryName": "shared"}
    ecr.set_repository_policy(**put, policyText=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    assert mine.batch_get_image(**asked)["images"]
    statement = {"Effect": "Deny", "Principal": "*", "Action": "ecr:BatchGetImage"}
    ecr.set_repository_policy(**put, policyText=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    assert code(ecr.batch_get_image, **asked) == "AccessDeniedException"


def test_a_token_is_its_owner_and_ends_with_them(registry: Registry) -> None:
    uri = registry.create("app")
    registry.push(f"{uri}:one")
    base = f"/v2/{uri.partition('/')[2]}"
    status, head, body = get(registry, "/v2/", None)
    assert status == 401 and head["www-authenticate"].startswith("Basic ") and b"UNAUTHORIZED" in body
    assert get(registry, f"{base}/manifests/one", None)[0] == 401
    assert get(registry, f"{base}/manifests/one", "nonsense")[0] == 401
    assert get(registry, "/v2/", registry.password())[0] == 200

    iam = registry.account.client("iam")
    iam.create_user(UserName="pusher")
    iam.put_user_policy(UserName="pusher", PolicyName="p", PolicyDocument=json.dumps(allow("ecr:*")))
    made = iam.create_access_key(UserName="pusher")["AccessKey"]
    password = registry.password(Keys(made["AccessKeyId"], made["SecretAccessKey"]))
    status, head, body = get(registry, f"{base}/manifests/one", password)
    assert status == 200 and json.loads(body)["schemaVersion"] == 2
    assert get(registry, f"{base}/tags/list", password)[2] == b'{"name":"app","tags":["one"]}'
    iam.put_user_policy(UserName="pusher", PolicyName="p", PolicyDocument=json.dumps(allow("ecr:ListImages")))
    status, _, body = get(registry, f"{base}/manifests/one", password)
    assert status == 403 and json.loads(body)["errors"][0]["code"] == "DENIED"
    iam.update_access_key(UserName="pusher", AccessKeyId=made["AccessKeyId"], Status="Inactive")
    assert get(registry, f"{base}/tags/list", password)[0] == 401


def test_the_registry_answers_strangers_paths_in_its_own_words(registry: Registry) -> None:
    uri = registry.create("app")
    registry.push(f"{uri}:one")
    base, password = f"/v2/{uri.partition('/')[2]}", registry.password()
    digest = f"sha256:{'a' * 64}"
    for path, status, word in (
        (f"{base}/manifests/none", 404, b"MANIFEST_UNKNOWN"),
        (f"{base}-none/manifests/one", 404, b"NAME_UNKNOWN"),
        (f"{base}/blobs/{digest}", 404, b"BLOB_UNKNOWN"),
        ("/v2/app/manifests/one", 404, b"NAME_UNKNOWN"),
        (f"/v2/{registry.account.id}.dkr.ecr.mars-1/app/manifests/one", 404, b"NAME_UNKNOWN"),
        (f"{base}/../../x", 404, b"NAME_UNKNOWN"),
        ("/v2/_layers/nonsense", 403, b"DENIED"),
        (f"{base}/blobs/uploads/{UNKNOWN}", 405, b"UNSUPPORTED"),
    ):
        method = "PUT" if word == b"DENIED" else "DELETE" if status == 405 else "GET"
        method = "GET" if word == b"DENIED" else method
        found, _, body = get(registry, path, password, method)
        assert (found, word in body) == (status, True), (path, found, body)


@pytest.mark.control("IMG-13", lacking="services' principals")
def test_what_the_registry_does_is_on_record(registry: Registry) -> None:
    uri = registry.create("app")
    registry.push(f"{uri}:one")
    assert registry.skopeo("copy", "SRC", f"docker://{uri}:one", f"dir:{registry.folder / 'p'}").returncode == 0
    trail = registry.account.client("cloudtrail")
    source = {"AttributeKey": "EventSource", "AttributeValue": "ecr.amazonaws.com"}
    events = trail.lookup_events(LookupAttributes=[source], MaxResults=50)["Events"]
    names = {one["EventName"] for one in events}
    assert names >= {
        "CreateRepository", "GetAuthorizationToken", "InitiateLayerUpload", "UploadLayerPart", "CompleteLayerUpload",
        "PutImage", "BatchGetImage", "GetDownloadUrlForLayer", "BatchCheckLayerAvailability",
    }  # fmt: skip
    told = "".join(one["CloudTrailEvent"] for one in events)
    assert registry.password()[:40] not in told and 'layerPartBlob":"<' in told.replace(" ", "")


def test_nobody_takes_a_layer_over_from_a_repository_they_may_not_read(registry: Registry, neighbour: Account) -> None:
    folder = registry.folder / "theirs"
    folder.mkdir()
    theirs = Registry(neighbour, folder)
    uri = theirs.create("secret")
    theirs.push(f"{uri}:one", [oci.system])
    image = theirs.ecr.batch_get_image(repositoryName="secret", imageIds=[{"imageTag": "one"}])["images"][0]
    layer = json.loads(image["imageManifest"])["layers"][0]["digest"]
    mine = registry.create("mine")
    path = f"/v2/{mine.partition('/')[2]}/blobs/uploads/?mount={layer}&from={uri.partition('/')[2]}"
    status, head, _ = get(registry, path, registry.password(), "POST")
    assert status == 202 and "/blobs/uploads/" in head["location"]
    found = registry.ecr.batch_check_layer_availability(repositoryName="mine", layerDigests=[layer])
    assert found["layers"][0]["layerAvailability"] == "UNAVAILABLE"
    with pytest.raises(ClientError, match="LayersNotFound"):
        registry.ecr.put_image(repositoryName="mine", imageManifest=image["imageManifest"])


@pytest.mark.control("PRM-09")
def test_an_image_is_built_upon_another_and_pushed(registry: Registry, mission: Path) -> None:
    document = sample(
        mission, "07-notebook-execution-role-ecr-build-push.json", ACCOUNT_ID=registry.account.id, TEAM_NAMESPACE="team"
    )
    registry.account.role("Notebook", document)
    keys = registry.account.as_role("Notebook")
    right = [{"Key": "CreatedBy", "Value": "SageMaker"}]
    made = registry.account.client("ecr", keys).create_repository(repositoryName="team/app", tags=right)
    uri = made["repository"]["repositoryUri"]
    registry.push(f"{uri}:base", [oci.system], {"Env": ["PATH=/bin"]}, keys=keys)
    folder = registry.folder / "build"
    folder.mkdir()
    (folder / "Containerfile").write_text(
        f'FROM {uri}:base\nCOPY Containerfile /made/\nENTRYPOINT ["cat", "/made/x"]\n'
    )
    (folder / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    where = [
        "--root",
        str(registry.folder / "store"),
        "--runroot",
        str(registry.folder / "run"),
        "--storage-driver",
        "vfs",
    ]
    trust = ["--signature-policy", str(folder / "policy.json"), "--cert-dir", str(registry.folder / "certificates")]
    login = ["--creds", f"AWS:{registry.password(keys)}"]
    for words in (
        ["build", "--isolation", "chroot", *trust, *login, "-t", f"{uri}:built", str(folder)],
        ["push", *trust, *login, f"{uri}:built"],
    ):
        done = subprocess.run(["buildah", *where, *words], capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
    found = registry.ecr.describe_images(repositoryName="team/app")["imageDetails"]
    assert sorted(tag for one in found for tag in one["imageTags"]) == ["base", "built"]


@given(
    method=st.sampled_from(["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"]),
    path=st.lists(
        st.sampled_from(
            ["app", "blobs", "uploads", "manifests", "tags", "list", "_layers", "..", "%2e%2e", "%00", "", "%ff", "a" * 300,
             "sha256:" + "a" * 64, UNKNOWN, "ACCOUNT.dkr.ecr.us-east-1", "?digest=sha256:x", "?n=x&last=%ff", "referrers"]
        ),
        max_size=7,
    ),
    body=st.sampled_from([b"", b"{}", b"\xff\xfe", b"[" * 3000, b"x" * 70_000]),
)  # fmt: skip
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_whatever_is_asked_of_the_registry_is_answered_in_its_words(
    registry: Registry, method: str, path: list[str], body: bytes
) -> None:
    if not hasattr(registry, "held"):
        registry.create("app")
        registry.held = registry.password()  # type: ignore[attr-defined]
    whole = "/v2/" + "/".join(path).replace("ACCOUNT", registry.account.id)
    status, _, said = get(registry, whole, registry.held, method, body or None)  # type: ignore[attr-defined]
    assert status < 500, (method, whole, said)
    if status >= 400 and method != "HEAD":
        assert json.loads(said)["errors"][0]["code"]
