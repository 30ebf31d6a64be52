"""What Prometheus and Grafana are told in `deploy/`: alerts, and the expressions of the dashboard."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from server.metrics import FAMILIES, Family, Kind

DEPLOY = Path(__file__).parents[2] / "deploy"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "pollux.json"

OF_TARGETS = {"namespace", "job", "instance"}
"""Labels that Prometheus gives to everything that it scrapes."""
OF_OTHERS = {
    "up": set[str](),
    "ALERTS": {"alertname", "alertstate"},
    "process_start_time_seconds": {"process"},
    "process_cpu_seconds_total": {"process"},
    "process_resident_memory_bytes": {"process"},
    "process_open_fds": {"process"},
    "process_max_fds": {"process"},
}
"""Metrics that are not in our table, and their labels."""


@dataclass(frozen=True)
class Asked:
    """An expression, and where it stands."""

    where: str
    expr: str
    legend: str = ""


def rules() -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return found


def panels() -> list[dict[str, Any]]:
    """The panels that show something."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def asked_by_panels() -> list[Asked]:
    return [
        Asked(f"{panel['title']} {target['refId']}", target["expr"], target["legendFormat"])
        for panel in panels()
        for target in panel["targets"]
    ]


def asked_by_variables() -> list[Asked]:
    """What Grafana asks for the values of a variable, and for annotations."""
    found = dashboard()
    variables = [
        Asked(variable["name"], match[1], f"{{{{{match[2]}}}}}")
        for variable in found["templating"]["list"]
        if variable["type"] == "query"
        and (match := re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"]))
    ]
    notes = [Asked(note["name"], note["expr"], note["titleFormat"]) for note in found["annotations"]["list"]]
    return variables + notes


def filled(expr: str, window: str = "5m", **chosen: str) -> str:
    """An expression as Grafana sends it: its own variables, and what was chosen of ours; everything, where nothing was.

    Raises:
        ValueError: it uses a variable that the dashboard does not have

    """
    known = {variable["name"]: ".*" for variable in dashboard()["templating"]["list"]}
    known |= {"__rate_interval": window, "__range": window, "__interval": window, "job": "pollux"} | chosen
    for name in sorted(known, key=len, reverse=True):
        expr = expr.replace(f"${name}", known[name])
    if "$" in expr:
        raise ValueError(f"no variable: {expr}")
    return expr


# What an expression speaks of.

_NAME = re.compile(r"\b(?:pollux_\w+|process_\w+|up(?=\{)|ALERTS)\b")
_SELECTOR = re.compile(r"\b(pollux_\w+|process_\w+|up|ALERTS)\{([^}]*)\}")
_LABELS = re.compile(r"\b(?:by|on) \(([^)]*)\)")


def names_in(text: str) -> set[str]:
    return set(_NAME.findall(text))


def family_of(name: str) -> Family | None:
    """The family that a name belongs to, as it is in the table or as a part of a histogram."""
    for family in FAMILIES:
        parts = [f"{family.name}_{part}" for part in ("bucket", "sum", "count")]
        if name == family.name and family.kind is not Kind.HISTOGRAM:
            return family
        if family.kind is Kind.HISTOGRAM and name in parts:
            return family
    return None


def labels_of(name: str) -> set[str]:
    """The labels that the series of this name have.

    Raises:
        LookupError: there is no such metric

    """
    if name in OF_OTHERS:
        return OF_OTHERS[name] | OF_TARGETS
    family = family_of(name)
    if family is None:
        raise LookupError(f"there is no metric {name}")
    return {*family.labels, *OF_TARGETS} | ({"le"} if name.endswith("_bucket") else set())


def mistakes_in(expr: str, legend: str = "") -> Iterator[str]:
    """Metrics and labels that an expression, or its legend, names although there are none."""
    names = names_in(expr)
    for name in names:
        if name not in OF_OTHERS and family_of(name) is None:
            yield f"there is no metric {name}"
            return
    for name, matchers in _SELECTOR.findall(expr):
        for label in re.findall(r"(\w+)(?:=~|!~|!=|=)\"", matchers):
            if label not in labels_of(name):
                yield f"{name} has no label {label}"
    there: set[str] = set().union(*map(labels_of, names)) if names else set()
    grouped = {label for group in _LABELS.findall(expr) for label in re.split(r",\s*", group)}
    yield from (f"nothing has the label {label}: {expr}" for label in sorted(grouped - there))
    # Of two operands the first one decides what is left.
    first = set(re.split(r",\s*", ", ".join(_LABELS.findall(re.split(r" (?:and|or|unless) ", expr)[0]))))
    kept = (first - {""} or there) - {"le"}
    for label in re.findall(r"{{\s*(\w+)\s*}}", legend):
        if label not in kept:
            yield f"the legend names {label}, which is not left: {expr}"


def values_of(family: Family, label: str) -> set[str]:
    """The values of a label, as the meaning of the metric lists them: "outcome: told, again (…)". Else none."""
    told = re.search(rf"\b{label}: (.*?)(?:\. |\.$)", re.sub(r"\([^)]*\)", "", family.help))
    return set(re.findall(r"[a-zA-Z_]+", told[1])) if told else set()
