"""The report of `gram eval --data`, as Markdown tables."""

from gram.models.markdown import table
from gram.models.temperature import temperature_text
from gram.server.evaluation.measure import Measured, Shares

_BANDS = 6
"""The bands of ratings, which have about equally many puzzles."""


def summary(measured: list[Measured]) -> str:
    """All tables: one of the whole set, and one by rating for each way to sample, if the puzzles have ratings."""
    kinds = [kind for kind in ("exact", "valid") if getattr(measured[0], kind).puzzles]
    widest = max(m.options.num_trajectories for m in measured)
    header = ["halting", "symmetries", "temperature", "trajectories"]
    header += [column for kind in kinds for column in _columns(kind, widest)]
    header += ["steps", "saved", "puzzles/s"]
    parts = [table(header, [_row(m, kinds, widest) for m in measured])]
    for m in measured:
        if m.by_rating:
            bands = [[band, f"{shares.puzzles:,}", *_percents(shares, widest)] for band, shares in _by_band(m.by_rating)]
            title = f"## By rating: halting {m.options.halt}, {'with' if m.options.symmetries else 'without'} symmetries"
            if m.options.temperature != 1:
                title += f", temperature {temperature_text(m.options.temperature)}"
            parts += [title, table(["rating", "puzzles", *_columns(kinds[0], widest)], bands)]
    return "\n\n".join(parts)


def _columns(kind: str, trajectories: int) -> list[str]:
    """The columns of a kind of figure. A single trajectory is all there is to choose from."""
    return [kind] if trajectories == 1 else [f"{kind}, single", f"{kind}, LPRM's choice", f"{kind}, any"]


def _percents(shares: Shares, trajectories: int) -> list[str]:
    figures = [shares.single] if trajectories == 1 else [shares.single, shares.chosen, shares.any]
    return [f"{figure / shares.puzzles:.2%}" for figure in figures]


def _row(m: Measured, kinds: list[str], widest: int) -> list[str]:
    how = [str(m.options.halt), "yes" if m.options.symmetries else "no", temperature_text(m.options.temperature)]
    shares = [cell for kind in kinds for cell in _percents(getattr(m, kind), widest)]
    return [*how, str(m.options.num_trajectories), *shares, f"{m.mean_steps:.2f}", f"{m.saved:.1%}", f"{m.rate:.1f}"]


def _by_band(by_rating: dict[float, Shares]) -> list[tuple[str, Shares]]:
    """Neighbouring ratings put together, so that the bands have about equally many puzzles."""
    total = sum(shares.puzzles for shares in by_rating.values())
    bands: list[tuple[list[float], Shares]] = []
    before = 0
    for rating, shares in sorted(by_rating.items()):
        if not bands or before >= len(bands) * total / _BANDS:
            bands.append(([], Shares()))
        ratings, together = bands[-1]
        ratings.append(rating)
        together.merge(shares)
        before += shares.puzzles
    return [(f"{r[0]:g}" if r[0] == r[-1] else f"{r[0]:g}-{r[-1]:g}", shares) for r, shares in bands]
