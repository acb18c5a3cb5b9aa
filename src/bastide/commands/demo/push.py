"""A commit, pushed by git over HTTPS with what a role's session signs, as AWS's credential helper has it."""

from __future__ import annotations

import datetime
import os
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import botocore.auth
import botocore.awsrequest
import botocore.credentials

from bastide.commands.client import Credentials, Platform
from bastide.commands.demo.telling import StoryError

_SECONDS = 60.0


def push(platform: Platform, signer: Credentials, repository: str, author: str, files: dict[str, str]) -> str:
    """Pushes one commit with these files to main; its id. Raises StoryError with what git said."""
    url = f"{platform.url}/v1/repos/{repository}"
    name, password = _signed(platform, signer, url)
    with tempfile.TemporaryDirectory(prefix="bastide-demo-") as folder:
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": folder,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_SSL_CAINFO": str(platform.directory.authority),
            "GIT_AUTHOR_NAME": author,
            "GIT_AUTHOR_EMAIL": f"{author}@bank.example",
            "GIT_COMMITTER_NAME": author,
            "GIT_COMMITTER_EMAIL": f"{author}@bank.example",
            "SIGNED": f"username={name}\npassword={password}",
        }
        for path, text in files.items():
            (Path(folder) / path).write_text(text)

        def git(*words: str) -> str:
            helper = 'credential.helper=!f() { echo "$SIGNED"; }; f'
            try:
                done = subprocess.run(
                    ["git", "-c", helper, *words],
                    cwd=folder,
                    env=environment,
                    capture_output=True,
                    text=True,
                    timeout=_SECONDS,
                    check=False,
                )
            except (FileNotFoundError, subprocess.TimeoutExpired) as error:
                raise StoryError(f"git {words[0]}: {error}") from None
            if done.returncode:
                raise StoryError(f"git {words[0]}: {done.stderr.strip()}")
            return done.stdout.strip()

        git("init", "-q", "-b", "main")
        git("add", *files)
        git("commit", "-q", "-m", "The mortgage model, and how it is trained and served")
        git("push", "-q", url, "HEAD:main")
        return git("rev-parse", "HEAD")


def _signed(platform: Platform, signer: Credentials, url: str) -> tuple[str, str]:
    """Name and password for git, made of a signature of the repository's address."""
    parts = urlsplit(url)
    request = botocore.awsrequest.AWSRequest(method="GIT", url=url)
    request.context["timestamp"] = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S")
    held = botocore.credentials.Credentials(signer.access_key, signer.secret, signer.token)
    auth = botocore.auth.SigV4Auth(held, "codecommit", platform.region)
    asked = f"GIT\n{parts.path}\n\nhost:{parts.hostname}\n\nhost\n"
    signature = auth.signature(auth.string_to_sign(request, asked), request)
    name = signer.access_key + (f"%{signer.token}" if signer.token else "")
    return name, f"{request.context['timestamp']}Z{signature}"
