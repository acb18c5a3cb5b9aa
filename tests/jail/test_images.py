"""Containers of one's own in the sandbox: the same limits, and an image's root that nobody writes into."""

from __future__ import annotations

import asyncio
import itertools
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bastide.engines.images import Container
from bastide.engines.images.layers import Root
from bastide.engines.sandbox import Ended, Limits, Spec
from bastide.engines.sandbox.drivers.bubblewrap import Bubblewrap
from tests.stories.ecr import oci

SMALL = Limits(memory_bytes=64 << 20, cpus=1.0, processes=32, open_files=1024)
_numbers = itertools.count()


class Ship:
    """Runs commands in images made of layers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.driver = Bubblewrap(folder / "run")

    def image(self, *layers: oci.Layer, **more: Any) -> Container:
        place = self.folder / f"image-{next(_numbers)}"
        place.mkdir()
        root = Root(place, most_bytes=1 << 30)
        for layer in (oci.system, *layers):
            (self.folder / "layer").write_bytes(oci.packed(layer)[0])
            root.put(self.folder / "layer", "")
        root.close()
        return Container("image", "sha256:0", (), path="/usr/local/bin:/bin", root=place, **more)

    def run(self, image: Container, *command: str, **more: Any) -> tuple[list[str], Ended]:
        workdir = self.folder / f"job-{next(_numbers)}"
        workdir.mkdir()
        more.setdefault("limits", SMALL)
        spec = Spec(f"test-{next(_numbers)}", image, command, workdir, **more)

        async def all_of_it() -> tuple[list[str], Ended]:
            async with asyncio.timeout(60):
                running = await self.driver.start(spec)
                lines = [line.decode(errors="replace") async for line in running.lines()]
                return lines, await running.wait()

        return asyncio.run(all_of_it())

    def shell(self, image: Container, script: str, **more: Any) -> list[str]:
        return self.run(image, "sh", "-c", script, **more)[0]


@pytest.fixture
def ship(tmp_path: Path) -> Ship:
    tmp_path.chmod(0o755)
    return Ship(tmp_path)


def refusals(tried: Sequence[str]) -> str:
    """A script that says of each attempt whether it worked."""
    return (
        "\n".join(f'if ( {one} ) >/dev/null 2>&1; then echo "WORKED: {one[:40]}"; fi' for one in tried) + "\necho done"
    )


def test_nothing_of_the_machine_is_there_and_nothing_is_allowed(ship: Ship, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    image = ship.image()
    told = ship.shell(
        image,
        refusals(
            [
                f"cat {secret}", f"ls {tmp_path}", "mount -t tmpfs none /mnt", "mount -t proc proc /opt/ml",
                "unshare -U true", "unshare -m true", "unshare -n true", "mknod /tmp/disk b 254 0",
                "chown 0:0 /opt/ml",  "echo x > /proc/sys/kernel/core_pattern", "cat /dev/kmsg",
                "head -c 1 /proc/kcore",  "cat /proc/1/environ | grep -q SECRET", "ls /run/.bastide/x",
                "rm /run/.bastide/sh", "echo x > /run/.bastide/sh", "nc -w 1 169.254.169.254 80 < /dev/null",
                "nc -w 1 127.0.0.1 22 < /dev/null", "nc -w 1 10.0.0.1 80 < /dev/null", "cat /sys/kernel/notes",
            ]
        ),
    )  # fmt: skip
    assert told == ["done"], told
    status = ship.shell(image, "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status; id -u; ls -d /usr/share/doc")
    assert [line.split()[-1] for line in status[:7]] == ["0" * 16] * 5 + ["1", "2"]
    assert status[7] == "1000" and "No such file" in status[8]


def test_setuid_programs_and_devices_of_an_image_are_nothing(ship: Ship) -> None:
    def hostile(tar: tarfile.TarFile) -> None:
        oci.entry(tar, "usr/sbin/id", Path(oci.BUSYBOX).read_bytes(), 0o6755)
        oci.entry(tar, "dev/mem", type=tarfile.CHRTYPE, devmajor=1, devminor=1, mode=0o666)
        oci.entry(tar, "dev/vda", type=tarfile.BLKTYPE, devmajor=254, devminor=0, mode=0o666)
        oci.entry(tar, "disk", type=tarfile.BLKTYPE, devmajor=254, devminor=0, mode=0o666)

    told = ship.shell(
        ship.image(hostile), "chmod 4755 /opt/ml; /usr/sbin/id -u; ls /disk /dev/mem /dev/vda 2>&1 | grep -c 'No such'"
    )
    assert told == ["1000", "3"]


def test_links_in_the_places_of_mounts_lead_nowhere(ship: Ship, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()

    def hostile(tar: tarfile.TarFile) -> None:
        for name in ("opt", "tmp", "run", "proc", "dev", "etc/hosts", "etc/resolv.conf", "etc/hostname", "var"):
            if name != "etc":
                oci.link(tar, name, str(outside))

    def worse(tar: tarfile.TarFile) -> None:
        oci.link(tar, "opt", "../../../../../../../../../etc")
        oci.entry(tar, "run", b"a file")
        oci.link(tar, "etc/passwd", "/proc/1/environ")

    for layer in (hostile, worse):
        image = ship.image(layer, files={"etc/passwd": "job:x:1000:1000::/tmp:/bin/sh\n"})
        told = ship.shell(
            image, "cat /etc/hostname /etc/passwd; echo x > /opt/ml/y && cat /opt/ml/y; ls /proc/self/status /dev/null"
        )
        assert told == ["algo-1", "job:x:1000:1000::/tmp:/bin/sh", "x", "/dev/null", "/proc/self/status"], told
        assert not list(outside.iterdir())


def test_what_a_job_writes_goes_with_it(ship: Ship) -> None:
    image = ship.image(oci.scripts(tool="echo tool"))
    script = "cat /note 2>/dev/null; echo mine > /note; echo changed > /etc/group; rm /usr/local/bin/tool; cat /note"
    assert ship.shell(image, script) == ["mine"]
    assert ship.shell(image, script) == ["mine"]
    assert not (image.root / "note").exists() and (image.root / "usr/local/bin/tool").exists()
    assert "app" in (image.root / "etc/group").read_text()


def test_limits_hold(ship: Ship) -> None:
    image = ship.image()
    # A fork bomb ends at its own limit, and with the job.
    told, ended = ship.run(
        image, "sh", "-c", "for i in $(yes | head -100); do sleep 60 & done; echo never", limits=SMALL
    )
    assert "never" not in told or any("fork" in line for line in told)
    assert ended.exit_code != 0 or told
    # What is written over the root is memory of the job's own.
    told, ended = ship.run(image, "sh", "-c", "dd if=/dev/zero of=/big bs=1M count=200; echo $?")
    assert ended.oom or told[-1] != "0", (told, ended)


def test_how_a_program_ended_is_told_as_a_container_runtime_does(ship: Ship) -> None:
    image = ship.image(
        oci.scripts(leave="exit 7", slow="trap 'echo bye; exit 9' TERM; echo up; while true; do sleep 0.1; done")
    )
    assert ship.run(image, "leave")[1].exit_code == 7
    assert ship.run(image, "no-such")[1].exit_code == 127
    assert ship.run(image, "/etc/passwd")[1].exit_code == 126
    assert ship.run(image, "sh", "-c", "kill -9 $$")[1].exit_code == 137

    async def stopped() -> tuple[list[bytes], Ended]:
        workdir = ship.folder / "stopped"
        workdir.mkdir()
        running = await ship.driver.start(Spec("stopped", image, ["slow"], workdir, SMALL))
        lines = running.lines()
        first = await anext(lines)
        await running.stop(5.0)
        return [first, *[line async for line in lines]], await running.wait()

    lines, ended = asyncio.run(stopped())
    assert lines[0] == b"up" and lines[-1] == b"bye" and ended.exit_code == 9


def test_user_and_folder_are_the_images(ship: Ship) -> None:
    image = ship.image(user=4711, group=4712, folder="/opt/ml/code", variables={"HOME": "/home/app", "A": "1"})
    assert ship.shell(image, "id -u; id -g; pwd; echo $HOME $A; touch /opt/ml/code/x && echo mine") == [
        "4711", "4712", "/opt/ml/code", "/home/app 1", "mine",
    ]  # fmt: skip


def test_an_image_without_a_shell_runs(ship: Ship) -> None:
    folder = ship.folder / "bare"
    folder.mkdir()
    (folder / "busybox").write_bytes(Path(oci.BUSYBOX).read_bytes())
    (folder / "busybox").chmod(0o755)
    image = Container("bare", "sha256:0", (), path="/", root=folder)
    assert ship.run(image, "/busybox", "echo", "hello")[0] == ["hello"]
    assert ship.run(image, "busybox", "echo", "hello")[0] == ["hello"]
    assert [path.name for path in folder.iterdir()] == ["busybox"]
