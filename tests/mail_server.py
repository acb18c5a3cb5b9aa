"""A mail server, in this process."""

from __future__ import annotations

import asyncio
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

_LINK = re.compile(r"https?://\S+")


class Mailbox:
    """What was handed over: letters, and who they are for. refuse: the next answers to DATA, before one is taken; known:
    users and passwords, without whom nobody hands anything over; tried: passwords that came."""

    def __init__(self) -> None:
        self.letters: list[EmailMessage] = []
        self.refuse: list[str] = []
        self.seen: list[str] = []
        self.known: dict[bytes, bytes] = {}
        self.tried: list[bytes] = []
        self.url = ""

    async def handle_DATA(self, server: Any, _session: Any, envelope: Any) -> str:
        letter = message_from_bytes(envelope.content, _class=EmailMessage, policy=policy.default)
        self.seen.append(str(letter["Message-ID"]))
        if self.refuse:
            return self.refuse.pop(0)
        letter["X-TLS"] = "yes" if server.transport.get_extra_info("ssl_object") else "no"
        self.letters.append(letter)
        return "250 OK"

    def authenticate(self, _server: Any, _session: Any, _envelope: Any, _mechanism: str, given: Any) -> AuthResult:
        assert isinstance(given, LoginPassword)
        self.tried.append(given.password)
        return AuthResult(success=self.known.get(given.login) == given.password, handled=False)


def links(letter: EmailMessage) -> list[str]:
    """The addresses that stand in a letter."""
    return _LINK.findall(letter.get_content())


@contextmanager
def mail_server(
    tls: Path | None = None, known: dict[bytes, bytes] | None = None, *, whole: bool = False
) -> Iterator[Mailbox]:
    """One, while it lasts. tls: where server.pem and server.key lie, offered as STARTTLS, or `whole` from the first byte.
    known: users and passwords."""
    box, more = Mailbox(), dict[str, Any]()
    context = None
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls / "server.pem", tls / "server.key")
        more = {} if whole else {"tls_context": context}
    if known:
        box.known = known
        more |= {"authenticator": box.authenticate, "auth_required": True, "auth_require_tls": False}
    loop = asyncio.new_event_loop()

    def session() -> SMTP:
        return SMTP(box, hostname="127.0.0.1", loop=loop, enable_SMTPUTF8=True, **more)

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    opening = loop.create_server(session, "127.0.0.1", 0, ssl=context if whole else None)
    server = asyncio.run_coroutine_threadsafe(opening, loop).result(60)
    box.url = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield box
    finally:
        asyncio.run_coroutine_threadsafe(_ended(server), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)
        loop.close()


async def _ended(server: asyncio.Server) -> None:
    """With whoever is still connected."""
    server.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for one in others:
        one.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.sleep(0)  # for transports to close
    await asyncio.sleep(0)
