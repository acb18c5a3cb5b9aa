"""The law of sessions that began at the portal: they stand exactly while what they began with does, whatever happened in
between, and whatever was remembered of it."""

from __future__ import annotations

import asyncio
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from bastide.domain import MICROS
from bastide.engines.keys import RootKey
from bastide.kernel import Session
from bastide.services.identity_center import sign_in
from bastide.services.identity_center.assignment import ASSIGNMENT
from bastide.services.identity_center.instance import Instance
from bastide.services.identity_center.member import join, leave
from bastide.services.identity_center.user import USER
from bastide.store import Row, SqliteStore, Transaction

HERE = Instance("111122223333", "ssoins-0123456789abcdef", "d-0123456789")
USERS, GROUPS = ("u0", "u1"), ("g0", "g1")
ACCOUNT, SET = "444455556666", "ps-0123456789abcdef"
PRINCIPALS = tuple(("USER", one) for one in USERS) + tuple(("GROUP", one) for one in GROUPS)

STEPS = st.one_of(
    st.tuples(st.sampled_from(["join", "leave"]), st.sampled_from(USERS), st.sampled_from(GROUPS)),
    st.tuples(st.sampled_from(["assign", "unassign"]), st.sampled_from(PRINCIPALS), st.none()),
    st.tuples(st.sampled_from(["disable", "enable", "take back"]), st.sampled_from(USERS), st.none()),
    st.tuples(st.just("sign in"), st.sampled_from(USERS), st.sampled_from([None, "out again"])),
)


@dataclass
class Model:
    """The same, written down plainly."""

    members: set[tuple[str, str]] = field(default_factory=set)
    assigned: set[tuple[str, str]] = field(default_factory=set)
    disabled: set[str] = field(default_factory=set)
    begun: list[Session] = field(default_factory=list)
    ended: set[int] = field(default_factory=set)
    now: int = 1

    def stands(self, session: Session) -> bool:
        user = session.origin[0]
        named = ("USER", user) in self.assigned
        grouped = any(("GROUP", group) in self.assigned for one, group in self.members if one == user)
        return session.issued not in self.ended and user not in self.disabled and (named or grouped)


def _apply(tx: Transaction, model: Model, sealer: RootKey, step: tuple[str, object, object]) -> None:
    what, who, where = step
    model.now += 1
    if what in ("join", "leave"):
        pair = (str(who), str(where))
        if what == "leave":
            leave(tx, *pair, "test")
            model.members.discard(pair)
        elif pair not in model.members:
            join(tx, HERE, *pair, 0, "test")
            model.members.add(pair)
    elif what in ("assign", "unassign"):
        assert isinstance(who, tuple)
        name = f"{ACCOUNT}/{SET}/{who[0]}/{who[1]}"
        row = tx.get(ASSIGNMENT.key, "", "", name)
        if what == "assign" and row is None:
            tx.insert(Row(ASSIGNMENT.key, "", "", name, {}))
            model.assigned.add(who)
        elif what == "unassign" and row is not None:
            tx.delete(row)
            model.assigned.discard(who)
    elif what in ("disable", "enable"):
        row = USER.row(tx, str(who))
        assert row is not None
        row.status = "DISABLED" if what == "disable" else "ENABLED"
        tx.update(row)
        (model.disabled.add if what == "disable" else model.disabled.discard)(str(who))
    elif what == "sign in":
        id, _ = sign_in.begin(tx, sealer, str(who), "https://idp.example", str(who), "", model.now)
        if where == "out again":
            sign_in.end(tx, id)
        model.begun.append(_session(str(who), model.now))
    else:
        sign_in.take_back(tx, str(who), model.now)
        model.ended |= {one.issued for one in model.begun if one.origin[0] == who}


def _session(user: str, now: int) -> Session:
    return Session("s", "ASIA", ACCOUNT, "role", "AROA", user, now, now + 3600 * MICROS, origin=(user, ACCOUNT, SET))


@given(st.lists(STEPS, max_size=25))
def test_a_session_stands_while_its_origin_does(steps: list[tuple[str, object, object]]) -> None:
    asyncio.run(_walk(steps))


async def _walk(steps: list[tuple[str, object, object]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store, sealer, model = SqliteStore(Path(folder) / "x.db"), RootKey(os.urandom(32)), Model()
        try:

            def begin(tx: Transaction) -> None:
                for user in USERS:
                    tx.insert(Row(USER.key, "", "", user, {"UserName": user}, "ENABLED"))
                    _apply(tx, model, sealer, ("sign in", user, None))

            await store.write(begin)
            for step in steps:
                await store.write(lambda tx, step=step: _apply(tx, model, sealer, step))
                with store.reading() as view:
                    for session in model.begun:
                        assert sign_in.stands(view, session) == model.stands(session), (step, session)
        finally:
            store.close()
