"""Root keys from every source: the platform starts with it and not without, and another one can take its place."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from bastide.engines.keys import RootKey, SourceError, create_keyring, open_root, rotate_root, sources
from tests.platform import HOME, PROGRAM, REGION, Account, Running

MODULE = "/usr/lib/softhsm/libsofthsm2.so"


def _program(environment: Mapping[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment}
    return subprocess.run([*PROGRAM, *words], check=False, capture_output=True, text=True, timeout=60, env=env)


def _same(one: RootKey, other: RootKey) -> bool:
    return one.derive("x") == other.derive("x")


def test_a_file_and_its_successor(tmp_path: Path) -> None:
    root = create_keyring(tmp_path)
    first = (tmp_path / "root.key").read_bytes()
    ring = (tmp_path / "root.json").read_bytes()
    assert {oct(path.stat().st_mode & 0o777) for path in tmp_path.iterdir()} == {"0o600"}
    rotate_root(tmp_path, "file")
    second = (tmp_path / "root.key").read_bytes()
    assert first != second and _same(open_root(tmp_path), root)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["root.json", "root.key"]
    (tmp_path / "root.key").write_bytes(first)
    with pytest.raises(SourceError):
        open_root(tmp_path)
    (tmp_path / "root.json").write_bytes(ring)
    assert _same(open_root(tmp_path), root)


@pytest.mark.parametrize("step", ["create_root", "_save", "_overwrite"])
def test_a_change_that_is_interrupted(tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Power is lost right after a step: the platform opens, and the change can be made again."""
    root = create_keyring(tmp_path)

    class Lost(Exception):
        pass

    def lose(*given: object) -> None:
        done(*given)
        raise Lost

    done = getattr(sources, step)
    with monkeypatch.context() as patch:
        patch.setattr(sources, step, lose)
        with pytest.raises(Lost):
            rotate_root(tmp_path, "file")
    assert _same(open_root(tmp_path), root)
    rotate_root(tmp_path, "file")
    assert _same(open_root(tmp_path), root)


def test_a_platform_of_before_the_keyring(tmp_path: Path) -> None:
    key = tmp_path / "root.key"
    key.write_bytes(b"k" * 32)
    key.chmod(0o600)
    assert _same(open_root(tmp_path), RootKey(b"k" * 32))
    rotate_root(tmp_path, "file")
    assert _same(open_root(tmp_path), RootKey(b"k" * 32)) and key.read_bytes() != b"k" * 32


def test_an_environment_and_a_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOT", os.urandom(32).hex())
    told = os.environ["ROOT"]
    root = create_keyring(tmp_path, "environment:ROOT")
    assert "ROOT" not in os.environ and not (tmp_path / "root.key").exists()
    with pytest.raises(SourceError, match="not set"):
        open_root(tmp_path)
    os.environ["ROOT"] = told
    assert _same(open_root(tmp_path), root)
    os.environ["ROOT"] = "short"
    with pytest.raises(SourceError) as error:
        open_root(tmp_path)
    assert "short" not in str(error.value)
    os.environ["ROOT"] = told
    read, write = os.pipe()
    os.write(write, b"r" * 32)
    os.close(write)
    rotate_root(tmp_path, f"descriptor:{read}")
    with pytest.raises(SourceError):
        open_root(tmp_path)
    for wrong in ("nowhere", "environment:", "pkcs11:token=t", "kms:key"):
        with pytest.raises(SourceError):
            create_keyring(tmp_path / "x", wrong)


def test_a_token(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.mkdir()
    (tmp_path / "softhsm2.conf").write_text(f"directories.tokendir = {tokens}\n")
    with_token = {"SOFTHSM2_CONF": str(tmp_path / "softhsm2.conf"), "BASTIDE_PKCS11_PIN": "271828"}
    made = ["softhsm2-util", "--init-token", "--free", "--label", "bastide", "--pin", "271828", "--so-pin", "314159"]
    subprocess.run(made, check=True, capture_output=True, env={**os.environ, **with_token})
    source = f"pkcs11:token=bastide;object=root?module-path={MODULE}"
    data = tmp_path / "data"
    told = _program(
        with_token, "init", "--data", str(data), "--account-id", HOME, "--root-key-source", source
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert not (data / "root.key").exists() and "271828" not in (data / "root.json").read_text()
    wrong = _program({**with_token, "BASTIDE_PKCS11_PIN": "000000"}, "up", "--data", str(data))
    assert wrong.returncode == 1 and "does not open" in wrong.stderr and "000000" not in wrong.stderr
    running = Running(data)
    running.launch(**with_token)
    try:
        kms = running.client("kms")
        key = kms.create_key()["KeyMetadata"]["KeyId"]
        blob = kms.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
        assert running.process is not None
        limits = (Path("/proc") / str(running.process.pid) / "limits").read_text()
        [line] = [one for one in limits.splitlines() if one.startswith("Max core file size")]
        assert set(line.split()[4:6]) <= {"0", "1"}  # bytes: no core is as small, and with 1 none is piped either
        refused = _program(with_token, "rotate-root-key", "--data", str(data))
        assert refused.returncode == 1 and "already runs" in refused.stderr
    finally:
        running.stop()
    assert _program(with_token, "rotate-root-key", "--data", str(data)).returncode == 0
    running.launch()  # the root key is in a file now
    try:
        assert running.client("kms").decrypt(CiphertextBlob=blob)["Plaintext"] == b"x"
    finally:
        running.stop()


def test_another_kms(platform: Running, account: Account, tmp_path: Path) -> None:
    """A second platform whose root key is a key of the first: disabled there, it opens no more."""
    kms = account.client("kms")
    key = kms.create_key()["KeyMetadata"]["Arn"]
    keys = account.keys
    signs = {
        "AWS_ACCESS_KEY_ID": keys.access_key,
        "AWS_SECRET_ACCESS_KEY": keys.secret,
        "AWS_SESSION_TOKEN": keys.token or "",
        "AWS_DEFAULT_REGION": REGION,
    }
    source = f"kms:{key}?endpoint-url={platform.url}&ca-bundle={platform.authority}"
    data = tmp_path / "data"
    told = _program(
        signs, "init", "--data", str(data), "--account-id", HOME, "--root-key-source", source
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    target = tmp_path / "b"
    assert _program(signs, "backup", "--data", str(data), str(target)).returncode == 0
    again = tmp_path / "again"
    assert _program(signs, "restore", "--data", str(again), str(target)).returncode == 0
    kms.disable_key(KeyId=key)
    closed = _program(signs, "up", "--data", str(data))
    assert closed.returncode == 1 and "DisabledException" in closed.stderr
