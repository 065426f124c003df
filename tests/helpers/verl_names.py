"""The names of verl that this package relies on, beyond those it imports: overridden, called, read.

Plain `from verl… import …` lines need no entry, the test finds them by itself. Everything else that a new
verl could rename gets one here, under the module of ours that needs it.
"""

from dataclasses import dataclass

# How far the parameters of a callable matter.
EXACT = "exact"  # ours overrides it, so the parameters must be these, in this order
ACCEPTS = "accepts"  # ours calls it with these


@dataclass(frozen=True, kw_only=True)
class Touch:
    """`name` in `module` of verl, dotted for members; `match` says how `parameters` are compared."""

    module: str
    name: str
    parameters: tuple[str, ...] | None = None
    match: str = EXACT

    def __str__(self) -> str:
        return f"{self.module}:{self.name}"


def overridden(module: str, owner: str, **methods: str | None) -> list[Touch]:
    """Methods of `owner` that ours overrides, with their parameters after self; None leaves them open."""
    return [
        Touch(
            module=module,
            name=f"{owner}.{method}",
            parameters=None if parameters is None else ("self", *parameters.split()),
        )
        for method, parameters in methods.items()
    ]


def called(module: str, name: str, parameters: str = "") -> Touch:
    """A callable that ours calls with these keywords (or positions named so)."""
    return Touch(module=module, name=name, parameters=tuple(parameters.split()), match=ACCEPTS)


def attribute(module: str, name: str) -> Touch:
    """An attribute that ours reads or sets."""
    return Touch(module=module, name=name)


PLATFORM = "verl.plugin.platform.platform_base"
PLATFORMS = "verl.plugin.platform.platform_manager"
ENGINE = "verl.workers.engine.base"
CONFIGS = "verl.workers.config"
FSDP = "verl.workers.engine.fsdp.transformer_impl"
ROLLOUT = "verl.workers.rollout.base"
POOLS = "verl.single_controller.ray"
REPLICA = "verl.workers.rollout.replica"
TRAINER = "verl.trainer.ppo.v1.trainer_base"
BUFFER = "verl.trainer.ppo.v1.replay_buffer"
LLM_SERVER = "verl.workers.rollout.llm_server"
VLLM_SERVER = "verl.workers.rollout.vllm_rollout.vllm_async_server"
VLLM_WORKER = "verl.workers.rollout.vllm_rollout.utils"
VLLM_BUCKETS = "verl.workers.rollout.vllm_rollout.bucketed_weight_transfer"
VLLM_ADAPTER = "verl.workers.rollout.vllm_rollout.vllm_rollout"
DATASET = "verl.utils.dataset.rl_dataset"
SFT = "verl.trainer.sft_trainer"
AGENT_LOOP = "verl.experimental.agent_loop.agent_loop"

