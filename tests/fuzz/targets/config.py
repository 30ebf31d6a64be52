"""The config file: whatever YAML it holds, it is read and described, or refused by an error that says where."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from server import check
from server.config import Config, load_config, parse_config
from server.config.sections import ConfigError, Section
from tests.fuzz.material import Material

ENVIRON = {"SET": "openai/gpt-5.2", "SECRET": "sk-from-the-environment", "HOME": "/"}


def _names(section: type[Section]) -> list[str]:
    return [*section.model_fields]


_KEYS = (
    *_names(Config),
    *(name for field in Config.model_fields.values() for name in getattr(field.annotation, "model_fields", ())),
    *("model_name", "litellm_params", "model_info", "model", "api_base", "api_key", "id", "api", "mode", "name", "key"),
    *("responses", "background_mode", "polling_via_cache", "native_background_mode", "ttl", "type", "host", "port"),
    *("credential_name", "credential_values", "litellm_credential_name", "input", "output", "url", "secret", "events"),
    *("rpm", "tpm", "weight", "order", "timeout", "extra_headers", "additional_drop_params", "startup_nodes", "models"),
)
_WORDS = (
    *("openai/gpt-5.2", "gpt-5.2", "*", "openai/*", "all", "os.environ/SET", "os.environ/UNSET", "os.environ/"),
    *("redis",),
    *("https://h.example/v1", "https://[", "master", "key-0123456789abcdef", "vertex_ai/gemini", "bedrock/claude"),
    *("30",),
    *("azure/x", "anthropic/claude", "responses", "chat", "1e400", "nan", "true", "sk-1", "embedded://"),
    *("redis://[", "-1"),
    "whsec_" + "A" * 44,
)
_TAGS = (
    *("!!int", "!!float", "!!bool", "!!timestamp", "!!binary", "!!set", "!!omap", "!!pairs", "!!null", "!!str"),
    *("!!map",),
    *("!!python/object:os.system", "&a", "*a", "<<:", "? ", "- ", ": ", "{", "}", "[", "]", "|", ">", "---", "..."),
    *("\t",),
    *('"', "'", "\n", "\n  ", "2001-99-99", "0x", "0b", "1:99", ".", "%YAML 9.9", "%TAG ! x", "\x85", "\ufeff"),
    *("~", '"\\ud800"'),
)


def fuzz(data: bytes) -> None:
    material = Material(data)
    given = material.object(_KEYS, _WORDS)
    if material.number(2):
        given |= _likely(material)
    with suppress(ConfigError):
        _is_described(parse_config(given, ENVIRON))
    text = _yaml(material)
    if text:
        with tempfile.NamedTemporaryFile("wb", suffix=".yaml") as file:
            file.write(text)
            file.flush()
            with suppress(ConfigError):
                load_config(Path(file.name), ENVIRON)


def _likely(material: Material) -> dict[str, Any]:
    """A config with the forms of a real one."""
    return {
        "model_list": [
            {
                "model_name": material.text(_WORDS),
                "litellm_params": {
                    "model": material.text(_WORDS),
                    "api_key": "os.environ/SECRET",
                    **material.object(_KEYS, _WORDS, depth=3),
                },
                "model_info": material.object(_KEYS, _WORDS, depth=2),
            }
            for _ in material.times(3)
        ],
        "litellm_settings": material.object(_KEYS, _WORDS),
        "pollux": {"keys": [{"name": material.text(_WORDS), "key": "k"}]} | material.object(_KEYS, _WORDS, depth=3),
    }


def _is_described(config: Config) -> None:
    """What `check-config` says is for people, and shows no secret."""
    said = [check.describe(config), *check.warnings_about(config)]
    assert ENVIRON["SECRET"] not in "".join(said)


def _yaml(material: Material) -> bytes:
    """YAML as text, since its parser has faults of its own."""
    way = material.number(4)
    if way == 0:
        return b""
    if way == 1:
        return material.rest()
    said = "".join(f"{material.pick((*_TAGS, *_KEYS[:12]))}{material.pick(('', ' '))}" for _ in material.times(24))
    return f"model_list:\n- {said}".encode("utf-8", "surrogatepass") if way == 2 else said.encode()


assert yaml.__version__
