"""Who serves embedding models behind an address."""

from __future__ import annotations

_NAMES = """
    anyscale azure azure_ai bedrock cohere custom_openai databricks deepinfra fireworks_ai gemini hosted_vllm
    huggingface infinity jina_ai litellm_proxy lm_studio mistral nebius nvidia_nim ollama openai openrouter
    sagemaker snowflake together_ai vertex_ai voyage watsonx xinference
"""

PROVIDERS = frozenset(_NAMES.split())
"""The first part of names that are a provider's and not an owner's on the hub, unless `kind` says otherwise."""
