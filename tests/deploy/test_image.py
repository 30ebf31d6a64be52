"""The image: what is in it, what is not, and how its first process behaves."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import server
from tests.support.containers import BASE, IMAGE, inspected, logged_by, needs_containers, podman, processes_in
from tests.support.waiting import wait_until

pytestmark = [needs_containers, pytest.mark.timeout(300)]

LARGEST_MB = 60
FORBIDDEN = re.compile(r"(pip[0-9.]*|ensurepip|setuptools|hatchling|gcc|strip|make)")


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    """The image's files."""
    yield Path(podman("image", "mount", IMAGE).strip())
    podman("image", "unmount", IMAGE)


def test_it_is_not_much_larger_than_its_base() -> None:
    more = inspected("image", IMAGE)["Size"] - inspected("image", BASE)["Size"]
    print(f"the image adds {more / 1e6:.1f} MB to its base")
    assert more < LARGEST_MB * 1_000_000


def test_it_tells_what_it_is_and_how_it_is_run() -> None:
    config = inspected("image", IMAGE)["Config"]
    labels = {name.removeprefix("org.opencontainers.image."): text for name, text in config["Labels"].items()}
    assert labels["version"] == server.__version__
    assert re.fullmatch("[0-9a-f]{40}", labels["revision"])
    assert (config["User"], config["StopSignal"], [*config["ExposedPorts"]]) == ("10001:10001", "SIGTERM", ["4000/tcp"])


def test_nothing_in_it_installs_or_builds_anything(root: Path) -> None:
    places = [*root.glob("usr/local/*bin"), *root.glob("usr/*bin"), *root.glob("opt/pollux/bin")]
    places += [*root.glob("usr/lib/python3*"), *root.glob("**/site-packages")]
    assert len(places) > 4
    assert [file for place in places for file in place.iterdir() if FORBIDDEN.fullmatch(file.name)] == []


def test_no_file_of_it_can_be_changed_by_its_user(root: Path) -> None:
    ours = [*(root / "opt/pollux").rglob("*")]
    assert len(ours) > 1000
    assert [
        file for file in ours if not file.is_symlink() and (file.stat().st_uid or file.stat().st_mode & 0o022)
    ] == []


def test_every_module_has_its_bytecode(root: Path) -> None:
    """Without it a start takes three times as long, and a root that is read-only keeps none."""
    modules = [*root.glob("opt/pollux/lib/python3*/site-packages/server/**/*.py")]
    assert len(modules) > 100
    assert [file for file in modules if not [*(file.parent / "__pycache__").glob(f"{file.stem}.*.pyc")]] == []


def test_it_lists_its_packages(root: Path) -> None:
    bill = json.loads((root / "opt/pollux/sbom.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    described = bill["metadata"]["component"]
    assert described["name"] == "pollux-responses"
    assert "timestamp" not in bill["metadata"], "the same packages give the same file"
    listed = {(part["name"], part["version"]) for part in bill["components"]}
    installed = {
        (said(text, "Name"), said(text, "Version"))
        for text in (
            file.read_text() for file in root.glob("opt/pollux/lib/python3*/site-packages/*.dist-info/METADATA")
        )
    }
    assert listed | {(described["name"], server.__version__)} == installed
    assert len(listed) > 20


def said(metadata: str, name: str) -> str:
    [line] = re.findall(rf"^{name}: (.+)$", metadata, re.MULTILINE)
    return str(line)


async def test_it_runs_on_a_root_that_is_read_only_with_several_processes_and_an_embedded_store(tmp_path: Path) -> None:
    """The first process passes SIGTERM on, reaps orphans, and ends as Pollux does."""
    (tmp_path / "config.yaml").write_text(
        "model_list: []\ngeneral_settings: {master_key: sk-1234}\npollux: {drain_grace_s: 0}\n"
    )
    name = "alone"
    podman(
        *(
            "run",
            "--detach",
            "--name",
            name,
            "--network",
            "none",
            "--read-only",
            "--tmpfs",
            "/tmp",
            "--cap-drop",
            "all",
        ),
        *("--volume", "alone:/var/lib/pollux", "--env", "POLLUX_STORE=embedded:///var/lib/pollux"),
        *("--volume", f"{tmp_path}/config.yaml:/etc/pollux/config.yaml:ro", IMAGE, "--workers", "2", "--port", "8080"),
    )
    try:
        ask = "import urllib.request as u; u.urlopen('http://localhost:8080/readyz')"
        podman("exec", name, "sh", "-c", f'until python -c "{ask}" 2>/dev/null; do sleep 0.2; done')
        podman("healthcheck", "run", name)
        names = [process for _, _, process in processes_in(name)]
        assert names.count("pollux") + names.count("python") >= 3, "the parent and its two children"
        assert "valkey-server" in names

        podman("exec", name, "sh", "-c", "sleep 0.01 & exit 0")

        def reaped() -> bool:
            return not [process for _, state, process in processes_in(name) if state == "Z" or process == "sleep"]

        await wait_until(reaped, what="the orphan is reaped")
        podman("stop", "--time", "30", name)
        assert inspected("container", name)["State"]["ExitCode"] == 0
        assert "all processes ended" in logged_by(name)[-1]
    finally:
        podman("rm", "--force", "--volumes", name)
        podman("volume", "rm", "alone")
