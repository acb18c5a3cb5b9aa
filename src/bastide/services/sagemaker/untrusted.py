"""Whose code gets a kernel of its own: that of accounts of which the organisation says that their code is not trusted.

It says so with a tag on the account, on a unit above it or on the root, which only the management account can set and
remove. An image counts as the code of the account that its registry belongs to, whoever runs it.
"""

from __future__ import annotations

from typing import Final

from bastide.engines.sandbox import SandboxError
from bastide.engines.workflow import Failed
from bastide.kernel import Calls
from bastide.services.sagemaker import own_image

NO_PIPES: Final = (
    "code that is not trusted (the organisation's tag bastide:untrusted-code) runs under gVisor, which does not tell when "
    "a stream is closed before its end, and the next one would never come. Please use File or FastFile."
)


def untrusted(calls: Calls, account: str, image: str) -> bool:
    """Whether what an account runs of an image (its URI) is code that is not trusted, as the organisation has it now."""
    with calls.store.reading() as view:
        found = own_image.named(calls, view, image, account)
        owners = {account, found.account if found is not None else account}
        return any(calls.organisation.untrusted(view, one) for one in owners)


def failed(error: SandboxError) -> Failed:
    """Why such code did not run, which its owner is to know: it does not run in any other way."""
    return Failed(
        "InternalServerError",
        "This code is not trusted (the organisation's tag bastide:untrusted-code) and runs under gVisor alone, which "
        f"could not be done: {error}",
    )
