"""What the vLLM rollout of two policies relies on inside verl's vLLM modules, beyond names and parameters.

Read in verl's source, so it needs no vLLM; the last test looks at vLLM itself where it is installed.
"""

import ast
import inspect
import re

import pytest
from helpers.fake_vllm import AsyncEngineArgs, SamplingParams
from helpers.verl_source import NEEDS_VLLM, find, source

SERVER = f"{NEEDS_VLLM}.vllm_async_server"
ADAPTER = f"{NEEDS_VLLM}.vllm_rollout"
WORKER = f"{NEEDS_VLLM}.utils"
SOCKET = "ipc:///tmp/rl-colocate-zmq-{job_id}-replica-"


def text(module: str, name: str) -> str:
    return ast.unparse(find(module, name))


def test_sender_and_receiver_build_the_socket_path_alike() -> None:
    assert SOCKET in text(ADAPTER, "ServerAdapter.__init__")
    assert SOCKET in text(WORKER, "vLLMColocateWorkerExtension._get_zmq_handle")


def test_the_sender_takes_the_job_from_ray_and_the_receiver_from_the_variable_we_set() -> None:
    assert "job_id = ray.get_runtime_context().get_job_id()" in text(ADAPTER, "ServerAdapter.__init__")
    assert "os.environ.get('VERL_RAY_JOB_ID'" in text(WORKER, "vLLMColocateWorkerExtension._get_zmq_handle")


def test_the_server_sets_the_variable_before_it_starts_the_engine() -> None:
    assert "os.environ['VERL_RAY_JOB_ID'] = " in text(SERVER, "vLLMHttpServer.__init__")
    assert "AsyncLLM.from_vllm_config" in text(SERVER, "vLLMHttpServer.run_server")
    assert "AsyncLLM" not in text(SERVER, "vLLMHttpServer.__init__")


def test_actor_names_begin_with_the_prefix_on_both_sides() -> None:
    launched = text(SERVER, "vLLMReplica.launch_servers")
    assert "prefix = self._get_server_name_prefix()" in launched
    assert "name = f'{prefix}server_{self.replica_rank}_{node_rank}{self.name_suffix}'" in launched
    assert "self.server_class.options" in launched
    looked_up = text(ADAPTER, "ServerAdapter._ensure_server_handle")
    assert "actor_name = f'{prefix}server_{self.replica_rank}_{self.node_rank}'" in looked_up


def test_the_list_of_names_known_to_a_node_is_complete() -> None:
    """A new one must be looked at, and get its line in `rollout/vllm_replica.py`."""
    modules = (SERVER, ADAPTER, WORKER, f"{NEEDS_VLLM}.bucketed_weight_transfer")
    whole = "\n".join(map(source, modules))
    assert set(re.findall(r'os\.environ\["(\w+)"\] = ', whole)) == {
        "VERL_REPLICA_RANK",
        "VERL_RAY_JOB_ID",
        "VERL_FULL_DETERMINISM",
        "VERL_SEED",
        "VLLM_BATCH_INVARIANT",
        "VERL_VLLM_FP8_QUANT_ENABLED",
    }
    assert set(re.findall(r'f"ipc://([^{]+)', whole)) == {"/tmp/rl-colocate-zmq-"}
    assert re.findall(r'shm_name = f"([^{]+)', whole) == ["verl_weights_"]
    assert whole.count("get_free_port(") == 3


def test_sampling_keys_reach_vllm_as_they_are() -> None:
    generate = text(SERVER, "vLLMHttpServer.generate")
    assert "SamplingParams(max_tokens=max_tokens, **sampling_params)" in generate
    assert "sampling_params['logprobs'] = 0 if sampling_params.pop('logprobs', False) else None" in generate
    assert "token_ids = final_res.outputs[0].token_ids" in generate


@pytest.mark.vllm
def test_vllm_has_what_the_stand_in_has() -> None:
    import vllm
    from vllm.platforms import current_platform
    from vllm.sampling_params import RequestOutputKind
    from vllm.v1.engine.async_llm import AsyncLLM

    for real, stand_in in ((vllm.SamplingParams, SamplingParams), (vllm.AsyncEngineArgs, AsyncEngineArgs)):
        assert set(inspect.signature(stand_in).parameters) <= set(inspect.signature(real).parameters)
    parameters = tuple(inspect.signature(AsyncLLM.generate).parameters)
    assert parameters[:4] == ("self", "prompt", "sampling_params", "request_id")
    assert "engine_args" in inspect.signature(AsyncLLM.from_engine_args).parameters
    assert hasattr(AsyncLLM, "shutdown")
    assert isinstance(current_platform.is_cpu(), bool)
    assert RequestOutputKind.FINAL_ONLY
    assert vllm.TokensPrompt(prompt_token_ids=[1]) == {"prompt_token_ids": [1]}
