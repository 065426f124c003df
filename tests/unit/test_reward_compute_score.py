import asyncio
import inspect
import math
import subprocess
import sys

import longshort_reward
import pytest
from longshort_reward import compute_score
from longshort_reward.errors import UserError

JOINT = r"<think>2+2</think><answer>\boxed{4}</answer>"
KEYS = {"score", "acc", "em", "fm", "lm", "format_long", "format_short", "answer_failed"}
RESPONSES = [
    JOINT,
    r"\boxed{4}",
    "",
    "<think>",
    "<answer></rethink>",
    r"\boxed{\frac{x",
    "\x00\ud800",
    "5" * 5000,
]


def score(text, truth="4", **kwargs):
    return compute_score("maths", text, truth, {"index": 0}, **kwargs)


@pytest.mark.parametrize("text", RESPONSES)
def test_every_response_gets_the_same_keys_as_finite_floats(text):
    result = score(text)
    assert set(result) == KEYS
    assert all(type(value) is float and math.isfinite(value) for value in result.values())


def test_the_score_by_hand():
    assert score(JOINT)["score"] == pytest.approx(1.1)
    assert score(r"\boxed{4}")["score"] == 1.0
    assert score(JOINT, "5")["score"] == pytest.approx(0.1)
    slip = score(r"<think>2+2</think>so<answer>\boxed{4}</answer>")
    assert (slip["score"], slip["fm"], slip["format_long"], slip["format_short"]) == (1.0, 0.0, 0.0, 1.0)
    assert score(JOINT, **{"eta": 2, "lambda": 0.5})["score"] == 2.5


def test_what_verl_adds_for_a_reward_model_is_ignored():
    assert score(JOINT, reward_router_address="here", reward_model_tokenizer=None)["acc"] == 1.0


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"lamda": 0.1}, "reward_kwargs.lamda = 0.1: unknown key; did you mean lambda?"),
        ({"eta": "1"}, "reward_kwargs.eta = 1: must be a finite number"),
        ({"lambda": -1}, "reward_kwargs.lambda = -1: must be 0 or more"),
        ({"answer_timeout_s": 0}, "reward_kwargs.answer_timeout_s = 0: must be above 0"),
        ({"mu": 0.2}, "reward_kwargs.mu = 0.2: compares the trajectories of one problem"),
        ({"rethink": 0.1}, "reward_kwargs.rethink = 0.1: compares"),
    ],
)
def test_a_mistake_in_the_arguments_is_named(kwargs, message):
    with pytest.raises(UserError) as caught:
        score(JOINT, **kwargs)
    assert message in str(caught.value)


def test_verl_finds_a_plain_function_in_the_package():
    assert inspect.isfunction(longshort_reward.compute_score)
    assert list(inspect.signature(compute_score).parameters)[:4] == [
        "data_source",
        "solution_str",
        "ground_truth",
        "extra_info",
    ]


def test_it_runs_in_the_threads_of_an_event_loop():
    async def reward_loop():
        loop = asyncio.get_running_loop()
        texts = [rf"\boxed{{\sqrt{{{4 * n}}}}}" for n in (3, 5, 6)]
        jobs = [loop.run_in_executor(None, score, text, r"2\sqrt{3}") for text in texts]
        return [result["acc"] for result in await asyncio.gather(*jobs)]

    assert asyncio.run(reward_loop()) == [1.0, 0.0, 0.0]


def test_the_package_imports_nothing_heavy():
    code = (
        "import sys, longshort_reward as r\n"
        r"assert r.compute_score('d', r'\boxed{\sqrt{12}}', r'2\sqrt3')['acc'] == 1.0"
        "\n"
        "heavy = {'verl', 'torch', 'ray', 'transformers', 'numpy', 'sympy', 'omegaconf'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_a_script_without_a_main_guard_can_score(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import longshort_reward\nprint('started')\n"
        r"print(longshort_reward.match_answer(r'\boxed{\sqrt{12}}', r'2\sqrt3'))"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["started", "True"]
    assert done.stderr == ""


def test_a_daemon_process_can_score(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing, longshort_reward\n"
        r"QUESTION = (r'\boxed{\sqrt{12}}', r'2\sqrt3')"
        "\n"
        "def run(queue): queue.put(longshort_reward.match_answer(*QUESTION))\n"
        "if __name__ == '__main__':\n"
        "    longshort_reward.match_answer(*QUESTION)\n"
        "    context = multiprocessing.get_context('fork')\n"
        "    queue = context.Queue()\n"
        "    context.Process(target=run, args=(queue,), daemon=True).start()\n"
        "    print(queue.get(timeout=60))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["True"]


@pytest.mark.integration
def test_it_runs_in_a_ray_actor():
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False)
    try:

        @ray.remote(num_cpus=1)
        class RewardLoop:
            async def run(self, texts):
                loop = asyncio.get_running_loop()
                jobs = [
                    loop.run_in_executor(None, lambda t=t: compute_score("d", t, r"2\sqrt{3}", answer_timeout_s=1))
                    for t in texts
                ]
                return await asyncio.gather(*jobs)

        texts = [r"\boxed{\sqrt{12}}", r"\boxed{\sqrt{13}}", r"\boxed{\prod_{i=1}^{100000000} i}"]
        results = ray.get(RewardLoop.remote().run.remote(texts), timeout=120)
        assert [r["acc"] for r in results] == [1.0, 0.0, 0.0]
        assert [r["answer_failed"] for r in results] == [0.0, 0.0, 1.0]
    finally:
        ray.shutdown()
