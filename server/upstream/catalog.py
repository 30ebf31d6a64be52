"""The providers that LiteLLM's prefixes name, as data: what each speaks, where, and how it is given its key.

A config must mean the same here as in LiteLLM, so names, addresses and variables are LiteLLM's (1.110:
`get_llm_provider_logic.py`, `llms/*/chat/transformation.py`, `llms/openai_like/providers.json`), unless a comment names
another source. The dialect is the one that a provider serves best: `responses` only where that API is not a trial.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from server.protocol.dialects.manners import Dialect, Manners

_NONE: Mapping[str, str] = MappingProxyType({})
_CHAT = Manners(Dialect.CHAT)


@dataclass(frozen=True, slots=True)
class Provider:
    """How a provider is reached, and what it understands."""

    base_url: str | None = None
    """What the operation's path is appended to, if the provider has one address for all."""
    key_variables: tuple[str, ...] = ()
    """Environment variables with its key; the first one that is set counts."""
    base_variables: tuple[str, ...] = ()
    """Environment variables that override the address; the first one that is set counts."""
    manners: Manners = _CHAT
    """The dialect that it speaks best, and how far it goes along with it."""
    key_header: str = "Authorization"
    """Where the key goes; `Authorization` has `Bearer` in front."""
    headers: Mapping[str, str] = field(default_factory=lambda: _NONE)
    """Headers that it demands."""
    ends: str = ""
    """The end of each of its base URLs. What a config leaves out of that is added: LiteLLM adds it too."""
    needs_key: bool = True
    needs_base: str = "litellm_params.api_base"
    """The setting that an error message asks for if the address is unknown."""


def _chat(base: str, keys: tuple[str, ...], bases: tuple[str, ...] = ()) -> Provider:
    """A provider of Chat Completions without peculiarities."""
    return Provider(base, keys, bases)


_OPENAI_KEYS, _OPENAI_BASES = ("OPENAI_API_KEY",), ("OPENAI_BASE_URL", "OPENAI_API_BASE")
_AZURE_KEYS = ("AZURE_OPENAI_API_KEY", "AZURE_API_KEY")
_COMPLETION_TOKENS = "max_completion_tokens"
_OLLAMA = Provider(
    # Its own API is at the root, the compatible one below /v1 (https://docs.ollama.com/openai).
    "http://localhost:11434/v1",
    ("OLLAMA_API_KEY",),
    ("OLLAMA_API_BASE",),
    ends="/v1",
    needs_key=False,
)
_COHERE = Provider(
    # https://docs.cohere.com/docs/compatibility-api; it refuses to be asked for the usage, and sends it.
    "https://api.cohere.ai/compatibility/v1",
    ("COHERE_API_KEY", "CO_API_KEY"),
    ("COHERE_API_BASE",),
    ends="/compatibility/v1",
    manners=Manners(Dialect.CHAT, stream_usage=False),
)

_BEDROCK = Provider(key_variables=("AWS_BEARER_TOKEN_BEDROCK",), needs_key=False)
_VERTEX = Provider(needs_base="litellm_params.api_base, or VERTEXAI_API_BASE,")

