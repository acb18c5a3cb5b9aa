"""Images that builds make, from a Dockerfile of the source into the platform's own registry."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.platform import Running, allow
from tests.stories.codebuild.conftest import CODEBUILD, ENVIRONMENT, MAY, Bench, archive, bench_of, cause, spec

PRIVILEGED = {**ENVIRONMENT, "privilegedMode": True}
PUSH = (
    "ecr:GetAuthorizationToken", "ecr:BatchCheckLayerAvailability", "ecr:InitiateLayerUpload", "ecr:UploadLayerPart",
    "ecr:CompleteLayerUpload", "ecr:PutImage", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer",
)  # fmt: skip
LOGIN = "aws ecr get-login-password | docker login --username AWS --password-stdin $REGISTRY"
BASE = """FROM scratch
COPY --chmod=755 busybox /bin/busybox
RUN ["/bin/busybox", "sh", "-c", "/bin/busybox --install -s /bin && mkdir -p /etc /tmp /app"]
"""
PROBE = """ARG BASE
FROM $BASE
ARG COMMIT
LABEL commit=$COMMIT
RUN id -u && cat /proc/self/uid_map
RUN wget -T 2 -O - http://93.184.216.34/ || echo no way out
RUN wget -T 2 -O - http://169.254.169.254/ || echo no metadata
RUN ls /work /data /root/.aws 2>/dev/null || echo nothing of the host
RUN mknod /tmp/disk b 254 0 && head -c 1 /tmp/disk || echo no devices
RUN echo x > /proc/sys/kernel/core_pattern || echo no kernel
RUN env | grep -c AWS_CONTAINER || echo no credentials
RUN touch /app/theirs && chown 1000:1000 /app/theirs
COPY train.py /app/train.py
ENTRYPOINT ["/bin/cat", "/app/train.py"]
"""


@pytest.fixture(scope="module")
def bench(platform: Running) -> Iterator[Bench]:
    yield bench_of(platform.account())


@pytest.mark.control("PIP-04")
@pytest.mark.control("STG-03", lacking="the pipeline's part")
@pytest.mark.control("DEP-02", lacking="the pipeline's part")
def test_a_dockerfile_becomes_an_image_in_the_registry(bench: Bench) -> None:
    account = bench.account
    ecr = account.client("ecr")
    ecr.create_repository(repositoryName="app", imageTagMutability="IMMUTABLE")
    role = account.role("images", allow(*MAY, *PUSH), trust=CODEBUILD)
    registry = f"{account.id}.dkr.ecr.us-east-1.amazonaws.com"
    buildspec = spec(
        env={"variables": {"REGISTRY": registry, "COMMIT": "c0ffee"}},
        pre_build=[LOGIN],
        build=[
            "docker build -t $REGISTRY/app:base -f Dockerfile.base . && docker push $REGISTRY/app:base",
            # The next one's base comes out of the registry.
            "docker rmi $REGISTRY/app:base",
            "docker build -t $REGISTRY/app:$COMMIT --build-arg BASE=$REGISTRY/app:base --build-arg COMMIT=$COMMIT .",
        ],
        post_build=["docker push $REGISTRY/app:$COMMIT", "docker images"],
    )
    files = {
        "buildspec_dot_yml": buildspec,
        "Dockerfile": PROBE,
        "Dockerfile_dot_base": BASE,
        "train_dot_py": "print('committed')\n",
        "busybox": Path("/usr/bin/busybox").read_bytes(),
    }
    source = {"type": "S3", "location": bench.put("image.zip", archive(**files))}
    name = bench.project("", source=source, environment=PRIVILEGED, serviceRole=role)
    build = bench.over(bench.start(name))
    said = bench.said(build)
    assert build["buildStatus"] == "SUCCEEDED", "\n".join(bench.lines(build))
    for line in ("no way out", "no metadata", "nothing of the host", "no devices", "no kernel", "no credentials"):
        # What a command says of its failure and what comes next may share a line: two programs write them.
        assert any(one.endswith(line) for one in said), (line, said)
    images = {tag: one for one in ecr.describe_images(repositoryName="app")["imageDetails"] for tag in one["imageTags"]}
    assert set(images) == {"base", "c0ffee"}
    # Run locally, it has the committed script; here as what another project's build runs in.
    [found] = ecr.batch_get_image(repositoryName="app", imageIds=[{"imageTag": "c0ffee"}])["images"]
    assert json.loads(found["imageManifest"])["config"]["digest"].startswith("sha256:")
    own = {**ENVIRONMENT, "image": f"{registry}/app:c0ffee", "imagePullCredentialsType": "SERVICE_ROLE"}
    inside = bench.build(
        spec(build=["cat /app/train.py", "test -e /usr/bin/git || echo its own"]), environment=own, serviceRole=role
    )
    assert bench.said(inside) == ["print('committed')", "its own"], bench.lines(inside)
    # A tag that may not move does not, and the build fails of it.
    variables = {"variables": {"REGISTRY": registry}}
    moving = "docker build -q -t $REGISTRY/app:base -f Dockerfile.base . && docker push $REGISTRY/app:base"
    again = bench.over(bench.start(name, buildspecOverride=spec(env=variables, build=[LOGIN, moving])))
    assert again["buildStatus"] == "FAILED" and "docker push" in cause(again)
    assert any("immutable" in one.lower() for one in bench.said(again)), bench.said(again)
    # Nor does a role push that may not.
    denied = bench.over(bench.start(name, serviceRoleOverride=bench.role))
    assert denied["buildStatus"] == "FAILED" and "get-login-password" in cause(denied)


@pytest.mark.control("PIP-04")
def test_without_privileges_no_image_is_built(bench: Bench) -> None:
    build = bench.build(spec(build=["docker build ."]))
    assert build["buildStatus"] == "FAILED" and "docker build ." in cause(build)
    assert "Cannot connect to the Docker daemon" in bench.said(build)[0]
