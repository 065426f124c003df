"""Checks the loggers of a run, `trainer.logger`, which verl opens when all processes are there. Imports no verl."""

import configparser
import importlib.util
import netrc
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import urlparse

from longshort_reward.errors import UserError

from verl_longshort.base.dry_run import planning

KEY = "trainer.logger"


@dataclass(frozen=True, kw_only=True)
class Logger:
    """One of verl's loggers."""

    package: str | None = None
    """Importable package that it needs."""
    install: str = ""
    ready: Callable[[], str] = lambda: ""
    """What is missing for it to be used here, with the remedy; empty: nothing."""


def _wandb() -> str:
    offline = ("offline", "disabled", "dryrun")
    if os.environ.get("WANDB_MODE", "").lower() in offline or os.environ.get("WANDB_DISABLED", "").lower() == "true":
        return ""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return ""
    if any(_offline(file) for file in (Path("wandb/settings"), Path("~/.config/wandb/settings").expanduser())):
        return ""
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or "api.wandb.ai"
    if _in_netrc(host):
        return ""
    return "nobody is logged in: run `wandb login`, set WANDB_API_KEY, or WANDB_MODE=offline"


def _offline(settings: Path) -> bool:
    """Whether `wandb offline` or `wandb disabled` was run there."""
    read = configparser.ConfigParser()
    read.read(settings, encoding="utf-8")
    return read.get("default", "mode", fallback="online") in ("offline", "disabled", "dryrun")


def _swanlab() -> str:
    if os.environ.get("SWANLAB_MODE", "cloud") != "cloud" or os.environ.get("SWANLAB_API_KEY"):
        return ""
    folder = Path(os.environ.get("SWANLAB_SAVE_DIR", "~/.swanlab")).expanduser()
    if (folder / ".netrc").is_file():
        return ""
    return "nobody is logged in: run `swanlab login`, set SWANLAB_API_KEY, or SWANLAB_MODE=local"


def _clearml() -> str:
    file = Path(os.environ.get("CLEARML_CONFIG_FILE", "~/clearml.conf")).expanduser()
    if file.is_file() or os.environ.get("CLEARML_API_ACCESS_KEY") or os.environ.get("CLEARML_OFFLINE_MODE"):
        return ""
    return "it is not set up: run `clearml-init`, set CLEARML_API_ACCESS_KEY and its secret, or CLEARML_OFFLINE_MODE=1"


def _volcengine() -> str:
    needed = ("VOLC_ACCESS_KEY_ID", "VOLC_SECRET_ACCESS_KEY", "MLP_TRACKING_REGION")
    missing = [name for name in needed if not os.environ.get(name)]
    return f"it needs {', '.join(missing)} in the environment" if missing else ""


LOGGERS = {
    "console": Logger(),
    "file": Logger(),
    "wandb": Logger(package="wandb", install="pip install wandb", ready=_wandb),
    # verl's old name of it
    "tracking": Logger(package="wandb", install="pip install wandb", ready=_wandb),
    "tensorboard": Logger(package="tensorboard", install="pip install tensorboard"),
    "mlflow": Logger(package="mlflow", install="pip install mlflow"),
    "swanlab": Logger(package="swanlab", install="pip install swanlab", ready=_swanlab),
    "trackio": Logger(package="trackio", install="pip install trackio"),
    "clearml": Logger(package="clearml", install="pip install clearml", ready=_clearml),
    "vemlp_wandb": Logger(
        package="volcengine_ml_platform", install="pip install volcengine-ml-platform", ready=_volcengine
    ),
    "rl_insight": Logger(package="rl_insight", install="pip install rl-insight"),
}
"""By verl's names (`verl.utils.tracking.Tracking`)."""


def check_loggers(chosen: str | Sequence[str] | None) -> None:
    """Check the value of `trainer.logger`.

    Raises UserError for a name that verl does not know, a package that is not installed and a service that nobody is
    logged in to. What is installed here says nothing of the machine of a plan: `packages_of` says what is needed.
    """
    if chosen is None:
        raise UserError(KEY, "null", "give a list of loggers, such as [console,file]")
    for name in _names(chosen):
        if name not in LOGGERS:
            near = get_close_matches(str(name), LOGGERS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"verl has {', '.join(LOGGERS)}"
            raise UserError(KEY, name, f"verl knows no such logger; {hint}")
        logger = LOGGERS[name]
        if planning() or logger.package is None:
            continue
        if importlib.util.find_spec(logger.package) is None:
            raise UserError(KEY, name, f"{logger.package} is not installed: {logger.install}, or leave {name} out")
        if problem := logger.ready():
            raise UserError(KEY, name, problem)


def packages_of(chosen: str | Sequence[str]) -> tuple[str, ...]:
    """Importable packages that the loggers need."""
    return tuple(sorted({LOGGERS[name].package or "" for name in _names(chosen)} - {""}))


def _names(chosen: str | Sequence[str]) -> list[str]:
    return [chosen] if isinstance(chosen, str) else list(chosen)


def _in_netrc(host: str) -> bool:
    named = os.environ.get("NETRC")
    for file in [Path(named)] if named else [Path("~/.netrc").expanduser(), Path("~/_netrc").expanduser()]:
        try:
            if file.is_file() and netrc.netrc(str(file)).authenticators(host):
                return True
        except (netrc.NetrcParseError, OSError):
            # the file's owner may have meant it for other programs
            continue
    return False
