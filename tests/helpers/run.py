"""A small run, as its stages leave it in their output folder, for tests of the report."""

import json
from pathlib import Path
from typing import Any

EVIL = "<script>window.hacked = true</script></script><img src=x onerror='window.hacked = true'>"
PROBLEMS = 6
STEPS_PER_ROUND = 2
SCHEDULE = ["long", "short"]
TURNS = {
    "long_cot": [("single", "<think> {text} </think> <answer> \\boxed{{ 1 }} </answer>", 90)],
    "direct": [("single", "<answer> \\boxed{{ 2 }} </answer>", 10)],
    "pair": [
        ("long", "<think> {text} </think>", 30),
        ("short", "<answer> more </rethink>", 5),
        ("long", "<think> again </think>", 20),
        ("short", "<answer> \\boxed{{ 1 }} </answer>", 6),
    ],
}


def make_run(root: Path, *, seed: int = 0) -> Path:
    """A whole run: results, training, stages and facts."""
    for name, mode, right in (
        ("direct", "direct", 2),
        ("long-CoT", "long_cot", 5),
        ("L0S0", "pair", 4),
        ("L1S0", "pair", 5),
        ("L1S1", "pair", 6),
    ):
        write_evaluation(root, name, mode=mode, right=right, seed=seed)
    write_training(root / "pair")
    write_stages(root)
    write_facts(root, seed)
    return root


def write_evaluation(
    root: Path,
    name: str,
    *,
    mode: str = "pair",
    right: int = 4,
    samples: int = 1,
    seed: int = 0,
    finished: bool = True,
    text: str = "okay",
    benchmark: str = "test",
) -> None:
    """One record file; `right` of its problems are solved, the others end in a turn that was cut."""
    header = {
        "name": name,
        "mode": mode,
        "models": {"long": ["somewhere/long", []], "short": ["somewhere/short", []]},
        "data": benchmark,
        "benchmarks": [{"name": benchmark}],
        "problems": PROBLEMS,
        "samples": samples,
        "temperature": 0.0 if samples == 1 else 1.0,
        "seed": seed,
        "limits": {"max_turns": 8, "token_budget": 320 if mode == "pair" else 512},
        "date": "2026-01-02",
    }
    records = [
        record(index, sample, mode=mode, correct=index < right, text=text, benchmark=benchmark)
        for sample in range(samples)
        for index in range(PROBLEMS)
    ]
    file = root / "results" / f"{name}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [header, *(records if finished else records[:3])]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def record(index: int, sample: int, *, mode: str, correct: bool, text: str, benchmark: str = "test") -> dict[str, Any]:
    """One trajectory."""
    turns = [
        {"role": role, "text": words.format(text=text), "tokens": tokens + index, "fault": None}
        for role, words, tokens in TURNS[mode]
    ]
    cut = mode == "pair" and not correct
    if cut:
        turns[-1]["fault"] = "no_closing"
    tokens: dict[str, int] = {}
    for turn in turns:
        tokens[turn["role"]] = tokens.get(turn["role"], 0) + turn["tokens"]
    return {
        "id": f"{benchmark}/{index}/{sample}",
        "benchmark": benchmark,
        "problem_index": index,
        "problem": f"what is number {index} ?",
        "ground_truth": str(index),
        "turns": turns,
        "text": "".join(turn["text"] for turn in turns),
        "stop_reason": "turn_cut" if cut else "answered",
        "fault_role": "short" if cut else None,
        "tokens": tokens,
        "rethinks": 1 if mode == "pair" else 0,
        "answer": str(index),
        "correct": correct,
        "seconds": 0.5,
    }


def write_training(pair: Path, *, steps: int = len(SCHEDULE) * STEPS_PER_ROUND) -> None:
    """Metrics, the last checkpoint's state and the choice of a run that has made `steps` steps."""
    pair.mkdir(parents=True, exist_ok=True)
    lines = [{"step": step, "data": metrics(step)} for step in range(steps + 1)]
    text = "\n".join(json.dumps(line) + "\n" for line in lines)
    (pair / "metrics.0.jsonl").write_text(text, encoding="utf-8")
    if steps:
        folder = pair / f"global_step_{steps}"
        folder.mkdir()
        state = {"step": steps, "schedule": SCHEDULE, "steps_per_round": STEPS_PER_ROUND}
        (folder / "pair.json").write_text(json.dumps(state))
        (pair / "latest_checkpointed_iteration.txt").write_text(str(steps))
    best = {
        "start": {"step": 0, "accuracy": 0.7, "tokens": 80.0},
        "best": {"step": 2, "accuracy": 0.8, "tokens": 60.0},
        "models": {"long": "a", "short": "b"},
    }
    (pair / "best.json").write_text(json.dumps(best))


