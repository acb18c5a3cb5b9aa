"""A registry of one account, and the client that people push and pull with."""

from __future__ import annotations

import base64
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.platform import Account, Keys
from tests.stories.ecr import oci


@dataclass
class Registry:
    """Where images are. folder: for layouts and the client's configuration."""

    account: Account
    folder: Path

    def __post_init__(self) -> None:
        self.ecr = self.account.client("ecr")
        certificates = self.folder / "certificates"
        certificates.mkdir(exist_ok=True)
        shutil.copy(self.account.platform.authority, certificates / "ca.crt")

    def password(self, keys: Keys | None = None) -> str:
        """What `aws ecr get-login-password` prints."""
        client = self.account.client("ecr", keys)
        token = client.get_authorization_token()["authorizationData"][0]["authorizationToken"]
        return base64.b64decode(token).decode().removeprefix("AWS:")

    def skopeo(self, *words: str, keys: Keys | None = None, password: str = "") -> subprocess.CompletedProcess[str]:
        """Runs skopeo with the token of somebody; in its words SRC, DEST and ONE stand for the options of a side."""
        said: list[str] = []
        for word in words:
            side = {"SRC": "src-", "DEST": "dest-", "ONE": ""}.get(word)
            if side is None:
                said.append(word)
                continue
            said += [f"--{side}cert-dir", str(self.folder / "certificates")]
            said += [f"--{side}creds", f"AWS:{password or self.password(keys)}"]
        return subprocess.run(
            ["skopeo", "--insecure-policy", *said], capture_output=True, text=True, check=False, timeout=120
        )

    def create(self, name: str, **given: Any) -> str:
        """A new repository; its URI."""
        made = self.ecr.create_repository(repositoryName=name, **given)["repository"]
        return str(made["repositoryUri"])

    def push(
        self,
        uri: str,
        layers: Sequence[oci.Layer | tuple[bytes, str]] = (oci.system,),
        config: Mapping[str, Any] | None = None,
        keys: Keys | None = None,
    ) -> str:
        """Makes an image and pushes it; its digest."""
        folder = self.folder / f"layout-{len(list(self.folder.iterdir()))}"
        digest = oci.layout(folder, layers, config)
        done = self.skopeo("copy", "DEST", f"oci:{folder}", f"docker://{uri}", keys=keys)
        assert done.returncode == 0, done.stderr
        return digest


def canonical(account: str, name: str, region: str = "us-east-1") -> str:
    """A repository's URI as AWS writes it."""
    return f"{account}.dkr.ecr.{region}.amazonaws.com/{name}"
