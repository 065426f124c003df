"""The recipe launcher with stages that are small shell commands."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from longshort_reward.errors import UserError
from rich.console import Console

from verl_longshort.base.progress import clock
from verl_longshort.base.run_record import read_record
from verl_longshort.recipe.display import pace, recipe_seconds_left, seconds_left
from verl_longshort.recipe.launcher import run_recipe
from verl_longshort.recipe.recipe import find_recipe, load_recipe, shipped_recipes
from verl_longshort.recipe.stage_process import StageProcess, Status


def stage(name: str, command: str | list[str], outputs: list[str] | None = None, minutes: float = 0.01) -> dict:
    return {"name": name, "minutes": minutes, "command": command, "outputs": outputs or []}


def count(name: str, then: str = "true") -> dict[str, Any]:
    """A stage that adds a line to `<name>.txt` each time it runs."""
    return stage(name, f"echo ${{word}} >> ${{output}}/{name}.txt; {then}", [f"${{output}}/{name}.txt"])


class Recipe:
    """A recipe file in a temporary folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "recipe.yaml"
        self.output = folder / "out"

    def write(self, *stages: dict[str, Any], **other: Any) -> "Recipe":
        content = {"output": str(self.output), "word": "hello", **other, "stages": list(stages)}
        self.path.write_text(yaml.safe_dump(content))
        return self

    def run(self, *overrides: str) -> tuple[int, str]:
        text = io.StringIO()
        code = run_recipe(self.path, overrides, Console(file=text, width=200))
        return code, text.getvalue()

    def lines(self, name: str) -> list[str]:
        file = self.output / f"{name}.txt"
        return file.read_text().split() if file.exists() else []


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return Recipe(tmp_path)


def test_runs_in_order_and_keeps_the_output_in_logs(recipe: Recipe) -> None:
    second = stage("second", "cat ${output}/first.txt; echo aloud")
    code, shown = recipe.write(count("first"), second).run()
    assert code == 0
    assert "aloud" not in shown
    assert "second done in 00:0" in shown
    assert "hello\naloud" in (recipe.output / "logs" / "second.log").read_text()


def test_a_text_is_shown_at_the_end(recipe: Recipe) -> None:
    code, shown = recipe.write(count("first"), show="${output}/first.txt").run()
    assert code == 0
    assert "hello\n" in shown


def test_a_second_run_skips_what_is_done(recipe: Recipe) -> None:
    recipe.write(count("first"), count("second")).run()
    assert recipe.run()[0] == 0
    assert recipe.lines("first") == recipe.lines("second") == ["hello"]


def test_a_clock_that_was_moved_back_repeats_nothing(recipe: Recipe) -> None:
    recipe.write(count("first"), count("second")).run()
    for file in recipe.output.rglob("*"):
        os.utime(file, (file.stat().st_mtime + 86400,) * 2)
    assert recipe.run()[0] == 0
    assert recipe.lines("first") == recipe.lines("second") == ["hello"]


def test_a_changed_command_runs_again_with_all_after_it(recipe: Recipe) -> None:
    recipe.write(count("first"), count("second"), count("third")).run()
    recipe.write(count("first"), count("second", "echo again"), count("third")).run()
    assert recipe.lines("first") == ["hello"]
    # Once: what the other command had left was removed before.
    assert recipe.lines("second") == recipe.lines("third") == ["hello"]
    assert (recipe.output / "logs" / "third.log").read_text().count("===") == 2


def test_an_override_changes_the_commands(recipe: Recipe) -> None:
    recipe.write(count("first")).run()
    recipe.run("word=bye")
    assert recipe.lines("first") == ["bye"]


def test_a_missing_output_is_made_again(recipe: Recipe) -> None:
    recipe.write(count("first"), count("second")).run()
    (recipe.output / "first.txt").unlink()
    recipe.run()
    assert recipe.lines("first") == recipe.lines("second") == ["hello"]


