"""The systemd unit: systemd understands all of it, and it fits Pollux."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from server.config import Config
from server.process.app import HANDLERS_END_WITHIN_S
from tests.deploy.test_helm import drain_of
from tests.support.parsing import parsed

SYSTEMD = Path(__file__).parents[2] / "deploy" / "systemd"
UNIT = SYSTEMD / "pollux.service"
EXPOSURE = 17
"""The most exposure that `systemd-analyze security` may find, of 100. It was 15 when this was written."""

by_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here")


def analyze(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture(scope="module")
def settings() -> dict[str, list[str]]:
    found = defaultdict(list)
    for name, value in re.findall(r"^([A-Za-z]+)=(.*)$", UNIT.read_text(), re.MULTILINE):
        found[name].append(value)
    return dict(found)


def one(settings: dict[str, list[str]], name: str) -> str:
    [value] = settings[name]
    return value


@by_systemd
def test_systemd_understands_every_line(tmp_path: Path, settings: dict[str, list[str]]) -> None:
    program = one(settings, "ExecStart").split()[0]
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace(program, "/bin/true"))  # systemd looks whether it is there
    done = analyze("verify", "--man=no", unit)
    assert done.returncode == 0
    assert not [line for line in done.stderr.splitlines() if UNIT.name in line]


@by_systemd
def test_the_unit_may_do_little(tmp_path: Path) -> None:
    done = analyze("security", "--offline=true", f"--threshold={EXPOSURE}", UNIT)
    assert done.returncode == 0, done.stdout


def test_the_unit_starts_pollux(settings: dict[str, list[str]]) -> None:
    program, *words = one(settings, "ExecStart").replace("$POLLUX_OPTIONS", _options()).split()
    assert Path(program).name == "pollux"
    arguments = parsed(words)
    assert arguments.config == Path("/etc/pollux/config.yaml")
    assert (arguments.host, arguments.workers) == ("0.0.0.0", 2), "what the environment file suggests"
    assert parsed([word for word in words if word not in _options().split()]).host == "127.0.0.1"


def _options() -> str:
    [found] = re.findall(r"^#POLLUX_OPTIONS=(.+)$", (SYSTEMD / "pollux.env").read_text(), re.MULTILINE)
    return str(found)


def test_the_embedded_store_is_where_the_unit_may_write(settings: dict[str, list[str]]) -> None:
    defaults = dict(value.partition("=")[::2] for value in settings["Environment"])
    assert Path(defaults["POLLUX_STORE"].removeprefix("embedded://")).is_relative_to(
        "/var/lib/" + one(settings, "StateDirectory")
    )
    assert one(settings, "ProtectSystem") == "strict"
    assert one(settings, "PrivateTmp") == "yes", "its socket is in /tmp"


def test_the_unit_has_the_time_to_drain_and_ends_in_order(settings: dict[str, list[str]]) -> None:
    assert int(one(settings, "TimeoutStopSec")) > drain_of(Config()) + HANDLERS_END_WITHIN_S + 5
    assert one(settings, "KillMode") == "mixed", "else the embedded store ends before the drain"
    assert one(settings, "ExecReload") == "/opt/pollux/bin/pollux reload --pid $MAINPID", "it tells what came of it"
    assert one(settings, "RuntimeDirectory") == "pollux", "where its socket is"
    assert int(one(settings, "LimitNOFILE")) >= 65536


def test_the_environment_file_has_variables_only() -> None:
    for line in (SYSTEMD / "pollux.env").read_text().splitlines():
        assert not line or re.fullmatch(r"# .*|#?[A-Z_]+=.*", line)
        assert len(shlex.split(line, comments=True)) <= 1
