"""Keys: whom a request comes from, by which header, and what that principal may use and see."""

from __future__ import annotations

import gc
import hashlib
from types import FunctionType, ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from server.config import parse_config
from server.config.sections import ConfigError
from server.errors import Unauthorized
from server.keyring import ClientKey, Keyring, Principal, is_guest, masked
from tests.support.generated import moderate

ALICE, ALICE_NEW, BOB, MASTER = "sk-alice-0001", "sk-alice-0002", "sk-bob-0001-x", "sk-master-0001"
KEYS: list[dict[str, Any]] = [
    {"name": "alice", "key": ALICE, "models": ["gpt-5.2"]},
    {"name": "alice", "key": ALICE_NEW},
    {"name": "bob", "key": BOB, "models": []},
]


def keyring(keys: list[dict[str, Any]] | None = None, master: str | list[str] | None = None) -> Keyring:
    settings = {"pollux": {"keys": KEYS if keys is None else keys}, "general_settings": {"master_key": master}}
    return Keyring(parse_config(settings, environ={}))


def caller(headers: dict[str, str], ring: Keyring | None = None) -> Principal:
    return (ring or keyring(master=MASTER)).authenticate(CIMultiDict(headers))


def refusal(headers: dict[str, str]) -> Unauthorized:
    with pytest.raises(Unauthorized) as refused:
        caller(headers)
    return refused.value


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {BOB}"},
        {"authorization": f"bearer   {BOB} "},
        {"api-key": BOB},
        {"x-litellm-api-key": BOB},
        {"x-litellm-api-key": f"Bearer {BOB}"},
        {"X-API-Key": f" {BOB} "},
        {"Authorization": "Basic Ym9i", "api-key": BOB},
        {"Authorization": "Bearer ", "x-api-key": BOB},
    ],
)
def test_a_key_comes_in_any_of_the_known_headers(headers: dict[str, str]) -> None:
    assert caller(headers).name == "bob"


def test_the_first_header_in_order_counts() -> None:
    order = ["api-key", "x-litellm-api-key", "x-api-key"]
    assert caller({"Authorization": f"Bearer {ALICE}", **dict.fromkeys(order, BOB)}).name == "alice"
    for position, name in enumerate(order):
        assert caller({name: ALICE, **dict.fromkeys(order[position + 1 :], BOB)}).name == "alice"
    assert refusal({"Authorization": "Bearer wrong", "api-key": BOB}).status == 401


def test_several_keys_may_stand_for_one_owner() -> None:
    one, other = caller({"api-key": ALICE}), caller({"api-key": ALICE_NEW})
    assert one.name == other.name == "alice"
    assert one.may_see(other.name)


def test_an_owner_may_use_what_any_of_his_keys_may() -> None:
    ring = keyring([*KEYS, {"name": "bob", "key": "sk-bob-2", "models": ["b"]}], MASTER)
    alice, bob, master = (ring.known_as(name) for name in ("alice", "bob", "master"))
    assert alice is not None
    assert alice.models is None
    assert bob is not None
    assert bob.models == frozenset({"b"})
    assert master is not None
    assert master.is_master
    assert ring.known_as("carol") is None
    assert keyring([]).known_as("anybody") == Principal("master")


def test_the_models_of_a_key_are_its_own() -> None:
    one, other, bob = (caller({"api-key": key}) for key in (ALICE, ALICE_NEW, BOB))
    assert one.may_use("gpt-5.2")
    assert not one.may_use("gpt-5")
    assert other.may_use("anything")
    assert not bob.may_use("gpt-5.2")


def test_the_master_may_use_and_see_everything() -> None:
    master = caller({"api-key": MASTER})
    assert master.is_master
    assert master.may_use("anything")
    assert master.may_see("alice")


def test_the_masters_key_is_the_masters_even_if_it_is_listed_for_another() -> None:
    assert caller({"api-key": BOB}, keyring(master=BOB)).is_master


def test_others_see_only_their_own() -> None:
    alice = caller({"api-key": ALICE})
    assert alice.may_see("alice")
    assert not alice.may_see("bob")
    assert not alice.may_see("master")
    assert not alice.is_master


def test_without_any_key_everybody_is_the_master() -> None:
    empty = keyring([])
    assert empty.empty
    assert caller({}, empty).is_master
    assert caller({"api-key": "whatever"}, empty).is_master


def test_with_one_key_nobody_else_is_served() -> None:
    assert not keyring(KEYS[:1]).empty
    assert not keyring([], MASTER).empty
    with pytest.raises(Unauthorized):
        caller({}, keyring([], MASTER))


@pytest.mark.parametrize("headers", [{}, {"Authorization": ""}, {"Authorization": "Bearer"}, {"api-key": "  "}])
def test_a_missing_key_is_told(headers: dict[str, str]) -> None:
    error = refusal(headers)
    assert (error.status, error.type, error.code) == (401, "invalid_request_error", "invalid_api_key")
    assert error.message.startswith("You didn't provide an API key.")


