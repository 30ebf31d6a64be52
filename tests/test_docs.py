"""What `deploy/` says is true: every setting and its default, every command, every file that is copied."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
import yaml
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import BaseModel

import server
from deploy.healthcheck import address_in
from server.api.connection import LONGEST_LINE_BYTES
from server.api.sse import HEARTBEAT_S
from server.check import describe
from server.cli import main
from server.config import Config, load_config, parse_config
from server.config.ours import Pollux
from server.config.unused import keys_without_effect
from server.metrics import FAMILIES
from server.process.app import HANDLERS_END_WITHIN_S
from tests.support.parsing import parsed

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "deploy" / "config.example.yaml"
LOCKS = ROOT / "deploy" / "locks"
MACHINE = ["127.0.0.1:4000", "127.0.0.1:4001"]
"""Two replicas without containers."""


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
    return [match[1] + match[2] if (match := _COMMENTED_OUT.fullmatch(line)) else line for line in text.splitlines()]


def settings(lines: list[str], node: yaml.Node, path: str = "") -> Iterator[Setting]:
    """All keys below a node. Of a list of mappings, `[]` in the path, the first one stands for all; of a mapping whose
    keys are names, `{}`, too."""
    if isinstance(node, yaml.SequenceNode) and node.value and isinstance(node.value[0], yaml.MappingNode):
        yield from settings(lines, node.value[0], f"{path}[].")
    if not isinstance(node, yaml.MappingNode):
        return
    if any(known.startswith(f"{path.removesuffix('.')}{{}}.") for known in KNOWN):
        yield from settings(lines, node.value[0][1], f"{path.removesuffix('.')}{{}}.")
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
        section, within = _section_in(field.annotation)
        # A section has no default of its own: its keys have.
        own = not field.is_required() and (section is None or bool(within))
        default = field.get_default(call_default_factory=True, validated_data={}) if own else None
        yield Known(f"{path}{name}", field.description or "", own, default)
        if section is not None:
            yield from known_settings(section, f"{path}{name}{within}.")


_WITHIN: dict[Any, str] = {list: "[]", dict: "{}"}


def _section_in(annotation: Any, within: str = "") -> tuple[type[BaseModel] | None, str]:
    """The model that a field holds, if it does, and whether it holds a list of them, or a mapping of names to them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, within
    for argument in get_args(annotation):
        section, found = _section_in(argument, within or _WITHIN.get(get_origin(annotation), ""))
        if section is not None:
            return section, found
    return None, ""


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
    assert not list(keys_without_effect(config))
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
    port = parsed(["simulate"]).port
    for entry in load_config(EXAMPLE, environ={}).model_list:
        assert entry.litellm_params.api_base == f"http://127.0.0.1:{port}/v1"


# The metrics.


def test_the_table_of_metrics_has_every_one_as_it_is() -> None:
    rows = re.findall(r"^\| `(pollux_\w+)` \| (.*?) \| ?(.*?) \| (.*) \|$", deployed("README.md"), re.MULTILINE)
    assert [(name, kind, tuple(re.findall(r"`(\w+)`", labels)), told) for name, kind, labels, told in rows] == [
        (family.name, family.kind, family.labels, family.help) for family in FAMILIES
    ]


# The image, the composition, the proxy.


def deployed(name: str) -> str:
    return (ROOT / "deploy" / name).read_text(encoding="utf-8")


def instructions(name: str) -> list[list[str]]:
    """The instructions of the Dockerfile that begin with this word, split into the words behind it."""
    text = re.sub(r"^ *#.*\n", "", deployed("Dockerfile"), flags=re.MULTILINE).replace("\\\n", " ")
    found = [re.fullmatch(rf"{name} +(.*)", line) for line in text.splitlines()]
    return [_words(match[1]) for match in found if match]


def _words(text: str) -> list[str]:
    """The exec form is a JSON list at the end."""
    options, bracket, rest = text.partition("[")
    words: list[str] = json.loads(bracket + rest) if bracket else []
    return [*shlex.split(options), *words]


def understood(command: list[str]) -> dict[str, Any]:
    """What our own command line makes of a `pollux …` behind the init; it ends the test if it makes nothing of it."""
    assert command[:2] == ["tini", "--"]
    command = command[2:]
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert command[0] in scripts
    found: dict[str, Any] = vars(parsed(command[1:]))
    return found


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(deployed("compose.yaml"))
    return found


@pytest.fixture(scope="module")
def composed(compose: dict[str, Any]) -> Config:
    """The config that compose.yaml mounts."""
    file = compose["configs"]["pollux"]["file"]
    environ = {"POLLUX_METRICS_KEY": "sk-metrics"}
    return parse_config(yaml.safe_load((ROOT / "deploy" / file).read_text(encoding="utf-8")), environ=environ)


