"""The Ray actor that serves one policy to verl, and verl's replica, which says where it runs and starts it."""

import asyncio
from collections.abc import Mapping
from typing import Any

import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from verl.plugin.platform import get_platform
from verl.utils import normalize_token_ids
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.device import get_device_name, get_resource_name
from verl.workers.config import HFModelConfig, RolloutConfig
from verl.workers.rollout.replica import RolloutMode, RolloutReplica, TokenOutput

from verl_longshort.base.seeds import derived_seed
from verl_longshort.engines.loading import load_model
from verl_longshort.engines.stopping import end_tokens
from verl_longshort.engines.transformers_engine import KEPT_TOKENS, TransformersEngine
from verl_longshort.engines.weights import PackedTensor, missing_weights
from verl_longshort.verl_plugin.rollout.adapter import check_one_process
from verl_longshort.verl_plugin.rollout.names import server_name


class TransformersServer:
    """The model of a policy, loaded from its path, later updated by the trainer, behind the methods that verl calls.

    `rollout.custom` may hold `role` (see `names.py`) and `threads`, the CPU threads of the model
    (default 1: the trainer's processes share the machine). Control calls return when they have taken effect.
    """

    def __init__(self, config: RolloutConfig, model_config: Any, rollout_mode: RolloutMode, replica_rank: int) -> None:
        torch.set_num_threads(int((config.custom or {}).get("threads", 1)))
        self.config = config
        self.mode = rollout_mode
        self.global_steps: int | None = None
        self._rejecting = False
        self._loaded: list[str] = []
        described: HFModelConfig = omega_conf_to_dataclass(model_config)
        model = load_model(
            described.local_path,
            key="actor_rollout_ref.model.path",
            config=described.hf_config,
            dtype=getattr(torch, config.dtype),
            attn_implementation="sdpa",
            trust_remote_code=described.trust_remote_code,
        )
        self._model = model.to(get_device_name())
        sources = (described.generation_config, described.hf_config, described.tokenizer)
        ends = [getattr(source, "eos_token_id", None) for source in sources]
        self._engine = TransformersEngine(
            self._model,
            described.tokenizer,
            max_num_seqs=config.max_num_seqs,
            eos_token_ids=end_tokens(described.tokenizer, *ends),
            seed=config.seed + replica_rank,
            max_model_len=config.max_model_len,
            kept_tokens=KEPT_TOKENS if config.enable_prefix_caching else 0,
        )

    async def ready(self) -> None:
        """Returns once the model is loaded; raises what went wrong."""

    async def generate(
        self,
        prompt_ids: Any,
        sampling_params: Mapping[str, Any],
        request_id: str,
        image_data: Any = None,
        video_data: Any = None,
        audio_data: Any = None,
        mm_processor_kwargs: Any = None,
    ) -> TokenOutput:
        """Generate one turn; token ids in, token ids out. `sampling_params` has vLLM's names.

        `extra_fields`: `global_steps`, the version of the weights; `finish_reason`, of `Generation`;
        `num_cached_tokens`, prompt tokens found in the kept KV cache. Raises ValueError as the engine does.
        """
        if image_data or video_data or audio_data or mm_processor_kwargs:
            raise ValueError(f"request {request_id} has images, video or audio; this server takes text only")
        if self._rejecting:
            return self._output([], None, "aborted", 0)
        prompt = normalize_token_ids(prompt_ids)
        made = await self._engine.generate(
            request_id=request_id,
            prompt_ids=prompt,
            sampling=self._with_defaults(sampling_params, len(prompt), request_id),
        )
        return self._output(made.token_ids, made.logprobs, made.finish_reason, made.extra["reused_tokens"])

    # ---------------------------------------------------------------- life cycle

    async def wake_up(self, tags: list[str] | None = None) -> None:
        """Serve again. With `tags`, only when the KV cache is among them: it comes back last."""
        if self._sleeps and (tags is None or "kv_cache" in tags):
            await asyncio.to_thread(self._engine.wake)

    async def sleep(self) -> None:
        """Finish what runs and free memory, unless the server is standalone or configured to keep it."""
        if self._sleeps:
            await asyncio.to_thread(self._engine.sleep)

    async def clear_kv_cache(self) -> None:
        """Forget kept KV caches."""
        await asyncio.to_thread(self._engine.clear_kv_cache)

    async def release_kv_cache(self) -> None:
        """Give memory back while weights are replaced."""
        if self.config.free_cache_engine:
            await asyncio.to_thread(self._engine.sleep)

    async def resume_kv_cache(self) -> None:
        """Serve again after `release_kv_cache`."""
        if self.config.free_cache_engine:
            await asyncio.to_thread(self._engine.wake)

    async def abort_all_requests(self, reset_prefix_cache: bool = True, reject_request: bool = False) -> dict[str, Any]:
        """End all requests with what they have; hold or reject new ones until `resume_generation`."""
        self._rejecting = reject_request
        self._engine.pause()
        aborted = await asyncio.to_thread(self._engine.abort_all)
        if reset_prefix_cache:
            await self.clear_kv_cache()
        return {"aborted_count": len(aborted), "request_ids": aborted}

    async def resume_generation(self) -> None:
        """Serve again after `abort_all_requests`."""
        self._rejecting = False
        self._engine.resume()

    async def start_profile(self, **_: Any) -> None:
        """Nothing of its own to profile."""

    async def stop_profile(self) -> None:
        """Nothing of its own to profile."""

    # ---------------------------------------------------------------- weights

    async def load_weights(self, bucket: list[PackedTensor]) -> None:
        """Replace some of the weights once nothing runs. Raises as `TransformersEngine.load_weights`."""
        named = [(packed.name, packed.tensor()) for packed in bucket]
        self._loaded += await asyncio.to_thread(self._engine.load_weights, named)

    async def finish_weights(self, global_steps: int | None) -> None:
        """End an update. Raises ValueError when it left weights out: they would be of two versions."""
        missing = missing_weights(self._model, self._loaded)
        self._loaded = []
        if missing:
            raise ValueError(f"a weight update left out {len(missing)} weights: {', '.join(missing[:5])}")
        if global_steps is not None:
            await self.set_global_steps(global_steps)

    async def set_global_steps(self, global_steps: int) -> None:
        """The version of the weights, reported with every output."""
        self.global_steps = global_steps

    async def weights_checksum(self) -> str:
        """SHA-256 over all weights in the order of their names, in hexadecimal digits."""
        return await asyncio.to_thread(self._engine.weights_checksum)

    async def stats(self) -> dict[str, float]:
        """The engine's counters."""
        return self._engine.stats

    @property
    def _sleeps(self) -> bool:
        # a standalone server has its device to itself
        return self.mode != RolloutMode.STANDALONE and self.config.free_cache_engine

    def _with_defaults(self, given: Mapping[str, Any], prompt_tokens: int, request_id: str) -> dict[str, Any]:
        defaults = {"ignore_eos": self.config.ignore_eos, "repetition_penalty": self.config.repetition_penalty}
        sampling = {**defaults, **given}
        if "max_new_tokens" not in given:
            # verl's rule: a request without a limit fills the row that the trainer has for it
            row = self.config.prompt_length + self.config.response_length - prompt_tokens
            room = self._engine.max_model_len - prompt_tokens
            sampling.setdefault("max_tokens", max(1, min(self.config.response_length, row, room)))
        if self.config.full_determinism:
            sampling.setdefault("seed", derived_seed(self.config.seed, request_id, bits=64))
        return sampling

    def _output(
        self, token_ids: list[int], logprobs: list[float] | None, finish_reason: str, cached: int
    ) -> TokenOutput:
        return TokenOutput(
            token_ids=token_ids,
            log_probs=logprobs,
            stop_reason="aborted" if finish_reason == "aborted" else "completed",
            extra_fields={
                "global_steps": self.global_steps,
                "finish_reason": finish_reason,
                "num_cached_tokens": cached,
            },
        )


