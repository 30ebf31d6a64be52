"""Which server is asked, and with which key."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.cli.settings import DEFAULT_URL, settings_for
from server.cli.trouble import Trouble
from tests.support.replica import ALICE, CACHED, Replica
from tests.support.shell import Shell

WRITTEN = """
url = "https://one.example/v1/"
key = "sk-one"
model = "gpt-5.2"
[profiles.two]
url = "two.example:8000/pollux"
key = "sk-two"
[profiles.three]
url = "https://three.example"
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("POLLUX_MODEL", raising=False)
    (tmp_path / "pollux").mkdir()
    return tmp_path / "pollux"


def write(home: Path, text: str, name: str = "config.toml", mode: int = 0o600) -> None:
    (home / name).write_text(text)
    (home / name).chmod(mode)


def test_without_any_it_is_this_machine(home: Path) -> None:
    found = settings_for(None, None, None)
    assert (found.url, found.key, found.model) == (DEFAULT_URL, None, None)


def test_options_go_before_the_file(home: Path) -> None:
    write(home, WRITTEN)
    found = settings_for(None, None, None)
    assert (found.url, found.key, found.model) == ("https://one.example", "sk-one", "gpt-5.2")
    found = settings_for("https://one.example/v1/", "sk-mine", None)
    assert (found.url, found.key) == ("https://one.example", "sk-mine")


def test_a_key_of_the_file_goes_to_no_other_server(home: Path) -> None:
    write(home, WRITTEN)
    assert settings_for("https://evil.example", None, None).key is None
    assert settings_for(None, None, "three").key is None
    found = settings_for(None, None, "two")
    assert (found.url, found.key, found.model) == ("http://two.example:8000/pollux", "sk-two", "gpt-5.2")
    assert "sk-two" not in repr(found)


def test_what_pollux_dev_left_is_used_where_nothing_is_said(home: Path) -> None:
    write(home, 'url = "http://127.0.0.1:4001"\nkey = "sk-dev"', "dev.toml")
    assert settings_for(None, None, None).key == "sk-dev"
    assert settings_for("http://127.0.0.1:4000", None, None).key is None
    write(home, WRITTEN)
    assert settings_for(None, None, None).key == "sk-one"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("url = ", "config.toml can't be read"),
        ("ulr = 'x'", "ulr is not known"),
        ("url = 5", "url must be a text"),
        ("profiles = 5", "profiles must be a table"),
        ("[profiles]\nx = 5", "profiles.x must be a table"),
        ("[profiles.x]\nprofile = 'y'", "profiles.x.profile is not known"),
        ("profile = 'none'\n[profiles.x]", "no profile 'none' in"),
        ("url = 'ftp://x'", "is no address of a server"),
        *((f"url = 'http://{place}'", "is no address of a server") for place in ("[::1", "x:abc", "x:99999", "a b")),
        ("url = 'http://user:secret@x'", "leave user and password out of"),
        ("key = 'sk-日本'", "can't be sent"),
        ('key = "sk-1\\nsk-2"', "can't be sent"),
    ],
)
def test_mistakes_in_the_file_are_told(home: Path, text: str, told: str) -> None:
    write(home, text)
    with pytest.raises(Trouble, match=told) as raised:
        settings_for(None, None, None)
    assert raised.value.code == 2


def test_what_is_pasted_is_tidied(home: Path) -> None:
    write(home, 'url = " http://bücher.example/größe/v1/ "')
    assert settings_for(None, " sk-1\n", None).key == "sk-1"
    assert settings_for(None, "\n", None).key is None
    assert settings_for(None, None, None).url == "http://xn--bcher-kva.example/gr%C3%B6%C3%9Fe"


def test_a_user_without_a_home_has_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    assert settings_for(None, None, None).url == DEFAULT_URL


def test_a_key_that_others_can_read_is_warned_of(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(home, WRITTEN, mode=0o644)
    settings_for(None, None, None)
    assert "chmod 600" in capsys.readouterr().err
    write(home, 'url = "https://monkey.example"', mode=0o644)
    settings_for(None, None, None)
    assert capsys.readouterr().err == ""


async def test_commands_heed_options_environment_and_file(pollux: Replica, tmp_path: Path) -> None:
    place = Shell(tmp_path, {})
    (tmp_path / "pollux").mkdir()
    write(tmp_path / "pollux", f'[profiles.here]\nurl = "{pollux.url}/v1"\nkey = "{ALICE}"\nmodel = "{CACHED}"')
    response_id = await place.fine("submit", "Hello", "--profile", "here")
    assert await Shell(tmp_path, {"POLLUX_PROFILE": "here"}).fine("list", "-q") == response_id
    assert await place.fine("list", "-q", "--url", pollux.url, "--key", ALICE) == response_id
    assert (await place.run("list", "--url", pollux.url)).code == 2
