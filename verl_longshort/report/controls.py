"""Curves of single models that were trained on the same problems, beside the pair's."""

from collections.abc import Mapping, Sequence
from functools import partial

from markupsafe import Markup
from matplotlib.axes import Axes

from verl_longshort.report.run_dir import Run
from verl_longshort.report.svg import Ink, captioned, legend_below, plot
from verl_longshort.report.training_log import TrainingLog, mean_series

METRICS = {
    "accuracy": ("Accuracy", "Share of right answers in training."),
    "tokens": ("Tokens per answer", "Generated in training."),
}
"""Title and caption of each metric; the log calls it `pair/…` and `single/…`."""
STYLES = ((Ink.FOURTH, "-"), (Ink.MUTED, "-"), (Ink.MUTED, "--"), (Ink.FOURTH, "--"))

Logs = Mapping[str, Sequence[TrainingLog]]
"""The runs' logs by what was trained."""


def control_plots(runs: Sequence[Run]) -> Markup | None:
    """The plots; None when no run has trained a single model."""
    names = dict.fromkeys(name for run in runs for name in run.controls)
    if not names:
        return None
    logs = {name: [run.controls[name] for run in runs if name in run.controls] for name in names}
    pairs = [run.log for run in runs if run.log]
    drawn = [
        captioned(
            plot(partial(_draw, metric, pairs, logs), name=f"control-{metric}", label=f"{title}, controls"),
            caption,
        )
        for metric, (title, caption) in METRICS.items()
    ]
    return Markup("").join(drawn)


def _draw(metric: str, pairs: Sequence[TrainingLog], logs: Logs, axes: Axes) -> None:
    _draw_mean(axes, pairs, f"pair/{metric}", label="pair", ink=Ink.PAIR, dashes="-")
    for (name, controls), (ink, dashes) in zip(logs.items(), STYLES * len(logs), strict=False):
        _draw_mean(axes, controls, f"single/{metric}", label=name, ink=ink, dashes=dashes)
    axes.set_title(METRICS[metric][0])
    axes.set_xlabel("step")
    legend_below(axes)


def _draw_mean(axes: Axes, logs: Sequence[TrainingLog], key: str, *, label: str, ink: Ink, dashes: str) -> None:
    steps, values = mean_series([log.series(key) for log in logs])
    if steps:
        axes.plot(steps, values, color=ink.value, linestyle=dashes, label=label)