def replicas(compose: dict[str, Any]) -> list[dict[str, Any]]:
    return [service for name, service in compose["services"].items() if name.startswith("pollux-")]


def test_the_image_starts_pollux_where_it_can_be_reached() -> None:
    [command] = instructions("ENTRYPOINT")
    arguments = understood(command)
    assert (arguments["host"], arguments["config"]) == ("0.0.0.0", Path("/etc/pollux/config.yaml"))
    assert instructions("EXPOSE") == [[str(arguments["port"])]]
    [[*_, probe]] = instructions("HEALTHCHECK")
    assert ["deploy/healthcheck.py", probe] in instructions("COPY")
    assert address_in(["/opt/pollux/bin/python", *command]) == ("localhost", arguments["port"])


@pytest.mark.parametrize(
    ("words", "address"),
    [
        (["pollux", "serve", "--host", "0.0.0.0", "--port", "8080"], ("localhost", 8080)),
        (["tini", "--", "python", "pollux", "serve", "--host=::", "--port=8080", ""], ("localhost", 8080)),
        (["pollux", "serve", "--host", "0.0.0.0", "--port", "1", "--role", "api", "--port", "2"], ("localhost", 2)),
        (["pollux", "serve", "--host", "10.0.0.7", "--workers", "2"], ("10.0.0.7", 4000)),
    ],
)
def test_the_health_check_follows_the_port(words: list[str], address: tuple[str, int]) -> None:
    assert address_in(words) == address
    ours = parsed(["serve", "--config", "x"])
    assert address_in(["serve"]) == (ours.host, ours.port), "the same defaults"


def test_the_image_ends_orderly_and_does_not_run_as_root() -> None:
    assert ["--from=build", "/usr/bin/tini", "/usr/bin/tini"] in instructions("COPY")
    assert instructions("STOPSIGNAL") == [["SIGTERM"]]
    assert instructions("USER") == [["10001:10001"]]


def test_the_image_copies_only_what_exists_and_is_not_ignored() -> None:
    let_through = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in let_through
    copied = [words[:-1] for words in instructions("COPY") if not words[0].startswith("--from")]
    sources = {source for words in copied for source in words}
    for source in sources:
        assert (ROOT / source).exists()
        assert f"!{source}" in let_through
    assert {line[1:] for line in let_through if line.startswith("!")} == sources
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert set(packages["packages"]) <= sources


def test_the_image_installs_what_was_tested_and_no_more() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    tested, installed = pins("requirements.lock"), pins("deploy/requirements.lock")
    assert installed.items() <= tested.items(), "run make lock"
    assert {name_of(dependency) for dependency in project["dependencies"]} <= installed.keys()
    only_by_request = {name_of(needed) for extra in project["optional-dependencies"].values() for needed in extra}
    assert not only_by_request & installed.keys()
    installing = [words for words in instructions("RUN") if "-r" in words]
    assert len(installing) == 2
    assert all(
        {"--require-hashes", "--only-binary=:all:"} <= {word.strip(";") for word in words} for words in installing
    )


