"""Real git against the platform, with what people use beside it."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import botocore.auth
import botocore.awsrequest
import botocore.credentials

from tests.platform import REGION, Account, Keys

PROGRAMS = Path(sys.executable).parent


@dataclass
class Remote:
    """A repository of an account, and clones of it in a folder."""

    account: Account
    folder: Path
    name: str = "code"

    @property
    def client(self) -> Any:
        return self.account.client("codecommit")

    @property
    def url(self) -> str:
        return f"{self.account.platform.url}/v1/repos/{self.name}"

    def environment(self, keys: Keys | None = None) -> dict[str, str]:
        """What git and AWS's programs are told."""
        held = keys or self.account.keys
        found = {
            "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_SSL_CAINFO": self.account.platform.authority,
            "GIT_AUTHOR_NAME": "Ada",
            "GIT_AUTHOR_EMAIL": "ada@example.com",
            "GIT_COMMITTER_NAME": "Ada",
            "GIT_COMMITTER_EMAIL": "ada@example.com",
            "AWS_ACCESS_KEY_ID": held.access_key,
            "AWS_SECRET_ACCESS_KEY": held.secret,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "CODE_COMMIT_ENDPOINT": urlsplit(self.account.platform.url).netloc,
        }
        return {**found, **({"AWS_SESSION_TOKEN": held.token} if held.token else {})}

    def signed(
        self, keys: Keys | None = None, at: datetime.datetime | None = None, region: str = REGION
    ) -> tuple[str, str]:
        """The name and the password that AWS's credential helper would give git."""
        held = keys or self.account.keys
        parts = urlsplit(self.url)
        request = botocore.awsrequest.AWSRequest(method="GIT", url=self.url)
        request.context["timestamp"] = (at or datetime.datetime.now(datetime.UTC)).strftime("%Y%m%dT%H%M%S")
        signer = botocore.auth.SigV4Auth(
            botocore.credentials.Credentials(held.access_key, held.secret, held.token), "codecommit", region
        )
        canonical = f"GIT\n{parts.path}\n\nhost:{parts.hostname}\n\nhost\n"
        signature = signer.signature(signer.string_to_sign(request, canonical), request)
        name = held.access_key + (f"%{held.token}" if held.token else "")
        return name, f"{request.context['timestamp']}Z{signature}"

    def git(
        self, *arguments: str, at: str = ".", keys: Keys | None = None, fine: bool = True, input: bytes | None = None,
        helper: str = "quick", **more: str,
    ) -> subprocess.CompletedProcess[str]:  # fmt: skip
        """Runs git. helper: ``aws``, the AWS CLI's; ``quick``, one that tells what that would; or none."""
        command = ["git", "-c", "init.defaultBranch=main", "-c", "protocol.codecommit.allow=always"]
        if helper == "aws":
            program = f"!{sys.executable} -m awscli codecommit credential-helper --ignore-host-check $@"
            command += ["-c", f"credential.helper={program}", "-c", "credential.UseHttpPath=true"]
        elif helper == "quick":
            name, password = self.signed(keys)
            more = {**more, "QUICK": f"username={name}\npassword={password}"}
            command += ["-c", 'credential.helper=!f() { echo "$QUICK"; }; f']
        found = subprocess.run(
            [*command, *arguments], cwd=self.folder / at, env={**self.environment(keys), **more}, capture_output=True,
            input=input, timeout=120, check=False,
        )  # fmt: skip
        told: subprocess.CompletedProcess[str] = subprocess.CompletedProcess(
            found.args,
            found.returncode,
            found.stdout.decode("utf-8", "replace"),
            found.stderr.decode("utf-8", "replace"),
        )
        if fine:
            assert told.returncode == 0, told.stderr
        return told

    def head(self, at: str, name: str = "HEAD") -> str:
        return self.git("rev-parse", name, at=at).stdout.strip()

    def work(self, at: str, **files: str) -> str:
        """A commit of some files in a clone; its id."""
        for name, text in files.items():
            path = self.folder / at / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.git("add", "-A", at=at)
        self.git("commit", "-q", "-m", f"changes {', '.join(files)}", at=at)
        return self.head(at)

    def with_password(self, name: str, password: str) -> str:
        """The repository's address with a name and a password in it."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{quote(name, safe='')}:{quote(password, safe='')}@{parts.netloc}{parts.path}"