TOUCHES: dict[str, list[Touch]] = {
    "platform/cpu.py": [
        called(PLATFORMS, "PlatformRegistry.register", "platform"),
        called(PLATFORMS, "PlatformRegistry.get", "name"),
        called(PLATFORMS, "PlatformRegistry.registered_names"),
        *overridden(
            PLATFORM,
            "PlatformBase",
            is_available="",
            is_platform_available="use_smi_check",
            current_device="",
            device_count="",
            set_device="device_index",
            synchronize="device_index",
            manual_seed="seed",
            manual_seed_all="seed",
            set_allocator_settings="settings",
            empty_cache="",
            get_device_capability="device_index",
            communication_backend_name="",
            visible_devices_envvar="",
            nvtx_range="msg",
            profiler_start="",
            profiler_stop="",
            ray_resource_name="",
            ray_noset_envvars="",
            is_ipc_supported="",
            rollout_env_vars="",
            cudart="",
        ),
        *[attribute(PLATFORM, f"PlatformBase.{name}") for name in ("device_name", "vendor_name", "device_module")],
        called("verl.utils.distributed", "initialize_global_process_group_ray", "timeout_second backend"),
        called("verl.utils.device", "get_nccl_backend"),
    ],
    "platform/fsdp.py": [
        called(ENGINE, "EngineRegistry.register", "model_type backend device"),
        called(ENGINE, "EngineRegistry.get_engine_cls", "model_type backend"),
        *overridden(FSDP, "FSDPEngine", _build_fsdp_module="module", _build_module=""),
        *overridden(FSDP, "FSDPEngine", _merged_lora_per_tensor_param=""),
        called("verl.utils.fsdp_utils", "merged_lora_context", "actor backup_adapters"),
        called("verl.utils.fsdp_utils", "normalize_peft_param_name", "params"),
        called("verl.utils.model", "convert_weight_keys", "state_dict model"),
        *overridden(FSDP, "FSDPEngineWithValueHead", _build_module=""),
        called(CONFIGS, "FSDPEngineConfig", "forward_only offload_policy mixed_precision strategy"),
        called(CONFIGS, "HFModelConfig", "model_type hf_config local_path"),
        called("verl.utils.model", "get_hf_auto_model_class", "hf_config"),
    ],
    "plugin.py": [
        called(REPLICA, "RolloutReplicaRegistry.register", "name loader"),
        called(REPLICA, "RolloutReplicaRegistry.get", "name"),
        attribute(ROLLOUT, "_ROLLOUT_REGISTRY"),
        called(ROLLOUT, "get_rollout_class", "rollout_name mode"),
        called("verl.trainer.ppo.v1", "register_trainer", "name"),
        called("verl.trainer.ppo.v1", "get_trainer_cls", "name"),
        attribute("verl.utils.tokenizer.continuous_token_wiring", "logger"),
        attribute("transfer_queue.utils.common", "logger"),
    ],
    "trainer/pair_trainer.py": [
        *overridden(
            TRAINER,
            "PPOTrainer",
            _build_replay_buffer="",
            _init_dataloader="",
            _next_train_batch="num_prompts",
            _setup="",
            on_init_end="",
            get_llm_client="",
            get_teacher_client="",
            _rollout_server_managers="",
            _start_profiling="",
            _stop_profiling="",
            step="metrics timing_raw",
            on_train_begin="",
            on_step_end="",
            on_validate_end="",
            _save_checkpoint="",
            _load_checkpoint="",
            _validate="",
            _compute_metrics="batch metrics timing_raw global_steps epoch",
            _val_metrics_update=None,
            _log_rollout_data="batch timing_raw rollout_data_dir",
            _dump_generations="inputs outputs gts scores reward_extra_infos_dict dump_path",
        ),
        called(TRAINER, "PPOTrainer._init_tokenizer", "self"),
        called(TRAINER, "PPOTrainer._init_dump_executor", "self"),
        called(TRAINER, "PPOTrainer.prepare_step", "self"),
        called(POOLS, "ResourcePoolManager", "resource_pool_spec mapping resource_pool_dict"),
        called(POOLS, "ResourcePoolManager.create_resource_pool", "self"),
        called(POOLS, "RayResourcePool.get_placement_groups", "self device_name"),
    ],
    "trainer/dataset.py": [
        *overridden(DATASET, "RLHFDataset", maybe_filter_out_long_prompts="dataframe"),
        called(DATASET, "RLHFDataset", "data_files tokenizer config processor max_samples"),
        called(DATASET, "get_dataset_class", "data_config"),
    ],
    "trainer/gdpo.py": [
        *overridden(TRAINER, "PPOTrainer", _compute_advantage="batch metrics"),
        called("verl.trainer.ppo.core_algos", "register_adv_est", "name_or_enum"),
        called("verl.trainer.ppo.v1.utils", "MetricsAggregator.add_step_metrics", "metrics sample_count"),
        called("verl.trainer.ppo.v1.utils", "MetricsAggregator.get_aggregated_metrics"),
        called(
            "verl.trainer.ppo.core_algos",
            "compute_gdpo_outcome_advantage",
            "token_level_rewards response_mask index norm_adv_by_std_in_grpo config non_tensor_batch batch",
        ),
    ],
    "checks/learning_checks.py": [called("verl.trainer.ppo.core_algos", "get_adv_estimator_fn", "name_or_enum")],
    "checks/verl_checks.py": [
        called("verl.utils.config", "validate_config", "config use_reference_policy use_critic"),
        called("verl.trainer.ppo.core_algos", "get_policy_loss_fn", "name"),
        called("verl.trainer.ppo.core_algos", "kl_penalty", "logprob ref_logprob kl_penalty"),
    ],
    "sft/trainer.py": [
        *overridden(
            SFT,
            "SFTTrainer",
            _build_dataset="",
            _build_dataloader="",
            _init_engine="",
            _build_ckpt_handler="",
        ),
        called("verl.utils.checkpoint", "CheckpointHandler.save_checkpoint", "self step"),
        called("verl.utils.config", "omega_conf_to_dataclass", "config"),
        called("verl.workers.engine_workers", "TrainingWorker.reset", "self"),
        called("verl.workers.engine_workers", "TrainingWorker.train_batch", "self data"),
        called("verl.workers.engine_workers", "TrainingWorker.infer_batch", "self data"),
    ],
    "trainer/single_trainer.py": [
        *overridden(
            TRAINER,
            "PPOTrainer",
            _build_replay_buffer="",
            _next_train_batch="num_prompts",
            get_llm_client="",
            _save_checkpoint="",
            step="metrics timing_raw",
            on_train_begin="",
            on_step_begin="",
            on_sample_end="",
            on_step_end="",
            on_validate_begin="",
            _compute_metrics="batch metrics timing_raw global_steps epoch",
            _val_metrics_update=None,
        ),
        called(TRAINER, "PPOTrainer._save_checkpoint", "self"),
    ],
    "trainer/policy_trainer.py": [
        *overridden(
            TRAINER,
            "PPOTrainer",
            _init_resource_pool_mgr="",
            get_llm_client="",
            prepare_step="",
            on_sample_end="",
            on_init_end="",
            _balance_batch="batch metrics logging_prefix keep_minibatch",
        ),
        *overridden(POOLS, "ResourcePoolManager", create_resource_pool=""),
        called(TRAINER, "PPOTrainer.init", "self"),
        called(TRAINER, "PPOTrainer.step", "self metrics timing_raw"),
        attribute(CONFIGS, "FSDPOptimizerConfig.zero_indexed_step"),
        attribute(CONFIGS, "FSDPOptimizerConfig.lr_warmup_steps"),
        attribute(CONFIGS, "FSDPOptimizerConfig.lr_warmup_steps_ratio"),
        called(LLM_SERVER, "LLMServerManager", "config"),
        called(LLM_SERVER, "LLMServerManager.get_replicas", "self"),
        called("verl.checkpoint_engine", "CheckpointEngineManager.update_weights", "self global_steps"),
        called("verl.checkpoint_engine", "CheckpointEngineManager.sleep_replicas", "self"),
        called("verl.checkpoint_engine", "CheckpointEngineManager.wake_up_replicas", "self"),
        called(VLLM_SERVER, "vLLMHttpServer.clear_kv_cache", "self"),
        called(VLLM_SERVER, "vLLMHttpServer.set_global_steps", "self global_steps"),
        attribute(POOLS, "RayWorkerGroup.workers"),
    ],
    "run/cluster.py": [attribute(POOLS, "ResourcePoolManager.max_colocate_count")],
    "launch.py": [
        called("verl.trainer.main_ppo", "run_ppo", "config task_runner_class"),
        attribute("transfer_queue.client", "TQ_NUM_THREADS"),
        attribute("transfer_queue.storage.simple_storage", "TQ_NUM_THREADS"),
    ],
    "trainer/dynamic_sampling.py": [
        called(TRAINER, "PPOTrainer._add_prompts_to_generate", "self num_prompts"),
        called("verl.utils.tensordict_utils", "assign_non_tensor_stack", "tensor_dict key val"),
        called(
            BUFFER,
            "ReplayBuffer",
            "trainer_mode trainer_config max_off_policy_threshold max_off_policy_strategy sampler_kwargs "
            "refill_fn poll_interval filter_groups_metric train_batch_size gen_batch_size max_inflight_gen_batches",
        ),
        *overridden(
            BUFFER,
            "ReplayBuffer",
            sample="global_steps partition_id batch_size",
            _dapo_filtered_keys="partition_id",
        ),
    ],
    "trainer/replay.py": [
        *overridden(
            BUFFER,
            "ReplayBuffer",
            sample="global_steps partition_id batch_size",
            _sync_metadata_from_transfer_queue="",
            _materialize_batch="partition_id selected_prompt_uids partition_snapshot",
            _wait_for_next_poll="partition_id last_debug_time",
        ),
    ],
    "rollout/server.py": [
        *overridden(REPLICA, "RolloutReplica", init_standalone="", launch_servers=""),
        called(REPLICA, "RolloutReplica", "replica_rank config is_reward_model is_teacher_model name_suffix"),
        attribute(REPLICA, "RolloutMode.STANDALONE"),
        attribute(REPLICA, "RolloutMode.HYBRID"),
        called(REPLICA, "TokenOutput", "token_ids log_probs stop_reason extra_fields"),
    ],
    "rollout/adapter.py": [
        *overridden(ROLLOUT, "BaseRollout", resume="tags", release="", update_weights=None),
        called(ROLLOUT, "BaseRollout", "config model_config device_mesh"),
        called("verl.workers.rollout.utils", "ensure_async_iterator"),
        called(CONFIGS, "RolloutConfig", "name custom free_cache_engine max_num_seqs max_model_len dtype seed"),
    ],
    "rollout/vllm_replica.py": [
        *overridden(VLLM_SERVER, "vLLMReplica", _get_server_name_prefix=""),
        called(
            VLLM_SERVER,
            "vLLMReplica",
            "replica_rank config model_config gpus_per_node is_reward_model is_teacher_model name_suffix",
        ),
        called(VLLM_SERVER, "vLLMHttpServer", "config model_config rollout_mode workers replica_rank"),
        *overridden(VLLM_SERVER, "vLLMHttpServer", _get_worker_extension_cls=""),
    ],
    "rollout/vllm_cpu.py": [
        *overridden(
            VLLM_WORKER,
            "vLLMColocateWorkerExtension",
            update_weights_from_ipc="peft_config base_sync_done use_shm",
        ),
        called(VLLM_WORKER, "vLLMColocateWorkerExtension._get_zmq_handle", "self"),
        called(VLLM_BUCKETS, "BucketedWeightReceiver", "zmq_handle device use_shm"),
        called(VLLM_BUCKETS, "BucketedWeightReceiver.receive_weights", "on_bucket_received"),
    ],
    "rollout/vllm_adapter.py": [
        *overridden(VLLM_ADAPTER, "ServerAdapter", _get_server_name_prefix=""),
        called(VLLM_ADAPTER, "ServerAdapter", "config model_config device_mesh replica_rank"),
    ],
    "rollout/clients.py": [
        *overridden(
            LLM_SERVER, "LLMServerClient", _acquire_server="request_id extra", _release_server="server_id request_id"
        ),
        called(LLM_SERVER, "LLMServerClient", "config load_balancer_handle"),
        called(LLM_SERVER, "LLMServerManager.get_client", "self client_cls"),
        called(LLM_SERVER, "LLMServerManager.get_addresses", "self"),
        called(LLM_SERVER, "LLMServerManager.get_replicas", "self"),
        attribute(REPLICA, "RolloutReplica.server_handle"),
        called(LLM_SERVER, "LLMServerClient.generate", "self request_id prompt_ids sampling_params"),
        called(VLLM_SERVER, "vLLMHttpServer.generate", "self prompt_ids sampling_params request_id"),
        called("verl.utils.config", "omega_conf_to_dataclass", "config"),
    ],
    "rollout/failures.py": [attribute("verl.trainer.ppo.v1.agent_loop_tq", "logger")],
    "rollout/agent_loop.py": [
        called(AGENT_LOOP, "register", "agent_name"),
        *overridden(AGENT_LOOP, "AgentLoopBase", run="sampling_params kwargs"),
        called(
            AGENT_LOOP,
            "AgentLoopOutput",
            "prompt_ids response_ids response_mask response_logprobs reward_score num_turns metrics extra_fields",
        ),
    ],
}
"""Module below `verl_longshort/verl_plugin` -> what it relies on."""
