"""Watching: status events, jobs, deployments, processes and usage."""

from __future__ import annotations

from server.api import parameters as of
from server.api.events import MOST_RESPONSES, stream_events
from server.api.jobs import LONGEST_SEARCH, list_jobs, retrieve_job
from server.api.operation import Auth, Operation, Parameter, Tag
from server.api.overview import DEFAULT_MINUTES, MOST_MINUTES, list_deployments, list_processes, show_tallies
from server.api.usage import DEFAULT_ROWS, GROUPS, MOST_ROWS, report_usage
from server.errors import (
    BadRequest,
    InvalidType,
    InvalidValue,
    ResponseNotFound,
    UpstreamRefusal,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from server.protocol.lifecycle import Status
from server.protocol.status_events import KINDS

_TEXTS = {"type": "array", "items": {"type": "string"}}
_DATE = {"type": "string", "format": "date"}


def _some(values: tuple[str, ...]) -> dict[str, object]:
    return {"type": "array", "items": of.one_of(values)}


_OWNER = Parameter("owner", "For the master key: only those of these keys, by name.", _TEXTS)
_PAGE = Parameter("page", "The `next_page` of the page before.", {"type": "string"})

STREAM_EVENTS = Operation(
    method="GET",
    path="/events",
    handler=stream_events,
    summary="Follow the changes of status of responses",
    tag=Tag.EVENTS,
    details="""Exactly one event for each change of status of each of the caller's responses, for the master key of \
all. `Last-Event-ID` goes on behind an event, on any replica, without a loss; where events were dropped meanwhile, one \
of type `feed.gap` says so. With `response_id` it begins with the present status of each, and ends when all have \
ended; otherwise it never ends.""",
    parameters=(
        Parameter("types", "Only events of these types.", _some(KINDS)),
        Parameter("model", "Only about responses of these models.", _TEXTS),
        Parameter("response_id", "Only about these responses.", {**_TEXTS, "maxItems": MOST_RESPONSES}),
        Parameter("last_event_id", "As the header `Last-Event-ID`, which it overrules.", {"type": "string"}),
        Parameter("Last-Event-ID", "The `id` of the last event that was seen.", {"type": "string"}, place="header"),
    ),
    events="StatusEvent",
    errors=(InvalidValue, ResponseNotFound, UpstreamRefusal, UpstreamUnavailable, UpstreamTimeout),
    ours=True,
)
LIST_JOBS = Operation(
    method="GET",
    path="/jobs",
    handler=list_jobs,
    summary="List what has become of responses",
    tag=Tag.WATCHING,
    details="""Newest first, without what was asked and answered, so that a list of thousands stays small. A page may \
be short, or empty, although there is another: `next_page` goes on.""",
    parameters=(
        of.limit(50, 500),
        _PAGE,
        Parameter("status", "Only those with one of these statuses.", _some(tuple(Status))),
        Parameter("model", "Only those of these models.", _TEXTS),
        _OWNER,
        Parameter(
            "search",
            "Only those with this text in the id, the model or the metadata.",
            {"type": "string", "maxLength": LONGEST_SEARCH},
        ),
        Parameter("ids", "These instead of a page, in this order.", of.IDS.schema),
    ),
    answer="JobList",
    errors=(BadRequest, InvalidType, InvalidValue),
    ours=True,
)
RETRIEVE_JOB = Operation(
    method="GET",
    path="/jobs/{id:[^/]+}",
    handler=retrieve_job,
    summary="Retrieve what a response has lived through",
    tag=Tag.WATCHING,
    answer="JobWithLife",
    errors=(ResponseNotFound,),
    ours=True,
)
LIST_DEPLOYMENTS = Operation(
    method="GET",
    path="/deployments",
    handler=list_deployments,
    summary="List how the deployments do",
    tag=Tag.WATCHING,
    details="Those of the models that the caller may use, at all replicas together.",
    answer="DeploymentList",
    ours=True,
)
LIST_PROCESSES = Operation(
    method="GET",
    path="/processes",
    handler=list_processes,
    summary="List the processes of Pollux",
    tag=Tag.WATCHING,
    auth=Auth.MASTER,
    answer="ProcessList",
    ours=True,
)
SHOW_TALLIES = Operation(
    method="GET",
    path="/tallies",
    handler=show_tallies,
    summary="Count the changes of status in the last minutes",
    tag=Tag.WATCHING,
    parameters=(
        Parameter(
            "minutes",
            "How many minutes it tells of.",
            {"type": "integer", "minimum": 1, "maximum": MOST_MINUTES, "default": DEFAULT_MINUTES},
        ),
    ),
    answer="Tallies",
    errors=(InvalidType, InvalidValue),
    ours=True,
)
REPORT_USAGE = Operation(
    method="GET",
    path="/usage",
    handler=report_usage,
    summary="Report requests, tokens and cost",
    tag=Tag.WATCHING,
    details="What the caller's key has used, by day and model; for the master key what each owner has.",
    parameters=(
        Parameter("start_date", "The first day (UTC); thirty days up to the last one if left out.", _DATE),
        Parameter("end_date", "The last day (UTC), today if left out.", _DATE),
        Parameter("group_by", "What tells rows apart; all three if left out.", _some(GROUPS)),
        Parameter("model", "Only these models.", _TEXTS),
        _OWNER,
        of.limit(DEFAULT_ROWS, MOST_ROWS),
        _PAGE,
    ),
    answer="UsageList",
    errors=(BadRequest, InvalidType, InvalidValue),
    ours=True,
)

WATCHING = (*(STREAM_EVENTS, LIST_JOBS, RETRIEVE_JOB, LIST_DEPLOYMENTS, LIST_PROCESSES, SHOW_TALLIES, REPORT_USAGE),)
