"""Explains a config to people: the mode of every model and the reason for it, and its deployments."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from server.check_fallbacks import fallbacks_of, surprising_fallbacks, ways_of
from server.config import Config
from server.keyring import MASTER, Keyring
from server.outbox.endpoints import Configured
from server.protocol.routing import Decision, Mode, decide
from server.system.tls import Certificates
from server.tracing import destination_in, endpoint_of
from server.upstream.choice import described, weights_of
from server.upstream.credential import STATIC
from server.upstream.deployments import Deployment, Deployments
from server.upstream.reach import has_key
from storage import default_directory

WARNING = "warning: "


def describe(config: Config) -> str:
    """The text that `pollux check-config` prints. It contains no secrets."""
    lines = [*_general(config), "", *_models(config), *(WARNING + text for text in warnings_about(config))]
    return "\n".join(lines) + "\n"


def warnings_about(config: Config) -> Iterator[str]:
    """Warnings about deployments that can't be used, and about settings that are valid but probably not intended."""
    yield from unusable_in(config)
    yield from _surprises(config)
    yield from _without_background(config)
    yield from _nobodys_webhooks(config)
    yield from _forwarded_keys(config)
    yield from surprising_fallbacks(config)
    yield from _prices_of_nothing(config)


def unusable_in(config: Config) -> Iterator[str]:
    """The deployments that can't be used, each with the reason."""
    for number, deployment in enumerate(Deployments(config).all):
        if deployment.unusable is not None:
            yield f"model_list.{number} ({deployment.model_name}) can't be used: {deployment.unusable}"


def _general(config: Config) -> Iterator[str]:
    if config.included:
        yield f"included files: {', '.join(map(str, config.included))}"
    keyring = Keyring(config)
    yield f"store: {_store(config.store_url())}"
    yield f"keys: {_keys(config) if not keyring.empty else _no_keys(config)}"
    if (tls := config.tls()).cert_file:
        Certificates.of(tls)  # raises if it can't be used
        shown = ", clients show certificates" if tls.client_ca_file else ""
        yield f"tls: with the certificate in {tls.cert_file}{shown}"
    yield f"cached responses are kept for {config.ttl_s:g} s after their end"
    Configured.in_config(config)  # raises if one may not be sent to
    if webhooks := len(config.pollux.webhooks):
        yield f"webhooks: {webhooks} of the config are told of the ends of responses"
    if (traced := destination_in(config, os.environ)) is not None:
        yield f"traces: by {', '.join(traced.exporters)}, to {endpoint_of(traced) or 'where it goes by default'}"
    if strategy := config.router_settings.routing_strategy:
        yield f"choice of a deployment: {described(strategy)}"
    yield f"composite ids: {_FORMS[config.pollux.composite_ids]}"


def _store(url: str) -> str:
    if url.rstrip("/") in ("embedded:", "embedded"):
        return f"embedded://, in {default_directory()}"
    return _without_secret(url)


_FORMS = {
    "published": "published; where LiteLLM is a client of Pollux, set pollux.composite_ids: opaque",
    "opaque": "opaque, which LiteLLM as a client of Pollux leaves alone",
}


def _keys(config: Config) -> str:
    names = sorted({key.name for key in config.pollux.keys})
    others = ["any other, of which providers decide"] if config.pollux.accept_any_key else []
    return ", ".join([*(["master"] if config.master_keys() else []), *names, *others])


def _no_keys(config: Config) -> str:
    return "none, and everybody is served" if config.pollux.allow_unauthenticated else "none, so loopback only"


def _models(config: Config) -> Iterator[str]:
    deployments = Deployments(config)
    ways = ways_of(config)
    if not deployments.all:
        yield "models: none; add some to model_list"
    for name in deployments.model_names:
        decision = _decide(config, deployments, name)
        target = deployments.canonical(name)
        alias = f" (alias of {target})" if target != name else ""
        yield f"{name}{alias}"
        yield f"  background: {decision.mode}, because {decision.why}"
        for deployment in deployments.serving(name):
            yield f"  deployment {deployment.id[:16]}: {_deployment(deployment)}"
        yield from fallbacks_of(ways, name)


def _deployment(deployment: Deployment) -> str:
    base = deployment.base_url
    address = _without_secret(base) if base else "no address"
    return (
        f"{deployment.provider}, dialect {deployment.manners.dialect}, model {deployment.upstream_model}, {address}, "
        f"credential {_credential(deployment)}"
    )


def _credential(deployment: Deployment) -> str:
    if deployment.forwards_key:
        return f"the client's key; for the master key {'its own' if has_key(deployment.headers) else 'none'}"
    if deployment.credential is not STATIC:
        return f"by {deployment.credential.told}"
    return "set" if has_key(deployment.headers) else "missing"


def _decide(config: Config, deployments: Deployments, model: str) -> Decision:
    # A request never names the wildcard itself, but a model that matches it, and which no deployment has by that name.
    exact = deployments.providers_of if "*" not in model else lambda _: ()
    return decide(model, background=True, settings=config.background_mode, providers_of=exact)


