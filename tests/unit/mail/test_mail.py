"""Letters over TLS, and passwords over nothing else."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bastide.engines.mail import Mail, Undelivered
from bastide.main import authority
from tests.mail_server import mail_server

pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH while")  # the server says it of itself
KNOWN = {b"eva": b"open sesame"}


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mail")
    authority.create(folder, ["localhost"], [])
    return folder


def _send(server: str, to: str = "a@bank.example") -> None:
    asyncio.run(Mail(server, "platform@bank.example").send(to, "s\nx", "text", id="1"))


@pytest.mark.parametrize(("scheme", "whole"), [("smtp", False), ("smtps", True)])
def test_a_user_hands_over_within_tls(tls: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, whole: bool) -> None:
    with mail_server(tls, KNOWN, whole=whole) as box:
        monkeypatch.setenv("BASTIDE_SMTP_PASSWORD", "open sesame")
        with pytest.raises(Undelivered) as unknown:  # an authority that nobody knows
            _send(f"{scheme}://eva@{box.url}")
        assert not unknown.value.final and not box.tried
        monkeypatch.setenv("SSL_CERT_FILE", str(tls / "ca.pem"))
        _send(f"{scheme}://eva@{box.url}")
        [letter] = box.letters
        assert (letter["X-TLS"], letter["Subject"], letter["Message-ID"]) == ("yes", "s x", "<1@bank.example>")
        monkeypatch.setenv("BASTIDE_SMTP_PASSWORD", "wrong")
        with pytest.raises(Undelivered) as wrong:
            _send(f"{scheme}://eva@{box.url}")
        assert not wrong.value.final and "wrong" not in str(wrong.value) and len(box.letters) == 1


def test_no_password_goes_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    with mail_server(None, KNOWN) as box:
        monkeypatch.setenv("BASTIDE_SMTP_PASSWORD", "open sesame")
        with pytest.raises(Undelivered):
            _send(f"smtp://eva@{box.url}")
        assert not box.tried and not box.letters


def test_what_is_refused_for_good_is_final() -> None:
    with mail_server() as box:
        box.refuse = ["451 later", "550 never"]
        for final in (False, True):
            with pytest.raises(Undelivered) as refused:
                _send(f"smtp://{box.url}")
            assert refused.value.final is final
    with pytest.raises(Undelivered) as gone:
        _send(f"smtp://{box.url}")
    assert not gone.value.final


@pytest.mark.parametrize("server", ["http://x", "smtp://", "smtp://u:secret@x", "smtps:x"])
def test_a_server_is_named_without_a_password(server: str) -> None:
    with pytest.raises(ValueError, match=r"is not smtp|is no mail"):
        Mail(server, "a@bank.example")
