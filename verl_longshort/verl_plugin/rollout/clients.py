"""How an agent loop reaches the engines of the two policies.

verl hands one client object from the trainer through the agent-loop manager and its workers to every loop,
untouched: `PairClient` travels that way and carries one verl client per role.
"""

from collections.abc import Mapping
from typing import Any

from longshort_reward.protocol import Role
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.rollout.llm_server import LLMServerClient, LLMServerManager

from verl_longshort.core.trajectory import Generation, Participant
from verl_longshort.engines.registry import spec_of


class OneServerClient(LLMServerClient):
    """verl's client of a policy with a single server: nothing is to be balanced, so no balancer is asked.

    That saves two calls to an actor for each turn.
    """

    def __init__(self, config: Any, load_balancer_handle: Any = None, *, server: tuple[str, Any]) -> None:
        super().__init__(config, load_balancer_handle)
        self._server = server

    async def _acquire_server(self, request_id: str, **extra: Any) -> tuple[str, Any]:
        return self._server

    def _release_server(self, server_id: str, request_id: str | None = None) -> None:
        """Nothing was counted."""


def client_of(manager: LLMServerManager) -> LLMServerClient:
    """A client of the servers of one policy; with `rollout.router_config_path`, the router that it names decides."""
    addresses, replicas = manager.get_addresses(), manager.get_replicas()
    if len(replicas) > 1 or manager.config.actor_rollout_ref.rollout.get("router_config_path"):
        return manager.get_client()
    return manager.get_client(OneServerClient, server=(addresses[0], replicas[0].server_handle))


class PairClient:
    """The clients of both policies and the model configurations whose tokenizers the loops need.

    No dataclass: Hydra, which makes the loops, would take it for a configuration.
    """

    def __init__(self, *, clients: Mapping[Role, LLMServerClient], model_configs: Mapping[Role, Any]) -> None:
        self.clients = clients
        self.model_configs = model_configs


_tokenizers: dict[str, Any] = {}
_KEPT_PROMPTS = 64
"""The sessions of a group, which share their prompt, begin one right after the other."""


def tokenizer_of(model_config: Any) -> Any:
    """The tokenizer of a policy's model, loaded by verl's own rules once per process and model path."""
    path = str(model_config.path)
    if path not in _tokenizers:
        _tokenizers[path] = omega_conf_to_dataclass(model_config).tokenizer
    return _tokenizers[path]


class ServedPolicy:
    """One policy behind a verl rollout server, as the `Generate` of a trajectory."""

    def __init__(self, client: LLMServerClient) -> None:
        self._client = client
        self._adapt = spec_of(client.config.actor_rollout_ref.rollout.name).adapt_sampling

    async def __call__(self, *, request_id: str, prompt_ids: list[int], sampling: dict[str, Any]) -> Generation:
        """Generate one turn; token ids in, token ids out."""
        keys = self._adapt(sampling, len(prompt_ids))
        output = await self._client.generate(request_id, prompt_ids=prompt_ids, sampling_params=keys)
        return Generation(
            token_ids=list(output.token_ids),
            logprobs=None if output.log_probs is None else list(output.log_probs),
            finish_reason=_finish_reason(output, sampling["max_tokens"]),
            extra=dict(output.extra_fields),
        )


def _finish_reason(output: Any, max_tokens: int) -> str:
    if output.stop_reason == "aborted":
        return "aborted"
    if "finish_reason" in output.extra_fields:
        return str(output.extra_fields["finish_reason"])
    # other engines of verl fold "stop" and "length" into "completed"; the number of tokens tells them apart,
    # and a turn whose very last permitted token closed it is recognised by its closing tag later on
    return "length" if len(output.token_ids) >= max_tokens else "stop"


def participants(client: PairClient) -> dict[Role, Participant]:
    """Both policies of a run as the participants of a trajectory."""
    return {
        role: Participant(
            tokenizer=tokenizer_of(client.model_configs[role]),
            generate=ServedPolicy(served),
            response_tokens=served.config.data.max_response_length,
            kept_prompts=_KEPT_PROMPTS,
        )
        for role, served in client.clients.items()
    }
