"""vLLM's build for CPUs in the place of one for GPUs: how its workers take new weights.

That build packs the weights of linear layers for its kernels once they are loaded, and drops the originals: verl's
way, `load_weights` into the model again, finds no place for them. vLLM can reload a model layer by layer, which
makes room for a layer's weights, loads and packs them anew. Everything else of the rollout (servers, names, sockets,
sampling) is the code that runs on GPUs; what a configuration needs here is in `registry.py`. Imports vLLM.
"""

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from verl.workers.rollout.vllm_rollout.bucketed_weight_transfer import BucketedWeightReceiver
from verl.workers.rollout.vllm_rollout.utils import resolve_weight_name, vLLMColocateWorkerExtension
from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm
from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload


class CpuWorkerExtension(vLLMColocateWorkerExtension):
    """verl's extension of vLLM's workers, with weights that are packed anew."""

    def update_weights_from_ipc(
        self, peft_config: Any = None, base_sync_done: bool = False, use_shm: bool = False
    ) -> None:
        """Receive all weights of the model, bucket by bucket, or the LoRA adapters of one that has its weights.

        Raises ValueError when weights of the model were left out: the old ones would go on serving.
        """
        if peft_config and base_sync_done:
            super().update_weights_from_ipc(peft_config, base_sync_done, use_shm)
            return
        model = self.model_runner.model
        expected = {name for name, _ in model.named_parameters()}
        known = expected | {name for name, _ in model.named_parameters(remove_duplicate=False)}
        loaded: set[str] = set()

        def load(weights: Iterable[tuple[str, Tensor]], is_last: bool) -> None:
            # a layer is packed when it is whole, and the bucket's memory is used again before that
            copies = [(resolve_weight_name(model, n, known) if peft_config else n, t.clone()) for n, t in weights]
            loaded.update(model.load_weights(copies))

        initialize_layerwise_reload(model)
        receiver = BucketedWeightReceiver(zmq_handle=self._get_zmq_handle(), device=self.device, use_shm=use_shm)
        receiver.receive_weights(on_bucket_received=load)
        finalize_layerwise_reload(model, self.model_runner.model_config)
        for module in model.modules():
            # where embeddings are the output layer, too, reloading packs the one and not the other
            if isinstance(module, VocabParallelEmbedding) and not module.weight.is_meta:
                dispatch_cpu_unquantized_gemm(module, remove_weight=False)
        # what adapters are beside is named by vLLM with that part, or without it
        if missing := sorted(_plain(expected) - _plain(loaded)):
            raise ValueError(f"a weight update left out {len(missing)} weights: {', '.join(missing[:5])}")


def _plain(names: Iterable[str]) -> set[str]:
    return {name.replace(".base_layer.", ".") for name in names}
