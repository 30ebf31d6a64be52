"""Composite ids lead back to their deployment, belong to their owner, and survive whatever stands in a URL."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode, urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.protocol.ids import (
    LONGEST_ID,
    CompositeId,
    ForeignForm,
    decode_composite,
    encode_composite,
    foreign_form,
    has_polling_form,
    is_owned,
    new_composite,
    owner_tag,
)
from tests.support.generated import moderate

PUBLISHED = (
    "resp_bGl0ZWxsbTpjdXN0b21fbGxtX3Byb3ZpZGVyOm9wZW5haTttb2RlbF9pZDpmOGYxOWJiNzQ1NGM1OTlmMzI2NzhiZjQ2NzViZjg4ZDAz"
    "ZTVjZmY4YzAwNWZlYmI3NmE2NWIzNDVkYWVmMmE5O3Jlc3BvbnNlX2lkOnJlc3BfMDExMWE4NzE5MWI5ZDM4NTAwNjk3OWE3MDk5ZmM0ODE5"
    "NmJiZjUxOTkwODMxNzUyZGU="
)
PUBLISHED_PARTS = CompositeId(
    provider="openai",
    model_id="f8f19bb7454c599f32678bf4675bf88d03e5cff8c005febb76a65b345daef2a9",
    response_id="resp_0111a87191b9d385006979a7099fc48196bbf51990831752de",
)
SECRET, OTHER_SECRET = b"s" * 32, b"t" * 32

names = st.text(st.characters(codec="ascii", exclude_characters=";", min_codepoint=33), min_size=1, max_size=40)
provider_ids = st.text(
    st.characters(codec="ascii", min_codepoint=33, max_codepoint=126), min_size=1, max_size=80
).filter(lambda text: text not in (".", "..") and ";owner:" not in text)


def composite_of(text: str) -> str:
    return "resp_" + b64encode(text.encode()).decode()


def tagged(owner: str = "alice", secret: bytes = SECRET) -> CompositeId:
    plain = CompositeId("openai", "deployment", "resp_1")
    return CompositeId("openai", "deployment", "resp_1", owner_tag(secret, owner, plain.untagged))


def test_the_published_example_decodes_to_its_parts() -> None:
    assert decode_composite(PUBLISHED) == PUBLISHED_PARTS


def test_the_published_example_encodes_to_itself() -> None:
    assert encode_composite(PUBLISHED_PARTS) == PUBLISHED


@moderate
@given(names, names, provider_ids, st.none() | st.from_regex(r"[A-Za-z0-9_-]{22}", fullmatch=True))
def test_every_id_survives_the_round_trip(provider: str, model_id: str, response_id: str, tag: str | None) -> None:
    composite = CompositeId(provider, model_id, response_id, tag)
    assert decode_composite(encode_composite(composite)) == composite


@moderate
@given(names, names, provider_ids)
def test_the_padding_may_be_missing(provider: str, model_id: str, response_id: str) -> None:
    composite = CompositeId(provider, model_id, response_id)
    assert decode_composite(encode_composite(composite).rstrip("=")) == composite


@moderate
@given(st.text() | st.text().map(lambda tail: f"resp_{tail}"))
def test_arbitrary_text_never_raises(text: str) -> None:
    decode_composite(text)
    has_polling_form(text)


@moderate
@given(st.binary().map(lambda raw: "resp_" + b64encode(raw).decode()))
def test_arbitrary_bytes_in_base64_never_raise(text: str) -> None:
    decode_composite(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "resp_",
        "resp_====",
        "resp_0111a87191b9d385006979a7099fc48196bbf51990831752de",
        PUBLISHED.removeprefix("resp_"),
        PUBLISHED.replace("resp_", "RESP_"),
        PUBLISHED[:40] + "-_" + PUBLISHED[42:],
        PUBLISHED + "\n",
        PUBLISHED[:50] + "\r\n" + PUBLISHED[50:],
        PUBLISHED[:50] + "%00" + PUBLISHED[50:],
        PUBLISHED[:50] + "{}" + PUBLISHED[50:],
        composite_of("litellm:custom_llm_provider:openai;model_id:d"),
        composite_of("custom_llm_provider:openai;model_id:d;response_id:resp_1"),
        composite_of("litellm:custom_llm_provider:openai;model_id:d;response_id:"),
        composite_of("litellm:model_id:d;custom_llm_provider:openai;response_id:resp_1"),
    ],
)
def test_what_is_no_composite_id_is_none(text: str) -> None:
    assert decode_composite(text) is None


@pytest.mark.parametrize(
    "response_id", [".", "..", "a b", "résumé", "a\r\nHost: evil", "a\x00", "a\x7f", "\n", "😀", "resp_1\n"]
)
def test_what_can_be_no_path_segment_is_refused(response_id: str) -> None:
    encoded = composite_of(f"litellm:custom_llm_provider:openai;model_id:d;response_id:{response_id}")
    assert decode_composite(encoded) is None


@pytest.mark.parametrize("response_id", ["https://evil.example/v1", "../../admin", "a/b?c#d", "%2e%2e", "..."])
def test_a_url_in_an_id_stays_a_name(response_id: str) -> None:
    encoded = composite_of(f"litellm:custom_llm_provider:openai;model_id:d;response_id:{response_id}")
    composite = decode_composite(encoded)
    assert composite is not None
    assert (composite.model_id, composite.response_id) == ("d", response_id)


def test_more_characters_than_a_request_line_has_room_for_are_nobodys_id() -> None:
    long = encode_composite(CompositeId("openai", "d", "r" * 6000))
    assert len(long) > LONGEST_ID
    assert decode_composite(long) is None
    assert decode_composite("resp_" + "A" * 8000) is None
    assert decode_composite("resp_" + "=" * 8000) is None


@pytest.mark.parametrize("opaque", [True, False])
@pytest.mark.parametrize("length", [1, 1400, 3000, 5000])
def test_the_id_of_a_new_response_can_be_read_again_however_long_the_providers_is(length: int, opaque: bool) -> None:
    composite = tagged()._replace(response_id="r" * length, opaque=opaque)
    made = new_composite(composite)
    assert made is not None
    assert decode_composite(made) == composite


@pytest.mark.parametrize("raw", ["r" * 5300, "a b", "é", "..", "a\n"])
@pytest.mark.parametrize("opaque", [True, False])
def test_what_no_url_could_carry_gets_no_id(raw: str, opaque: bool) -> None:
    assert new_composite(CompositeId("openai", "d" * 64, raw, opaque=opaque)) is None


# The two forms.


@moderate
@given(names, names, provider_ids, st.none() | st.from_regex(r"[A-Za-z0-9_-]{22}", fullmatch=True))
def test_the_opaque_form_survives_the_round_trip_and_needs_no_escaping(
    provider: str, model_id: str, response_id: str, tag: str | None
) -> None:
    composite = CompositeId(provider, model_id, response_id, tag, opaque=True)
    encoded = encode_composite(composite)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", encoded)
    assert decode_composite(encoded) == composite


@moderate
@given(names, names, provider_ids)
def test_litellm_takes_the_published_form_for_its_own_and_leaves_the_opaque_one_alone(
    provider: str, model_id: str, response_id: str
) -> None:
    composite = CompositeId(provider, model_id, response_id, "t" * 22)
    assert litellm_takes_for_its_own(encode_composite(composite))
    assert not litellm_takes_for_its_own(encode_composite(composite._replace(opaque=True)))


def litellm_takes_for_its_own(response_id: str) -> bool:
    """As its decoder decides: by what the base64 holds, characters of another alphabet passed over."""
    try:
        return ";" in b64decode(response_id.replace("resp_", "")).decode()
    except ValueError:
        return False


@pytest.mark.parametrize("raw", ["a?b?c?", "~~~~~~", ">>>>>>"])
def test_a_new_id_that_would_have_a_slash_or_a_plus_takes_the_form_without(raw: str) -> None:
    """A slash in a path is the end of a segment, whatever it was meant to be."""
    composite = CompositeId("openai", "main", raw)
    assert {"/", "+"} & set(encode_composite(composite) + encode_composite(composite._replace(model_id="a")))
    made = new_composite(composite) or ""
    assert re.fullmatch(r"[A-Za-z0-9_=-]+", made)
    assert (decode_composite(made) or composite).response_id == raw


# Ids of others.

ENCRYPTED = "resp_" + urlsafe_b64encode(b"\xfe" * 40 + b"\x9c" * 140).decode()


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (PUBLISHED_PARTS.response_id, ForeignForm.PROVIDER),
        ("resp_0b3a4f0e-9c1d-4a57-8d3a-000000000000", ForeignForm.PROVIDER),
        ("gen-1748612345-AbCdEfGhIjKlMnOpQrSt", ForeignForm.PROVIDER),
        ("488c5546-7b0c-412d-955e-5792202d2201", ForeignForm.PROVIDER),
        (ENCRYPTED, ForeignForm.ENCRYPTED),
        (ENCRYPTED.rstrip("="), ForeignForm.ENCRYPTED),
        ("resp_v2:gcm:" + urlsafe_b64encode(b"\xfe" * 150).decode(), ForeignForm.ENCRYPTED),
        ("resp_!", None),
        ("x", None),
        ("", None),
        ("litellm_poll_488c5546-7b0c-412d-955e-5792202d2201", None),
        (PUBLISHED[:-4] + "!!!!", None),
    ],
)
def test_the_form_of_a_foreign_id_tells_where_it_comes_from(text: str, form: ForeignForm | None) -> None:
    assert decode_composite(text) is None
    assert foreign_form(text) == form


def test_an_id_belongs_to_the_owner_in_its_tag() -> None:
    composite = decode_composite(encode_composite(tagged()))
    assert composite is not None
    assert is_owned(composite, "alice", [SECRET])
    assert not is_owned(composite, "bob", [SECRET])
    assert not is_owned(composite, "", [SECRET])


def test_an_id_signed_with_another_secret_is_refused() -> None:
    assert not is_owned(tagged(secret=OTHER_SECRET), "alice", [SECRET])


def test_after_a_rotation_old_ids_are_still_verified() -> None:
    assert is_owned(tagged(secret=SECRET), "alice", [OTHER_SECRET, SECRET])
    assert is_owned(tagged(secret=OTHER_SECRET), "alice", [OTHER_SECRET, SECRET])
    assert not is_owned(tagged(secret=SECRET), "alice", [OTHER_SECRET])


@pytest.mark.parametrize("part", ["provider", "model_id", "response_id", "tag"])
def test_a_tampered_id_is_refused(part: str) -> None:
    genuine = tagged()
    changed = {name: getattr(genuine, name) for name in ("provider", "model_id", "response_id", "tag")}
    changed[part] += "x"
    assert not is_owned(CompositeId(**changed), "alice", [SECRET])


@pytest.mark.parametrize("tag", [None, "", "x", "x" * 22, "x" * 43])
def test_an_id_without_a_genuine_tag_is_nobodys(tag: str | None) -> None:
    assert not is_owned(CompositeId("openai", "deployment", "resp_1", tag), "alice", [SECRET])


def test_the_border_between_owner_and_id_is_part_of_what_is_signed() -> None:
    assert owner_tag(SECRET, "alice", "b") != owner_tag(SECRET, "alic", "eb")


def test_the_tag_has_22_characters_of_the_url_alphabet() -> None:
    tag = owner_tag(SECRET, "alice", PUBLISHED_PARTS.untagged)
    assert len(tag) == 22
    assert set(tag) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def test_the_last_owner_mark_counts() -> None:
    """Whoever writes a mark of his own into the provider's id has not signed what comes before the real one."""
    forged = f"litellm:custom_llm_provider:openai;model_id:d;response_id:resp_1;owner:{'x' * 22}"
    tag = owner_tag(SECRET, "alice", forged)
    composite = decode_composite(composite_of(f"{forged};owner:{tag}"))
    assert composite == CompositeId("openai", "d", f"resp_1;owner:{'x' * 22}", tag)
    assert is_owned(composite, "alice", [SECRET])


