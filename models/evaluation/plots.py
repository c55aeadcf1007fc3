"""The plots of an evaluation, as SVG with real text. The same figures give the same bytes."""

import itertools
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from gram.models.evaluation.records import Curves, Evaluation

_COLORS = {"lprm": "tab:blue", "majority": "tab:orange", "any": "tab:green", "coverage": "tab:red", "coverage_limit": "tab:red"}


def plot_by_samples(curves: Curves, path: Path) -> None:
    """Plot accuracy and coverage against K, at the first temperature; a panel for each test set and way to sample."""
    temperature = curves.by_samples[0].temperature
    figure, panels = _panels([e for e in curves.by_samples if e.temperature == temperature])
    for axes, evaluations in panels:
        samples = [evaluation.samples for evaluation in evaluations]
        for name in ("any", "majority", "lprm", *(["coverage", "coverage_limit"] if evaluations[0].covers_several else [])):
            style = "--" if name == "coverage_limit" else "o-"
            shares = [getattr(evaluation, name) for evaluation in evaluations]
            axes.plot(samples, shares, style, color=_COLORS[name], label=name.replace("_", " "))
        _finish(axes, evaluations[0], "samples per puzzle, K", samples)
    _save(figure, path)


def plot_by_depth(curves: Curves, path: Path) -> None:
    """Plot accuracy and coverage against the depth without halting, for the fewest and the most samples; panels likewise."""
    figure, panels = _panels(curves.by_depth)
    for axes, evaluations in panels:
        depths = sorted({evaluation.max_steps for evaluation in evaluations})
        widths = [evaluation.samples for evaluation in evaluations]
        for name in ("lprm", *(["coverage"] if evaluations[0].covers_several else [])):
            for width, style in {min(widths): "o:", max(widths): "o-"}.items():
                shares = [getattr(evaluation, name) for evaluation in evaluations if evaluation.samples == width]
                axes.plot(depths, shares, style, color=_COLORS[name], label=f"{name}, K = {width}")
        _finish(axes, evaluations[0], "supervision steps, without halting", depths)
    _save(figure, path)


def _panels(evaluations: list[Evaluation]) -> tuple[Figure, list[tuple[Axes, list[Evaluation]]]]:
    """Make a figure with axes for each test set and way to sample it, whose evaluations stand together."""
    sets = [list(group) for _, group in itertools.groupby(evaluations, lambda evaluation: evaluation.title)]
    figure = Figure(figsize=(5 * len(sets), 3.5), layout="constrained")
    row = figure.subplots(1, len(sets), squeeze=False)[0]
    return figure, list(zip(row, sets, strict=True))


def _finish(axes: Axes, evaluation: Evaluation, label: str, ticks: list[int]) -> None:
    axes.set_title(evaluation.title)
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlabel(label)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    least = min(axes.get_ylim()[0], 0.95)  # otherwise, shares that are all 1 would get an axis that goes beyond 1
    axes.set_ylim(least, 1 + 0.05 * (1 - least))
    axes.grid(alpha=0.3)
    axes.legend()


def _save(figure: Figure, path: Path) -> None:
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "gram"}):
        figure.savefig(path, metadata={"Date": None})
