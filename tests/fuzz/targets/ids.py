"""Ids, marks and entity tags: any text is one of them or none, and what we write is what we read."""

from __future__ import annotations

from server.api.query import Wait, _tags
from server.protocol import ids, marks
from server.protocol.ids import CompositeId, decode_composite, encode_composite, foreign_form, new_composite, normal_id
from server.protocol.jsontext import is_cut
from tests.fuzz.material import Material

_PIECES = (
    *("resp_", "litellm:custom_llm_provider:", "openai", ";model_id:", ";response_id:", ";owner:", "=", "-", "_", "+"),
    *("pollux-account.", "cntr_", ".", "v2:gcm:", "litellm_poll_", "0a1b2c3d-0a1b-0a1b-0a1b-0a1b2c3d4e5f", '"'),
    *("W/", "*"),
    *("bGl0ZWxsbTpjdXN0b21fbGxtX3Byb3ZpZGVyOm9wZW5haTttb2RlbF9pZDphO3Jlc3BvbnNlX2lkOnJlc3BfMQ", "..", "é", "\x00"),
    *("\n",),
)
_SECRETS = (b"a" * 32, b"b" * 32)


def fuzz(data: bytes) -> None:
    material = Material(data)
    text = "".join(_piece(material) for _ in material.times(9))
    _is_read(text)
    _is_kept(CompositeId(_piece(material), _piece(material), text, opaque=material.number(2) == 1))
    _is_marked(text, _piece(material))
    wait = Wait(known=_tags([text, "", "W/"]))
    assert isinstance(wait.has("1.5"), bool)


def _piece(material: Material) -> str:
    return material.pick(_PIECES) if material.number(6) else material.text()


def _is_read(text: str) -> None:
    normal = normal_id(text)
    assert normal_id(normal) == normal
    found = decode_composite(text)
    if found is not None:
        assert decode_composite(normal) == found
        assert not ids.is_owned(found, "alice", _SECRETS)
        assert found.response_id.isascii()
    foreign_form(text)
    ids.seed_in(text)
    assert len(ids.item_seed(text)) == 32
    ids.has_polling_form(text)


def _is_kept(plain: CompositeId) -> None:
    """An id that we make is read as what went into it, by its owner alone."""
    if is_cut(plain.provider + plain.model_id):
        return  # no config holds such names
    tag = ids.owner_tag(_SECRETS[0], "alice", plain.untagged)
    made = new_composite(plain._replace(tag=tag))
    if made is None:
        return
    read = decode_composite(made)
    if read is None:
        # Names of deployments come from the config, where a `;` would break LiteLLM's form too.
        assert ";" in plain.provider + plain.model_id or not (plain.provider + plain.model_id).isascii()
        return
    assert encode_composite(read) == made
    assert ids.is_owned(read, "alice", _SECRETS[::-1])
    assert not ids.is_owned(read, "bob", _SECRETS)


def _is_marked(value: str, deployment: str) -> None:
    marks.parse_marked(value)
    if not value.isascii() or not value or not deployment.isascii():
        return  # nothing else is marked
    made = marks.marked(value, deployment, "alice", _SECRETS[0])
    read = marks.parse_marked(made)
    assert read is not None
    assert read.is_genuine("alice", _SECRETS)
    assert not read.is_genuine("bob", _SECRETS)
    assert marks.marked(made, deployment, "alice", _SECRETS[0]) == made
    assert (read.deployment, read.value) == (deployment, value) or made == value
