"""Where a new response may be made: by which deployments, after which turns that were before."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from aiohttp import web

from server.api.context import context_of, principal_of
from server.api.references import find_foreign, find_record, hint_for, stored_id
from server.chain import History
from server.errors import PreviousNotFinished, PreviousNotFound
from server.protocol.fallbacks import Walk
from server.protocol.ids import decode_composite
from server.protocol.requests import CreateRequest, stored_request
from server.responses.submit import Previous
from server.upstream.deployments import Deployment
from server.upstream.rewrite import Rewriter
from server.upstream.speech import able_to_tell
from storage import Record

_NOTHING = Previous()


@dataclass(frozen=True, slots=True)
class Route:
    """The deployments on which a new response may run, and what it continues there."""

    deployments: list[Deployment]
    previous: Previous = _NOTHING
    """The response that the provider itself continues."""
    history: History = field(default_factory=History)
    """What the provider must be told instead, because it keeps nothing."""

    def able(self, deployments: list[Deployment], body: dict[str, Any]) -> list[Deployment]:
        """Those of these deployments that can be told the whole request.

        Raises:
            Untranslatable: none of them can

        """
        return able_to_tell(deployments, lambda deployment: self.history.put_into(body, deployment))


async def route_of(request: web.Request, create: CreateRequest, serving: list[Deployment], walk: Walk) -> Route:
    """The deployments that a request may go to: those of its model, or the one with the response that it continues.

    That one may be of a model that the request can fall back to, because the one before has fallen back to it.

    Raises:
        PreviousNotFound, PreviousNotFinished

    """
    given = create.previous_response_id
    route = await _continued(request, create, serving, walk, given) if given else None
    if route is None:
        owner = principal_of(request).name
        history = await context_of(request).chain.before(create.body, owner, follow=bool(given))
        route = replace(_by_content(request, create, serving), history=history)
    return route


def name_previous(rewriter: Rewriter, create: CreateRequest, route: Route) -> None:
    """Make answers and errors name the previous response by the id that the client sent."""
    if create.previous_response_id:
        rewriter.previous = create.previous_response_id
        rewriter.public_ids[route.previous.provider_id] = create.previous_response_id


async def _continued(
    request: web.Request, create: CreateRequest, serving: list[Deployment], walk: Walk, given: str
) -> Route | None:
    """The route to the provider that has the previous response; None if that one must be told instead."""
    context, principal = context_of(request), principal_of(request)
    if stored_id(context, principal, given) is not None:
        record = await find_record(context, principal, given)
        if record is None:
            raise PreviousNotFound(given)
        previous = await _left_to_provider(request, record, given)
        able = _of_its_account(request, serving, previous) if previous else []
        return Route(able[:1], Previous(able[0].id, record.provider_id)) if able else None
    if foreign := find_foreign(context, principal, given):
        previous = Previous(foreign.deployment.id, foreign.provider_id)
        fallbacks = [one for name in walk.reachable() for one in context.ways.serving(name)]
        able = _of_its_account(request, serving, previous) or _of_its_account(request, fallbacks, previous)
        if not able:
            raise PreviousNotFound(given, f"belongs to a deployment that does not serve the model '{create.model}'")
        return Route(able[:1], Previous(able[0].id, foreign.provider_id))
    # A provider's raw id does not tell its owner, so it is accepted under the same setting as an id without a tag.
    is_raw = decode_composite(given) is None
    if is_raw and (principal.is_master or context.config.pollux.accept_untagged_ids):
        return Route(serving, Previous("", given))
    raise PreviousNotFound(given, hint=hint_for(given))


async def _left_to_provider(request: web.Request, record: Record, given: str) -> Previous | None:
    """Where the provider itself has this response; None if it keeps nothing, or was asked not to.

    Raises:
        PreviousNotFinished

    """
    if not record.terminal:
        raise PreviousNotFinished(given, record.status)
    deployment = context_of(request).deployments.get(record.ran_on)
    if deployment is None or not (deployment.keeps_responses and record.provider_id):
        return None
    asked = stored_request(await context_of(request).store.responses.read_request(record.id) or b"")
    return None if not deployment.asks_to_keep(asked) else Previous(deployment.id, record.provider_id)


def _of_its_account(request: web.Request, serving: list[Deployment], previous: Previous) -> list[Deployment]:
    """Those that can continue the response, the one that made it first: other accounts don't know it."""
    lives_at = context_of(request).deployments.get(previous.deployment)
    if lives_at is None:
        return []
    return [one for one in serving if one == lives_at] or [one for one in serving if one.same_account(lives_at)]


def _by_content(request: web.Request, create: CreateRequest, serving: list[Deployment]) -> Route:
    """The deployment whose account can decrypt or find what the request contains; all if none of `serving` can."""
    if not create.marked:
        return Route(serving)
    origin = context_of(request).affinity.origin(create.body, principal_of(request).name)
    able = [one for one in serving if one == origin] or [one for one in serving if origin and one.same_account(origin)]
    return Route(able[:1], Previous(able[0].id)) if able else Route(serving)
