"""LiteLLM's sections of the config, as far as Pollux uses them. Unknown keys are kept for a warning."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, model_validator

from server.keyhash import HashedKeys
from server.protocol.defaults import as_json, defaults_in
from server.protocol.fallback_lists import table_in, targets_in


class ConfigError(Exception):
    """The file can't be used. The message names the dotted path and says what to do."""


def setting(environ: Mapping[str, str], name: str) -> str | None:
    """The value of an environment variable; None if empty. Stripped, as Kubernetes secrets often end in a newline."""
    return environ.get(name, "").strip() or None


def stripped(value: Any) -> Any:
    """The value with white space stripped from a string or from the strings of a list; None for an empty string.

    A date is text that YAML took for one, such as the `api_version` 2024-10-21.
    """
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, list):
        return [kept for item in value if (kept := stripped(item)) is not None]
    return value


class Section(BaseModel):
    """A mapping in the config file."""

    model_config = ConfigDict(frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _without_empty_keys(cls, data: Any) -> Any:
        """Drop keys whose value is missing or only white space, so that they get their default."""
        if not isinstance(data, dict):
            return data
        return {name: kept for name, value in data.items() if (kept := stripped(value)) is not None}


class Foreign(Section):
    """A section of LiteLLM's: unknown keys are allowed and kept, and a warning lists them."""

    model_config = ConfigDict(extra="allow", protected_namespaces=(), coerce_numbers_to_str=True)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Only what is known: of the rest nobody can tell whether it is secret."""
        return [(name, value) for name, value in super().__repr_args__() if name in type(self).model_fields]


class TokenCosts(Foreign):
    """What tokens cost, where LiteLLM's config says so: in `litellm_params`, else in `model_info`."""

    input_cost_per_token: float | None = Field(None, ge=0, description="What a token of the input costs.")
    cache_read_input_token_cost: float | None = Field(
        None, ge=0, description="What a cached token of the input costs; as much as any other if left out."
    )
    output_cost_per_token: float | None = Field(None, ge=0, description="What a token of the output costs.")


class LiteLLMParams(TokenCosts):
    """How one deployment is reached. Its other keys may be defaults of requests, see `protocol.defaults`."""

    model: str = Field(description="The upstream's name of the model, with `provider/` in front if you like.")
    custom_llm_provider: str | None = Field(None, description="The provider, where the model does not tell.")
    api_base: str | None = Field(None, description="The URL up to and including /v1 (Azure: the resource).")
    api_key: SecretStr | None = Field(None, description="The credential; else <PROVIDER>_API_KEY.")
    api_version: str | None = Field(None, description="Azure's api-version; `preview` by default.")
    litellm_credential_name: str | None = Field(
        None, description="The entry of credential_list whose values count where these here say nothing."
    )
    azure_ad_token: SecretStr | None = Field(None, description="Azure's token, where there is no key.")
    tenant_id: str | None = Field(
        None, description="The tenant that grants tokens for Azure, where there is no key; else AZURE_TENANT_ID."
    )
    client_id: str | None = Field(None, description="The application that asks it for them; else AZURE_CLIENT_ID.")
    client_secret: SecretStr | None = Field(
        None, description="The secret of that application; else AZURE_CLIENT_SECRET."
    )
    azure_scope: str | None = Field(None, description="What the tokens are for; else AZURE_SCOPE.")
    vertex_project: str | None = Field(
        None,
        validation_alias=AliasChoices("vertex_project", "vertex_ai_project"),
        description="Google's project; else VERTEXAI_PROJECT, else that of the account.",
    )
    vertex_location: str | None = Field(
        None,
        validation_alias=AliasChoices("vertex_location", "vertex_ai_location"),
        description="Google's region, or `global`, `us`, `eu`; else VERTEXAI_LOCATION, else us-central1.",
    )
    vertex_credentials: dict[str, Any] | SecretStr | None = Field(
        None,
        repr=False,
        validation_alias=AliasChoices("vertex_credentials", "vertex_ai_credentials"),
        description="The JSON of an account of Google's, or the path of a file with it; else VERTEXAI_CREDENTIALS.",
    )
    aws_region_name: str | None = Field(
        None, description="Amazon's region; else AWS_REGION_NAME, AWS_REGION or AWS_DEFAULT_REGION, else us-west-2."
    )
    aws_access_key_id: SecretStr | None = Field(
        None, description="Amazon's key, where there is no api_key; else AWS_ACCESS_KEY_ID."
    )
    aws_secret_access_key: SecretStr | None = Field(
        None, description="What belongs to it and signs requests; else AWS_SECRET_ACCESS_KEY."
    )
    aws_session_token: SecretStr | None = Field(
        None, description="What belongs to it if it is temporary; else AWS_SESSION_TOKEN."
    )
    aws_profile_name: str | None = Field(
        None, description="A profile of ~/.aws that has keys, or tells how to get them; else AWS_PROFILE_NAME."
    )
    aws_role_name: str | None = Field(None, description="The role to assume, its ARN; else AWS_ROLE_NAME.")
    aws_session_name: str | None = Field(None, description="The name of its sessions; else AWS_SESSION_NAME.")
    aws_external_id: str | None = Field(None, description="The external id that it demands; else AWS_EXTERNAL_ID.")
    aws_sts_endpoint: str | None = Field(None, description="Where it is assumed; else AWS_STS_ENDPOINT.")
    aws_bedrock_runtime_endpoint: str | None = Field(
        None, description="The address of bedrock-runtime; else AWS_BEDROCK_RUNTIME_ENDPOINT."
    )
    model_id: str | None = Field(
        None, description="What Bedrock calls the model, where `model` says only of which family it is: an ARN."
    )
    organization: str | None = Field(None, description="Sent as OpenAI-Organization.")
    timeout: float | None = Field(None, gt=0, description="Seconds for an answer that is not streamed.")
    stream_timeout: float | None = Field(
        None, gt=0, description="Seconds until a streamed answer begins; overrules pollux.first_byte_timeout_s."
    )
    num_retries: int | None = Field(
        None, ge=0, description="Retries of a request whose first try was here; only the request itself overrules it."
    )
    cooldown_time: float | None = Field(
        None, ge=0, description="Overrules router_settings.cooldown_time, and what the provider asks for."
    )
    max_parallel_requests: int | None = Field(
        None, ge=1, description="Calls at once per process. Cached jobs wait for a place, other requests get 429."
    )
    weight: float | None = Field(
        None, ge=0, description="Its share of the model's requests. Where no deployment has one: its rpm, else its tpm."
    )
    rpm: float | None = Field(
        None, ge=0, description="Calls in a minute per process, beyond which another deployment is preferred."
    )
    tpm: float | None = Field(
        None, ge=0, description="Tokens in a minute per process, beyond which another deployment is preferred."
    )
    order: int | None = Field(
        None, description="Deployments of the lowest order are asked first, and others only while none of them is fit."
    )
    extra_headers: dict[str, str] = Field({}, repr=False, description="Further headers for the upstream.")
    extra_body: dict[str, Any] = Field(
        {},
        repr=False,
        description="Further fields of each request, as its provider names them; they overrule the client's.",
    )
    ssl_verify: bool | str | None = Field(
        None, description="Whether to check its certificate, or the file of authorities to check it by."
    )
    drop_params: bool | None = Field(
        None, description="Leave out what its provider can't be told, instead of refusing the request."
    )
    additional_drop_params: list[str] = Field([], description="Fields of requests that are always left out.")
    _as_written: dict[str, Any] = PrivateAttr(default_factory=dict)

    @property
    def as_written(self) -> dict[str, Any]:
        """All keys and values in the file's order, because LiteLLM's id of a deployment is a hash over them."""
        return self._as_written

    def written_as(self, params: Mapping[str, Any]) -> None:
        """Record how the file has these parameters, where some were added from elsewhere."""
        self._as_written = dict(params)

    @model_validator(mode="wrap")
    @classmethod
    def _keep_order(cls, data: Any, handler: Callable[[Any], Any]) -> Any:
        made = handler(data)
        if isinstance(data, dict):
            made._as_written = dict(data)  # noqa: SLF001 - its own class
            # What JSON can't say would fail each request.
            as_json("extra_body", made.extra_body)
            defaults_in(data)
        return made


class ModelInfo(TokenCosts):
    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]+$")] | None = Field(
        None, description="The deployment's id, in place of the hash that Pollux makes."
    )
    api: Literal["responses", "chat", "messages"] | None = Field(
        None, description="The API that it speaks: Responses, Chat Completions or Anthropic's Messages."
    )
    mode: str | None = Field(None, description="LiteLLM's; `responses` and `chat` say which API it speaks.")
    max_output_tokens: int | None = Field(
        None, ge=1, description="The limit of an output for which the client names none, where the API demands one."
    )
    upstream_background: bool = Field(
        False,
        description="Run cached jobs in the provider's own background: a crash of ours then loses and repeats nothing.",
    )
    forward_client_key: bool = Field(
        False, description="Send the key of the client to the provider, instead of the deployment's own."
    )
    fill_missing: bool = Field(
        False, description="Complete proxied and native objects of a weak upstream with all standard keys."
    )