PROVIDERS: Mapping[str, Provider] = {
    "openai": Provider(
        "https://api.openai.com/v1", _OPENAI_KEYS, _OPENAI_BASES, manners=Manners(Dialect.RESPONSES, full=True)
    ),
    "azure": Provider(
        None,
        _AZURE_KEYS,
        ("AZURE_API_BASE",),
        key_header="api-key",
        needs_base="litellm_params.api_base, or AZURE_API_BASE,",
        manners=Manners(Dialect.RESPONSES, full=True),
    ),
    "azure_ai": Provider(
        None,
        ("AZURE_AI_API_KEY",),
        ("AZURE_AI_API_BASE",),
        key_header="api-key",
        needs_base="litellm_params.api_base, or AZURE_AI_API_BASE,",
    ),
    # https://docs.claude.com/en/api/messages
    "anthropic": Provider(
        "https://api.anthropic.com/v1",
        ("ANTHROPIC_API_KEY",),
        ("ANTHROPIC_API_BASE", "ANTHROPIC_BASE_URL"),
        key_header="x-api-key",
        headers=MappingProxyType({"anthropic-version": "2023-06-01"}),
        ends="/v1",
        manners=Manners(Dialect.MESSAGES),
    ),
    # https://ai.google.dev/gemini-api/docs/openai; LiteLLM speaks Google's own API below /v1beta.
    "gemini": Provider(
        "https://generativelanguage.googleapis.com/v1beta/openai",
        ("GOOGLE_API_KEY", "GEMINI_API_KEY", "PALM_API_KEY"),
        ("GEMINI_API_BASE",),
        ends="/v1beta/openai",
        manners=Manners(Dialect.CHAT, signed_calls=True),
    ),
    # How these are reached is in `bedrock` and `vertex`.
    "bedrock": _BEDROCK,
    "vertex_ai": _VERTEX,
    "vertex_ai_beta": _VERTEX,
    # Its Responses API is a trial and keeps nothing (https://console.groq.com/docs/responses-api).
    "groq": Provider(
        "https://api.groq.com/openai/v1",
        ("GROQ_API_KEY",),
        ("GROQ_API_BASE",),
        manners=Manners(Dialect.CHAT, max_tokens_field=_COMPLETION_TOKENS),
    ),
    # It answers an unknown field with 422, `stream_options` too, and always sends the usage.
    "mistral": Provider(
        "https://api.mistral.ai/v1",
        ("MISTRAL_AZURE_API_KEY", "MISTRAL_API_KEY"),
        ("MISTRAL_AZURE_API_BASE",),
        ends="/v1",
        manners=Manners(Dialect.CHAT, stream_usage=False, nine_letter_ids=True),
    ),
    # https://api-docs.deepseek.com/guides/json_mode and /guides/thinking_mode
    "deepseek": Provider(
        "https://api.deepseek.com/v1",
        ("DEEPSEEK_API_KEY",),
        ("DEEPSEEK_API_BASE",),
        manners=Manners(Dialect.CHAT, json_schema=False, reasoning_back=True),
    ),
    "xai": Provider("https://api.x.ai/v1", ("XAI_API_KEY",), ("XAI_API_BASE",), manners=Manners(Dialect.RESPONSES)),
    "openrouter": Provider(
        "https://openrouter.ai/api/v1", ("OPENROUTER_API_KEY", "OR_API_KEY"), ("OPENROUTER_API_BASE",)
    ),
    "together_ai": Provider(
        "https://api.together.xyz/v1",
        ("TOGETHER_API_KEY", "TOGETHER_AI_API_KEY", "TOGETHERAI_API_KEY", "TOGETHER_AI_TOKEN"),
        ("TOGETHER_AI_API_BASE",),
    ),
    "fireworks_ai": Provider(
        "https://api.fireworks.ai/inference/v1",
        ("FIREWORKS_API_KEY", "FIREWORKS_AI_API_KEY", "FIREWORKSAI_API_KEY", "FIREWORKS_AI_TOKEN"),
        ("FIREWORKS_API_BASE",),
    ),
    "perplexity": Provider(
        "https://api.perplexity.ai", ("PERPLEXITYAI_API_KEY", "PERPLEXITY_API_KEY"), ("PERPLEXITY_API_BASE",)
    ),
    "cohere": _COHERE,
    "cohere_chat": _COHERE,
    "cerebras": Provider(
        "https://api.cerebras.ai/v1",
        ("CEREBRAS_API_KEY",),
        ("CEREBRAS_API_BASE",),
        manners=Manners(Dialect.CHAT, max_tokens_field=_COMPLETION_TOKENS),
    ),
    # https://platform.moonshot.ai/docs/guide/use-kimi-k2-thinking-model
    "moonshot": Provider(
        "https://api.moonshot.ai/v1",
        ("MOONSHOT_API_KEY",),
        ("MOONSHOT_API_BASE",),
        manners=Manners(Dialect.CHAT, reasoning_back=True),
    ),
    "zai": Provider(
        "https://api.z.ai/api/paas/v4",
        ("ZAI_API_KEY",),
        ("ZAI_API_BASE",),
        manners=Manners(Dialect.CHAT, reasoning_back=True),
    ),
    "minimax": Provider("https://api.minimax.io/v1", ("MINIMAX_API_KEY",), ("MINIMAX_API_BASE",), ends="/v1"),
    "huggingface": Provider(
        "https://router.huggingface.co/v1",
        ("HF_TOKEN", "HUGGINGFACE_API_KEY"),
        ("HF_API_BASE", "HUGGINGFACE_API_BASE"),
        ends="/v1",
    ),
    "github": Provider(
        "https://models.inference.ai.azure.com", ("GITHUB_API_KEY", "GITHUB_TOKEN"), ("GITHUB_API_BASE",)
    ),
    "github_copilot": Provider("https://api.githubcopilot.com", (), ("GITHUB_COPILOT_API_BASE",)),
    "databricks": Provider(
        None,
        ("DATABRICKS_API_KEY",),
        ("DATABRICKS_API_BASE",),
        ends="/serving-endpoints",
        needs_base="litellm_params.api_base, or DATABRICKS_API_BASE,",
    ),
    "cloudflare": Provider(
        None,
        ("CLOUDFLARE_API_KEY",),
        ("CLOUDFLARE_API_BASE",),
        ends="/ai/v1",
        needs_base="litellm_params.api_base (https://api.cloudflare.com/client/v4/accounts/<account>/ai/v1), or "
        "CLOUDFLARE_ACCOUNT_ID,",
    ),
    "ollama": _OLLAMA,
    "ollama_chat": _OLLAMA,
    "lm_studio": Provider("http://localhost:1234/v1", ("LM_STUDIO_API_KEY",), ("LM_STUDIO_API_BASE",), needs_key=False),
    "hosted_vllm": Provider(None, ("HOSTED_VLLM_API_KEY",), ("HOSTED_VLLM_API_BASE",), needs_key=False),
    "vllm": Provider(None, (), ("VLLM_API_BASE",), needs_key=False),
    "llamafile": Provider("http://127.0.0.1:8080/v1", ("LLAMAFILE_API_KEY",), ("LLAMAFILE_API_BASE",), needs_key=False),
    "xinference": Provider(
        "http://127.0.0.1:9997/v1", ("XINFERENCE_API_KEY",), ("XINFERENCE_API_BASE",), needs_key=False
    ),
    "custom_openai": Provider(None, _OPENAI_KEYS, _OPENAI_BASES, needs_key=False),
    "openai_like": Provider(None, ("OPENAI_LIKE_API_KEY",), ("OPENAI_LIKE_API_BASE",), needs_key=False),
    "litellm_proxy": Provider(
        None,
        ("LITELLM_PROXY_API_KEY",),
        ("LITELLM_PROXY_API_BASE",),
        needs_key=False,
        needs_base="litellm_params.api_base, or LITELLM_PROXY_API_BASE,",
        manners=Manners(Dialect.RESPONSES, full=True),
    ),
    "vercel_ai_gateway": Provider(
        "https://ai-gateway.vercel.sh/v1",
        ("VERCEL_AI_GATEWAY_API_KEY", "VERCEL_OIDC_TOKEN"),
        ("VERCEL_AI_GATEWAY_API_BASE",),
        manners=Manners(Dialect.RESPONSES),
    ),
    "manus": Provider(
        "https://api.manus.im/v1",
        ("MANUS_API_KEY",),
        ("MANUS_API_BASE",),
        key_header="API_KEY",
        manners=Manners(Dialect.RESPONSES),
    ),
    "sambanova": _chat("https://api.sambanova.ai/v1", ("SAMBANOVA_API_KEY",), ("SAMBANOVA_API_BASE",)),
    "nvidia_nim": _chat("https://integrate.api.nvidia.com/v1", ("NVIDIA_NIM_API_KEY",), ("NVIDIA_NIM_API_BASE",)),
    "deepinfra": _chat("https://api.deepinfra.com/v1/openai", ("DEEPINFRA_API_KEY",), ("DEEPINFRA_API_BASE",)),
    "hyperbolic": _chat("https://api.hyperbolic.xyz/v1", ("HYPERBOLIC_API_KEY",), ("HYPERBOLIC_API_BASE",)),
    "novita": _chat("https://api.novita.ai/v3/openai", ("NOVITA_API_KEY",), ("NOVITA_API_BASE",)),
    "nebius": _chat("https://api.studio.nebius.ai/v1", ("NEBIUS_API_KEY",), ("NEBIUS_API_BASE",)),
    "dashscope": _chat(
        "https://dashscope.aliyuncs.com/compatible-mode/v1", ("DASHSCOPE_API_KEY",), ("DASHSCOPE_API_BASE",)
    ),
    "qwencloud": _chat(
        "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        ("QWENCLOUD_API_KEY", "DASHSCOPE_API_KEY"),
        ("QWENCLOUD_API_BASE",),
    ),
    "qwen_ai_platform": _chat(
        "https://dashscope.aliyuncs.com/compatible-mode/v1",
        ("QWEN_AI_PLATFORM_API_KEY", "DASHSCOPE_API_KEY"),
        ("QWEN_AI_PLATFORM_API_BASE",),
    ),
    "bigmodel": _chat("https://open.bigmodel.cn/api/paas/v4", ("BIGMODEL_API_KEY",), ("BIGMODEL_API_BASE",)),
    "volcengine": _chat(
        "https://ark.cn-beijing.volces.com/api/v3",
        ("VOLCENGINE_API_KEY", "ARK_API_KEY"),
        ("VOLCENGINE_API_BASE", "ARK_API_BASE"),
    ),
    "ai21": _chat("https://api.ai21.com/studio/v1", ("AI21_API_KEY",), ("AI21_API_BASE",)),
    "ai21_chat": _chat("https://api.ai21.com/studio/v1", ("AI21_API_KEY",), ("AI21_API_BASE",)),
    "codestral": _chat("https://codestral.mistral.ai/v1", ("CODESTRAL_API_KEY",), ("CODESTRAL_API_BASE",)),
    "featherless_ai": _chat(
        "https://api.featherless.ai/v1",
        ("FEATHERLESS_AI_API_KEY", "FEATHERLESS_API_KEY"),
        ("FEATHERLESS_AI_API_BASE", "FEATHERLESS_API_BASE"),
    ),
    "nscale": _chat("https://inference.api.nscale.com/v1", ("NSCALE_API_KEY",), ("NSCALE_API_BASE",)),
    "lambda_ai": _chat("https://api.lambda.ai/v1", ("LAMBDA_API_KEY",), ("LAMBDA_API_BASE",)),
    "friendliai": _chat(
        "https://api.friendli.ai/serverless/v1", ("FRIENDLIAI_API_KEY", "FRIENDLI_TOKEN"), ("FRIENDLI_API_BASE",)
    ),
    "galadriel": _chat("https://api.galadriel.com/v1", ("GALADRIEL_API_KEY",), ("GALADRIEL_API_BASE",)),
    "meta_llama": _chat("https://api.llama.com/compat/v1", ("LLAMA_API_KEY",), ("LLAMA_API_BASE",)),
    "v0": _chat("https://api.v0.dev/v1", ("V0_API_KEY",), ("V0_API_BASE",)),
    "morph": _chat("https://api.morphllm.com/v1", ("MORPH_API_KEY",), ("MORPH_API_BASE",)),
    "aiml": _chat("https://api.aimlapi.com/v1", ("AIML_API_KEY",), ("AIML_API_BASE",)),
    "baseten": _chat("https://inference.baseten.co/v1", ("BASETEN_API_KEY",), ("BASETEN_API_BASE",)),
    "nadir": _chat("https://api.getnadir.com/v1", ("NADIR_API_KEY",), ("NADIR_API_BASE",)),
    "empower": _chat("https://app.empower.dev/api/v1", ("EMPOWER_API_KEY",), ("EMPOWER_API_BASE",)),
    "tencent": _chat("https://tokenhub-intl.tencentcloudmaas.com/v1", ("TENCENT_API_KEY",), ("TENCENT_API_BASE",)),
    "modelscope": _chat("https://api-inference.modelscope.cn/v1", ("MODELSCOPE_API_KEY",), ("MODELSCOPE_API_BASE",)),
    "docker_model_runner": _chat(
        "http://localhost:22088/engines/llama.cpp/v1",
        ("DOCKER_MODEL_RUNNER_API_KEY",),
        ("DOCKER_MODEL_RUNNER_API_BASE",),
    ),
    "inception": _chat("https://api.inceptionlabs.ai/v1", ("INCEPTION_API_KEY",), ("INCEPTION_API_BASE",)),
    "gradient_ai": _chat("https://inference.do-ai.run/v1", ("GRADIENT_AI_API_KEY",), ("GRADIENT_AI_AGENT_ENDPOINT",)),
    "heroku": _chat("https://us.inference.heroku.com/v1", ("HEROKU_API_KEY",), ("HEROKU_API_BASE",)),
    "wandb": _chat("https://api.inference.wandb.ai/v1", ("WANDB_API_KEY",), ("WANDB_API_BASE",)),
    "cometapi": _chat("https://api.cometapi.com/v1", ("COMETAPI_KEY",), ("COMETAPI_API_BASE",)),
    "lemonade": _chat("http://localhost:8000/api/v1", ("LEMONADE_API_KEY",), ("LEMONADE_API_BASE",)),
    "ovhcloud": _chat(
        "https://oai.endpoints.kepler.ai.cloud.ovh.net/v1", ("OVHCLOUD_API_KEY",), ("OVHCLOUD_API_BASE",)
    ),
    "compactifai": _chat("https://api.compactif.ai/v1", ("COMPACTIFAI_API_KEY",)),
    "edenai": _chat("https://api.edenai.run/v3", ("EDENAI_API_KEY",), ("EDENAI_API_BASE",)),
    "amazon_nova": _chat("https://api.nova.amazon.com/v1", ("AMAZON_NOVA_API_KEY",), ("AMAZON_NOVA_API_BASE",)),
    "opencode_go": _chat(
        "https://opencode.ai/inference/go/openai/v1",
        ("OPENCODE_GO_API_KEY", "OPENCODE_API_KEY"),
        ("OPENCODE_GO_API_BASE",),
    ),
    "clf_ai_gateway": _chat(
        "https://api.clfaigateway.dev/v1", ("CLF_AI_GATEWAY_API_KEY",), ("CLF_AI_GATEWAY_API_BASE",)
    ),
    "publicai": _chat("https://api.publicai.co/v1", ("PUBLICAI_API_KEY",), ("PUBLICAI_API_BASE",)),
    "helicone": _chat("https://ai-gateway.helicone.ai", ("HELICONE_API_KEY",)),
    "veniceai": _chat("https://api.venice.ai/api/v1", ("VENICE_AI_API_KEY",)),
    "xiaomi_mimo": _chat("https://api.xiaomimimo.com/v1", ("XIAOMI_MIMO_API_KEY",)),
    "scaleway": _chat("https://api.scaleway.ai/v1", ("SCW_SECRET_KEY",)),
    "synthetic": _chat("https://api.synthetic.new/openai/v1", ("SYNTHETIC_API_KEY",)),
    "apertis": _chat("https://api.stima.tech/v1", ("STIMA_API_KEY",)),
    "nano-gpt": _chat("https://nano-gpt.com/api/v1", ("NANOGPT_API_KEY",)),
    "poe": _chat("https://api.poe.com/v1", ("POE_API_KEY",)),
    "zerogpu": _chat("https://api.zerogpu.ai/v1", ("ZEROGPU_API_KEY",), ("ZEROGPU_API_BASE",)),
    "chutes": _chat("https://llm.chutes.ai/v1", ("CHUTES_API_KEY",)),
    "abliteration": _chat("https://api.abliteration.ai/v1", ("ABLITERATION_API_KEY",)),
    "llamagate": _chat("https://api.llamagate.dev/v1", ("LLAMAGATE_API_KEY",)),
    "gmi": _chat("https://api.gmi-serving.com/v1", ("GMI_API_KEY",)),
    "sarvam": _chat("https://api.sarvam.ai/v1", ("SARVAM_API_KEY",)),
    "assemblyai": _chat("https://llm-gateway.assemblyai.com/v1", ("ASSEMBLYAI_API_KEY",)),
    "charity_engine": _chat("https://api.charityengine.services/remotejobs/v2/inference", ("CHARITY_ENGINE_API_KEY",)),
    "aihubmix": _chat("https://aihubmix.com/v1", ("AIHUBMIX_API_KEY",), ("AIHUBMIX_API_BASE",)),
    "aiand": _chat("https://api.aiand.com/v1", ("AIAND_API_KEY",), ("AIAND_API_BASE",)),
    "crusoe": _chat("https://api.inference.crusoecloud.com/v1", ("CRUSOE_API_KEY",), ("CRUSOE_API_BASE",)),
    "darkbloom": _chat("https://api.darkbloom.dev/v1", ("DARKBLOOM_API_KEY",), ("DARKBLOOM_API_BASE",)),
    "neosantara": _chat("https://api.neosantara.xyz/v1", ("NEOSANTARA_API_KEY",), ("NEOSANTARA_API_BASE",)),
    "tensormesh": _chat(
        "https://serverless.tensormesh.ai/v1", ("TENSORMESH_INFERENCE_API_KEY",), ("TENSORMESH_SERVERLESS_BASE_URL",)
    ),
    "parasail": _chat("https://api.parasail.io/v1", ("PARASAIL_API_KEY",), ("PARASAIL_API_BASE",)),
    "libertai": _chat("https://api.libertai.io/v1", ("LIBERTAI_API_KEY",), ("LIBERTAI_API_BASE",)),
    "empiriolabs": _chat("https://api.empiriolabs.ai/v1", ("EMPIRIOLABS_API_KEY",), ("EMPIRIOLABS_API_BASE",)),
    "meta": _chat("https://api.meta.ai/v1", ("META_API_KEY",), ("META_API_BASE",)),
    "cognition": _chat("https://api.cognition.ai/v1", ("COGNITION_API_KEY",), ("COGNITION_API_BASE",)),
    "coralbricks": _chat("https://inference.coralbricks.ai/v1", ("CORALBRICKS_API_KEY",), ("CORALBRICKS_API_BASE",)),
    "cortecs": _chat("https://api.cortecs.ai/v1", ("CORTECS_API_KEY",), ("CORTECS_API_BASE",)),
    "pinstripes": _chat("https://pinstripes.io/v1", ("PINSTRIPES_API_KEY",), ("PINSTRIPES_API_BASE",)),
    "scx-ai": _chat("https://api.scx.ai/v1", ("SCX_API_KEY",), ("SCX_API_BASE",)),
    "prism": _chat("https://api.prisminference.com/v1", ("PRISM_API_KEY",), ("PRISM_API_BASE",)),
    "hostinger_router": _chat(
        "https://router.hostinger.com/v1", ("HOSTINGER_ROUTER_API_KEY",), ("HOSTINGER_ROUTER_API_BASE",)
    ),
    "sail": _chat("https://api.sailresearch.com/v1", ("SAIL_API_KEY",), ("SAIL_API_BASE",)),
    "reka": _chat("https://api.reka.ai/v1", ("REKA_API_KEY",), ("REKA_API_BASE",)),
    "openinfer": _chat("https://api.openinfer.ai/v1", ("OPENINFER_API_KEY",), ("OPENINFER_API_BASE",)),
    "inferenceapis": _chat("https://api.inferenceapis.com/v1", ("INFERENCEAPIS_API_KEY",), ("INFERENCEAPIS_API_BASE",)),
    "refuseless": _chat("https://api.refuseless.com/v1", ("REFUSELESS_API_KEY",)),
    "kyma": _chat("https://kymaapi.com/v1", ("KYMA_API_KEY",)),
    "streamlake": _chat(
        "https://vanchin.streamlake.ai/api/gateway/v1/endpoints", ("STREAMLAKE_API_KEY",), ("STREAMLAKE_API_BASE",)
    ),
    "wally": _chat("https://inference.runanywhere.ai/v1", ("WALLY_API_KEY",), ("WALLY_API_BASE",)),
}

OWN_APIS: Mapping[str, str] = {
    "sagemaker": "Amazon's own API",
    "watsonx": "IBM's own API",
    "replicate": "Replicate's own API",
    "predibase": "Predibase's own API",
    "oci": "Oracle's own API",
    "text-completion-openai": "the older Completions",
    "text-completion-codestral": "the older Completions",
}
"""Providers that serve none of the three dialects. A LiteLLM proxy as upstream can translate for them."""
