"""Parameter counts and what lies on a GPU, against figures that can be checked by hand."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from longshort_reward.errors import UserError

from verl_longshort.base.requirements import EngineUse, GenerationWork, PolicyUse, ReinforcementWork, TrainedModel
from verl_longshort.planner.memory import (
    GENERATING,
    RESERVE,
    SENDING,
    TableMaker,
    activations,
    cached_tokens,
    engine_memory,
    gathered,
    logits,
    state_memory,
)
from verl_longshort.planner.models import KNOWN, ModelShape
from verl_longshort.recipe.assumptions import GIB, Assumptions, defaults

ASSUMPTIONS = Assumptions.of_recipe(dict(defaults()))
QWEN = KNOWN["Qwen/Qwen2.5-7B"]
LLAMA = KNOWN["meta-llama/Llama-3.1-8B"]
GPU = 80 * GIB


def trained(**changes):
    return TrainedModel(**{"model": "Qwen/Qwen2.5-7B", "gpus": 8, "shards": 8, "tokens": 16384, **changes})


def engine(**changes):
    base = {"model": "Qwen/Qwen2.5-7B", "name": "vllm", "gpus": 8, "memory_share": 0.4, "max_length": 6656}
    return EngineUse(**{**base, "sleeps": True, **changes})


def learning(state):
    """During an update."""
    return state.weights + state.gradients + state.moments


def at_rest(state):
    """Between updates."""
    return state.weights_at_rest + state.moments_at_rest


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("Qwen/Qwen2.5-0.5B-Instruct", 494_032_768),
        ("Qwen/Qwen2.5-1.5B-Instruct", 1_543_714_304),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", 1_777_088_000),
        ("Qwen/Qwen2.5-7B", 7_615_616_512),
        ("Qwen/Qwen2.5-7B-Instruct", 7_615_616_512),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", 7_615_616_512),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-32B", 32_763_876_352),
        ("meta-llama/Llama-3.1-8B", 8_030_261_248),
        ("meta-llama/Llama-3.1-8B-Instruct", 8_030_261_248),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", 8_030_261_248),
        ("Qwen/Qwen2.5-72B-Instruct", 72_706_203_648),
    ],
)
def test_known_models_have_their_published_number_of_parameters(name, count):
    assert KNOWN[name].parameters == count


@pytest.mark.parametrize("model_type", ["llama", "qwen2"])
@pytest.mark.parametrize("tied", [True, False])
def test_counts_are_those_of_transformers(model_type, tied):
    torch = pytest.importorskip("torch")
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {
        "hidden_size": 48,
        "intermediate_size": 112,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "vocab_size": 101,
    }
    config = AutoConfig.for_model(model_type, tie_word_embeddings=tied, **sizes)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    if tied:
        model.tie_weights()
    shape = ModelShape.from_config(config.to_dict(), "test")
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())


def test_another_kind_of_model_is_refused():
    with pytest.raises(UserError, match=r"some/model: its config.json has no intermediate_size"):
        ModelShape.from_config({"hidden_size": 8}, "some/model")


def test_adam_in_fp32_takes_sixteen_bytes_per_parameter():
    state = state_memory(trained(), QWEN)
    assert learning(state) == pytest.approx(16 * QWEN.parameters / 8)
    assert at_rest(state) == pytest.approx(12 * QWEN.parameters / 8)


def test_bf16_states_take_half():
    assert learning(state_memory(trained(state_bytes=2), QWEN)) == pytest.approx(8 * QWEN.parameters / 8)


def test_offloaded_states_leave_the_gpu_between_updates_only():
    state = state_memory(trained(param_offload=True, optimizer_offload=True), QWEN)
    assert at_rest(state) == 0
    assert learning(state) == pytest.approx(16 * QWEN.parameters / 8)
    assert state.host == pytest.approx(12 * QWEN.parameters / 8)


def test_the_reference_lies_in_the_host():
    state = state_memory(trained(reference=True), QWEN)
    assert state.host == pytest.approx(4 * QWEN.parameters / 8)
    assert learning(state) == learning(state_memory(trained(), QWEN))


def test_fsdp2_offload_policy_keeps_everything_in_the_host():
    state = state_memory(trained(cpu_policy=True), QWEN)
    assert (learning(state), at_rest(state)) == (0, 0)
    assert state.host == pytest.approx(16 * QWEN.parameters / 8)


def test_lora_trains_the_adapters_alone():
    state = state_memory(trained(lora_rank=16), QWEN)
    assert state.gradients == pytest.approx(4 * QWEN.adapters(16) / 8)
    assert state.moments == pytest.approx(8 * QWEN.adapters(16) / 8)
    # the reference is the policy without its adapters, and merged weights leave a copy of the base in the host
    assert state_memory(trained(lora_rank=16, reference=True), QWEN).host == 0
    assert state_memory(trained(lora_rank=16, merges=True), QWEN).host == pytest.approx(4 * QWEN.parameters / 8)
    # all seven matrices of a layer: rank x (inputs + outputs)
    sides = 2 * (3584 + 3584) + 2 * (3584 + 512) + 3 * (3584 + 18944)
    assert QWEN.adapters(16) == 28 * 16 * sides


def test_logits_of_a_full_micro_batch():
    one = 16384 * 152064 * 2
    assert logits(trained(), QWEN) == one
    assert logits(trained(copies_logits=True), QWEN) == 3 * one
    assert logits(trained(copies_logits=True, fused_head=True), QWEN) == 0
    # scoring needs no gradient, so twice the tokens take less than twice as much
    assert logits(trained(copies_logits=True, forward_tokens=32768), QWEN) == 4 * one
    assert logits(trained(forward_tokens=16384, compiled=False), QWEN) == one + 3 * 16384 * 152064 * 4


def test_gradient_checkpointing_saves_activations():
    kept = activations(trained(checkpointing=False), QWEN)
    assert kept > 10 * activations(trained(), QWEN)
    assert activations(trained(activation_offload=True), QWEN) < activations(trained(), QWEN)


def test_whole_gradients_take_the_whole_model():
    more = gathered(trained(keeps_gradients_whole=True), QWEN) - gathered(trained(), QWEN)
    assert more == 2 * (QWEN.parameters - QWEN.ends)


def test_the_kv_cache_gets_what_is_left_of_the_share():
    memory = engine_memory(engine(), QWEN, GPU, ASSUMPTIONS.assume)
    assert memory.weights + memory.workspace + memory.kv_cache == pytest.approx(0.4 * GPU)
    assert memory.asleep == pytest.approx(1.0 * GIB)
    # 2 x 28 layers x 4 heads x 128 x 2 bytes
    assert cached_tokens(engine(), QWEN, memory) == pytest.approx(memory.kv_cache / 57344)
    assert QWEN.kv_values * 2 == 57344
    assert LLAMA.kv_values * 2 == 131072


@pytest.mark.parametrize(("name", "total"), [("vllm", 0.9 * 24), ("transformers", None)])
def test_an_engine_alone_fits_with_its_share(name, total):
    """vLLM's share holds its contexts and buffers; another engine's are beside what it allocates."""
    small = TableMaker(shape_of=lambda _: QWEN, gpu=24 * GIB, assume=ASSUMPTIONS.assume)
    work = GenerationWork(engines=(engine(name=name, memory_share=0.9, max_num_seqs=4),), new_tokens=4096)
    (table,) = small.generate(work)
    assert (RESERVE in table.parts) is (total is None)
    if total is not None:
        assert table.total(GENERATING) / GIB == pytest.approx(total)


def test_an_engine_that_does_not_sleep_stays():
    memory = engine_memory(engine(sleeps=False), QWEN, GPU, ASSUMPTIONS.assume)
    assert memory.asleep == memory.weights + memory.workspace + memory.kv_cache


SHARDED = st.builds(
    trained,
    shards=st.sampled_from([1, 2, 4, 8]),
    state_bytes=st.sampled_from([2, 4]),
    optimizer_values=st.sampled_from([0.5, 2.0]),
    param_offload=st.booleans(),
    optimizer_offload=st.booleans(),
    cpu_policy=st.booleans(),
    lora_rank=st.sampled_from([0, 8]),
    reference=st.booleans(),
)


@given(SHARDED)
def test_nothing_of_a_state_gets_lost(one):
    state = state_memory(one, QWEN)
    reference = state_memory(dataclasses.replace(one, reference=True), QWEN).host
    reference -= state_memory(dataclasses.replace(one, reference=False), QWEN).host
    assert 0 <= at_rest(state) <= learning(state)
    total = at_rest(state) + state.host - reference * one.reference
    expected = state.weights + state.moments
    if not one.cpu_policy:
        assert total == pytest.approx(expected)


@given(SHARDED)
def test_twice_the_shards_take_half_the_memory(one):
    half = state_memory(dataclasses.replace(one, shards=one.shards * 2), QWEN)
    assert learning(half) == pytest.approx(learning(state_memory(one, QWEN)) / 2)
    assert half.host == pytest.approx(state_memory(one, QWEN).host / 2)


def pair(shared=True, names=("long", "short"), **changes):
    policies = {name: PolicyUse(engine=engine(), trained=trained(**changes), updates=10) for name in names}
    return ReinforcementWork(
        policies=policies,
        rows=3 - len(names),
        shared_pool=shared,
        steps=20,
        prompts=96,
        samples=8,
        prompt_tokens=2048,
        new_tokens=4608,
        validations=0,
        validation_problems=0,
        checkpoints=1,
    )


MAKER = TableMaker(shape_of=KNOWN.__getitem__, gpu=GPU, assume=ASSUMPTIONS.assume)


def test_a_shared_pool_holds_both_policies():
    (table,) = MAKER.reinforce(pair())
    assert table.phases == [GENERATING, SENDING, "long learns", "short learns"]
    weights = 4 * QWEN.parameters / 8
    learning = table.parts["long: weights, fp32"]
    assert learning == {phase: pytest.approx(weights) for phase in table.phases}
    assert set(table.parts["long: gradients"]) == {"long learns"}
    assert set(table.parts["long: KV cache"]) == {GENERATING, SENDING}
    # the policy that sends last gets its cache after that
    assert set(table.parts["short: KV cache"]) == {GENERATING}
    assert set(table.parts["long: engine asleep"]) == {"long learns", "short learns"}
    assert table.total(GENERATING) == pytest.approx(0.8 * GPU + 2 * 12 * QWEN.parameters / 8 + 4 * GIB)


def test_one_policy_for_both_roles_takes_half():
    (two,), (one,) = MAKER.reinforce(pair()), MAKER.reinforce(pair(names=("tied",)))
    assert one.phases == [GENERATING, SENDING, "tied learns"]
    assert one.total(GENERATING) - 4 * GIB == pytest.approx((two.total(GENERATING) - 4 * GIB) / 2)
    # the partner's state and its sleeping engine are not there
    absent = sum(two.parts[f"short: {part}"]["long learns"] for part in ("weights, fp32", "optimizer", "engine asleep"))
    assert one.total("tied learns") == pytest.approx(two.total("long learns") - absent)
    assert one.host == pytest.approx(two.host / 2)


def test_offloaded_policies_are_on_the_gpu_for_their_update_and_to_send():
    (table,) = MAKER.reinforce(pair(param_offload=True, optimizer_offload=True))
    assert set(table.parts["long: weights, fp32"]) == {"long learns"}
    assert set(table.parts["short: weights, fp32"]) == {SENDING, "short learns"}
    assert set(table.parts["short: optimizer"]) == {"short learns"}
    assert table.host == pytest.approx(2 * 12 * QWEN.parameters / 8)


def test_a_split_pool_has_a_table_for_each_policy():
    tables = MAKER.reinforce(pair(shared=False))
    assert [table.phases for table in tables] == [
        [GENERATING, SENDING, "long learns"],
        [GENERATING, SENDING, "short learns"],
    ]


def test_a_policy_that_only_serves_is_an_engine():
    work = dataclasses.replace(
        pair(shared=False), policies={"long": PolicyUse(engine=engine(), trained=None, updates=0)}
    )
    (table,) = MAKER.reinforce(work)
    assert table.phases == [GENERATING]
    assert table.total(GENERATING) == pytest.approx(0.4 * GPU + 4 * GIB)


def test_a_critic_is_stored_like_a_policy():
    (one,), (both,) = MAKER.reinforce(pair()), MAKER.reinforce(pair(critic="meta-llama/Llama-3.1-8B"))
    more = both.parts["long: gradients"]["long learns"] - one.parts["long: gradients"]["long learns"]
    assert more == pytest.approx(4 * LLAMA.parameters / 8)
