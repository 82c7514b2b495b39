"""Our client against OpenAI-compatible servers that are not ours; skipped where they are not installed."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from medkd.config import TeacherConfig
from medkd.errors import ConfigError, RefusedError, UnreachableError
from medkd.records import PATIENT_RECORD
from medkd.samples import SampleSpec
from medkd.simulator.server import Server
from medkd.store.files import open_store
from medkd.teacher.client import TeacherClient
from medkd.teacher.prompts import conversation_request, extraction_request
from tests.generation import Worker, planned, start_simulator
from tests.interoperation.servers import command_of, serving, write_tiny_model

pytestmark = [pytest.mark.interoperation, pytest.mark.timeout(900)]

LLAMA_CPP = Path(__file__).with_name("llama_cpp.py")

SPEC = SampleSpec(index=0, variation=0, topic="gout", mood="calm", exchanges=4, age=61, sex="male", style="terse", seed=1)
TALK = "Doctor: What brings you here?\nPatient: My toe hurts, I take ibuprofen 200 mg."


def teacher(url: str, model: str, **changes: Any) -> TeacherConfig:
    fields = {"protocol": "openai", "base_url": url, "model": model, "auth": "none", "temperature": 0.7, "takes_seed": True}
    small = {"max_conversation_tokens": 40, "max_record_tokens": 120, "limits": {"max_concurrency": 2}}
    return TeacherConfig.model_validate({**fields, **small, **changes})


def client_of(config: TeacherConfig, key: str | None = None) -> TeacherClient:
    return TeacherClient(config, api_key=key, stop=threading.Event(), unreachable_seconds=120)


def answers_like_a_teacher(config: TeacherConfig) -> None:
    """A model of random weights says nothing of use, and all that the client needs to know of it: how it ended, what it cost."""
    client = client_of(config)
    assert config.model in client.models() or not client.models()
    assert client.probe(conversation_request(SPEC, config)).outcome in ("reply", "repair")
    for request in (
        conversation_request(SPEC, config),
        extraction_request(TALK, PATIENT_RECORD, config, seed=1),
    ):
        answer = client.ask(request, lambda upper_bound: None)
        assert answer.outcome in ("reply", "repair") and answer.attempts == 1
        assert answer.reply is not None and answer.reply.usage is not None and answer.reply.finish in ("stop", "length")
        assert answer.reply.usage.prompt_tokens > 100 and answer.reply.served_model
    client.close()


def ends_a_shard(config: TeacherConfig, name: str) -> None:
    """Nonsense is rejected and topped up, and the shard still ends."""
    store = open_store(f"memory://interoperation-{name}")
    planned(store, config, samples=3)
    manifest = Worker(store, config).run()
    assert manifest.counts["accepted"] + manifest.counts["short"] == 3
    assert manifest.counts["calls"] > 0 and manifest.counts["completion_tokens"] > 0


def test_llama_cpp(tmp_path: Path) -> None:
    command = command_of("llama-cpp", "python", str(LLAMA_CPP))
    with serving(command, tmp_path / "server.log") as url:
        (model,) = client_of(teacher(url, "any")).models()
        config = teacher(url, model, structured_output="json_schema")
        answers_like_a_teacher(config)
        ends_a_shard(config, "llama-cpp")
        client = client_of(config)
        too_long = client.ask(extraction_request(TALK * 3000, PATIENT_RECORD, config, seed=1), lambda upper_bound: None)
        assert (too_long.outcome, too_long.reason) == ("reject", "too_long")
        client.close()


def test_llama_cpp_keeps_to_a_schema(tmp_path: Path) -> None:
    command = command_of("llama-cpp", "python", str(LLAMA_CPP))
    with serving(command, tmp_path / "server.log") as url:
        (model,) = client_of(teacher(url, "any")).models()
        client = client_of(teacher(url, model, structured_output="json_schema", max_record_tokens=200))
        request = extraction_request(TALK, PATIENT_RECORD, teacher(url, model), seed=1)
        answer = client.ask(request, lambda upper_bound: None)
        assert answer.reply is not None and answer.reply.text.lstrip().startswith("{")
        client.close()


def test_transformers_serve(tmp_path: Path) -> None:
    command = command_of("transformers", "transformers", "serve")
    write_tiny_model(tmp_path / "tiny")
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    with serving([*command, "--device", "cpu"], tmp_path / "server.log", **environment) as url:
        config = teacher(url, str(tmp_path / "tiny"), structured_output="none", takes_seed=False)
        client = client_of(config)
        for request in (conversation_request(SPEC, config), extraction_request(TALK, PATIENT_RECORD, config, seed=1)):
            answer = client.ask(request, lambda upper_bound: None)
            assert answer.outcome in ("reply", "repair") and answer.reply is not None and answer.reply.usage is not None
            assert answer.reply.finish in ("stop", "length")
        client.close()
        ends_a_shard(config, "transformers")
        # It answers a model that it cannot load with a 500, like any trouble of its own.
        with pytest.raises(UnreachableError):
            client_of(teacher(url, str(tmp_path / "nowhere"))).probe(conversation_request(SPEC, config))


# --- a gateway in front of the simulated teacher ------------------------------------------------------------------------


def gateway_config(folder: Path, server: Server) -> Path:
    upstream = {"model": "openai/clinic-1", "api_base": f"{server.url}/v1", "api_key": "behind-the-gateway"}
    config = {
        "model_list": [{"model_name": "gateway-1", "litellm_params": upstream}],
        "router_settings": {"num_retries": 0, "disable_cooldowns": True},
        "litellm_settings": {"num_retries": 0},
        "general_settings": {"master_key": "sk-gateway-1"},
    }
    path = folder / "litellm.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    return path


def test_litellm_in_front_of_the_simulator(tmp_path: Path) -> None:
    command = command_of("litellm", "litellm")
    with start_simulator(api_key="behind-the-gateway") as server:
        line = [*command, "--config", str(gateway_config(tmp_path, server))]
        with serving(line, tmp_path / "server.log", LITELLM_LOCAL_MODEL_COST_MAP="True") as url:
            room = {"max_conversation_tokens": 3000, "max_record_tokens": 1500, "structured_output": "json_schema"}
            config = teacher(url, "gateway-1", auth="bearer", api_key_env="GATEWAY_KEY", **room)
            client = client_of(config, "sk-gateway-1")
            assert client.models() == ["gateway-1"]
            client.close()
            # Without a database the proxy answers an unknown key with a 400 that says so, and not with a 401.
            with pytest.raises((RefusedError, ConfigError)):
                client_of(config, "sk-wrong").probe(conversation_request(SPEC, config))

            store = open_store("memory://interoperation-litellm")
            planned(store, config, samples=10)
            server.counters.begin_anew()
            set_faults(server, "rate_limit_text@3,http_500@6,overloaded@9,fenced_json:0.1,refusal@12,html_502@15")
            manifest = Worker(store, config, api_key="sk-gateway-1").run()
            assert manifest.counts["accepted"] == 10

            for fault, error in (("money@1-", RefusedError), ("dead_model@1-", ConfigError)):
                set_faults(server, fault)
                with pytest.raises(error):
                    client_of(config, "sk-gateway-1").ask(conversation_request(SPEC, config), lambda upper_bound: None)
            set_faults(server, "too_long@1-")
            long = client_of(config, "sk-gateway-1").ask(conversation_request(SPEC, config), lambda upper_bound: None)
            assert (long.outcome, long.reason) == ("reject", "too_long")


def set_faults(server: Server, spec: str) -> None:
    from urllib.request import Request, urlopen

    urlopen(Request(f"{server.url}/faults", data=spec.encode(), method="PUT"), timeout=60).close()
