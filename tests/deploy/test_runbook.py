"""The runbook: the limits that it names are those of the config."""

from __future__ import annotations

import re

import pytest

from server.config.ours import Pollux
from server.config.sections import BackgroundModeSection
from tests.support.balancers import DEPLOY

RUNBOOK = (DEPLOY / "README.md").read_text(encoding="utf-8")
LIMITS = re.findall(
    r"^\| `([\w.]+)` \| (\w+) \|", RUNBOOK.partition("\n## Limits\n")[2].partition("\n## ")[0], re.MULTILINE
)


def test_there_are_limits() -> None:
    assert len(LIMITS) > 10


@pytest.mark.parametrize(("name", "default"), LIMITS)
def test_a_limit_is_what_the_config_says(name: str, default: str) -> None:
    field = {**Pollux.model_fields, "responses.background_mode.ttl": BackgroundModeSection.model_fields["ttl"]}[name]
    assert str(field.default).lower() == default