def test_litellm_reads_our_ids_and_ignores_the_tag() -> None:
    """LiteLLM's decoder splits at `;` and takes the first three parts."""
    composite = tagged()
    text = f"{composite.untagged};owner:{composite.tag}"
    provider, model_id, response_id = text.split(";")[:3]
    assert provider.removeprefix("litellm:custom_llm_provider:") == "openai"
    assert model_id.removeprefix("model_id:") == "deployment"
    assert response_id.removeprefix("response_id:") == "resp_1"


def test_a_polling_id_is_the_prefix_and_a_uuid() -> None:
    assert has_polling_form("litellm_poll_488c5546-7b0c-412d-955e-5792202d2201")
    assert has_polling_form("job-488c5546-7b0c-412d-955e-5792202d2201")


@pytest.mark.parametrize(
    "text",
    [
        "litellm_poll_",
        "488c5546-7b0c-412d-955e-5792202d2201",
        "litellm_poll_488C5546-7B0C-412D-955E-5792202D2201",
        "litellm_poll_488c5546-7b0c-412d-955e-5792202d2201\n",
        "litellm_poll_488c5546-7b0c-412d-955e-5792202d2201}",
        "litellm_poll_488c55467b0c412d955e5792202d2201",
        "litellm_poll_{488c5546-7b0c-412d-955e-5792202d2201}",
        "litellm_poll_" + "a" * 4000,
        PUBLISHED,
    ],
)
def test_what_is_no_polling_id(text: str) -> None:
    assert not has_polling_form(text)