class TransformersReplica(RolloutReplica):
    """One server actor: on its worker's device (hybrid), or on its own (standalone).

    Raises UserError when the rollout is configured with more than one process per replica.
    """

    def __init__(self, replica_rank: int, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(replica_rank, config, *args, **kwargs)
        check_one_process(self.config)

    async def init_standalone(self) -> None:
        """Start a server that keeps the weights of its model path.

        verl's own would start workers to receive weights from a trainer elsewhere; this server has none.
        """
        self.rollout_mode = RolloutMode.STANDALONE
        await self.launch_servers()

    async def launch_servers(self) -> None:
        """Start the server and wait until its model is loaded."""
        platform = get_platform()
        if self.workers:
            # on the worker's node and device; the device is the worker's, so none is claimed
            node, devices = await self.workers[0].__ray_call__.remote(_where)
            visible = {platform.visible_devices_envvar(): ",".join(devices)}
            options = {
                "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id=node, soft=False),
                "runtime_env": {"env_vars": {**dict.fromkeys(platform.ray_noset_envvars(), "1"), **visible}},
            }
        else:
            options = {} if get_device_name() == "cpu" else platform.ray_resource_options(1)
        kind = "reward_" if self.is_reward_model else "teacher_" if self.is_teacher_model else ""
        name = server_name(self.config, self.replica_rank, kind) + self.name_suffix
        server = (
            ray.remote(TransformersServer)
            .options(name=name, num_cpus=0, max_concurrency=self.max_concurrency, **options)
            .remote(self.config, self.model_config, self.rollout_mode, self.replica_rank)
        )
        await server.ready.remote()
        self.servers = [server]
        self._server_handle = server
        self._server_address = name


def _where(worker: Any) -> tuple[str, list[str]]:
    context = ray.get_runtime_context()
    return context.get_node_id(), [str(i) for i in context.get_accelerator_ids()[get_resource_name()]]
