"""The command itself: a platform for the story, the story, and what is left of it."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

import botocore.exceptions
import click

from bastide.commands.demo import landing
from bastide.commands.demo.host import Host
from bastide.commands.demo.story import tell
from bastide.commands.demo.telling import StoryError, Telling
from bastide.domain import Refused
from bastide.landing.applying import Failed
from bastide.landing.blueprint import Faulty
from bastide.landing.cloud import Unreachable

_KEPT = Path("bastide-demo")
_WRONG = (
    StoryError,
    Failed,
    Unreachable,
    Faulty,
    Refused,
    botocore.exceptions.BotoCoreError,
    botocore.exceptions.ClientError,
)
"""What ends the story early; each says what it was."""


@click.command()
@click.option("--keep", is_flag=True, help="Leave the platform running, and tell how to look further.")
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help=f"Where the kept platform lives (with --keep).  [default: ./{_KEPT}]",
)
def demo(keep: bool, data: Path | None) -> None:
    """Tell the story of a mortgage model, from real data to a governed endpoint, in a minute or so.

    Starts a platform of its own on a free port and plays every role over TLS with boto3: data scientist, model risk
    manager, approver, MLOps, auditor. First a bank's organisation is founded by hand, call by call; then one file, the
    landing zone's, takes it over, and a commit that is pushed finds its way to production by pipelines alone. Rules are
    broken on purpose; the story ends with 1 if a step does not do what it says, a refusal included.
    """
    if data is not None and not keep:
        raise click.UsageError("--data says where a kept platform lives: say --keep too")
    telling = Telling()
    signal.signal(signal.SIGTERM, _ended)
    host = Host.kept(data or _KEPT) if keep else Host.temporary()
    told = False
    try:
        with telling.waiting("A platform of its own is made and started"):
            platform = host.start()
        for line in host.enforcement():
            telling.aside(line)
        landing.tell(tell(platform, telling), host.data / "landing")
        told = True
    except (
        StoryError,
        Failed,
        Unreachable,
        Faulty,
        Refused,
        botocore.exceptions.BotoCoreError,
        botocore.exceptions.ClientError,
    ) as error:
        telling.failed(str(error))
        tail = host.complaints()
        if tail:
            telling.aside(f"the platform said:\n{tail}")
    finally:
        if not (keep and told):
            leftover = host.remove() if not keep else host.stop()
            if leftover:
                telling.failed(leftover)
                told = False
    if not told:
        if keep:
            telling.aside(f"what there is of it stays in {host.data}; look with `bastide up --data {host.data}`")
        raise SystemExit(1)
    if keep:
        telling.further(host.data, host.pid, running=True)
    else:
        telling.say("The platform has been stopped and removed.")
        telling.further(_KEPT, None, running=False)
    telling.say(f"The story took {time.monotonic() - telling.began:.0f} s.")


def _ended(number: int, frame: FrameType | None) -> NoReturn:
    """SIGTERM ends the story as Ctrl-C does: through the cleaning up."""
    raise KeyboardInterrupt