class ModelEntry(Foreign):
    """One deployment of a public model."""

    model_name: str = Field(min_length=1, description="The name that clients use; `openai/*` and `*` are wildcards.")
    litellm_params: LiteLLMParams
    model_info: ModelInfo = ModelInfo()
    _unset: tuple[str, ...] = PrivateAttr(())
    _flaw: str | None = PrivateAttr(None)

    @property
    def unset(self) -> tuple[str, ...]:
        """The environment variables that the entry names and that are not set. If there are any, it can't be used."""
        return self._unset

    def lacking(self, names: Sequence[str]) -> None:
        """Record that these environment variables are not set."""
        self._unset = tuple(dict.fromkeys(names))

    @property
    def flaw(self) -> str | None:
        """Why the entry can't be used, where another part of the file is at fault."""
        return self._flaw

    def flawed(self, why: str) -> None:
        """Record why the entry can't be used."""
        self._flaw = why


class Credential(Foreign):
    """Values that several deployments share."""

    credential_name: str = Field(min_length=1, description="The name that litellm_credential_name refers to.")
    credential_values: dict[str, Any] = Field(
        {}, repr=False, description="Any of litellm_params, such as {api_key: os.environ/TEAM_KEY}."
    )
    credential_info: dict[str, Any] = Field({}, description="For LiteLLM's user interface; not used.")


