"""Secrets of others are kept encrypted, and stay readable while id secrets are rotated."""

from __future__ import annotations

from server.sealing import Sealer


def test_what_is_sealed_is_read_with_any_of_the_secrets_and_with_no_other() -> None:
    sealed = Sealer([b"old"]).seal("whsec_x")
    assert "whsec_x" not in sealed
    assert " " not in sealed
    assert Sealer([b"new", b"old"]).unseal(sealed) == "whsec_x"
    assert Sealer([b"new"]).unseal(sealed) is None
    assert Sealer([b"old"]).unseal(sealed[:-8]) is None
    assert Sealer([b"old"]).seal("whsec_x") != sealed, "the same text is never sealed alike"
    for broken in ("", "x", "\ud800"):
        assert Sealer([b"old"]).unseal(broken) is None


def test_what_is_sealed_for_one_is_not_read_for_another() -> None:
    sealer = Sealer([b"secret"])
    sealed = sealer.seal("sk-alice", "alice")
    assert sealer.unseal(sealed, "alice") == "sk-alice"
    assert sealer.unseal(sealed, "bob") is None
    assert sealer.unseal(sealed) is None
