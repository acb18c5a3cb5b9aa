"""One landing zone for all tests: the default blueprint, on a platform whose people sign in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.platform import Running
from tests.stories.identity_center.browser import Centre
from tests.stories.landing.zone import Zone, landing


@pytest.fixture(scope="session")
def zone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zone]:
    """Made by `bastide landing init`, `plan` and `apply`, the last one twice."""
    folder = tmp_path_factory.mktemp("landing")
    platform = Running(folder / "data", arguments=("--development-identity-provider",))
    platform.start()
    try:
        yield _made(platform, folder / "landing.yaml")
    finally:
        platform.stop()


def _made(platform: Running, file: Path) -> Zone:
    assert landing(platform, "init", str(file))[0] == 0
    # Fewer endpoints than by default: each is a listener in each of five networks.
    text = file.read_text()
    line = next(one for one in text.splitlines() if one.startswith("endpoints: "))
    text = text.replace(line, "endpoints: [sts, kms, sagemaker.runtime]")
    office = (
        "premises: {office: {ranges: [10.200.0.0/16], accounts: [data-science], vpn: 203.0.113.10, ports: [443, 5432]}}"
    )
    text = text.replace("premises: {} ", f"{office} ")
    # No builds: their environment takes its time; they have tests of their own. The images are those of test_imagery.py.
    file.write_text(text.replace("  builds: on ", "  builds: off ").replace("  images: off ", "  images: on "))
    told = []
    for words in (("plan",), ("apply", "--yes"), ("apply", "--yes")):
        code, answer, why = landing(platform, words[0], str(file), "--json", *words[1:])
        assert code == 0, why
        told.append(answer)
    centre = Centre(platform)
    centre.invent("pat")
    token = centre.token("pat")["accessToken"]
    pat = centre.known("pat")  # who has come once
    for group in centre.store.list_groups(IdentityStoreId=centre.store_id)["Groups"]:
        centre.join(group["GroupId"], pat)
    return Zone(centre, file, *told, token)
