"""What `deploy/` says is true: every setting and its default, every command, every file that is copied."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from server.cli import _parser, main
from server.config import Config, load_config, parse_config, unknown_keys

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "deploy" / "config.example.yaml"


# The example of a config.

_COMMENTED_OUT = re.compile(r"( *)# ( *(?:- )?[a-z_]+:(?: .*)?| *# .*)")
"""A setting, or a sentence within a section that is commented out as a whole. Other comments are sentences."""


@dataclass(frozen=True)
class Setting:
    """A key of the example, in use or commented out."""

    path: str
    value: Any
    sentence: str


def uncommented(text: str) -> list[str]:
    return [
        match[1] + match[2] if (match := _COMMENTED_OUT.fullmatch(line)) else line for line in text.splitlines()
    ]


def settings(lines: list[str], node: yaml.Node, path: str = "") -> Iterator[Setting]:
    """All keys below a node. Of a list of mappings, `[]` in the path, the first one stands for all."""
    if isinstance(node, yaml.SequenceNode) and node.value and isinstance(node.value[0], yaml.MappingNode):
        yield from settings(lines, node.value[0], f"{path}[].")
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        name = f"{path}{key.value}"
        constructor = yaml.constructor.SafeConstructor()
        yield Setting(name, constructor.construct_document(value), _sentence_above(lines, key.start_mark.line))
        yield from settings(lines, value, name if isinstance(value, yaml.SequenceNode) else f"{name}.")


def _sentence_above(lines: list[str], number: int) -> str:
    found: list[str] = []
    while number and lines[number - 1].lstrip().startswith("#"):
        number -= 1
        found.insert(0, lines[number].strip().removeprefix("#").strip())
    return " ".join(found)


@dataclass(frozen=True)
class Known:
    """A field of the models that read a config."""

    path: str
    description: str
    has_default: bool
    default: Any


def known_settings(model: type[BaseModel], path: str = "") -> Iterator[Known]:
    for name, field in model.model_fields.items():
        section, listed = _section_in(field.annotation)
        # A section has no default of its own: its keys have.
        own = not field.is_required() and (section is None or listed)
        default = field.get_default(call_default_factory=True, validated_data={}) if own else None
        yield Known(f"{path}{name}", field.description or "", own, default)
        if section is not None:
            yield from known_settings(section, f"{path}{name}{'[]' if listed else ''}.")


def _section_in(annotation: Any, *, listed: bool = False) -> tuple[type[BaseModel] | None, bool]:
    """The model that a field holds, if it does, and whether it holds a list of them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, listed
    for argument in get_args(annotation):
        section, below = _section_in(argument, listed=listed or getattr(annotation, "__origin__", None) is list)
        if section is not None:
            return section, below
    return None, False


KNOWN = {known.path: known for known in known_settings(Config)}


@pytest.fixture(scope="module")
def example() -> dict[str, Setting]:
    lines = uncommented(EXAMPLE.read_text(encoding="utf-8"))
    node = yaml.compose("\n".join(lines))
    assert node is not None
    found = list(settings(lines, node))
    paths = [setting.path for setting in found]
    assert len(paths) == len(set(paths)), "a key stands there twice"
    return {setting.path: setting for setting in found}


def test_the_example_has_every_setting_that_we_read_and_no_other(example: dict[str, Setting]) -> None:
    assert sorted(example) == sorted(KNOWN)


@pytest.mark.parametrize("path", sorted(KNOWN))
def test_the_example_tells_of_each_setting_what_it_does_and_its_default(path: str, example: dict[str, Setting]) -> None:
    setting, known = example[path], KNOWN[path]
    assert setting.sentence.endswith((".", ")")), f"no sentence above {path}"
    assert known.description in setting.sentence, "the config models describe it otherwise"
    stated = re.search(r"Default: (.*?)\.(?: |$)", setting.sentence)
    if not known.has_default:
        assert stated is None
    elif stated:
        assert yaml.safe_load(stated[1]) == known.default
    else:
        assert setting.value == known.default
        assert isinstance(setting.value, bool) == isinstance(known.default, bool)


def test_the_example_can_be_used_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    config = load_config(EXAMPLE, environ={})
    assert not list(unknown_keys(config))
    assert main(["check-config", str(EXAMPLE)]) == 0
    printed = capsys.readouterr().out
    assert "gpt-5.2\n  background: cached" in printed
    assert "o4-mini-deep-research\n  background: native" in printed
    assert "warning" not in printed


def test_the_example_can_be_used_with_everything_uncommented() -> None:
    data = yaml.safe_load("\n".join(uncommented(EXAMPLE.read_text(encoding="utf-8"))))
    config = parse_config(data, environ={"ALICE_KEY": "sk-alice"})
    assert [key.name for key in config.pollux.keys] == ["alice"]


def test_the_example_speaks_to_the_simulator_where_it_listens_by_default() -> None:
    port = _parser().parse_args(["simulate"]).port
    for entry in load_config(EXAMPLE, environ={}).model_list:
        assert entry.litellm_params.api_base == f"http://127.0.0.1:{port}/v1"


# The image and the composition.


def dockerfile() -> list[list[str]]:
    """The instructions, each as a list of its words."""
    text = re.sub(r"^#.*\n", "", (ROOT / "deploy" / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [[name, *_words(rest)] for line in lines if line.strip() for name, _, rest in [line.partition(" ")]]


def _words(text: str) -> list[str]:
    """The exec form is JSON."""
    if text.startswith("["):
        words: list[str] = json.loads(text)
        return words
    return shlex.split(text)


def instructions(name: str) -> list[list[str]]:
    return [words for first, *words in dockerfile() if first == name]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
    return found


def check_command(command: list[str]) -> dict[str, Any]:
    """A `pollux …` that the command line understands, and what it understands."""
    assert command[0] == "pollux"
    return vars(_parser().parse_args(command[1:]))


def seconds(text: str) -> int:
    assert re.fullmatch(r"\d+s", text)
    return int(text[:-1])


def test_the_image_starts_pollux_on_all_addresses() -> None:
    [command] = instructions("ENTRYPOINT")
    understood = check_command(command)
    assert understood["host"] == "0.0.0.0"
    assert understood["config"] == Path("/etc/pollux/config.yaml")
    assert instructions("EXPOSE") == [[str(understood["port"])]]
    assert instructions("STOPSIGNAL") == [["SIGTERM"]]
    assert instructions("USER")[-1] != ["root"]
    [health] = instructions("HEALTHCHECK")
    assert f"'127.0.0.1', {understood['port']}" in health[-1] or "/livez" in health[-1]
