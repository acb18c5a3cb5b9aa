"""The platform is killed in the middle of pushes: what was acknowledged is there, and nothing is there by half."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from tests.platform import Running
from tests.stories.codecommit.remote import Remote


def test_no_acknowledged_push_is_lost(tmp_path: Path) -> None:
    running = Running(tmp_path / "data")
    running.start()
    running.found()
    account = running.account()
    remote = Remote(account, tmp_path)
    remote.client.create_repository(repositoryName="code")
    done: dict[str, str] = {}
    tried: dict[str, str] = {}

    def work(name: str) -> None:
        remote.git("init", "-q", name)
        for number in range(1000):
            tip = remote.work(name, **{f"file{number}": f"{name} {number}\n" * 500})
            tried[name] = tip
            if remote.git("push", "-q", url, f"HEAD:refs/heads/{name}", at=name, fine=False).returncode:
                return
            done[name] = tip

    url = remote.url
    threads = [threading.Thread(target=work, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    while len(done) < len(threads):
        time.sleep(0.02)
    time.sleep(0.3)
    running.kill()
    for thread in threads:
        thread.join(60)
    running.launch()
    account._keys = None
    remote.git("clone", "-q", remote.url, "after")
    remote.git("fsck", "--full", "--strict", at="after")
    for name, tip in done.items():
        stands = remote.head("after", f"origin/{name}")
        # The last one may have come through unanswered.
        assert stands in (tip, tried[name])
        assert remote.client.get_branch(repositoryName="code", branchName=name)["branch"]["commitId"] == stands
    more = remote.work("one", again="1\n")
    remote.git("push", "-q", "--force", remote.url, "HEAD:refs/heads/one", at="one")
    assert remote.client.get_branch(repositoryName="code", branchName="one")["branch"]["commitId"] == more
    running.stop()