class BackgroundModeSection(Foreign):
    polling_via_cache: Any = Field(False, description='"all", a list of providers, or false.')
    native_background_mode: list[str] | None = Field(None, description="Models left to the provider's background.")
    ttl: float = Field(3600, gt=0, description="Seconds that a cached response is kept after its end.")


class ResponsesSection(Foreign):
    background_mode: BackgroundModeSection = BackgroundModeSection()


class CacheParams(Foreign):
    type: str | None = Field(None, description="`redis` makes these the store.")
    host: str | None = None
    port: int | str | None = None
    username: str | None = None
    password: SecretStr | None = None
    db: int | None = None
    ssl: bool = False
    ssl_cert_reqs: str | None = Field(
        None, description="With TLS, whether its certificate is checked: `required`, or `none`; else `required`."
    )
    ssl_check_hostname: bool | None = Field(
        None, description="Whether the certificate must be that of the host; yes, where it is checked."
    )
    ssl_ca_certs: str | None = Field(None, description="The file of authorities to check it by; else the system's.")
    ssl_certfile: str | None = Field(None, description="The certificate that Pollux shows, where one is asked for.")
    ssl_keyfile: str | None = Field(None, description="The key of that certificate.")
    url: SecretStr | None = None
    ttl: float | None = Field(None, description="Not used: `responses.background_mode.ttl` is.")
    redis_startup_nodes: list[dict[str, Any]] | None = None
    sentinel_nodes: list[list[Any]] | None = None
    service_name: str | None = None
    sentinel_password: SecretStr | None = None