def test_a_failure_ends_the_recipe_and_is_resumed(recipe: Recipe) -> None:
    gate = recipe.folder / "gate"
    recipe.write(count("first"), count("second", f"echo trouble; test -e {gate}"), count("third"))
    code, shown = recipe.run()
    assert code == 1
    assert "trouble" in shown
    assert f"Stage second failed: exit status 1. Its log: {recipe.output}/logs/second.log" in shown
    assert recipe.lines("third") == []
    gate.touch()
    assert recipe.run()[0] == 0
    # The same command: what the first attempt left is there for it to go on from.
    assert (recipe.lines("first"), recipe.lines("second")) == (["hello"], ["hello", "hello"])


def test_a_stage_that_does_not_write_its_output_has_failed(recipe: Recipe) -> None:
    code, shown = recipe.write(stage("first", "true", ["${output}/nothing"])).run()
    assert code == 1
    assert f"did not write {recipe.output}/nothing" in shown


def test_parallel_stages_run_at_the_same_time(recipe: Recipe) -> None:
    def meet(own: str, other: str) -> dict[str, Any]:
        wait = f"for i in $(seq 100); do test -e {other} && exit 0; sleep 0.1; done; exit 1"
        return stage(own, f"cd ${{output}}; touch {own}; {wait}")

    assert recipe.write({"parallel": [meet("one", "two"), meet("two", "one")]}).run()[0] == 0


def test_parallel_stages_wait_for_gpus(recipe: Recipe) -> None:
    stages = [{**stage(name, "true"), "gpus": gpus} for name, gpus in (("a", 4), ("b", 1), ("c", 1))]
    recipe.write({"parallel": stages}, gpu={"count": 8})

    def groups(*overrides: str) -> list[list[tuple[str, str]]]:
        found = load_recipe(recipe.path, overrides).groups
        return [[(one.name, one.environment["CUDA_VISIBLE_DEVICES"]) for one in group] for group in found]

    assert groups() == [[("a", "0,1,2,3"), ("b", "4"), ("c", "5")]]
    assert groups("gpu.count=5") == [[("a", "0,1,2,3"), ("b", "4")], [("c", "0")]]
    assert groups("gpu.count=2") == [[("a", "0,1,2,3")], [("b", "0"), ("c", "1")]]
    assert groups("gpu.count=1")[1:] == [[("b", "0")], [("c", "0")]]


@pytest.mark.parametrize(("ours", "shown"), [("4,5,6", "5"), ("GPU-a,GPU-b", "GPU-b"), ("", "")])
def test_gpus_are_counted_among_the_visible_ones(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, ours: str, shown: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ours)
    stages = [{**stage(name, "echo gpus=$CUDA_VISIBLE_DEVICES."), "gpus": 1} for name in ("a", "b")]
    assert recipe.write({"parallel": stages}, stage("all", "echo gpus=$CUDA_VISIBLE_DEVICES.")).run()[0] == 0
    logs = {name: (recipe.output / f"logs/{name}.log").read_text() for name in ("b", "all")}
    assert f"gpus={shown}." in logs["b"]
    assert f"gpus={ours}." in logs["all"]


