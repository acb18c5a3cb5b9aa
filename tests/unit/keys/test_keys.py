"""Envelopes open for whom they were made, and for nobody else."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastide.domain import Refused
from bastide.engines.keys import RootKey, create_root, decrypt, encrypt, key_of, new_material

ARN = "arn:aws:kms:us-east-1:111122223333:key/1"
contexts = st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=4)


@given(plain=st.binary(max_size=100), context=contexts, other=contexts, bit=st.integers(0, 10_000))
def test_envelopes(plain: bytes, context: dict[str, str], other: dict[str, str], bit: int) -> None:
    material = new_material()
    blob = encrypt(material, ARN, 3, plain, context)
    assert key_of(blob) == (ARN, 3)
    assert decrypt(material, blob, dict(reversed(context.items()))) == plain
    spoiled = bytearray(blob)
    spoiled[bit // 8 % len(blob)] ^= 1 << bit % 8
    attempts = [(new_material(), blob, context), (material, bytes(spoiled), context), (material, blob[:-1], context)]
    if other != context:
        attempts.append((material, blob, other))
    for key, what, where in attempts:
        with pytest.raises(Refused) as refused:
            decrypt(key, what, where)
        assert refused.value.code == "InvalidCiphertextException"


@given(st.binary(max_size=200))
def test_any_bytes_are_no_ciphertext(blob: bytes) -> None:
    with pytest.raises(Refused):
        decrypt(new_material(), blob, {})


@given(st.binary(max_size=100), st.text(max_size=200))
def test_tokens(data: bytes, garbage: str) -> None:
    root = RootKey(b"k" * 32)
    token = root.seal(data, "session")
    assert root.open(token, "session") == data
    for key, text, purpose in (
        (root, token, "page"),
        (RootKey(b"j" * 32), token, "session"),
        (root, garbage, "session"),
    ):
        with pytest.raises(ValueError):
            key.open(text, purpose)


def test_a_root_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "root.key"
    root = create_root(path)
    assert path.stat().st_mode & 0o777 == 0o600
    wrapped = root.wrap(b"material", b"mine")
    assert RootKey.load(path).unwrap(wrapped, b"mine") == b"material"
    with pytest.raises(ValueError):
        root.unwrap(wrapped, b"yours")
    with pytest.raises(FileExistsError):
        create_root(path)
    path.chmod(0o644)
    with pytest.raises(PermissionError, match="chmod 600"):
        RootKey.load(path)
    assert "k" * 4 not in repr(RootKey(b"k" * 32))


@given(st.binary(max_size=40), st.integers(0, 10_000), st.sampled_from(["\n", "=", " ", "!", "A", "+"]))
def test_a_token_is_written_in_one_way_only(data: bytes, place: int, extra: str) -> None:
    root = RootKey(b"k" * 32)
    token = root.seal(data, "page")
    assert root.seal(data, "page") != token
    at = place % (len(token) + 1)
    index = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    nearly = token[:-1] + index[index.index(token[-1]) ^ 1]
    for other in (token[:at] + extra + token[at:], nearly, token + "==", token[:-1], ""):
        with pytest.raises(ValueError, match="not one of ours"):
            root.open(other, "page")


def test_contexts_that_read_alike_are_not_alike() -> None:
    material = new_material()
    for one, other in (
        ({"a": "bc"}, {"ab": "c"}),
        ({"a": "b", "c": "d"}, {"a": "bcd"}),
        ({}, {"": ""}),
        ({"\ud800": "x"}, {"\ud801": "x"}),
    ):
        blob = encrypt(material, ARN, 1, b"plain", one)
        assert decrypt(material, blob, one) == b"plain"
        with pytest.raises(Refused):
            decrypt(material, blob, other)
    assert encrypt(material, ARN, 1, b"plain", {}) != encrypt(material, ARN, 1, b"plain", {})


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"x" * 33])
def test_a_file_that_is_no_root_key(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "root.key"
    path.touch(0o600)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="32 bytes"):
        RootKey.load(path)
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(OSError):
        RootKey.load(link)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    with pytest.raises(PermissionError):
        RootKey.load(fifo)


def test_one_root_key_of_many_attempts(tmp_path: Path) -> None:
    path = tmp_path / "root.key"
    made = []

    def attempt() -> None:
        with contextlib.suppress(FileExistsError):
            made.append(create_root(path))

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert RootKey.load(path).open(made[0].seal(b"x", "p"), "p") == b"x"
    assert [one.name for one in tmp_path.iterdir()] == ["root.key"]
