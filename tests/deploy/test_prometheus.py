"""Alerts and dashboard: Prometheus's own tools accept them, what they speak of exists, and they show something."""

from __future__ import annotations

import asyncio
import re
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.support.prometheus import PROMETHEUS, PROMTOOL, Prometheus, scraping
from tests.support.promql import (
    ALERTS,
    DEPLOY,
    Asked,
    asked_by_panels,
    asked_by_variables,
    dashboard,
    family_of,
    filled,
    mistakes_in,
    names_in,
    panels,
    rules,
    values_of,
)
from tests.support.receiver import answers, running_receiver
from tests.support.replica import CACHED, NATIVE, Replica, create, ended, make_config, running_replica
from tests.support.waiting import wait_until

by_promtool = pytest.mark.skipif(PROMTOOL is None, reason="there is no promtool: it is in Debian's package prometheus")
by_prometheus = pytest.mark.skipif(PROMETHEUS is None, reason="there is no Prometheus: it is in Debian's packages")

RUNBOOK = (DEPLOY / "README.md").read_text(encoding="utf-8")
ALERTS_TOLD = re.findall(r"^### (Pollux\w+)$", RUNBOOK, re.MULTILINE)
each_rule = pytest.mark.parametrize("rule", rules(), ids=[rule["alert"] for rule in rules()])


def promtool(*words: str | Path) -> str:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *words], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# What Prometheus's tool says.


@by_promtool
def test_the_config_of_prometheus_is_one(tmp_path: Path) -> None:
    """Checked as a whole, the alerts included; only the key lies elsewhere in its container."""
    key = tmp_path / "key"
    key.write_text("sk")
    text = (DEPLOY / "prometheus" / "prometheus.yml").read_text()
    moved = text.replace("/etc/prometheus/metrics-key", str(key)).replace("- alerts.yml", f"- {ALERTS}")
    assert moved.count(str(tmp_path)) == moved.count(str(ALERTS)) == 1
    (tmp_path / "prometheus.yml").write_text(moved)
    assert "1 rule files found" in promtool("check", "config", "--lint-fatal", tmp_path / "prometheus.yml")


@by_promtool
def test_the_alerts_fire_when_they_ought_to_and_not_otherwise() -> None:
    assert "SUCCESS" in promtool("test", "rules", DEPLOY / "prometheus" / "alerts.test.yml")


@by_promtool
def test_every_expression_of_the_dashboard_is_one(tmp_path: Path) -> None:
    asked = [*asked_by_panels(), *asked_by_variables()]
    recorded = [{"record": f"panel:{number}", "expr": filled(one.expr)} for number, one in enumerate(asked)]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": recorded}]}))
    assert f"{len(asked)} rules found" in promtool("check", "rules", "--lint-fatal", file)


# What they speak of exists.


@pytest.mark.parametrize("one", [*asked_by_panels(), *asked_by_variables()], ids=lambda one: one.where)
def test_the_dashboard_asks_for_metrics_and_labels_that_exist(one: Asked) -> None:
    assert names_in(one.expr)
    assert list(mistakes_in(one.expr, one.legend)) == []


@each_rule
def test_an_alert_asks_for_metrics_labels_and_values_that_exist(rule: dict[str, Any]) -> None:
    told = " ".join(rule["annotations"].values())
    legend = " ".join(f"{{{{{label}}}}}" for label in re.findall(r"\$labels\.(\w+)", told))
    assert list(mistakes_in(rule["expr"], legend)) == []


@pytest.mark.parametrize("expr", [*(rule["expr"] for rule in rules()), *(one.expr for one in asked_by_panels())])
def test_values_of_labels_are_those_that_the_metric_has(expr: str) -> None:
    for name, matchers in re.findall(r"\b(pollux_\w+)\{([^}]*)\}", expr):
        for label, value in re.findall(r'(\w+)(?:=~|!~|!=|=)"([^"]*)"', matchers):
            family = family_of(name)
            assert family is not None
            if (known := values_of(family, label)) and "$" not in value:
                assert set(value.split("|")) <= known, f"{name} never has {label}={value}"


_LIKE_A_METRIC = re.compile(
    r"\bpollux_[a-z_]+_(?:total|seconds|bytes|bucket|sum|count|queued|leased|active|down|info)\b"
)
"""Other words begin like this too: names of environment variables and of helpers of the chart."""


