"""The error that a stop verdict becomes: who refused, what it said in codes, and what to do about it."""

from __future__ import annotations

from medkd.errors import ConfigError, MedkdError, RefusedError
from medkd.teacher.verdicts import Verdict

_ADVICE: dict[str, tuple[type[MedkdError], str]] = {
    "money": (RefusedError, "its money or spending limit is used up; top up with the provider, then run again to continue"),
    "key": (RefusedError, "it does not accept the API key; check the secret named by api_key_env"),
    "permission": (RefusedError, "the API key may not use it; check the key's rights, region and network rules"),
    "limit": (RefusedError, "a limit of the account is reached that waiting does not lift; raise it, then run again to continue"),
    "model": (ConfigError, "it does not serve this model or path; check model and base_url"),
    "request": (ConfigError, "it does not take a request like this; change the teacher's parameters"),
    "prompt": (
        ConfigError,
        "it cuts prompts without saying so; raise its context length (Ollama OLLAMA_CONTEXT_LENGTH, llama.cpp --ctx-size, vLLM "
        "--max-model-len), or set the teacher's min_tokens_per_word to 0 if its usage counts wrongly",
    ),
    "configuration": (ConfigError, "it cannot be called like this; check base_url, certificates and proxies"),
}


def stop_error(label: str, verdict: Verdict) -> MedkdError:
    """The error for a verdict of kind `stop`; `label` names the teacher."""
    kind, advice = _ADVICE[verdict.reason]
    details = (
        f"HTTP {verdict.status}" if verdict.status else "",
        f"code {verdict.code}" if verdict.code else "",
        f"field {verdict.field}" if verdict.field else "",
    )
    said = ", ".join(detail for detail in details if detail)
    return kind(f"{label}: {advice}" + (f" ({said})" if said else ""))
