"""A client's program, run as its user would: with nothing but an endpoint, an authority and credentials around it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.clients.environments import build
from tests.platform import REGION, Keys, Running


def surroundings(platform: Running, keys: Keys, home: Path) -> dict[str, str]:
    """The environment variables that point an AWS client at a platform, and no others that concern AWS.

    home: a folder without anybody's configuration.
    """
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "AWS_ACCESS_KEY_ID": keys.access_key,
        "AWS_SECRET_ACCESS_KEY": keys.secret,
        **({"AWS_SESSION_TOKEN": keys.token} if keys.token else {}),
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL": platform.url,
        "AWS_CA_BUNDLE": platform.authority,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def run(
    name: str, program: Path, *words: str, environment: dict[str, str], seconds: int = 120
) -> subprocess.CompletedProcess[str]:
    """Runs a program in the environment called `name`, in its HOME."""
    return subprocess.run(
        [str(build(name)), str(program), *words],
        check=False,
        capture_output=True,
        text=True,
        timeout=seconds,
        env=environment,
        cwd=environment["HOME"],
    )
