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
    for broken in ("", "x", "\ud800"):
        assert Sealer([b"old"]).unseal(broken) is None
