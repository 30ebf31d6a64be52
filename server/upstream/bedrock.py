"""Amazon Bedrock: Claude by InvokeModel, all others by the endpoint that is compatible with OpenAI's.

Names, variables, hosts and regions are LiteLLM's (`bedrock/base_aws_llm.py`, `bedrock/common_utils.py`).
https://docs.aws.amazon.com/bedrock/latest/userguide/inference-chat-completions.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from urllib.parse import quote, urlsplit

from server.config.sections import ModelEntry, setting
from server.protocol.dialects.manners import Dialect, Manners
from server.upstream.amazon import amazon_account
from server.upstream.optional import lacks
from server.upstream.place import Framing, Operation, Reach

_CLAUDE = re.compile(r"claude", re.IGNORECASE)
_ROUTES = re.compile(r"^(bedrock|chat_completions|converse|invoke|openai)/")
"""LiteLLM's names of Bedrock's APIs, in front of a model."""
_REGION = re.compile(r"[a-z]{2,}(-[a-z]+)+-\d+")
_REGION_PATH = re.compile(rf"^({_REGION.pattern})/")
_ARN = re.compile(rf"arn:aws[a-z-]*:bedrock:({_REGION.pattern}):")
_DEFAULT_REGION = "us-west-2"
_OPENAI = "/openai/v1"
_DOMAINS = (("cn-", "amazonaws.com.cn"), ("us-isob-", "sc2s.sgov.gov"), ("us-iso-", "c2s.ic.gov"))
_ANTHROPIC_VERSION = MappingProxyType({"anthropic_version": "bedrock-2023-05-31"})
_INSTALLED_BY = "pip install 'pollux-responses[bedrock]'"
_NEEDED_BY_CLAUDE = f"it needs botocore to read Claude's streams: {_INSTALLED_BY}"
_NEEDED_TO_SIGN = f"it needs botocore to sign requests, or a key (AWS_BEARER_TOKEN_BEDROCK): {_INSTALLED_BY}"


def bedrock(entry: ModelEntry, headers: Mapping[str, str], environ: Mapping[str, str], *, let_in: bool) -> Reach:
    """How a deployment of Bedrock is reached; `let_in` says whether its headers hold a key already."""
    params = entry.litellm_params
    region, model = _region_and_model(entry, environ)
    operation, manners, below = _operation(entry, model)
    base = _runtime(entry, region, environ) + below
    reached = Reach(manners, base, operation=operation, headers=headers, model=model)
    if not _REGION.fullmatch(region):
        return replace(
            reached, base_url=None, flaw=f"litellm_params.aws_region_name '{region}' is no region of Amazon's"
        )
    if lacks("botocore") and (not let_in or operation.framing is Framing.AMAZON):
        reached = replace(reached, flaw=_NEEDED_BY_CLAUDE if operation.framing is Framing.AMAZON else _NEEDED_TO_SIGN)
    return reached if let_in else replace(reached, credential=amazon_account(params, region, environ))


def _runtime(entry: ModelEntry, region: str, environ: Mapping[str, str]) -> str:
    """The address of bedrock-runtime."""
    params = entry.litellm_params
    base = params.api_base or params.aws_bedrock_runtime_endpoint or setting(environ, "AWS_BEDROCK_RUNTIME_ENDPOINT")
    if base is None:
        domain = next((domain for start, domain in _DOMAINS if region.startswith(start)), "amazonaws.com")
        return f"https://bedrock-runtime.{region}.{domain}"
    parts = urlsplit(base)
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/').removesuffix(_OPENAI)}"


def _region_and_model(entry: ModelEntry, environ: Mapping[str, str]) -> tuple[str, str]:
    params, model = entry.litellm_params, entry.litellm_params.model
    while route := _ROUTES.match(model):
        model = model[route.end() :]
    in_path = _REGION_PATH.match(model)
    model = model[in_path.end() :] if in_path else model
    in_arn = _ARN.search(params.model_id or model)
    named = next((match[1] for match in (in_path, in_arn) if match), None)
    variables = (setting(environ, name) for name in ("AWS_REGION_NAME", "AWS_REGION", "AWS_DEFAULT_REGION"))
    return params.aws_region_name or named or next(filter(None, variables), _DEFAULT_REGION), model


def _operation(entry: ModelEntry, model: str) -> tuple[Operation, Manners, str]:
    """The operation, the manners, and what precedes the operation's path."""
    api, model_id = entry.model_info.api, entry.litellm_params.model_id
    base_model = str((entry.model_info.model_extra or {}).get("base_model") or "")
    if api == "messages" or (api is None and (_CLAUDE.search(model) or _CLAUDE.search(base_model))):
        path = f"/model/{'{model}' if model_id is None else quote(model_id, safe='')}"
        operation = Operation(
            f"{path}/invoke",
            f"{path}/invoke-with-response-stream",
            model=None,
            says_stream=False,
            adds=_ANTHROPIC_VERSION,
            betas_in_body=True,
            framing=Framing.AMAZON,
        )
        return operation, Manners(Dialect.MESSAGES), ""
    named = model_id or "{model}"
    if api == "responses":
        return Operation("/responses", model=named), Manners(Dialect.RESPONSES), _OPENAI
    return Operation("/chat/completions", model=named), Manners(Dialect.CHAT), _OPENAI