def test_a_wrong_key_is_told_but_not_repeated() -> None:
    error = refusal({"Authorization": "Bearer sk-wrong-and-secret-3f2a"})
    assert error.message == "Incorrect API key provided: sk-…3f2a."
    assert (error.status, error.code, error.param) == (401, "invalid_api_key", None)


@pytest.mark.parametrize("key", [ALICE.upper(), ALICE[:-1], ALICE + "x", "alice", "\udcff", "ключ", "x" * 8000])
def test_a_key_must_be_exact(key: str) -> None:
    assert refusal({"api-key": key}).status == 401


@moderate
@given(st.text(max_size=60))
def test_a_masked_key_shows_seven_characters_at_most(key: str) -> None:
    shown = masked(key)
    assert len(shown) <= 8
    assert shown.isprintable()
    assert len(key) >= 12 or shown == "…"


METRICS = "sk-metrics-0001"


def test_keys_are_kept_only_as_hashes_in_the_config_too() -> None:
    config = parse_config(
        {
            "pollux": {"keys": KEYS, "metrics_key": METRICS, "accept_any_key": True},
            "general_settings": {"master_key": [MASTER]},
        },
        environ={},
    )
    kept = everything_in([config, vars(Keyring(config))])
    assert {"alice", "bob"} <= set(kept), "it looks everywhere"
    for key in (ALICE, ALICE_NEW, BOB, MASTER, METRICS):
        for trace in (key, key.encode().hex(), hashlib.sha256(key.encode()).hexdigest()):
            assert not any(trace in one for one in kept), "it, or a hash that others can make too"
    assert repr(config.pollux.keys[0].key) == "HashedKey()"


def everything_in(found: Any) -> list[str]:
    """All texts, and bytes in hexadecimal digits, that can be reached from an object."""
    seen, left, kept = set[int](), [found], list[str]()
    while left:
        one = left.pop()
        if id(one) in seen or isinstance(one, type | ModuleType | FunctionType):
            continue
        seen.add(id(one))
        if isinstance(one, str | bytes):
            kept.append(one if isinstance(one, str) else one.hex())
        left.extend(gc.get_referents(one))
    return kept


def test_of_several_master_keys_each_is_the_master_and_so_is_each_metrics_key() -> None:
    config = parse_config(
        {"pollux": {"metrics_key": [METRICS, "second"]}, "general_settings": {"master_key": [MASTER, "sk-old"]}},
        environ={"LITELLM_MASTER_KEY": "sk-environ"},
    )
    ring = Keyring(config)
    assert [caller({"api-key": key}, ring).name for key in (MASTER, "sk-old")] == ["master", "master"]
    assert ring.owners == ["master"]
    for key in (METRICS, "second", MASTER, "sk-old"):
        ring.authenticate_scraper(CIMultiDict({"api-key": key}))
    for key in (METRICS, "second", "sk-environ"):
        with pytest.raises(Unauthorized):
            caller({"api-key": key}, ring)


def guests(secret: bytes = b"stored") -> Keyring:
    settings = {"pollux": {"keys": KEYS, "accept_any_key": True}, "general_settings": {"master_key": MASTER}}
    return Keyring(parse_config(settings, environ={}), secret)


def test_a_guest_is_named_after_its_key_and_the_secret_of_the_store() -> None:
    first, again, other = (caller({"api-key": key}, guests()) for key in ("sk-one", "sk-one", "sk-two"))
    assert first == again
    assert is_guest(first.name)
    assert first.is_guest
    assert len({first.name, other.name, caller({"api-key": "sk-one"}, guests(b"another")).name}) == 3
    assert "sk-one" not in first.name
    assert first.models is None


def test_guests_change_nothing_for_the_keys_of_the_config() -> None:
    assert caller({"api-key": BOB}, guests()).name == "bob"
    assert caller({"api-key": MASTER}, guests()).is_master
    assert not any(caller({"api-key": key}, guests()).is_guest for key in (ALICE, BOB, MASTER))


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer "}, {"api-key": "ключ"}, {"api-key": "a\x00b"}])
def test_a_guest_needs_a_key_that_a_provider_can_be_told(headers: dict[str, str]) -> None:
    with pytest.raises(Unauthorized):
        caller(headers, guests())


def test_who_takes_guests_serves_nobody_without_a_key() -> None:
    ring = Keyring(parse_config({"pollux": {"accept_any_key": True}}, environ={}), b"stored")
    assert not ring.empty
    with pytest.raises(Unauthorized):
        caller({}, ring)


def test_the_master_key_is_not_for_providers() -> None:
    ring = guests()
    for key, owner in ((ALICE, "alice"), ("sk-one", caller({"api-key": "sk-one"}, ring).name)):
        sent = ring.client_key(CIMultiDict({"api-key": key}), caller({"api-key": key}, ring))
        assert sent == ClientKey(key, owner)
        assert key not in repr(sent)
    assert ring.client_key(CIMultiDict({"api-key": MASTER}), caller({"api-key": MASTER}, ring)) is None


def test_no_configured_key_can_have_a_guests_name() -> None:
    with pytest.raises(ConfigError, match="accept_any_key"):
        keyring([{"name": "key-0123456789abcdef", "key": "k"}])
    keyring([{"name": "key-1", "key": "k"}])
