"""Envelopes open for whom they were made, and for nobody else."""

from __future__ import annotations

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
