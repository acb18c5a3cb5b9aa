"""Builds, judges and promotes images of the hierarchy: public, base, framework, application. Runs in builds.

    imagery.py build | scan REPOSITORY...              as one step of a pipeline; what a scan passes is promoted
    imagery.py verify REPOSITORY:TAG                   the way back to a public image, of any image

Where it runs it is told by variables: REGISTRY, PASSWORD; for builds FROM (what may be built on), BRANCH, COMMIT, RUN
(of images whose stable tag moves), LINE (the stable tag), STOP_AT (severities), SIGNING_KEY (of images that are signed).
"""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, NoReturn

REGISTRY = os.environ["REGISTRY"]
LABEL = "org.opencontainers.image"
KINDS = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"


def fail(why: str) -> NoReturn:
    sys.exit(f"refused: {why}")


def run(*words: str) -> str:
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout


def ask(path: str, content: bytes | None = None, kind: str = KINDS, method: str = "") -> Any:
    """The registry's answer: its headers and its bytes."""
    place = urllib.parse.urljoin(f"https://{REGISTRY}/v2/", path)
    request = urllib.request.Request(place, content, method=method or ("PUT" if content else "GET"))
    request.add_header("Content-Type" if content else "Accept", kind)
    secret = base64.b64encode(f"AWS:{os.environ['PASSWORD']}".encode()).decode()
    request.add_unredirected_header("Authorization", f"Basic {secret}")  # layers may lie elsewhere
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.headers, answer.read()


def manifest(name: str, reference: str) -> tuple[str, dict[str, Any], bytes]:
    """An image's digest and manifest."""
    try:
        headers, content = ask(f"{name}/manifests/{reference}")
    except urllib.error.HTTPError as error:
        fail(f"{name} {reference} cannot be read: {error.code} {error.reason}")
    return headers["Docker-Content-Digest"], json.loads(content), content


def config(name: str, reference: str) -> tuple[str, dict[str, str], list[str]]:
    """An image's digest, its labels, and its layers by the digests of their contents."""
    digest, told, _ = manifest(name, reference)
    if "config" not in told:
        fail(f"{name} {reference} is a list of images: bring in that of one platform")
    held = json.loads(ask(f"{name}/blobs/{told['config']['digest']}")[1])
    return digest, (held.get("config") or {}).get("Labels") or {}, held["rootfs"]["diff_ids"]


def stands_on(dockerfile: str) -> str:
    """What the image that a Dockerfile makes is built on; everything it names must be in FROM, or be a stage before."""
    if re.search(r"\\[ \t]*\n\s*\n", dockerfile):
        fail("an empty line follows a backslash: builders differ in what that means")
    text = re.sub(r"\\[ \t]*\n", " ", dockerfile)
    if re.search(r"^\s*#\s*(escape|syntax)\s*=", text, re.I | re.M):
        fail("a Dockerfile here is read as it is written: no escape, no syntax")
    stages: dict[str, str] = {}
    last = ""
    for line in text.splitlines():
        words = line.split()
        for one in re.findall(r"[-,]from=([^\s,]+)", line):
            if one.lower() not in stages and not (one.isdigit() and int(one) < len(stages)):
                fail(f"`{one}` is no stage of this Dockerfile")
        if not words or words[0].upper() != "FROM":
            continue
        named = re.sub(r"^\$(REGISTRY|\{REGISTRY\})/", "", words[1]) if len(words) > 1 else ""
        if named.lower() in stages:
            last = stages[named.lower()]
        elif len(words) > 1 and words[1].startswith("$") and named in os.environ["FROM"].split():
            last = named
        else:
            fail(f"`{line.strip()}`: what may be built on is $REGISTRY/ and one of {os.environ['FROM']}")
        stages[words[3].lower() if len(words) == 4 and words[2].upper() == "AS" else str(len(stages))] = last
    if not last:
        fail("a Dockerfile has a FROM")
    return last


def tag() -> str:
    """Of what is built from this commit; where a stable tag moves, of this run."""
    run_ = os.environ.get("RUN", "")
    return f"{os.environ['BRANCH'].replace('/', '-')}-{os.environ['COMMIT']}" + (f"-{run_[-12:]}" if run_ else "")


def folder(name: str) -> Path:
    return Path(os.environ["CODEBUILD_SRC_DIR"], name.rpartition("/")[2])


def build(name: str) -> None:
    """Builds an image, has it examined, and pushes it by a tag that never moves."""
    base = stands_on((folder(name) / "Dockerfile").read_text())
    digest, _, below = config(*base.rsplit(":", 1))
    image = f"{REGISTRY}/{name}:{tag()}"
    labels = {
        f"{LABEL}.revision": os.environ["COMMIT"], f"{LABEL}.ref.name": os.environ["BRANCH"],
        f"{LABEL}.created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        f"{LABEL}.base.name": base, f"{LABEL}.base.digest": digest, "build": os.environ["CODEBUILD_BUILD_ID"],
    }  # fmt: skip
    told = [word for key, value in labels.items() for word in ("--label", f"{key}={value}")]
    file = str(folder(name) / "Dockerfile")  # the one that was looked at, whatever else lies beside it
    run("docker", "build", "-f", file, "--build-arg", f"REGISTRY={REGISTRY}", *told, "-t", image, str(folder(name)))
    if subprocess.run([sys.executable, "-I", "/tmp/scanner.py", image, *below], check=False).returncode:
        fail(f"{name}:{tag()} is not pushed, for what was found in it")
    if subprocess.run(["docker", "push", image], check=False).returncode:
        fail(f"{name}:{tag()} is not pushed: the registry has said why")
    print(f"{name}:{tag()} is built on {base} {digest}")


