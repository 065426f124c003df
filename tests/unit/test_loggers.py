"""Loggers that cannot be opened are found out before anything starts."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest
from longshort_reward.errors import UserError

from verl_longshort.base.dry_run import VARIABLE, DryRun
from verl_longshort.verl_plugin.checks.loggers import LOGGERS, check_loggers, packages_of

LOGIN = ("WANDB_API_KEY", "WANDB_MODE", "WANDB_DISABLED", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL", "NETRC")
MORE = ("SWANLAB_MODE", "SWANLAB_API_KEY", "CLEARML_CONFIG_FILE", "CLEARML_API_ACCESS_KEY", "CLEARML_OFFLINE_MODE")


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A home where nobody has logged in anywhere, on a machine that has every package."""
    for name in (*LOGIN, *MORE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace(name=name))


def refused(*names: str) -> str:
    with pytest.raises(UserError) as error:
        check_loggers(list(names))
    return str(error.value)


def test_those_that_need_nothing() -> None:
    check_loggers(["console", "file", "tensorboard", "mlflow", "trackio"])
    check_loggers("console")
    check_loggers([])


def test_an_unknown_name() -> None:
    assert refused("console", "tensorbord") == (
        "trainer.logger = tensorbord: verl knows no such logger; did you mean tensorboard?"
    )
    assert "verl has console, file, wandb" in refused("neptune")
    with pytest.raises(UserError, match="give a list of loggers"):
        check_loggers(None)


@pytest.mark.parametrize("name", [name for name, logger in LOGGERS.items() if logger.package])
def test_a_package_that_is_not_installed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "is not installed: pip install" in refused("console", name)


def test_wandb_without_a_login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert refused("wandb") == (
        "trainer.logger = wandb: nobody is logged in: run `wandb login`, set WANDB_API_KEY, or WANDB_MODE=offline"
    )
    (tmp_path / ".netrc").write_text("machine example.org\n  login user\n  password x\n")
    assert "nobody is logged in" in refused("wandb")
    (tmp_path / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password x\n")
    check_loggers(["wandb"])
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert "nobody is logged in" in refused("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_loggers(["wandb"])
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", "x")
    check_loggers(["wandb"])


def test_wandb_that_was_switched_off_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb/settings").write_text("[default]\nmode = offline\n")
    check_loggers(["wandb"])


@pytest.mark.parametrize(
    ("name", "words", "variable", "value"),
    [
        ("swanlab", "swanlab login", "SWANLAB_MODE", "local"),
        ("clearml", "clearml-init", "CLEARML_API_ACCESS_KEY", "x"),
    ],
)
def test_other_services(name: str, words: str, variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert words in refused(name)
    monkeypatch.setenv(variable, value)
    check_loggers([name])


def test_a_plan_is_for_another_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    DryRun.prepare(tmp_path / "plan", products=(), gpus_per_node=0)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "plan"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    check_loggers(["wandb", "mlflow"])
    assert packages_of(["console", "wandb", "mlflow"]) == ("mlflow", "wandb")
    assert "knows no such logger" in refused("neptune")


def test_the_names_are_verls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    from verl.utils.tracking import Tracking

    assert set(Tracking.supported_backend) == set(LOGGERS) - {"tracking"}
