"""The pages that people see: plain HTML, one style sheet within the page, no script."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, Final

_STYLE: Final = """
:root{color-scheme:light dark;--ink:#16202c;--dim:#5a6675;--line:#d5dbe3;--paper:#fff;--ground:#eef1f5;--strong:#1d5fa8;
--on:#fff;--warn:#7a4a00;--warn-ground:#fff4dc}
@media(prefers-color-scheme:dark){:root{--ink:#e8edf3;--dim:#9aa7b6;--line:#39434f;--paper:#1b222b;--ground:#11161c;
--strong:#7db4f2;--on:#10151b;--warn:#ffd790;--warn-ground:#3a2d12}}
*{box-sizing:border-box}
body{margin:0;min-height:100vh;background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,sans-serif;display:flex;
flex-direction:column;align-items:center;padding:8vh 1rem 2rem}
main{width:100%;max-width:30rem;background:var(--paper);border:1px solid var(--line);border-radius:10px;padding:2rem}
header{width:100%;max-width:30rem;font-weight:650;letter-spacing:.02em;padding:0 .2rem .8rem}
h1{font-size:1.35rem;line-height:1.25;margin:0 0 .8rem}
p{margin:0 0 1rem}.dim,footer{color:var(--dim);font-size:.9rem}
dl{margin:0 0 1.2rem;border-top:1px solid var(--line)}
dl>div{display:flex;gap:1rem;padding:.55rem 0;border-bottom:1px solid var(--line)}
dt{color:var(--dim);flex:0 0 8.5rem}dd{margin:0;overflow-wrap:anywhere}
label{display:block;font-weight:600;margin:0 0 1rem}
input{display:block;width:100%;margin-top:.35rem;padding:.65rem .75rem;font:inherit;color:inherit;background:transparent;
border:1px solid var(--dim);border-radius:6px}
input.code{font:600 1.5rem/1.2 ui-monospace,monospace;letter-spacing:.12em;text-align:center;text-transform:uppercase}
button{font:inherit;font-weight:600;padding:.65rem 1.2rem;border-radius:6px;border:1px solid var(--strong);cursor:pointer;
background:var(--strong);color:var(--on)}
button.second{background:transparent;color:var(--strong)}
input:focus-visible,button:focus-visible,a:focus-visible{outline:3px solid var(--strong);outline-offset:2px}
.actions{display:flex;gap:.75rem;flex-wrap:wrap;margin-top:1.4rem}
.warn{color:var(--warn);background:var(--warn-ground);border-radius:6px;padding:.7rem .9rem}
a{color:var(--strong)}code{font-family:ui-monospace,monospace}
footer{max-width:30rem;width:100%;padding:1rem .2rem}
""".replace("\n", "")
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()


@dataclass(slots=True)
class Page:
    """An answer to a browser. forms: where its forms may lead beside the platform itself."""

    body: str = ""
    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)
    kind: str = "text/html; charset=utf-8"
    forms: str = ""

    def head(self) -> list[tuple[bytes, bytes]]:
        """All headers, among them those that keep a page from being framed, cached, scripted or referred to."""
        policy = (
            f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'{self.forms and ' ' + self.forms}; "
            "base-uri 'none'; frame-ancestors 'none'"
        )
        told = [
            ("content-type", self.kind),
            ("content-length", str(len(self.body.encode()))),
            ("cache-control", "no-store"),
            ("content-security-policy", policy),
            ("cross-origin-opener-policy", "same-origin"),
            ("referrer-policy", "same-origin"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            *self.headers,
        ]
        return [(name.encode(), value.encode("latin-1")) for name, value in told]


def page(title: str, content: str, *, status: int = 200, notice: str = "", forms: str = "") -> Page:
    """A whole page. content: HTML. notice: a line that marks the page, as text."""
    marked = f'<p class="warn">{escape(notice)}</p>' if notice else ""
    return Page(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)} - Bastide</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>'
        f"<body><header>Bastide</header><main>{marked}<h1>{escape(title)}</h1>{content}</main></body></html>",
        status,
        forms=forms,
    )


def redirect(address: str, *cookies: str) -> Page:
    """Sends the browser elsewhere, by GET."""
    return Page(status=303, headers=[("location", address), *(("set-cookie", one) for one in cookies)])


def trouble(title: str, text: str, status: int = 400) -> Page:
    """What went wrong, and what to do."""
    return page(title, f"<p>{escape(text)}</p>", status=status)


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Names and values, one below the other."""
    return "<dl>" + "".join(f"<div><dt>{escape(a)}</dt><dd>{escape(b)}</dd></div>" for a, b in pairs) + "</dl>"


def type_code(problem: str = "") -> Page:
    """Where a person types the code that their client shows."""
    told = f'<p class="warn" role="alert">{escape(problem)}</p>' if problem else ""
    return page(
        "Authorize a device",
        f"{told}<p>Type the code that your command line or program shows.</p>"
        '<form method="get"><label>Code<input class="code" name="user_code" autocomplete="off" autofocus required '
        'maxlength="20" placeholder="XXXX-XXXX"></label><div class="actions"><button>Continue</button></div></form>',
        status=400 if problem else 200,
    )


def confirm(client: str, person: str, token: str, *, code: str = "", forms: str = "") -> Page:
    """What a client asks for, and the two answers."""
    rows = [("Client", client), ("Signed in as", person)]
    if code:
        rows.insert(1, ("Code", code))
    caution = (
        "Allow it only if you started this yourself, and your client shows exactly this code. Nobody else may ask you "
        "to enter one."
        if code
        else "Allow it only if you started this yourself, on this machine."
    )
    return page(
        "Allow access to your accounts?",
        "<p>A program asks to act for you.</p>"
        + facts(rows)
        + "<p>It will be able to list the accounts and roles that you are assigned, and to get short-lived credentials of "
        "those roles, until your sign-in ends.</p>"
        + f'<p class="warn">{escape(caution)}</p>'
        + f'<form method="post"><input type="hidden" name="token" value="{escape(token)}"><div class="actions">'
        '<button name="answer" value="allow">Allow access</button>'
        '<button class="second" name="answer" value="deny">Deny</button></div></form>',
        forms=forms,
    )


def home(
    person: str, accounts: Sequence[tuple[dict[str, Any], Sequence[dict[str, Any]]]], token: str, url: str
) -> Page:
    """The portal: what a person is assigned, and how to sign out."""
    rows = [
        (f"{account['accountName']} ({account['accountId']})", ", ".join(str(one["roleName"]) for one in roles))
        for account, roles in accounts
    ]
    shown = facts(rows) if rows else "<p>You are not assigned to any account. Ask your administrator.</p>"
    return page(
        "Your accounts",
        facts([("Signed in as", person)])
        + shown
        + f'<p class="dim">Get credentials with <code>bastide login --endpoint-url {escape(url)} --account ACCOUNT '
        "--role ROLE</code>, or with <code>aws sso login</code>.</p>"
        f'<form method="post" action="/_bastide/signin/out"><input type="hidden" name="token" value="{escape(token)}">'
        '<div class="actions"><button class="second">Sign out</button></div></form>',
    )


def password(client: str, token: str, problem: str = "") -> Page:
    """The development provider's own page."""
    told = f'<p class="warn" role="alert">{escape(problem)}</p>' if problem else ""
    return page(
        "Sign in",
        f"<p>to continue to {escape(client)}</p>{told}"
        f'<form method="post"><input type="hidden" name="token" value="{escape(token)}">'
        '<label>Name<input name="username" autocomplete="username" autofocus required maxlength="128"></label>'
        '<label>Password<input name="password" type="password" autocomplete="current-password" required '
        'maxlength="1024"></label><div class="actions"><button>Sign in</button></div></form>',
        status=401 if problem else 200,
        notice="Development identity provider: for trying things out on this machine, not for people's real accounts.",
    )
