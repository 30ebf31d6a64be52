"""Config files that include others: the order, the merge, and errors that name the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from server.check import describe, warnings_about
from server.config import load_config
from server.config.includes import DEEPEST, Merged, read_merged
from server.config.sections import ConfigError
from server.keyhash import HashedKey
from tests.support.generated import json_values, moderate


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def write(path: Path, **data: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


def entry(name: str, **params: Any) -> dict[str, Any]:
    return {"model_name": name, "litellm_params": {"model": "openai/m", **params}}


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as refused:
        load_config(path, {})
    return str(refused.value)


def test_lists_are_added_up_and_all_else_is_the_last_files(folder: Path) -> None:
    first = write(
        folder / "config.yaml",
        include=["models.yaml", "settings.yaml"],
        model_list=[entry("a")],
        litellm_settings={"num_retries": 1, "request_timeout": 5},
        general_settings={"master_key": "sk-1"},
    )
    write(folder / "models.yaml", model_list=[entry("b"), entry("c")])
    write(folder / "settings.yaml", litellm_settings={"num_retries": 7})
    config = load_config(first, {})
    assert [found.model_name for found in config.model_list] == ["a", "b", "c"]
    assert (config.litellm_settings.num_retries, config.litellm_settings.request_timeout) == (7, None)
    assert config.master_keys({}) == [HashedKey.of("sk-1")]
    assert config.included == (folder / "models.yaml", folder / "settings.yaml")


def test_what_files_include_follows_those_of_the_first_one(folder: Path) -> None:
    first = write(folder / "config.yaml", include=["sub/b.yaml", "c.yaml"], names=["a"])
    write(folder / "sub" / "b.yaml", include=["d.yaml"], names=["b"])
    write(folder / "c.yaml", names=["c"])
    write(folder / "sub" / "d.yaml", names=["d"])
    assert read_merged(first).data["names"] == ["a", "b", "c", "d"]


def test_a_file_that_two_include_is_read_once(folder: Path) -> None:
    first = write(folder / "config.yaml", include=["b.yaml", "c.yaml", "b.yaml"], names=["a"])
    write(folder / "b.yaml", include=["d.yaml"], names=["b"])
    write(folder / "c.yaml", include=["d.yaml"], names=["c"])
    write(folder / "d.yaml", names=["d"])
    assert read_merged(first).data["names"] == ["a", "b", "c", "d"]


@pytest.mark.parametrize("way", [["a.yaml"], ["b.yaml", "a.yaml"], ["b.yaml", "c.yaml", "b.yaml"]])
def test_files_that_include_each_other_are_refused(folder: Path, way: list[str]) -> None:
    names = ["a.yaml", *way]
    for name, following in zip(names, way, strict=False):
        write(folder / name, include=[following])
    assert refusal(folder / "a.yaml") == (
        f"{folder / names[-2]} includes {names[-1]}, which is the same file or includes it"
    )


def test_a_loop_through_a_link_is_refused_too(folder: Path) -> None:
    first = write(folder / "a.yaml", include=["link.yaml"])
    (folder / "link.yaml").symlink_to("a.yaml")
    assert "is the same file or includes it" in refusal(first)


def test_files_may_not_include_each_other_without_end(folder: Path) -> None:
    for number in range(DEEPEST + 2):
        write(folder / f"{number}.yaml", include=[f"{number + 1}.yaml"])
    write(folder / f"{DEEPEST}.yaml")
    load_config(folder / "0.yaml", {})
    write(folder / f"{DEEPEST}.yaml", include=[f"{DEEPEST + 1}.yaml"])
    write(folder / f"{DEEPEST + 1}.yaml")
    assert refusal(folder / "0.yaml") == (
        f"{folder}/{DEEPEST}.yaml includes {DEEPEST + 1}.yaml: files may include each other 10 deep, and 200 in all"
    )


@pytest.mark.parametrize("wrong", ["models.yaml", [5], [""], {"a": "b"}])
def test_what_is_no_list_of_files_is_refused(folder: Path, wrong: Any) -> None:
    first = write(folder / "config.yaml", include=wrong)
    assert refusal(first) == f"{first}: include must be a list of files"


@pytest.mark.parametrize("nothing", [None, []])
def test_nothing_may_be_included(folder: Path, nothing: Any) -> None:
    assert load_config(write(folder / "config.yaml", include=nothing), {}).included == ()


def test_errors_name_the_file(folder: Path) -> None:
    first = write(folder / "config.yaml", include=["b.yaml"], model_list=[entry("a"), entry("b")], pollux={"drain": 5})
    second = folder / "b.yaml"
    assert refusal(first) == f"can't read {second}, which {first} includes: No such file or directory"
    second.write_text("a: [")
    assert refusal(first).startswith(f"{second} is not valid YAML: ")
    second.write_text("- a")
    assert refusal(first).startswith(f"{second} must hold a mapping")
    write(second, model_list=[entry("c", timeout=0)])
    unknown, timeout = sorted(refusal(first).splitlines(), reverse=True)
    assert unknown.startswith("pollux.drain: there is no such key.")
    assert unknown.endswith(f" (in {first})")
    assert timeout.startswith("model_list.2.litellm_params.timeout: ")
    assert timeout.endswith(f" (in {second})")
    write(second, general_settings={"master_key": "os.environ/GONE"}, pollux={})
    assert refusal(first) == (f"general_settings.master_key: the environment variable GONE is not set (in {second})")


def test_check_config_tells_which_files_were_read_and_what_was_replaced(folder: Path) -> None:
    first = write(folder / "config.yaml", include=["b.yaml"], model_list=[entry("a")], litellm_settings={"cache": True})
    second = write(folder / "b.yaml", model_list=[entry("b")], litellm_settings={"num_retries": 7})
    config = load_config(first, {})
    assert describe(config).startswith(f"included files: {second}\n")
    assert f"litellm_settings of {first} is replaced by that of {second}" in list(warnings_about(config))


def test_a_file_next_to_the_first_one_is_found_and_told(folder: Path) -> None:
    """As in older versions of LiteLLM. Of two files the one next to the including one counts."""
    first = write(folder / "config.yaml", include=["sub/b.yaml"])
    including = write(folder / "sub" / "b.yaml", include=["c.yaml"])
    beside_first = write(folder / "c.yaml", names=["first"])
    merged = read_merged(first)
    assert merged.data["names"] == ["first"]
    assert merged.surprises == [f"{including} includes c.yaml, which is {beside_first} and not next to it"]
    write(folder / "sub" / "c.yaml", names=["beside"])
    assert read_merged(first).data["names"] == ["beside"]


sections = st.dictionaries(
    st.sampled_from(["a", "b", "c"]), json_values | st.lists(json_values, max_size=3), max_size=3
)


@moderate
@given(st.lists(sections, min_size=1, max_size=4))
def test_the_merge_is_litellms(files: list[dict[str, Any]]) -> None:
    merged = Merged(Path("0"))
    expected: dict[str, Any] = {}
    for number, data in enumerate(files):
        merged.add(Path(str(number)), data)
        for name, value in data.items():
            both = isinstance(value, list) and isinstance(expected.get(name), list)
            expected[name] = [*expected[name], *value] if both else value
    assert merged.data == expected


@pytest.mark.parametrize(
    "value",
    ["!!timestamp sk-1", "!!bool sk-1", "!!int sk-1", "!!int ''", "!!float ''", "2026-99-99", "\x00", "[" * 9000],
)
def test_a_value_that_is_not_what_it_says_is_a_mistake_in_the_file(value: str, folder: Path) -> None:
    file = folder / "config.yaml"
    file.write_text(f"model_list: {value}")
    complaint = refusal(file)
    assert complaint.startswith(f"{file} is not valid YAML: ")
    assert "sk-1" not in complaint