def _surprises(config: Config) -> Iterator[str]:
    """Settings that are valid but probably not intended."""
    yield from config.surprises
    if not config.model_fields_set:
        yield "the file says nothing: everything has its default, and there is no model"
    if config.litellm_settings.ssl_verify is False:
        yield "litellm_settings.ssl_verify is false: anybody on the way can read what is sent, keys included"
    deployments = Deployments(config)
    settings = config.background_mode
    polling = settings.polling_via_cache
    if polling not in (None, False, "all") and not isinstance(polling, list):
        yield f'polling_via_cache: {polling!r} switches it off; write "all" or a list of providers'
    for name in settings.native_background_mode:
        if not deployments.serving(name):
            yield f"native_background_mode lists {name}, which no deployment serves"
    for name in deployments.model_names:
        if name not in settings.native_background_mode and _misses_the_list(config, deployments, name):
            exact = deployments.canonical(name) == name and "*" not in name
            why = "the part before its / is what counts" if exact else "aliases and wildcards don't count"
            yield f"{name} is native: {why} for a list in polling_via_cache"
        if idle := _without_weight(deployments.serving(name)):
            yield f"{name}: no request goes to {idle} of its deployments while one with a weight (or rpm, tpm) is fit"
        bare = name.split("/", 1)[-1]
        if bare != name and bare in settings.native_background_mode:
            yield f"native_background_mode lists {bare}, which does not cover {name}: names are exact"


def _without_weight(deployments: list[Deployment]) -> int:
    """How many have no share of a model's requests because others have one."""
    return weights_of([deployment for deployment in deployments if deployment.unusable is None]).count(0)


def _without_background(config: Config) -> Iterator[str]:
    """Models that are left to the background of a provider that has none."""
    deployments = Deployments(config)
    for name in deployments.model_names:
        lacking = [one for one in deployments.serving(name) if not one.keeps_responses]
        if lacking and _decide(config, deployments, name).mode is Mode.NATIVE:
            yield (
                f"{name} is native, and its provider '{lacking[0].provider}' has no background mode: requests with "
                "background: true are refused. To have them run here, list the provider in polling_via_cache"
            )
    for number, entry in enumerate(config.model_list):
        if entry.model_info.upstream_background and not deployments.all[number].keeps_responses:
            where = f"model_list.{number}.model_info.upstream_background"
            yield f"{where} has no effect: its provider has no background mode"


def _nobodys_webhooks(config: Config) -> Iterator[str]:
    names = {key.name for key in config.pollux.keys} | {MASTER}
    for number, webhook in enumerate(config.pollux.webhooks):
        for name in webhook.keys or ():
            if name not in names:
                yield f"pollux.webhooks[{number}].keys lists {name}, and there is no key of that name"


def _prices_of_nothing(config: Config) -> Iterator[str]:
    names = {entry.model_name for entry in config.model_list}
    for name in config.pollux.prices:
        if name not in names:
            yield f"pollux.prices has {name}, and no entry of model_list has this model_name"


def _misses_the_list(config: Config, deployments: Deployments, name: str) -> bool:
    """Whether a model is native although `polling_via_cache` lists the provider of one of its deployments."""
    polling = config.background_mode.polling_via_cache
    if not isinstance(polling, list) or _decide(config, deployments, name).mode is not Mode.NATIVE:
        return False
    return any(deployment.listed_provider in polling for deployment in deployments.serving(name))


def _forwarded_keys(config: Config) -> Iterator[str]:
    """What is probably not intended where clients' own keys are sent to providers."""
    deployments = Deployments(config).all
    forwarding = [deployment for deployment in deployments if deployment.forwards_key]
    for number, entry in enumerate(config.model_list):
        if "forward_client_key" in entry.litellm_params.as_written:
            where = f"model_list.{number}.litellm_params.forward_client_key"
            yield f"{where} is taken for a field of requests: write it in model_info"
        if entry.model_info.forward_client_key and not deployments[number].forwards_key:
            yield f"{entry.model_name}: forward_client_key has no effect, its provider takes no keys"
        if entry.model_info.forward_client_key and entry.model_info.upstream_background:
            yield f"{entry.model_name}: upstream_background has no effect together with forward_client_key"
    if config.pollux.accept_any_key and not forwarding:
        yield "accept_any_key is of no use: no deployment has model_info.forward_client_key: true"
    elif config.pollux.accept_any_key:
        for name in dict.fromkeys(d.model_name for d in deployments if not d.forwards_key):
            yield f"{name} has deployments without forward_client_key: they serve keys of the config only"
    if forwarding and not config.pollux.id_secrets:
        yield (
            "keys of clients are kept encrypted while a cached response runs, but without pollux.id_secrets the secret "
            "for that lies in the same store"
        )


def _without_secret(url: str) -> str:
    """The URL without user, password and query.

    A password may contain `@`, `?` or `#`. If the parts can't be told apart for that reason, the host is hidden too.
    """
    scheme, mark, rest = url.partition("://")
    before_query = re.split(r"[?#]", rest, maxsplit=1)[0]
    if "@" not in rest:
        return scheme + mark + before_query
    place = "…" if "@" in rest[len(before_query) :] else before_query.rpartition("@")[2]
    return f"{scheme}{mark}***@{place}"
