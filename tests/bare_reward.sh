#!/usr/bin/env bash
# longshort-reward is a distribution of its own: it installs and works in an environment without verl, torch and ray.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
# A copy: building leaves files beside the sources.
cp -r "$root/reward" "$folder/reward"
"$folder/venv/bin/python" -m pip install -q --disable-pip-version-check "$folder/reward"
cd "$folder"
env -u PYTHONPATH "$folder/venv/bin/python" - <<'PYTHON'
import importlib.util

absent = [name for name in ("verl", "torch", "ray", "verl_longshort") if importlib.util.find_spec(name)]
assert not absent, f"the environment is not bare: it has {', '.join(absent)}"

from longshort_reward import Outcome, RewardWeights, compute_score, match_answer, synergy_reward

assert match_answer(r"so \boxed{\frac{x+1}{2}}", r"0.5x+0.5")
assert not match_answer(r"so \boxed{3}", 4)
joint = r"<think> 2 + 2 </think><answer> \boxed{4} </answer>"
assert compute_score("math", joint, "4")["score"] == 1.1
flat = {"start": 0.2, "end": 0.2, "begin_step": 0, "end_step": 0}
weights = RewardWeights.from_config({"mu": flat, "rethink": 0.1})
ok = {"long": True, "short": True}
group = [
    Outcome(correct=True, format_ok=ok, tokens=n, rethinks=0, fault_role=None, stop_reason="answered")
    for n in (100, 200)
]
short, long = (rewards["short"].total for rewards in synergy_reward(group, weights, step=0))
assert abs(short - 1.2) < 1e-9 and abs(long - 1.0) < 1e-9, (short, long)
print("longshort-reward works in a bare environment")
PYTHON
