"""The landing zone of the second act: the default blueprint as this bank has it, and what the chapters hand on."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from bastide.commands.client import Credentials
from bastide.commands.demo.data import Applications
from bastide.commands.demo.organisation import Bank
from bastide.commands.demo.people import People
from bastide.commands.demo.picture import Picture
from bastide.commands.demo.story import Story
from bastide.commands.demo.telling import StoryError
from bastide.landing.blueprint import Blueprint
from bastide.landing.cloud import Cloud

GROUP = "mortgage-decision"
_SECONDS = 180.0
_PAUSE = 0.2
_Found = TypeVar("_Found")


@dataclass
class Delivery:
    """What the chapters of this act hand on."""

    story: Story
    blueprint: Blueprint
    people: People
    picture: Picture
    commit: str = ""
    package: str = ""
    training: str = ""
    answers: list[float] = field(default_factory=list)
    features: list[str] = field(default_factory=list)
    asked: Applications = field(default_factory=lambda: Applications([], []))
    told: list[float] = field(default_factory=list)
    """What the endpoint answered to what it was asked."""
    before: frozenset[str] = frozenset()
    """Request ids of what the first act tried and was refused."""

    @property
    def ids(self) -> dict[str, str]:
        """Account ids by name."""
        return self.people.ids

    def be(self, service: str, person: str, permission_set: str, account: str = "shared-services") -> Any:
        """A person's client, in a role that their group gives them."""
        return self.story.client(service, self.people.be(person, permission_set, account))

    def until(self, what: str, look: Callable[[], _Found | None]) -> _Found:
        """Looks until there is something; raises StoryError after three minutes."""
        deadline = time.monotonic() + _SECONDS
        while (found := look()) is None:
            if time.monotonic() > deadline:
                raise StoryError(f"{what}: not within {_SECONDS:.0f} s")
            time.sleep(_PAUSE)
        return found


def changed(text: str) -> str:
    """The default blueprint as this bank has it: raises StoryError if it is not the one that is known here."""
    changes = {
        r"models: \[[a-z-]+\]": f"models: [{GROUP}]",
        r"(?m)^templates: \[\]": "templates: [{account: production, name: loan-desk, file: loan-desk.yaml}]",
        # Each is a listener in each of five networks.
        r"(?m)^endpoints: \[.*\]": "endpoints: [sts, kms, sagemaker.runtime]",
    }
    for before, after in changes.items():
        text, found = re.subn(before, after, text)
        if found != 1:
            raise StoryError(f"the default blueprint has {found} times {before}")
    return text


def cloud(bank: Bank, blueprint: Blueprint) -> Cloud:
    def make(service: str, held: Mapping[str, str] | None) -> Any:
        signer = bank.administrator
        if held is not None:
            signer = Credentials(held["AccessKeyId"], held["SecretAccessKey"], held["SessionToken"])
        return bank.desk.platform.client(service, signer, blueprint.region)

    return Cloud(make, blueprint.deploying_role)
