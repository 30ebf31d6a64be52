"""The Helm chart: real tools accept what it renders, and what it renders fits Pollux."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

import server
from server.api.routes.table import PREFIXES, PROBES
from server.check import describe
from server.config import CERT_VARIABLE, KEY_VARIABLE, Config
from server.metrics.families import LEASED, QUEUED
from server.process.app import HANDLERS_END_WITHIN_S
from server.process.assembly import Role
from storage.keys import Shard
from tests.support.helm import (
    CHART,
    EXAMPLES,
    FULL_NAME,
    HELM,
    NAMESPACE,
    ROOT,
    TOOLS,
    Refused,
    helm,
    rendered,
    run,
    values_of,
)
from tests.support.parsing import parsed
from tests.support.prometheus import PROMTOOL
from tests.support.promql import ALERTS, DASHBOARD, dashboard, rules
from tests.test_docs import instructions, seconds

by_helm = pytest.mark.skipif(HELM is None, reason="there is no Helm: .ci/helm fetches it")
by_schemas = pytest.mark.skipif(
    HELM is None or not (TOOLS / "kubernetes-validate").exists(), reason="there are no schemas: .ci/helm fetches them"
)
each_example = pytest.mark.parametrize("example", EXAMPLES)

[OLDEST] = re.findall(r"^kubeVersion: \">=(\d+\.\d+)\.", (CHART / "Chart.yaml").read_text(), re.MULTILINE)
CUSTOM = {"PrometheusRule", "ScaledObject", "ServiceMonitor"}
"""Kinds that Kubernetes does not know by itself."""


# What tools say.


@by_helm
@each_example
def test_helm_finds_nothing_to_complain_of(example: str) -> None:
    done = helm("lint", "--strict", CHART, "--values", values_of(example))
    assert done.returncode == 0, done.stdout
    assert "WARNING" not in done.stdout


@by_schemas
@pytest.mark.parametrize("version", [(), ("--kubernetes-version", OLDEST)], ids=["newest", "oldest"])
def test_kubernetes_would_take_every_object(version: tuple[str, ...], tmp_path: Path) -> None:
    files = [_written(example, tmp_path) for example in EXAMPLES]
    done = run(TOOLS / "kubernetes-validate", "--strict", *version, *files)
    assert done.returncode == 0, done.stdout + done.stderr
    unknown = re.findall(r"find schema for kind (\w+)", done.stdout + done.stderr)
    assert set(unknown) == CUSTOM
    passed = re.findall(r"^INFO .* passed", done.stdout + done.stderr, re.MULTILINE)
    assert len(passed) + len(unknown) == sum(len(rendered(example).objects) for example in EXAMPLES)


@by_schemas
def test_keda_and_the_prometheus_operator_would_take_theirs(tmp_path: Path) -> None:
    """Their models read each object, and write it again: what they did not know is not there any more."""
    script = """if True:
        import sys, yaml
        from cloudcoil.models.keda.v1alpha1 import ScaledObject
        from cloudcoil.models.prometheus_operator.v1 import PrometheusRule, ServiceMonitor
        for name in sys.argv[1:]:
            for found in filter(None, yaml.safe_load_all(open(name))):
                for model in (PrometheusRule, ScaledObject, ServiceMonitor):
                    if found["kind"] == model.__name__:
                        read = model.model_validate(found).model_dump(mode="json", by_alias=True, exclude_unset=True)
                        assert read["spec"] == found["spec"], (read, found)
                        print(found["kind"])
    """
    done = run(TOOLS / "python", "-c", script, *(_written(example, tmp_path) for example in EXAMPLES))
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == CUSTOM


def _written(example: str, folder: Path) -> Path:
    file = folder / f"{example}.yaml"
    file.write_text(rendered(example).text)
    return file


# What can't work is refused, with a reason.


@by_helm
@pytest.mark.parametrize(
    ("example", "settings", "reason"),
    [
        ("existing", ['existingConfig.secret=""'], "there is no config"),
        ("minimal", ['configFile="model_list: []"'], "config and configFile are both set"),
        ("minimal", ['existingConfig.secret="x"'], "existingConfig and config"),
        ("file", ['configFile="a: [b"'], "configFile is no YAML"),
        ("minimal", ['secrets.LITELLM_MASTER_KEY=""'], "there is no key"),
        ("minimal", ['store.url=""'], "there is no store"),
        ("embedded", ["all.replicas=2"], "the embedded store serves one pod"),
        ("embedded", ['layout="split"'], "the embedded store serves one pod"),
        ("embedded", ["all.autoscaling.enabled=true"], "the embedded store serves one pod"),
        ("embedded", ['store.url="redis://x"'], "another store is named"),
        ("production", ["worker.autoscaling.enabled=true"], "worker.autoscaling and worker.keda"),
        ("existing", ['worker.keda.redis.address=""'], "worker.keda.redis.address is not set"),
        ("existing", ["worker.keda.minReplicas=0"], "nothing would begin"),
        ("minimal", ['config.pollux.drain_s="os.environ/X"'], "set terminationGracePeriodSeconds"),
        ("minimal", ["api.replica=3"], "'replica' not allowed"),
        ("minimal", ['layout="both"'], "must be one of"),
        ("minimal", ["ingress.enabled=true"], "/ingress/hosts"),
        ("minimal", ['store.url="redis:6379"'], "/store/url"),
    ],
)
def test_what_can_not_work_is_refused(example: str, settings: list[str], reason: str) -> None:
    with pytest.raises(Refused, match=re.escape(reason)):
        rendered(example, *settings)


@by_helm
@pytest.mark.parametrize(
    "settings",
    [
        ['secrets.LITELLM_MASTER_KEY=""', 'config.pollux.keys=[{"name": "a", "key": "os.environ/A"}]'],
        ['secrets.LITELLM_MASTER_KEY=""', 'config.general_settings.master_key="os.environ/A"'],
        ['secrets.LITELLM_MASTER_KEY=""', 'existingSecrets=["ours"]'],
        ['store.url=""', 'store.existingSecret.name="ours"'],
        ['store.url=""', 'config.pollux.store="redis://redis"'],
        ['store.url=""', 'config.litellm_settings.cache_params={"type": "redis"}'],
    ],
)
def test_keys_and_a_store_may_come_in_several_ways(settings: list[str]) -> None:
    assert rendered("minimal", *settings).pods()


# What is rendered fits Pollux.


@by_helm
@each_example
def test_containers_start_pollux_in_their_role(example: str) -> None:
    [image] = instructions("ENTRYPOINT")
    pods = rendered(example).pods()
    assert set(pods) in ({"api", "worker"}, {"all"})
    for role, pod in pods.items():
        container = _container(pod)
        assert "command" not in container, "it starts as the image does"
        arguments = parsed([*image[image.index("pollux") + 1 :], *container["args"]])
        assert arguments.role is Role(role)
        assert [arguments.port] == [port["containerPort"] for port in container["ports"] if port["name"] == "http"]
        [mount] = [mount for mount in container["volumeMounts"] if mount["name"] == "config"]
        assert Path(mount["mountPath"]) / "config.yaml" == arguments.config


@by_helm
@each_example
def test_probes_ask_what_pollux_answers(example: str) -> None:
    answered = {row.path: row.handler.__name__ for row in PROBES if row.method == "GET"}
    for pod in rendered(example).pods().values():
        container = _container(pod)
        asked = {probe: container[f"{probe}Probe"]["httpGet"] for probe in ("startup", "liveness", "readiness")}
        assert {get["port"] for get in asked.values()} == {"http"}
        assert {probe: answered[get["path"]] for probe, get in asked.items()} == {
            "startup": "livez",
            "liveness": "livez",
            "readiness": "readyz",
        }


@by_helm
@pytest.mark.parametrize("secret", ["", "pollux-tls"])
def test_pods_speak_tls_where_a_secret_is_named_and_are_asked_by_it(secret: str) -> None:
    found = rendered("production", f'tls.secretName="{secret}"')
    for pod in found.pods().values():
        container = _container(pod)
        schemes = {
            container[f"{probe}Probe"]["httpGet"].get("scheme") for probe in ("startup", "liveness", "readiness")
        }
        assert schemes == ({"HTTPS"} if secret else {None})
        given = {variable["name"]: variable.get("value", "") for variable in container.get("env", ())}
        files = [given[name] for name in (CERT_VARIABLE, KEY_VARIABLE) if name in given]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert files == ([f"{mounts['tls']}/tls.crt", f"{mounts['tls']}/tls.key"] if secret else [])
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        assert ("tls" in volumes) == bool(secret)
    assert ("scheme: https" in found.text) == bool(secret)


@by_helm
@each_example
@pytest.mark.parametrize("slept", [0, 7])
def test_pods_have_the_time_to_drain(example: str, slept: int) -> None:
    found = rendered(example, f"preStopSeconds={slept}", "terminationGracePeriodSeconds=null")
    for role, pod in found.pods().items():
        patience = pod["spec"]["terminationGracePeriodSeconds"]
        before = _container(pod).get("lifecycle", {}).get("preStop", {"sleep": {"seconds": 0}})["sleep"]["seconds"]
        assert before == (0 if role == "worker" else slept), "only those that answer clients wait for load balancers"
        assert patience > before + drain_of(found.config()) + HANDLERS_END_WITHIN_S


def drain_of(config: Config) -> float:
    """All that a process may take from SIGTERM on, until its handlers have to end."""
    return float(sum(value for name, value in config.pollux.model_dump().items() if name.startswith("drain_")))


@by_helm
@pytest.mark.parametrize("example", [name for name in EXAMPLES if name != "existing"])
def test_the_config_arrives_as_it_was_written(example: str) -> None:
    values = yaml.safe_load(values_of(example).read_text())
    written = values["config"] if "config" in values else yaml.safe_load(values["configFile"])
    assert yaml.safe_load(rendered(example).config_file()) == written
    assert "warning" not in describe(rendered(example).config())


@by_helm
def test_a_whole_config_can_be_given_as_a_file(tmp_path: Path) -> None:
    whole = ROOT / "deploy" / "config.example.yaml"
    done = helm(
        *("template", "x", CHART, "--set-file", f"configFile={whole}"),
        *("--set", "secrets.LITELLM_MASTER_KEY=sk-1234", "--set", "store.url=redis://redis"),
    )
    [found] = [entry for entry in yaml.safe_load_all(done.stdout) if entry["kind"] == "ConfigMap"]
    assert yaml.safe_load(found["data"]["config.yaml"]) == yaml.safe_load(whole.read_text())


@by_helm
@each_example
def test_pods_are_restricted(example: str) -> None:
    """What Kubernetes calls the restricted Pod Security Standard, and further no token, no write, no stray variable."""
    for pod in rendered(example).pods().values():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert instructions("USER") == [["{runAsUser}:{runAsGroup}".format_map(spec["securityContext"])]]
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert _container(pod)["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    for account in rendered(example).of_kind("ServiceAccount"):
        assert account["automountServiceAccountToken"] is False


@by_helm
@each_example
def test_what_names_another_object_names_one_that_is_there(example: str) -> None:
    found = rendered(example)
    pods = {role: pod["metadata"]["labels"] for role, pod in found.pods().items()}
    answering = "all" if "all" in pods else "api"
    for role in pods:
        deployment = found.one("Deployment", f"{FULL_NAME}-{role}")
        assert _selected(deployment["spec"]["selector"]["matchLabels"], pods) == {role}
        assert _selected(
            found.one("PodDisruptionBudget", f"{FULL_NAME}-{role}")["spec"]["selector"]["matchLabels"], pods
        ) == {role}
        for constraint in deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]:
            assert _selected(constraint["labelSelector"]["matchLabels"], pods) == {role}
        scaled = [s for kind in ("HorizontalPodAutoscaler", "ScaledObject") for s in found.of_kind(kind)]
        targets = [scaler["spec"]["scaleTargetRef"]["name"] for scaler in scaled]
        assert ("replicas" in deployment["spec"]) == (targets.count(deployment["metadata"]["name"]) == 0)
        assert targets.count(deployment["metadata"]["name"]) <= 1
    assert _selected(found.one("Service", FULL_NAME)["spec"]["selector"], pods) == {answering}
    for policy in found.of_kind("NetworkPolicy"):
        whom = _selected(policy["spec"]["podSelector"]["matchLabels"], pods)
        assert whom == ({answering} if policy["metadata"]["name"].endswith("-clients") else set(pods))
    for monitor in found.of_kind("ServiceMonitor"):
        watched = [
            s
            for s in found.of_kind("Service")
            if monitor["spec"]["selector"]["matchLabels"].items() <= s["metadata"]["labels"].items()
        ]
        assert [_selected(service["spec"]["selector"], pods) for service in watched] == [set(pods)]
        assert {endpoint["path"] for endpoint in monitor["spec"]["endpoints"]} <= {row.path for row in PROBES}
    for ingress in found.of_kind("Ingress"):
        for rule in ingress["spec"]["rules"]:
            assert {path["backend"]["service"]["name"] for path in rule["http"]["paths"]} == {FULL_NAME}


@by_helm
def test_alerts_and_dashboard_are_those_of_deploy_for_the_pods_of_this_release(tmp_path: Path) -> None:
    found = rendered("production")
    [monitored] = [service for service in found.of_kind("Service") if service["metadata"]["name"].endswith("-metrics")]
    groups = found.one("PrometheusRule", FULL_NAME)["spec"]["groups"]
    rendered_rules = [rule for group in groups for rule in group["rules"]]
    job = f'job="{monitored["metadata"]["name"]}", namespace="{NAMESPACE}"'
    for ours, theirs in zip(rendered_rules, rules(), strict=True):
        assert ours["expr"] == theirs["expr"].replace('job="pollux"', job)
        assert ours["annotations"]["runbook_url"] == f"https://wiki.example.com/pollux#{theirs['alert'].lower()}"
    if PROMTOOL:
        file = tmp_path / "rules.yml"
        file.write_text(yaml.safe_dump({"groups": groups}))
        assert run(PROMTOOL, "check", "rules", "--lint-fatal", file).returncode == 0
    shown = found.one("ConfigMap", f"{FULL_NAME}-dashboard")
    assert shown["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(shown["data"][f"{FULL_NAME}.json"]) == dashboard()


@by_helm
def test_a_packed_chart_has_the_files_that_it_links_to(tmp_path: Path) -> None:
    assert helm("package", CHART, "--destination", tmp_path).returncode == 0
    [archive] = tmp_path.glob("*.tgz")
    with tarfile.open(archive) as packed:
        for name, file in (("alerts.yml", ALERTS), ("dashboard.json", DASHBOARD)):
            content = packed.extractfile(f"pollux/files/{name}")
            assert content is not None
            assert content.read() == file.read_bytes()


def _selected(labels: dict[str, str], pods: dict[str, dict[str, str]]) -> set[str]:
    return {role for role, has in pods.items() if labels.items() <= has.items()}


@by_helm
@pytest.mark.parametrize("change", ["config.pollux.lease_s=20", 'secrets.OPENAI_API_KEY="sk-other"'])
def test_a_change_of_config_or_secret_restarts_the_pods(change: str) -> None:
    before, after = rendered("minimal").pods(), rendered("minimal", change).pods()
    assert all(before[role]["metadata"] != after[role]["metadata"] for role in before)


@by_helm
def test_the_embedded_store_has_a_volume_of_its_own_and_one_pod() -> None:
    found = rendered("embedded")
    deployment = found.one("Deployment", f"{FULL_NAME}-all")
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    spec = deployment["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    mounted = {
        mount["mountPath"]: volumes[mount["name"]]
        for mount in _container(deployment["spec"]["template"])["volumeMounts"]
    }
    claim = mounted["/var/lib/pollux"]["persistentVolumeClaim"]["claimName"]
    assert found.one("PersistentVolumeClaim", claim)
    assert "emptyDir" in mounted["/tmp"], "its socket is there"
    [store] = [v["value"] for v in _container(deployment["spec"]["template"])["env"] if v["name"] == "POLLUX_STORE"]
    assert Path(store.removeprefix("embedded://")).is_relative_to("/var/lib/pollux")


@by_helm
def test_workers_scale_by_jobs_before_they_are_full() -> None:
    [by_metric] = rendered("production").of_kind("ScaledObject")
    [trigger] = by_metric["spec"]["triggers"]
    assert re.findall(r"max\((\w+)\{", trigger["metadata"]["query"]) == [QUEUED.name, LEASED.name]
    [service] = [s for s in rendered("production").of_kind("Service") if s["spec"].get("clusterIP") == "None"]
    assert f'job="{service["metadata"]["name"]}"' in trigger["metadata"]["query"]
    room = rendered("production").config().pollux.worker_concurrency
    assert int(trigger["metadata"]["threshold"]) < room

    [by_redis] = rendered("existing").of_kind("ScaledObject")
    [trigger] = by_redis["spec"]["triggers"]
    assert trigger["metadata"]["listName"] == Shard(0).leases
    twice = rendered("existing", "worker.keda.jobsPerPod=null", "worker.processes=2").of_kind("ScaledObject")
    assert int(twice[0]["spec"]["triggers"][0]["metadata"]["listLength"]) == 1400


@by_helm
def test_the_ingress_lets_waits_streams_and_bodies_through() -> None:
    [ingress] = rendered("production").of_kind("Ingress")
    said = {name.rpartition("/")[2]: value for name, value in ingress["metadata"]["annotations"].items()}
    assert said["proxy-buffering"] == "off"
    config = Config()
    assert int(said["proxy-read-timeout"]) == seconds(_nginx("proxy_read_timeout")) > config.pollux.max_wait_s
    assert said["proxy-body-size"] == _nginx("client_max_body_size")
    paths = [path["path"] for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]]
    assert set(paths) <= set(PREFIXES)
    assert not [row.path for row in PROBES if row.path.startswith(tuple(paths))], "these are asked of each pod"


def _nginx(directive: str) -> str:
    [value] = re.findall(rf"^ +{directive} +(.+);$", (ROOT / "deploy" / "nginx.conf").read_text(), re.MULTILINE)
    return str(value)


def _container(pod: dict[str, Any]) -> dict[str, Any]:
    [found] = [container for container in pod["spec"]["containers"] if container["name"] == "pollux"]
    assert isinstance(found, dict)
    return found


# What is written about the chart. None of this needs Helm.


def test_the_chart_is_of_this_version() -> None:
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == server.__version__


def test_the_schema_knows_every_value_and_no_other() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert set(_paths(schema, schema)) - {"global"} == set(_leaves(values, schema))


def _paths(node: dict[str, Any], schema: dict[str, Any], before: str = "") -> set[str]:
    """Every value that a schema describes; below one that may have any keys there is none."""
    node = schema["$defs"][node["$ref"].rpartition("/")[2]] if "$ref" in node else node
    if node.get("additionalProperties") is not False:
        return {before}
    return {
        path
        for name, below in node["properties"].items()
        for path in _paths(below, schema, f"{before}.{name}".lstrip("."))
    }


def _leaves(values: Any, schema: dict[str, Any], before: str = "") -> set[str]:
    known = _paths(schema, schema)
    if before in known or not isinstance(values, dict):
        return {before}
    return {path for name, below in values.items() for path in _leaves(below, schema, f"{before}.{name}".lstrip("."))}


@pytest.mark.parametrize("file", ["deploy/README.md", "deploy/helm/pollux/README.md"])
def test_values_that_are_written_about_are_there(file: str) -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    named = re.findall(r"--set(?:-file|-json)? '?([A-Za-z.]+)[\[=]", (ROOT / file).read_text())
    assert named
    for path in named:
        node = values
        for name in path.split("."):
            if node == {}:
                break  # any key may stand there
            assert name in node, path
            node = node[name]
