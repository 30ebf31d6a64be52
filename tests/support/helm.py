"""The Helm chart in `deploy/helm/pollux`, as Helm renders it. `.ci/helm` fetches Helm."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from server.config import Config, parse_config

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "pollux"
TOOLS = ROOT / ".venv-helm" / "bin"
HELM = str(TOOLS / "helm") if (TOOLS / "helm").exists() else shutil.which("helm")
NAMESPACE, RELEASE = "llm", "here"
FULL_NAME = f"{RELEASE}-pollux"

EXAMPLES = sorted(path.stem for path in (CHART / "ci").glob("*.yaml"))
"""Files of values, of which each shows another installation."""


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def helm(*words: str | Path) -> subprocess.CompletedProcess[str]:
    assert HELM is not None
    return run(HELM, *words)


def values_of(example: str) -> Path:
    return CHART / "ci" / f"{example}.yaml"


class Refused(Exception):
    """Helm rendered nothing, and said why."""


@dataclass(frozen=True)
class Rendered:
    """What an installation consists of."""

    text: str
    objects: tuple[dict[str, Any], ...]

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        return [found for found in self.objects if found["kind"] == kind]

    def one(self, kind: str, name: str) -> dict[str, Any]:
        [found] = [found for found in self.of_kind(kind) if found["metadata"]["name"] == name]
        return found

    def pods(self) -> dict[str, dict[str, Any]]:
        """The template of the pods of each role."""
        templates = [deployment["spec"]["template"] for deployment in self.of_kind("Deployment")]
        return {template["metadata"]["labels"]["app.kubernetes.io/component"]: template for template in templates}

    def config_file(self) -> str:
        """What Pollux reads in its pods; nothing, where the file is not the chart's."""
        found = [entry["data"]["config.yaml"] for entry in self.of_kind("ConfigMap") if "config.yaml" in entry["data"]]
        return "".join(found)

    def config(self) -> Config:
        """What Pollux makes of it, when each variable that it names is set."""
        text = self.config_file()
        return parse_config(
            yaml.safe_load(text) or {}, dict.fromkeys(re.findall(r"os\.environ/(\w+)", text), "a-secret")
        )


@functools.cache
def rendered(example: str, *settings: str) -> Rendered:
    """An example's objects, with some values set otherwise (`a.b=JSON`).

    Raises:
        Refused

    """
    words = [word for setting in settings for word in ("--set-json", setting)]
    done = helm("template", RELEASE, CHART, "--namespace", NAMESPACE, "--values", values_of(example), *words)
    if done.returncode != 0:
        raise Refused(done.stderr)
    return Rendered(done.stdout, tuple(found for found in yaml.safe_load_all(done.stdout) if found))