def test_the_image_can_have_each_extra_as_it_was_tested() -> None:
    """`--build-arg EXTRAS=…`: what each adds has a lock of its own."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].keys() - {"dev", "clients"}
    assert {file.stem for file in LOCKS.glob("*.lock")} == {*extras, "build"}, "add it to EXTRAS in the Makefile"
    tested, installed = pins("requirements.lock"), pins("deploy/requirements.lock")
    for extra in extras:
        added = pins(f"deploy/locks/{extra}.lock")
        assert added.items() <= tested.items(), "run make lock"
        assert not added.keys() & installed.keys()
        assert {name_of(needed) for needed in project["optional-dependencies"][extra]} <= added.keys()


def test_the_image_tells_what_it_is() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [labels] = [dict(word.split("=", 1) for word in words) for words in instructions("LABEL")]
    of = "org.opencontainers.image."
    assert labels[f"{of}description"] == project["description"]
    assert labels[f"{of}licenses"] == project["license"]
    assert ["VERSION=" + server.__version__, "REVISION=", "SOURCE="] in instructions("ARG")
    assert labels.keys() == {
        f"{of}{word}" for word in ("title", "description", "licenses", "version", "revision", "source")
    }


@pytest.mark.parametrize(
    "lock", sorted(str(file.relative_to(ROOT)) for file in (ROOT / "requirements.lock", *ROOT.glob("deploy/**/*.lock")))
)
def test_a_lock_has_hashes_and_names_no_host(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert "://" not in text
    assert len(re.findall(r"^\S+==\S+ (?:; .+ )?\\\n +--hash=sha256:", text, re.MULTILINE)) == len(pins(lock)) > 1


@pytest.mark.parametrize("platform", ["linux", "darwin"])
@pytest.mark.parametrize("python", ["3.11.0", "3.11.3", "3.12.0", "3.13.0", "3.14.0"])
@pytest.mark.parametrize(("lock", "extras"), [("requirements.lock", {"dev"}), ("deploy/requirements.lock", set[str]())])
def test_a_lock_has_all_that_a_python_needs_which_we_name(
    lock: str, extras: set[str], python: str, platform: str
) -> None:
    """Made on one Python it would lack what only others need, and pip refuses a lock with a gap."""
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    assert f"Programming Language :: Python :: {python.rpartition('.')[0]}" in classifiers
    here = {
        "python_version": python.rpartition(".")[0],
        "python_full_version": python,
        "sys_platform": platform,
        "platform_system": platform.capitalize(),
    }
    markers = dict(re.findall(r"^([a-z0-9-]+)==\S+ (?:; (.+) )?\\$", (ROOT / lock).read_text(), re.MULTILINE))
    locked = {name for name, marker in markers.items() if not marker or Marker(marker).evaluate({**here, "extra": ""})}
    assert needed("pollux-responses", extras, here) <= locked, "run make lock"


def needed(name: str, extras: set[str], environment: dict[str, str]) -> set[str]:
    """All packages that one needs in this environment, and theirs, as the packages that are installed here say."""
    found: dict[str, set[str]] = {}
    left = [(name, extras)]
    while left:
        name, extras = left.pop()
        if found.get(name, set()) >= extras and name in found:
            continue
        found[name] = found.get(name, set()) | extras
        for requirement in map(Requirement, _requires(name)):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({**environment, "extra": extra}) for extra in {"", *extras}):
                left.append((canonicalize_name(requirement.name), requirement.extras))
    return found.keys() - {"pollux-responses"}


def _requires(name: str) -> list[str]:
    try:
        return requires(name) or []
    except PackageNotFoundError:
        return []  # only another Python needs it


def pins(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / lock).read_text(), re.MULTILINE))


def name_of(dependency: str) -> str:
    match = re.match(r"[A-Za-z0-9-]+", dependency)
    assert match
    return match[0].lower()


def test_compose_starts_commands_that_exist(compose: dict[str, Any]) -> None:
    simulator = understood(compose["services"]["simulator"]["entrypoint"])
    assert simulator["host"] == "0.0.0.0"
    assert f"('127.0.0.1',{simulator['port']})" in compose["services"]["simulator"]["healthcheck"]["test"][-1]
    for replica in replicas(compose):
        assert not {"entrypoint", "command"} & replica.keys(), "a replica starts as the image does"
        assert [mounted["target"] for mounted in replica["configs"]] == ["/etc/pollux/config.yaml"]
        assert (ROOT / "deploy" / replica["build"]["context"] / replica["build"]["dockerfile"]).is_file()
        assert replica["depends_on"].keys() <= compose["services"].keys()


def test_compose_opens_one_port_of_pollux_and_none_to_other_machines(compose: dict[str, Any]) -> None:
    nginx = compose["services"]["nginx"]["ports"]
    assert nginx == ["${POLLUX_LISTEN:-127.0.0.1:4000}:" + str(listened("nginx.conf"))]
    opened = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert opened.keys() == {"nginx", "prometheus", "grafana"}
    assert all(port.startswith("127.0.0.1:") for ports in opened.values() for port in ports if ports is not nginx)


def test_compose_sends_nginx_to_both_replicas(compose: dict[str, Any]) -> None:
    """It puts their addresses where nginx.conf has those of two replicas on its own machine."""
    nginx = compose["services"]["nginx"]
    [script] = nginx["command"]
    [image_port] = instructions("EXPOSE")[0]
    replaced = dict(re.findall(r"s/([0-9.:]+)/\$\$(\w+)/", script))
    assert [*replaced] == servers_in("nginx.conf", "server") == MACHINE
    assert [nginx["environment"][name] for name in replaced.values()] == [
        f"{replica['networks']['default']['ipv4_address']}:{image_port}" for replica in replicas(compose)
    ]


def test_compose_bounds_and_hardens_every_service(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert {"cpus", "mem_limit", "pids_limit", "logging", "healthcheck"} <= service.keys() | (
            {"healthcheck"} if service["image"] == "pollux" else set()
        ), name
        inline = {source for source, config in compose["configs"].items() if "content" in config}
        # Compose can't put inline content into a root that is read-only.
        assert service.get("read_only", False) != any(used["source"] in inline for used in service.get("configs", ()))
    redis = compose["services"]["redis"]
    assert (redis["mem_limit"], redis["command"][redis["command"].index("--maxmemory") + 1]) == ("2g", "1gb")


def test_compose_mounts_only_what_exists(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert source in compose["volumes"] or (ROOT / "deploy" / source).exists(), source


def test_compose_gives_replicas_the_time_to_drain(compose: dict[str, Any], composed: Config) -> None:
    for replica in replicas(compose):
        least_s = composed.pollux.drain_grace_s + composed.pollux.drain_s + HANDLERS_END_WITHIN_S
        assert seconds(replica["stop_grace_period"]) >= least_s


def test_compose_has_a_config_that_its_own_services_answer(compose: dict[str, Any], composed: Config) -> None:
    assert not list(keys_without_effect(composed))
    environment = replicas(compose)[0]["environment"]
    assert "LITELLM_MASTER_KEY" in environment, "else it would serve loopback only"
    addresses = {
        composed.store_url(environ={}),
        *(entry.litellm_params.api_base or "" for entry in composed.model_list),
    }
    port = understood(compose["services"]["simulator"]["entrypoint"])["port"]
    assert addresses == {"redis://redis:6379/0", f"http://simulator:{port}/v1"}
    assert {"redis", "simulator"} <= compose["services"].keys()
    assert "warning" not in describe(composed)


def test_compose_has_a_redis_that_keeps_what_it_accepted(compose: dict[str, Any]) -> None:
    program, *options = compose["services"]["redis"]["command"]
    assert program == "redis-server"
    assert dict(zip(options[::2], options[1::2], strict=True)) == {
        "--dir": "/data",
        "--protected-mode": "no",
        "--appendonly": "yes",
        "--appendfsync": "everysec",
        "--save": "",
        "--maxmemory": "1gb",
        "--maxmemory-policy": "noeviction",
        "--notify-keyspace-events": "Kgxe",
    }


def test_nginx_lets_waits_streams_and_bodies_through(composed: Config) -> None:
    directives = dict(re.findall(r"^ +([a-z_]+) +(.+);$", deployed("nginx.conf"), re.MULTILINE))
    assert directives["proxy_buffering"] == "off"
    assert directives["proxy_http_version"] == "1.1"
    assert seconds(directives["proxy_read_timeout"]) > max(composed.pollux.max_wait_s, 600, HEARTBEAT_S)
    assert directives["client_max_body_size"].endswith("m")
    assert int(directives["client_max_body_size"][:-1]) * 1024**2 > composed.pollux.max_body_bytes
    assert directives["large_client_header_buffers"] == f"4 {LONGEST_LINE_BYTES // 1024}k"
    assert servers_in("nginx.conf", "server") == MACHINE


def test_nginx_and_haproxy_never_send_a_post_twice() -> None:
    nginx = dict(re.findall(r"^ +([a-z_]+) +(.+);$", deployed("nginx.conf"), re.MULTILINE))
    assert nginx["proxy_next_upstream"] == "error timeout"
    assert "\n    http-request disable-l7-retry unless METH_GET\n" in deployed("haproxy.cfg")
    assert "keepalive" not in re.sub("#.*", "", deployed("nginx.conf")), "on a kept connection it may be lost"


def test_haproxy_lets_waits_streams_and_long_lines_through(composed: Config) -> None:
    directives = dict(re.findall(r"^ +((?:timeout )?[a-z.]+) +(\d+)s?$", deployed("haproxy.cfg"), re.MULTILINE))
    for side in ("client", "server"):
        assert int(directives[f"timeout {side}"]) > max(composed.pollux.max_wait_s, 600, HEARTBEAT_S)
    assert int(directives["tune.bufsize"]) == LONGEST_LINE_BYTES
    assert servers_in("haproxy.cfg", r"server \w+") == 2 * MACHINE
    [(inter_s, fall)] = re.findall(r"check inter (\d+)s fall (\d+)", deployed("haproxy.cfg"))
    assert int(inter_s) * (int(fall) + 1) < Pollux().drain_grace_s, "it notices in time"


def listened(file: str) -> int:
    [port] = re.findall(r"^ +listen (\d+);$", deployed(file), re.MULTILINE)
    return int(port)


def servers_in(file: str, beginning: str) -> list[str]:
    return re.findall(rf"^ +{beginning} ([0-9.]+:\d+)", deployed(file), re.MULTILINE)


def seconds(text: str) -> int:
    match = re.fullmatch(r"(\d+)s", text)
    assert match, text
    return int(match[1])
