"""Letters, by way of an SMTP server that the operator names. Without one there is no mail."""

from __future__ import annotations

import asyncio
import os
import re
import smtplib
import ssl
from email.message import EmailMessage
from email.utils import formatdate
from typing import Final
from urllib.parse import urlsplit

_ADDRESS: Final = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*")
_SECONDS: Final = 20
_PASSWORD: Final = "BASTIDE_SMTP_PASSWORD"  # noqa: S105 - the name of a variable


class Undelivered(Exception):  # noqa: N818
    """The server did not take a letter. final: it said that it never will."""

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


def is_address(text: str) -> bool:
    """Whether a text is a mail address."""
    return _ADDRESS.fullmatch(text) is not None


class Mail:
    """server: ``smtp://[USER@]HOST[:PORT]`` or ``smtps://...``; empty for none. The user's password is in the environment,
    and goes over TLS only: a server behind ``smtp:`` without STARTTLS does not get it. sender: whom letters are from."""

    def __init__(self, server: str = "", sender: str = "") -> None:
        where = urlsplit(server)
        if server and (where.scheme not in ("smtp", "smtps") or not where.hostname or where.password):
            raise ValueError(f"`{server}` is not smtp://[USER@]HOST[:PORT] or smtps://...")
        if server and not is_address(sender):
            raise ValueError(f"`{sender}` is no mail address that letters can be from")
        self._where = where
        self._sender = sender
        self._password = os.environ.get(_PASSWORD, "")

    @property
    def there(self) -> bool:
        """Whether there is a server."""
        return bool(self._where.hostname)

    async def send(self, to: str, subject: str, text: str, *, id: str) -> None:
        """One letter; returns when the server has taken it. id: the same each time that it is tried. Raises Undelivered."""
        letter = EmailMessage()
        letter["From"], letter["To"] = self._sender, to
        letter["Date"], letter["Message-ID"] = formatdate(), f"<{id}@{self._sender.rpartition('@')[2]}>"
        letter["Subject"] = " ".join(subject.split())[:200]
        letter.set_content(text)
        try:
            await asyncio.to_thread(self._hand_over, letter)
        except (OSError, smtplib.SMTPException) as error:
            told = f"The mail server did not take it: {type(error).__name__}"
            raise Undelivered(told, final=_final(error)) from None

    def _hand_over(self, letter: EmailMessage) -> None:
        host, port = str(self._where.hostname), self._where.port
        context = ssl.create_default_context()
        if self._where.scheme == "smtps":
            server: smtplib.SMTP = smtplib.SMTP_SSL(host, port or 465, timeout=_SECONDS, context=context)
        else:
            server = smtplib.SMTP(host, port or 25, timeout=_SECONDS)
        with server:
            if self._where.scheme == "smtp":
                server.ehlo()
                if server.has_extn("starttls"):
                    server.starttls(context=context)
                elif self._where.username:
                    raise smtplib.SMTPNotSupportedError("no STARTTLS: the password would go in the clear")
            if self._where.username:
                server.login(self._where.username, self._password)
            server.send_message(letter)


def _final(error: Exception) -> bool:
    """Whether it is about this letter, for good (RFC 5321, 4.2.1); what is wrong with a password can be mended."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return all(code >= 500 for code, _ in error.recipients.values())
    if isinstance(error, smtplib.SMTPDataError):
        return error.smtp_code >= 500
    return False