def test_too_few_visible_gpus_are_named(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    recipe.write({**stage("a", "true"), "gpus": 4})
    with pytest.raises(UserError, match=r"CUDA_VISIBLE_DEVICES = 4,5: names 2 GPUs, .* uses 4: set gpu.count=2"):
        recipe.run()


def test_a_recipe_for_the_cpu_says_so_to_its_stages(recipe: Recipe) -> None:
    recipe.write(stage("first", "echo platform=$VERL_PLATFORM."), device="cpu")
    assert recipe.run()[0] == 0
    assert "platform=cpu." in (recipe.output / "logs/first.log").read_text()
    assert "VERL_PLATFORM" not in load_recipe(recipe.path, ["device=cuda"]).environment


def test_the_smaller_of_two_numbers(recipe: Recipe) -> None:
    recipe.write(stage("first", "true"), gpu={"count": 8}, width="${at_most:4,${gpu.count}}")
    assert load_recipe(recipe.path, []).settings["width"] == 4
    assert load_recipe(recipe.path, ["gpu.count=2"]).settings["width"] == 2


def test_one_failure_ends_its_parallel_stages(recipe: Recipe) -> None:
    begin = time.monotonic()
    code, _ = recipe.write({"parallel": [stage("one", "sleep 60"), stage("two", "exit 3")]}).run()
    assert code == 1
    assert time.monotonic() - begin < 20


def test_a_silent_stage_is_ended(recipe: Recipe) -> None:
    code, shown = recipe.write(stage("first", "sleep 60"), stall_minutes=0.01).run()
    assert code == 1
    assert "no output and no progress for 0.01 minutes" in shown


def test_stages_see_the_environment(recipe: Recipe) -> None:
    own = "import os, sys; assert os.environ['THREADS'] == '1'; assert sys.prefix == sys.argv[1]"
    command = ["python", "-c", own, sys.prefix]
    assert recipe.write(stage("first", command), environment={"THREADS": 1}).run()[0] == 0


def started(recipe: Recipe) -> "subprocess.Popen[str]":
    """A launcher in a process of its own, once its stage has written the pid of a grandchild."""
    process = subprocess.Popen(
        [sys.executable, "-m", "verl_longshort.recipe.launcher", str(recipe.path)],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    deadline = time.monotonic() + 60
    while not recipe.lines("pid"):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    return process


# A grandchild in a session of its own, as Ray's processes are.
SLEEPER = "setsid sleep 300 & echo $! > ${output}/pid.tmp; mv ${output}/pid.tmp ${output}/pid.txt; wait"


def is_running(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_all_processes_of_a_stage(recipe: Recipe, number: signal.Signals) -> None:
    process = started(recipe.write(stage("first", SLEEPER)))
    process.send_signal(number)
    shown, _ = process.communicate(timeout=60)
    assert process.returncode == 130, shown
    assert "continues where it stopped" in shown
    assert not is_running(int(recipe.lines("pid")[0]))


def test_a_killed_launcher_is_resumed_and_leaves_no_second_process(recipe: Recipe) -> None:
    process = started(recipe.write(count("first"), stage("second", SLEEPER)))
    sleeper = int(recipe.lines("pid")[0])
    process.kill()
    process.wait(timeout=10)
    assert is_running(sleeper)
    (recipe.output / "pid.txt").unlink()
    again = started(recipe)
    assert not is_running(sleeper)
    assert recipe.lines("first") == ["hello"]
    again.terminate()
    again.communicate(timeout=60)


def test_two_launchers_of_one_recipe_are_refused(recipe: Recipe) -> None:
    process = started(recipe.write(stage("first", SLEEPER)))
    with pytest.raises(UserError, match="another launcher is running"):
        recipe.run()
    process.terminate()
    process.communicate(timeout=60)


REPORT = (
    "from verl_longshort.base.progress import report; import time; "
    "report(0, 4); time.sleep(1); report(1, 4, 'a quarter'); time.sleep(1.2)"
)


def test_progress_gives_the_time_left(recipe: Recipe) -> None:
    recipe.write(stage("first", ["python", "-c", REPORT], minutes=1), stage("second", "true", minutes=2))
    plan = load_recipe(recipe.path, [])
    first, second = (StageProcess(stage, fingerprint="x", output=plan.output, environment={}) for stage in plan.stages)
    assert recipe_seconds_left([[first], [second]]) == pytest.approx(180)
    first.start()
    while not first.fraction:
        first.poll(60)
        time.sleep(0.01)
    assert (first.fraction, first.progress and first.progress.message) == (0.25, "a quarter")
    # A quarter took a second; what came before the first report does not count.
    assert seconds_left(first, 1.0) == pytest.approx(3, rel=0.5)
    while first.poll(60) is Status.RUNNING:
        time.sleep(0.01)
    # A stage expected to take a minute took about two seconds, so this machine is faster than expected.
    assert pace([[first], [second]]) == pytest.approx(first.seconds / 60)
    assert recipe_seconds_left([[first], [second]]) == pytest.approx(120 * first.seconds / 60)


def test_a_terminal_gets_a_table(recipe: Recipe) -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=120)
    assert run_recipe(recipe.write(count("first"), stage("second", "sleep 0.5")).path, [], console) == 0
    assert "✓" in text.getvalue()
    assert "Recipe done" in text.getvalue()


@pytest.mark.parametrize(("seconds", "text"), [(83.4, "01:23"), (3600 + 61, "1:01:01")])
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


BROKEN = {
    "stages: []": "stages = []: must be a list with at least one entry",
    "stages: [{name: a}]": "a stage has exactly the keys command, minutes, name, outputs",
    "stages: [{name: a/b, minutes: 1, command: x, outputs: []}]": "is also a file name",
    "stages: [{name: a, minutes: 1, command: x, outputs: [/etc/x]}]": "must lie below the recipe's",
    "stages: [{name: a, minutes: 1, command: 'x ${no}', outputs: []}]": "cannot be read",
    "stages: [": "cannot be read",
}


@pytest.mark.parametrize(("text", "message"), BROKEN.items())
def test_broken_recipes_are_refused(recipe: Recipe, text: str, message: str) -> None:
    recipe.path.write_text(f"output: out\n{text}\n")
    with pytest.raises(UserError) as caught:
        load_recipe(recipe.path, [])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_overrides_and_names_used_twice_are_refused(recipe: Recipe) -> None:
    recipe.write(count("first"))
    with pytest.raises(UserError, match="words = x: no such key"):
        load_recipe(recipe.path, ["words=x"])
    with pytest.raises(UserError, match="is used twice"):
        load_recipe(recipe.write(count("first"), count("first")).path, [])
    with pytest.raises(UserError, match="no such file"):
        load_recipe(Path("nowhere.yaml"), [])


def test_stages_need_no_particular_folder(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(recipe.folder)
    recipe.write(count("first"), output="relative")
    assert recipe.run()[0] == 0
    assert os.path.exists("relative/first.txt")


def test_what_was_run_is_recorded(recipe: Recipe) -> None:
    recipe.write(count("one"), seed=3).run("word=first")
    first = read_record(recipe.output)
    recipe.run("word=second")
    second = read_record(recipe.output)
    assert first is not None
    assert second is not None
    assert (first.settings["seed"], first.settings["word"], first.overrides) == (3, "first", ["word=first"])
    assert second.settings["word"] == "second"
    assert "echo second" in second.stages["one"]
    assert second.started == first.started <= second.last_started
    assert "python" in second.versions


def test_a_folder_without_a_record_has_none(tmp_path: Path) -> None:
    assert read_record(tmp_path) is None


def test_a_list_is_flat_and_null_is_written(recipe: Recipe) -> None:
    more = {"common": ["a=${word}", ["b=${number}", "c=${nothing}"]], "number": 3, "nothing": None}
    recipe.write(stage("first", ["echo", "${common}", "d"]), **more)
    (first,) = load_recipe(recipe.path, []).stages
    assert first.command == ("echo", "a=hello", "b=3", "c=null", "d")
    assert load_recipe(recipe.path, ["number=null"]).stages[0].command[2] == "b=null"


def test_several_commands_run_in_order_until_one_fails(recipe: Recipe) -> None:
    def write(text: str) -> list[str]:
        return ["bash", "-c", f"echo {text} >> ${{output}}/all.txt; test {text} != stop"]

    one = {"name": "one", "minutes": 1, "outputs": []}
    recipe.write({**one, "commands": [write("a"), write("b")]})
    assert recipe.run()[0] == 0
    assert recipe.lines("all") == ["a", "b"]
    recipe.write({**one, "commands": [write("c"), write("stop"), write("d")]})
    code, shown = recipe.run()
    assert code == 1
    assert "Stage one failed: exit status 1" in shown
    assert recipe.lines("all") == ["a", "b", "c", "stop"]


def test_a_stage_goes_on_with_the_command_it_was_at(recipe: Recipe) -> None:
    def write(text: str, then: str = "true") -> list[str]:
        return ["bash", "-c", f"echo {text} >> ${{output}}/all.txt; {then}"]

    model, fail = "mkdir -p ${output}/model", "test -e ${output}/mended"
    one = {"name": "one", "minutes": 1, "outputs": ["${output}/model"]}
    both = {**one, "commands": [write("a", model), write("b", fail), write("c")]}
    recipe.write(both)
    assert recipe.run()[0] == 1
    assert recipe.run()[0] == 1
    assert recipe.lines("all") == ["a", "b", "b"]
    (recipe.output / "model").rmdir()
    (recipe.output / "mended").touch()
    assert recipe.run()[0] == 0
    assert recipe.lines("all")[3:] == ["a", "b", "c"]
    # a stage that is done again does all of it
    (recipe.output / "model").rmdir()
    assert recipe.run()[0] == 0
    assert recipe.lines("all")[6:] == ["a", "b", "c"]
    # and so does another one of its name
    (recipe.output / "mended").unlink()
    recipe.write({**both, "commands": [*both["commands"], write("d")]})
    assert recipe.run()[0] == 1
    recipe.write({**both, "commands": [*both["commands"], write("e")]})
    assert recipe.run()[0] == 1
    assert recipe.lines("all")[9:] == ["a", "b", "a", "b"]


def each_round(**more: Any) -> dict[str, Any]:
    words = ["echo", "${round.label}", "${round.step}", "${round.number}"]
    return {"for_each": "round", **stage("after-${round.label}", words), **more}  # type: ignore[arg-type]


def test_a_stage_for_each_round_of_the_schedule(recipe: Recipe) -> None:
    schedule = {"schedule": ["long", "both", "short"], "steps_per_round": 4}
    rows = {"for_each": "round", "argument": "${round.label}.jsonl"}
    last = stage("last", ["table", rows, "${rounds}", "${last_round.step}"])
    recipe.write(each_round(at_once=2, gpus=1), last, **schedule)
    plan = load_recipe(recipe.path, [])
    assert [[one.name for one in group] for group in plan.groups] == [
        ["after-L1S0", "after-L2S1"],
        ["after-L2S2"],
        ["last"],
    ]
    assert plan.stages[1].command == ("echo", "L2S1", "8", "2")
    assert [dict(one.environment).get("CUDA_VISIBLE_DEVICES") for one in plan.stages] == ["0", "1", "0", None]
    assert plan.stages[-1].command == ("table", "L1S0.jsonl", "L2S1.jsonl", "L2S2.jsonl", "[long,both,short]", "12")
    assert plan.settings["schedule"] == ["long", "both", "short"]
    assert [one.name for one in load_recipe(recipe.path, ["schedule=[short]"]).stages] == ["after-L0S1", "last"]


def test_rounds_need_a_schedule(recipe: Recipe) -> None:
    with pytest.raises(UserError, match="for_each = round: must be round, in a recipe with the keys schedule"):
        load_recipe(recipe.write(each_round()).path, [])
    with pytest.raises(UserError, match=r"longshort\.schedule = lnog: unknown role"):
        load_recipe(recipe.write(each_round(), schedule=["lnog"], steps_per_round=1).path, [])


def test_stages_that_run_at_the_same_time_have_gpus_of_their_own(recipe: Recipe) -> None:
    recipe.write(
        {"parallel": [{**stage("a", "true"), "gpus": 4}, stage("b", "true"), {**stage("c", "true"), "gpus": 1}]}
    )
    environments = [dict(one.environment) for one in load_recipe(recipe.path, []).stages]
    assert environments == [{"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, {}, {"CUDA_VISIBLE_DEVICES": "4"}]


def test_recipes_of_the_package_have_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert {"tiny", "qwen7b", "llama8b", "controls"} <= shipped_recipes().keys()
    assert find_recipe("tiny").name == "tiny.yaml"
    with pytest.raises(UserError, match="recipe = tniy: no such file; give the path of one, or"):
        find_recipe("tniy")
    (tmp_path / "tiny").write_text("output: mine\nstages: []\n")
    assert find_recipe("tiny") == Path("tiny")
