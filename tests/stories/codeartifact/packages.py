"""Distributions written by hand, and the tools that people install and upload them with."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.platform import Account, Keys


def wheel(
    folder: Path, name: str, version: str, content: str = "", *, requires: str = "", inner: str = "", file: str = ""
) -> Path:
    """A wheel of one module. inner: the project that its metadata says instead; file: the file's name instead."""
    folder.mkdir(parents=True, exist_ok=True)
    module = name.replace("-", "_")
    info = f"{inner or module}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {inner or name}\nVersion: {version}\nSummary: A package.\n"
    metadata += f"Requires-Python: >=3.9\nLicense: MIT\n{requires}\n\n# {name}\n"
    files = {
        f"{module}.py": content or f"version = '{version}'\n",
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(text.encode())}\n"
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path, text in files.items():
            archive.writestr(zipfile.ZipInfo(path, (2026, 1, 1, 0, 0, 0)), text)
    path = folder / (file or f"{module}-{version}-py3-none-any.whl")
    path.write_bytes(packed.getvalue())
    return path


@dataclass
class Shelf:
    """A repository of an account's domain. owner: the account that has the domain; user: who works with it."""

    owner: Account
    domain: str
    repository: str

    def endpoint(self, keys: Keys | None = None) -> str:
        answer = self.owner.client("codeartifact", keys).get_repository_endpoint(
            domain=self.domain, domainOwner=self.owner.id, repository=self.repository, format="pypi"
        )
        return str(answer["repositoryEndpoint"])

    def token(self, keys: Keys | None = None, **given: Any) -> str:
        client = self.owner.client("codeartifact", keys)
        told = client.get_authorization_token(domain=self.domain, domainOwner=self.owner.id, **given)
        return str(told["authorizationToken"])

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PIP_", "UV_"))}
        authority = self.owner.platform.authority
        return {
            **kept,
            "PIP_CERT": authority, "SSL_CERT_FILE": authority, "REQUESTS_CA_BUNDLE": authority,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_CACHE_DIR": "1", "UV_NO_CACHE": "1", "PIP_NO_INPUT": "1",
            "PIP_RETRIES": "0", "PIP_CONFIG_FILE": os.devnull, "NO_COLOR": "1", "PYTHON_KEYRING_BACKEND": "",
        }  # fmt: skip

    def index(self, keys: Keys | None = None, token: str = "") -> str:
        scheme, _, rest = self.endpoint().partition("://")
        return f"{scheme}://aws:{token or self.token(keys)}@{rest}simple/"

    def pip(
        self,
        target: Path,
        *wanted: str,
        keys: Keys | None = None,
        token: str = "",
        more: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """pip install into a folder."""
        words = [sys.executable, "-m", "pip", "install", "-q", "--no-compile", "--target", str(target), *wanted]
        environment = {**self.environment(), "PIP_INDEX_URL": self.index(keys, token), **(more or {})}
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=120, env=environment)

    def uv(self, target: Path, *wanted: str) -> subprocess.CompletedProcess[str]:
        """uv pip install into a folder."""
        program = str(Path(sys.executable).with_name("uv"))
        words = [program, "pip", "install", "-q", "--python", sys.executable, "--target", str(target), *wanted]
        environment = {**self.environment(), "UV_DEFAULT_INDEX": self.index()}
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=120, env=environment)

    def twine(self, *files: Path, keys: Keys | None = None, token: str = "") -> subprocess.CompletedProcess[str]:
        """twine upload."""
        words = [
            sys.executable, "-m", "twine", "upload", "--non-interactive", "--disable-progress-bar",
            "--repository-url", self.endpoint(), *map(str, files),
        ]  # fmt: skip
        environment = {
            **self.environment(), "TWINE_USERNAME": "aws", "TWINE_PASSWORD": token or self.token(keys),
        }  # fmt: skip
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=120, env=environment)

    def upload(self, file: Path, token: str = "") -> int:
        """What twine sends for a wheel, without starting it; the status."""
        name, version = file.name.split("-")[:2]
        told = {":action": "file_upload", "name": name, "version": version}
        body, kind = form(told, file.name, file.read_bytes())
        return self.ask("", token=token or self.token(), body=body, kind=kind)[0]

    def ask(
        self,
        path: str,
        *,
        token: str | None = None,
        accept: str = "",
        body: bytes | None = None,
        kind: str = "",
        format: str = "pypi",
    ) -> tuple[int, dict[str, str], bytes]:
        """One request to the endpoint; status, headers, body."""
        where = f"{self.domain}-{self.owner.id}.d.codeartifact.us-east-1/{format}/{self.repository}/{path}"
        request = urllib.request.Request(f"{self.owner.platform.http}/_codeartifact/{where}", data=body)
        if token is not None:
            told = base64.b64encode(f"aws:{token}".encode()).decode()
            request.add_header("Authorization", f"Basic {told}")
        if accept:
            request.add_header("Accept", accept)
        if kind:
            request.add_header("Content-Type", kind)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, dict(answer.headers.items()), answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, dict(error.headers.items()), error.read()

    def page(self, package: str, token: str = "") -> dict[str, Any]:
        """A project's page as JSON, with its files by name."""
        accept = "application/vnd.pypi.simple.v1+json"
        status, _, body = self.ask(f"simple/{package}/", token=token or self.token(), accept=accept)
        if status == 404:
            return {}
        assert status == 200, body
        return {one["filename"]: one for one in json.loads(body)["files"]}


def form(fields: Mapping[str, str], filename: str, content: bytes) -> tuple[bytes, str]:
    """An upload's body as it is told, however wrong, and its content type."""
    parts = [
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()
    ]
    head = f'--b\r\nContent-Disposition: form-data; name="content"; filename="{filename}"\r\n\r\n'
    return "".join(parts).encode() + head.encode() + content + b"\r\n--b--\r\n", "multipart/form-data; boundary=b"
