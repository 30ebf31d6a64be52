"""What the endpoints of one simulator share."""

from dataclasses import dataclass, field

from aiohttp import web

from server.simulator.failures import Failures
from server.simulator.pace import Pace
from server.simulator.responses.runs import Runs
from server.simulator.traffic import Traffic


@dataclass(frozen=True, slots=True)
class Simulator:
    """The state of one simulator, all in memory."""

    api_key: str | None
    runs: Runs = field(default_factory=Runs)
    failures: Failures = field(default_factory=Failures)
    pace: Pace = field(default_factory=Pace)
    traffic: Traffic = field(default_factory=Traffic)


SIMULATOR = web.AppKey("simulator", Simulator)
