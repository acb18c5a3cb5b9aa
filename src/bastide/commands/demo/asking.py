"""The endpoint in Production as its callers reach it: by an API, signed with a role's session."""

from __future__ import annotations

import http.client
import json
import ssl
from typing import Any
from urllib.parse import urlsplit

import botocore.auth
import botocore.awsrequest
import botocore.credentials

from bastide.commands.client import Credentials, Platform
from bastide.commands.demo.telling import StoryError

_SECONDS = 60.0


def ask(platform: Platform, signer: Credentials, api: str, lines: list[str]) -> dict[str, Any]:
    """What the API's stage `live` answers to rows of CSV; raises StoryError for anything but an answer."""
    host, path = urlsplit(platform.url).netloc, f"/restapis/{api}/live/_user_request_/predictions"
    body = "\n".join(lines).encode()
    signed = botocore.awsrequest.AWSRequest(
        method="POST", url=f"https://{host}{path}", data=body, headers={"Content-Type": "text/csv"}
    )
    credentials = botocore.credentials.Credentials(signer.access_key, signer.secret, signer.token)
    botocore.auth.SigV4Auth(credentials, "execute-api", platform.region).add_auth(signed)
    told = {key: one if isinstance(one, str) else one.decode() for key, one in signed.headers.items()}
    trusted = ssl.create_default_context(cafile=str(platform.directory.authority))
    connection = http.client.HTTPSConnection(host, timeout=_SECONDS, context=trusted)
    try:
        connection.request("POST", path, body, told)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise StoryError(f"the API answers {answer.status}: {text.decode(errors='replace')[:500]}")
        found: dict[str, Any] = json.loads(text)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise StoryError(f"the API does not answer: {error}") from None
    finally:
        connection.close()
    return found
