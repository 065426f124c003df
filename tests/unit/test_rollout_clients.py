"""How a policy's servers are reached: through verl's balancer, or directly where there is nothing to balance."""

from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf
from verl.workers.rollout.llm_server import LLMServerClient, LLMServerManager
from verl.workers.rollout.replica import TokenOutput

from verl_longshort.verl_plugin.rollout.clients import OneServerClient, client_of


def manager_of(servers: int, **rollout: Any) -> LLMServerManager:
    """A manager as it is when its servers have been started."""
    made = object.__new__(LLMServerManager)
    made.config = OmegaConf.create({"actor_rollout_ref": {"rollout": {"name": "transformers", **rollout}}})
    made.server_addresses = [f"server {number}" for number in range(servers)]
    made.rollout_replicas = [SimpleNamespace(server_handle=f"handle {number}") for number in range(servers)]
    made.global_load_balancer = "balancer"
    return made


@pytest.mark.asyncio
async def test_a_single_server_is_asked_without_a_balancer() -> None:
    asked: list[dict[str, Any]] = []

    async def answer(**request: Any) -> TokenOutput:
        asked.append(request)
        return TokenOutput(token_ids=[4, 5], extra_fields={"global_steps": 3})

    manager = manager_of(1)
    manager.rollout_replicas[0].server_handle = SimpleNamespace(generate=SimpleNamespace(remote=answer))
    client = client_of(manager)
    # there is no actor that could be asked for a server, or told that one is free again
    assert isinstance(client, OneServerClient)
    output = await client.generate("a", prompt_ids=[1, 2], sampling_params={"temperature": 0})
    assert output.token_ids == [4, 5]
    assert output.extra_fields["max_global_steps"] == 3
    assert [request["prompt_ids"] for request in asked] == [[1, 2]]


@pytest.mark.parametrize(("servers", "rollout"), [(2, {}), (1, {"router_config_path": "router.yaml"})])
def test_several_servers_and_routers_of_ones_own_keep_verls_balancer(servers: int, rollout: dict[str, Any]) -> None:
    client = client_of(manager_of(servers, **rollout))
    assert type(client) is LLMServerClient
    assert client._load_balancer == "balancer"
