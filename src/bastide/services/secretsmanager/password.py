"""GetRandomPassword."""

from __future__ import annotations

import secrets
import string

from bastide.kernel import Ask, Authorised, Output, anything
from bastide.services.secretsmanager.secret import SECRET, invalid
from bastide.store import View


@SECRET.reads("GetRandomPassword", asks=[Ask("secretsmanager:GetRandomPassword", anything)])
def random_password(a: Authorised, view: View) -> Output:
    """Characters drawn evenly; one of each kind that is included unless RequireEachIncludedType is false."""
    given = a.input
    length = int(given.get("PasswordLength") or 32)
    left_out = set(given.get("ExcludeCharacters") or "")
    kinds = [
        "".join(char for char in chars if char not in left_out)
        for member, chars in (
            ("ExcludeLowercase", string.ascii_lowercase),
            ("ExcludeUppercase", string.ascii_uppercase),
            ("ExcludeNumbers", string.digits),
            ("ExcludePunctuation", string.punctuation),
        )
        if not given.get(member)
    ]
    if given.get("IncludeSpace"):
        kinds.append("" if " " in left_out else " ")
    kinds = [kind for kind in kinds if kind]
    if not kinds:
        raise invalid("No characters are left to make a password of.")
    each = given.get("RequireEachIncludedType", True)
    if each and length < len(kinds):
        raise invalid("The password length is too short for the required character types.")
    if not 1 <= length <= 4096:
        raise invalid("PasswordLength is from 1 to 4096.")
    every = "".join(kinds)
    drawn = [secrets.choice(kind) for kind in kinds] if each else []
    drawn += [secrets.choice(every) for _ in range(length - len(drawn))]
    secrets.SystemRandom().shuffle(drawn)
    return {"RandomPassword": "".join(drawn)}