def metrics(step: int) -> dict[str, float]:
    """What the trainer logs in a step."""
    validated = {"val/accuracy": 0.7 + step / 100, "val/tokens": 80.0 - step}
    if step == 0:
        return validated
    learner = SCHEDULE[(step - 1) // STEPS_PER_ROUND]
    return {
        **(validated if step % STEPS_PER_ROUND == 0 else {}),
        "training/round": (step - 1) // STEPS_PER_ROUND,
        "long/reward/total": 1.0 + step / 10,
        "short/reward/total": 0.9,
        "pair/accuracy": 0.5 + step / 10,
        "pair/tokens": 90.0 - step,
        "pair/stop/max_turns": 0.0,
        f"{learner}/own_tokens": 100,
        f"{learner}/actor/lr": 1e-4,
    }


def write_stages(root: Path) -> None:
    """Markers of two stages."""
    (root / "stages").mkdir(parents=True, exist_ok=True)
    for name, status in (("world", "done"), ("train", "done")):
        marker = {"fingerprint": "f", "status": status, "mark": "m", "seconds": 75.0}
        (root / "stages" / f"{name}.json").write_text(json.dumps(marker))


def write_facts(root: Path, seed: int) -> None:
    """What the launcher records."""
    facts = {
        "recipe": "recipes/tiny.yaml",
        "overrides": [f"seed={seed}"],
        "settings": {"output": str(root), "seed": seed, "steps_per_round": STEPS_PER_ROUND},
        "stages": {"world": "longshort world", "train": "longshort train"},
        "versions": {"python": "3.11"},
        "machine": "two cores",
        "started": "2026-01-02T03:04:05+00:00",
        "last_started": "2026-01-02T03:04:05+00:00",
    }
    (root / "run.json").write_text(json.dumps(facts))


def write_sampled(
    folder: Path, *, steps: int = 3, problems: int = 2, sessions: int = 2, text: str = "okay", single: bool = False
) -> None:
    """Trajectories that a training run logged: the same problems in every step, the long role learning in the first."""
    for step in range(1, steps + 1):
        lines = []
        for group in range(problems):
            for session in range(sessions):
                lines.append(sampled(step, group, session, text=text, single=single))
        file = folder / "trajectories" / f"step_{step}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def sampled(step: int, group: int, session: int, *, text: str, single: bool) -> dict[str, Any]:
    """One of them; only the first of a group is correct."""
    mode = "long_cot" if single else "pair"
    turns = [
        {"role": role, "text": words.format(text=text), "tokens": tokens + step, "fault": None}
        for role, words, tokens in TURNS[mode]
    ]
    tokens: dict[str, int] = {}
    for turn in turns:
        tokens[turn["role"]] = tokens.get(turn["role"], 0) + turn["tokens"]
    correct = session == 0
    terms = {"em": float(correct), "fm": 1.0, "lm": 0.25}
    rewards = {
        role: {
            "total": float(correct) + 0.1,
            "terms": terms,
            "neutral": False,
            "advantage": 0.7 if single or (role == "long" and step == 1) else None,
        }
        for role in tokens
    }
    return {
        "step": step,
        "round": "" if single else "L1" if step == 1 else "S1",
        "problem_id": f"p{group}",
        "problem": f"what is sampled {group} ?",
        "ground_truth": str(group),
        "group": group,
        "session": session,
        "turns": turns,
        "tokens": tokens,
        "correct": correct,
        "stop_reason": "answered",
        "fault_role": None,
        "rethinks": 0 if single else 1,
        "weights": {"em": 1.0, "fm": 0.1, "lm": 0.2},
        "rewards": rewards,
    }
