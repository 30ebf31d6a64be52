"""What jobs, deployments, processes, counts and usage look like. All of it is Pollux's own."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from server.api.models.base import Described
from server.api.models.response import ResponseStatus

Unix = float


class JobDeployment(Described):
    """The deployment that a job ran on."""

    id: str = Field(description="Its id.")
    model: str | None = Field(None, description="The provider's name of the model.")
    provider: str | None = Field(None, description="The provider.")


class JobTokens(Described):
    """The tokens of a job."""

    input: int = Field(description="Those of the input.")
    output: int = Field(description="Those of the output.")


class Job(Described):
    """What has become of a response, without what was asked and answered. Times are seconds of Unix's time."""

    id: str = Field(description="The response.")
    object: Literal["job"]
    status: ResponseStatus
    model: str = Field(description="The model, as the request named it.")
    owner: str | None = Field(None, description="Whose it is, for the master key alone.")
    stream: bool = Field(description="Whether it was created with `stream: true`.")
    created_at: float = Field(description="When it was created.")
    started_at: float | None = Field(description="When a worker first took it.")
    first_event_at: float | None = Field(description="When the provider's first event came.")
    ended_at: float | None = Field(description="When it ended.")
    attempts: int = Field(description="How often it was begun.")
    events: int = Field(description="How many events it has.")
    deployment: JobDeployment | None = Field(description="Where it ran.")
    worker: str | None = Field(description="The process that ran it last, for the master key alone.")
    tokens: JobTokens | None = Field(description="What it took.")
    error: str | None = Field(description="The code of its error.")
    metadata: Any = Field(description="Its metadata.")


class FailedTry(Described):
    """A try that failed, so that another was made."""

    at: float = Field(description="When.")
    model: str = Field(description="The model.")
    deployment: str | None = Field(description="The deployment that was asked.")
    code: str | None = Field(description="The code of the error.")
    reason: str = Field(description="The error in words.")


class Phase(Described):
    """A part of a job's life."""

    phase: Literal["queued", "run"]
    from_: float | None = Field(alias="from", description="Since when.")
    until: float | None = Field(description="Until when; null if it goes on.")
    attempt: int | None = Field(None, description="Of a run: which attempt it is.")
    worker: str | None = Field(None, description="Of a run: its process.")
    reclaimed: bool | None = Field(None, description="Of a run: whether it took over from one that was lost.")
    released: bool | None = Field(
        None, description="Of a run: whether it gave the job back, because its process ended."
    )
    failed_tries: list[FailedTry] | None = Field(None, description="Of a run: the tries that failed, and why.")


class JobWithLife(Job):
    """A job with what it has lived through."""

    life: list[Phase] = Field(description="Its phases, in order.")


class JobList(Described):
    """A page of jobs."""

    object: Literal["list"]
    data: list[Job] = Field(description="Newest first, or in the order of the ids that were asked for.")
    has_more: bool = Field(description="Whether there is another page.")
    next_page: str | None = Field(description="What `page` of the next one is.")


class DeploymentStatus(Described):
    """How a deployment does, at all replicas together. Calls are those of the last `within_s` seconds."""

    id: str = Field(description="Its id.")
    object: Literal["deployment"]
    model: str = Field(description="The name of the model in requests.")
    upstream_model: str = Field(description="The provider's name of the model.")
    provider: str = Field(description="The provider.")
    dialect: str = Field(description="The API that it speaks.")
    usable: bool = Field(description="Whether it can be used as it is configured.")
    state: Literal["healthy", "cooling", "partly_cooling", "unusable"]
    cooling_at: list[str] | None = Field(description="The processes that pass it over, for the master key alone.")
    cools_for_s: float = Field(description="For how many seconds more it is passed over.")
    in_flight: int = Field(description="How many calls are under way.")
    most_in_flight: int | None = Field(description="How many there may be.")
    calls: int = Field(description="How many calls there were.")
    failed: int = Field(description="How many of them failed.")
    median_s: float | None = Field(description="How long a call takes.")
    first_event_median_s: float | None = Field(description="How long the first event of a stream takes.")


class DeploymentList(Described):
    """Deployments."""

    object: Literal["list"]
    data: list[DeploymentStatus] = Field(description="In the order of the config.")
    within_s: float = Field(description="How many seconds back calls are counted.")


class Process(Described):
    """A process of Pollux, as it last said itself."""

    id: str = Field(description="Its host, and its number there.")
    object: Literal["process"]
    reported_at: float = Field(description="When it said so, in seconds of Unix's time.")
    version: str = Field(description="The version of Pollux.")
    role: str = Field(description="Whether it answers clients, runs jobs, or both.")
    started_at: float = Field(description="When it started, in seconds of Unix's time.")
    leaving: bool = Field(description="Whether it has been told to end.")
    runs: int = Field(description="How many jobs it runs.")
    waiters: int = Field(description="How many requests wait there for a response.")
    streams: int = Field(description="How many streams are open there.")


class ProcessList(Described):
    """Processes."""

    object: Literal["list"]
    data: list[Process] = Field(description="By name.")


class Tallies(Described):
    """How many responses took which status when."""

    object: Literal["tallies"]
    data: list[dict[str, int]] = Field(description="One for each minute, oldest first: numbers by status.")
    queued: int | None = Field(description="How many wait for a worker now.")
    running: int | None = Field(description="How many run now.")


class UsageRow(Described):
    """What was used on a day, of a model, by an owner. A null stands for all together."""

    object: Literal["usage"]
    date: str | None = Field(description="The day (UTC).")
    model: str | None = Field(description="The model.")
    owner: str | None = Field(None, description="The owner, for the master key alone.")
    requests: int = Field(description="How many responses.")
    input_tokens: int = Field(description="Tokens of the input.")
    cached_input_tokens: int = Field(description="Those of them that were read from a cache.")
    output_tokens: int = Field(description="Tokens of the output.")
    reasoning_tokens: int = Field(description="Those of them that were reasoning.")
    total_tokens: int = Field(description="All together.")
    cost: float | None = Field(description="What it cost, where the price is known.")


class UsageList(Described):
    """A page of usage."""

    object: Literal["list"]
    data: list[UsageRow] = Field(description="By date, model and owner.")
    has_more: bool = Field(description="Whether there is another page.")
    next_page: str | None = Field(description="What `page` of the next one is.")


class Health(Described):
    """It is well."""

    status: Literal["ok"]