def way(name: str, reference: str) -> list[str]:
    """From an image to a public one, each step with its digest: what labels say and what layers are must agree."""
    found = []
    while True:
        digest, labels, layers = config(name, reference)
        found.append(f"{name}@{digest}")
        if name.startswith("public/"):
            return found
        base, claimed = labels.get(f"{LABEL}.base.name", ""), labels.get(f"{LABEL}.base.digest", "")
        if not base or not claimed or len(found) > 9:
            fail(f"{name}@{digest} does not say what it is built on")
        below, _, first = config(base.rpartition(":")[0], claimed)
        if below != claimed or layers[: len(first)] != first:
            fail(f"{name}@{digest} says that it is built on {base} {claimed}, and its layers do not begin with those")
        name, reference = base.rpartition(":")[0], claimed


def scan(name: str) -> None:
    """Waits for the registry's findings; refuses severities, and a way that leads to no public image."""
    until = time.monotonic() + 600
    words = ("aws", "ecr", "describe-image-scan-findings", "--repository-name", name, "--image-id", f"imageTag={tag()}")
    while True:
        done = subprocess.run([*words, "--output", "json"], capture_output=True, text=True, check=False)
        told = json.loads(done.stdout) if done.returncode == 0 else {}
        state = told.get("imageScanStatus", {}).get("status", "none")
        if state in ("COMPLETE", "ACTIVE"):
            break
        if state not in ("none", "IN_PROGRESS", "PENDING") or time.monotonic() > until:
            fail(f"{name}:{tag()} is not scanned: {state} {done.stderr.strip()}")
        time.sleep(0.5)
    counts = told.get("imageScanFindings", {}).get("findingSeverityCounts", {})
    print(f"{name}:{tag()} has findings: {json.dumps(counts)}")
    Path("bills").mkdir(exist_ok=True)
    try:
        bill = ask(f"{name}/sbom/{tag()}", kind="application/vnd.cyclonedx+json")[1]
        Path("bills", f"{name.replace('/', '-')}.json").write_bytes(bill)
    except urllib.error.HTTPError as error:
        print(f"this registry gives out no bill of materials: {error.code}")
    for line in way(name, tag()):
        print(line)
    worst = [one for one in os.environ["STOP_AT"].split() if counts.get(one)]
    if worst:
        fail(f"{name}:{tag()} has findings of {', '.join(worst)}")
    if os.environ.get("SIGNING_KEY"):
        sign(name)
    if os.environ.get("LINE"):
        promote(name)


def store(name: str, content: bytes) -> dict[str, Any]:
    """Puts bytes beside an image; how a manifest names them."""
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    place = ask(f"{name}/blobs/uploads/", b"", method="POST")[0]["Location"]
    ask(f"{place}{'&' if '?' in place else '?'}digest={digest}", content, "application/octet-stream")
    return {"size": len(content), "digest": digest}


def sign(name: str) -> None:
    """Signs what was judged, as cosign does with a key of KMS: whoever deploys looks for it (signatures.py)."""
    digest, told, raw = manifest(name, tag())
    identity, image = {"docker-reference": f"{REGISTRY}/{name}"}, {"docker-manifest-digest": digest}
    critical = {"identity": identity, "image": image, "type": "cosign container image signature"}
    text = json.dumps({"critical": critical, "optional": None}, separators=(",", ":")).encode()
    Path("/tmp/payload").write_bytes(text)
    words = ["aws", "kms", "sign", "--key-id", os.environ["SIGNING_KEY"], "--message", "fileb:///tmp/payload"]
    words += ["--signing-algorithm", "ECDSA_SHA_256", "--query", "Signature", "--output", "text"]
    signature = {"dev.cosignproject.cosign/signature": run(*words).strip()}
    layer = {
        "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
        **store(name, text),
        "annotations": signature,
    }
    about = {"architecture": "", "os": "", "config": {}, "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]}}
    config_ = {"mediaType": "application/vnd.oci.image.config.v1+json", **store(name, json.dumps(about).encode())}
    subject = {"mediaType": told["mediaType"], "size": len(raw), "digest": digest}
    kind = "application/vnd.oci.image.manifest.v1+json"
    made = {"schemaVersion": 2, "mediaType": kind, "config": config_, "layers": [layer], "subject": subject}
    ask(f"{name}/manifests/{digest.replace(':', '-')}.sig", json.dumps(made).encode(), kind)
    print(f"{name}@{digest} is signed")


def promote(name: str) -> None:
    """Moves the stable tag to what was built and judged."""
    digest, told, content = manifest(name, tag())
    ask(f"{name}/manifests/{os.environ['LINE']}", content, told["mediaType"])
    print(f"{name}:{os.environ['LINE']} is {digest} now")


if __name__ == "__main__":
    if sys.argv[1] == "verify":
        print("\n".join(way(*sys.argv[2].rsplit(":", 1))))
        sys.exit()
    os.environ["PASSWORD"] = run("aws", "ecr", "get-login-password").strip()
    shutil.rmtree("bills", ignore_errors=True)  # of the source
    if sys.argv[1] == "build":
        login = ["docker", "login", "--username", "AWS", "--password-stdin", REGISTRY]
        subprocess.run(login, input=os.environ["PASSWORD"], text=True, check=True)
    names = [one for one in sys.argv[2:] if (folder(one) / "Dockerfile").is_file()]
    if not names:
        fail(f"there is no Dockerfile in a folder for one of {', '.join(sys.argv[2:])}")
    if sys.argv[1] == "build":
        for one in names:  # before any of them is built
            stands_on((folder(one) / "Dockerfile").read_text())
    for one in names:
        {"build": build, "scan": scan}[sys.argv[1]](one)