def _checked(given: list[Any], read: Callable[[Any], object]) -> list[Any]:
    read(given)
    return given


Targets = Annotated[list[Any], AfterValidator(partial(_checked, read=targets_in))]
Lists = Annotated[list[Any], AfterValidator(partial(_checked, read=table_in))]


class LiteLLMSettings(Foreign):
    cache: bool | None = None
    cache_params: CacheParams = CacheParams()
    responses: ResponsesSection = ResponsesSection()
    num_retries: int | None = Field(None, ge=0, description="Retries before the first output.")
    request_timeout: float | None = Field(None, gt=0, description="Seconds for an answer that is not streamed.")
    allowed_fails: int | None = Field(None, ge=0, description="As in router_settings, which overrules it.")
    fallbacks: Lists = Field([], description="As in router_settings, which overrules it.")
    default_fallbacks: Targets = Field([], description="As in router_settings, which overrules it.")
    context_window_fallbacks: Lists = Field([], description="As in router_settings, which overrules it.")
    content_policy_fallbacks: Lists = Field([], description="As in router_settings, which overrules it.")
    max_fallbacks: int | None = Field(None, ge=0, description="As in router_settings, which overrules it.")
    drop_params: bool = Field(
        False, description="Leave out what a provider can't be told, instead of refusing the request."
    )
    ssl_verify: bool | str | None = Field(
        None, description="Whether to check certificates of upstreams, or the file of authorities to check them by."
    )


class RouterSettings(Foreign):
    num_retries: int | None = Field(None, ge=0, description="Overrules litellm_settings.num_retries.")
    timeout: float | None = Field(None, gt=0, description="As litellm_settings.request_timeout, which overrules it.")
    stream_timeout: float | None = Field(
        None, gt=0, description="Seconds until a streamed answer begins, for deployments that do not say it."
    )
    retry_after: float = Field(
        0, ge=0, description="Seconds that a retry waits at least, where no other deployment is healthy."
    )
    allowed_fails: int | None = Field(
        None, ge=0, description="A deployment that fails more often than this within a minute cools down."
    )
    cooldown_time: float = Field(
        5, ge=0, description="Seconds in which a cooling deployment is not asked while another one is healthy."
    )
    disable_cooldowns: bool = Field(False, description="Ask a deployment that fails like any other.")
    fallbacks: Lists = Field(
        [], description="With which models a request goes on after one has failed: [{model: [next, another]}]."
    )
    default_fallbacks: Targets = Field([], description="The list of all models that have none in fallbacks.")
    context_window_fallbacks: Lists = Field(
        [], description="The lists for requests that are too long for their model; without any, fallbacks count."
    )
    content_policy_fallbacks: Lists = Field(
        [], description="The lists for requests that a provider's rules forbid; without any, fallbacks count."
    )
    max_fallbacks: int | None = Field(None, ge=0, description="How many fallbacks may follow each other.")
    routing_strategy: str | None = Field(
        None, description="How a deployment is chosen: simple-shuffle, least-busy, or another one of LiteLLM's."
    )
    model_group_alias: dict[str, Any] = Field({}, description="Further names: {alias: model_name}.")


class GeneralSettings(Foreign):
    master_key: HashedKeys = Field([], description="The key that sees all, or several; else LITELLM_MASTER_KEY.")
    enforce_fallback_model_access: bool = Field(
        True, description="Whether a request falls back only to models that its key may use."
    )