def test_nothing_in_deploy_names_a_metric_that_there_is_not() -> None:
    texts = {path: path.read_text() for path in DEPLOY.rglob("*") if path.suffix in {".md", ".yml", ".yaml", ".tpl"}}
    found = {(path.name, name) for path, text in texts.items() for name in _LIKE_A_METRIC.findall(text)}
    assert len(found) > 50
    assert {(path, name) for path, name in found if not (family_of(name) or family_of(f"{name}_count"))} == set()


# Alerts and the runbook.


@each_rule
def test_an_alert_says_what_to_do_and_where_to_read_on(rule: dict[str, Any]) -> None:
    assert rule["labels"] in ({"severity": "page"}, {"severity": "ticket"})
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    for text in (rule["annotations"]["summary"], rule["annotations"]["description"]):
        assert text.endswith((".", "?"))
    assert rule["annotations"]["runbook_url"] == f"deploy/README.md#{rule['alert'].lower()}"


def test_the_runbook_has_an_entry_for_each_alert_and_no_other() -> None:
    assert [rule["alert"] for rule in rules()] == ALERTS_TOLD


@each_rule
def test_an_entry_says_how_urgent_it_is_where_to_look_and_what_to_do(rule: dict[str, Any]) -> None:
    entry = RUNBOOK.partition(f"### {rule['alert']}\n")[2].partition("\n#")[0]
    assert entry.startswith(f"{rule['labels']['severity'].capitalize()}. ")
    assert [line for line in entry.splitlines() if line.startswith("- **Look**: ")]
    assert [line for line in entry.splitlines() if line.startswith("- **Do**: ")]


def test_each_alert_is_tried_where_it_fires_and_where_it_is_silent() -> None:
    fired: dict[str, int] = {}
    looks = silent = 0
    for test in yaml.safe_load((DEPLOY / "prometheus" / "alerts.test.yml").read_text())["tests"]:
        for look in test.get("promql_expr_test", ()):
            assert look["expr"] == 'ALERTS{alertstate="firing"}', "all that fires, so the others are silent"
            names = {re.findall(r'alertname="(\w+)"', sample["labels"])[0] for sample in look["exp_samples"]}
            looks, silent = looks + 1, silent + (not names)
            fired |= {name: fired.get(name, 0) + 1 for name in names}
    assert sorted(fired) == sorted(rule["alert"] for rule in rules())
    assert silent > looks / 3


# The dashboard, as Grafana's schema has it.


def test_grafana_knows_every_field_of_the_dashboard() -> None:
    """Its models read the dashboard, and write it again: what they did not know is not there any more."""
    register_default_plugins()
    ours = dashboard()
    read = JSONEncoder().encode(Dashboard.from_json(dashboard()))
    # What Prometheus's own annotations are called in the picture: the models leave that to the data source.
    assert [found for found in lost(ours, yaml.safe_load(read)) if ".titleFormat:" not in found] == []


def lost(ours: Any, theirs: Any, path: str = "") -> list[str]:
    """What is not the same in both. They may have more: their defaults."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return [found for key, value in ours.items() for found in lost(value, theirs.get(key), f"{path}.{key}")]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = enumerate(zip(ours, theirs, strict=True))
        return [found for number, (one, other) in pairs for found in lost(one, other, f"{path}[{number}]")]
    return [] if ours == theirs else [f"{path}: {ours!r} became {theirs!r}"]


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_a_panel_explains_itself(panel: dict[str, Any]) -> None:
    assert panel["description"].endswith(".")
    assert panel["type"] == "table" or panel["type"] == "state-timeline" or panel["fieldConfig"]["defaults"]["unit"]
    assert [target["refId"] for target in panel["targets"]] == list("ABCDEFGH"[: len(panel["targets"])])
    for target in panel["targets"]:
        assert target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert len(panel["targets"]) == 1 or target["legendFormat"], "several lines need names"
        assert target.get("exemplar", False) <= ("_bucket{" in target["expr"]), "only histograms have exemplars"
        if "ALERTS" not in target["expr"]:
            assert target["expr"].count('namespace=~"$namespace", job="$job", instance=~"$instance"') == len(
                re.findall(r"\b(?:pollux_\w+|process_\w+|up)\{", target["expr"])
            ), "what is chosen above is chosen everywhere"


def test_no_panel_lies_on_another_one() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert max(x for x, _ in cells) < 24
        assert not taken & cells, panel["title"]
        taken |= cells
    for key in ("id", "title"):
        found = [panel[key] for panel in dashboard()["panels"]]
        assert len(found) == len(set(found)), key


def test_grafana_finds_its_data_and_the_dashboard() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    [source] = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    every = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["global"]["scrape_interval"]
    assert (source["type"], source["jsonData"]["timeInterval"]) == ("prometheus", every)
    [provider] = yaml.safe_load((provisioning / "dashboards" / "pollux.yaml").read_text())["providers"]
    mounts = mounts_of("grafana")
    assert mounts["./grafana/provisioning"] == "/etc/grafana/provisioning"
    assert mounts["./grafana/dashboards"] == provider["options"]["path"]


def test_compose_has_what_its_prometheus_is_told_of() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    told = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    folder = mounts_of("prometheus")["./prometheus"]
    assert f"--config.file={folder}/prometheus.yml" in services["prometheus"]["command"]
    scraped, itself = told["scrape_configs"]
    assert [file["target"] for file in services["prometheus"]["configs"]] == [
        scraped["authorization"]["credentials_file"]
    ]
    hosts = {target.partition(":")[0] for target in scraped["static_configs"][0]["targets"]}
    assert hosts == {name for name in services if name.startswith("pollux-")}
    assert itself["static_configs"][0]["targets"] == ["localhost:9090"]


def mounts_of(service: str) -> dict[str, str]:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    return dict(mount.split(":")[:2] for mount in services[service]["volumes"])


# A Prometheus that scrapes a Pollux.

EMPTY = {
    "Store memory A": "the store of the tests has no limit of its memory",
    "Store memory, and its limit B": "the store of the tests has no limit of its memory",
    "Starts of processes": "nothing is started again",
}
"""What has nothing to show in the test, and why."""


async def load(pollux: Replica) -> None:
    """One of everything that a panel tells of."""
    async with pollux.http() as http:
        ids = [await create(pollux, "[[words=5]]") for _ in range(3)]
        ids += [await create(pollux, "[[words=5]]", stream=True), await create(pollux, "[[status=400]]")]
        await asyncio.gather(*(ended(http, one) for one in ids))
        for body in ({"input": "proxied"}, {"input": "proxied", "stream": True}):
            await (await http.post("responses", json={"model": CACHED, **body})).read()
        await http.post("responses", json={"model": NATIVE, "input": "native", "background": True})
        await (await http.get(f"responses/{ids[3]}?stream=true")).read()
        await http.get("responses/litellm_poll_unknown")


@by_prometheus
async def test_every_panel_shows_something_and_every_alert_can_be_evaluated(
    simulator: str, store_url: str, tmp_path: Path
) -> None:
    async with running_receiver() as receiver:
        receiver.behaviour["/"] = answers(200)
        hooks = [{"url": f"{receiver.url}/", "secret": "whsec_" + "c2VjcmV0IG9mIHRoZSBjb25maWcgMTIzNDU2Nzg5MA=="}]
        config = make_config(simulator, webhooks=hooks, webhook_allow_private=True)
        async with running_replica(config, store_url) as pollux, scraping(pollux, tmp_path) as prometheus:
            asked = {one.where: filled(one.expr, "15s") for one in (*asked_by_panels(), *asked_by_variables())}
            left = asked.keys() - EMPTY.keys()
            with suppress(AssertionError):
                await wait_until(lambda: _loaded(pollux, prometheus, asked, left), timeout_s=20)
            assert not left, "these show nothing"
            for where in EMPTY:
                assert await prometheus.value(asked[where]) == [], where
            found = (await prometheus.ask("rules"))["groups"]
            evaluated = [rule for group in found for rule in group["rules"]]
            well = [rule["name"] for rule in evaluated if rule["health"] == "ok"]
            assert sorted(well) == sorted(rule["alert"] for rule in rules())
            assert [rule["name"] for rule in evaluated if rule["state"] == "firing"] == []
            assert (tmp_path / "prometheus.log").read_text() == "", "no warning"


async def _loaded(pollux: Replica, prometheus: Prometheus, asked: dict[str, str], left: set[str]) -> bool:
    """Give it more to do, and take from `left` what has something to show by now."""
    await load(pollux)
    told = sorted(left)
    found = await asyncio.gather(*(prometheus.value(asked[where]) for where in told))
    left -= {where for where, series in zip(told, found, strict=True) if series}
    return not left
