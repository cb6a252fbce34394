"""Writing reports: of one run or of several, and figures for papers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmaptune.analysis.facts import RunFacts, read_facts
from vmaptune.analysis.importance import importance_of
from vmaptune.analysis.verdict import Verdict, verdicts
from vmaptune.errors import StoreError, warn
from vmaptune.report.comparing import COMPARISONS, comparison_page
from vmaptune.report.figures import FIGURES
from vmaptune.report.look import FONT
from vmaptune.report.page import run_page
from vmaptune.store.folder import RunFolder, find_runs, spare, write_text

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class Report:
    """What was written.

    Attributes:
        runs: What it is of.
        files: The page, then the figures.
        verdicts: What was found; empty for a comparison.
    """

    runs: tuple[RunFacts, ...]
    files: tuple[Path, ...]
    verdicts: tuple[Verdict, ...]

    def as_json(self) -> dict[str, Any]:
        """Facts, verdicts, importance and files as JSON values."""
        facts: dict[str, Any] = {"files": [str(file) for file in self.files], "runs": [_facts(run) for run in self.runs]}
        if len(self.runs) == 1:
            found = importance_of(self.runs[0])
            facts["verdicts"] = [verdict.as_json() for verdict in self.verdicts]
            facts["importance"] = found._asdict() | {"shares": dict(found.shares) if found.shares else None}
        return facts


def _facts(run: RunFacts) -> dict[str, Any]:
    best = run.best
    return {
        "run": str(run.path),
        "status": run.run["status"],
        "generations": len(run.generations),
        "planned": run.planned,
        "trials": len(run.trials["trial"]),
        "metric": run.metric,
        "direction": run.run["direction"],
        "best": dict(best) if best else None,
        "test": dict(run.test) if run.test else None,
        "test_reads": len(run.test_reads),
    }


def write_report(paths: Sequence[str | Path], *, out: str | Path | None = None, png: bool = False) -> Report:
    """Writes the report of a run, or the comparison of several; also while they go.

    Args:
        paths: Run folders, or folders that hold runs: cohorts, a comparison.
        out: The HTML file; default: `report.html` in the one folder that was given, else `comparison.html` here.
        png: Also write the figures as `figures/<name>.png` beside it.

    Raises:
        StoreError: Something is no run folder, the file cannot be written, or what `png` needs is missing.
    """
    spare(out)
    runs = _runs(paths)
    file = Path(out) if out else Path(paths[0]) / "report.html" if len(paths) == 1 else Path("comparison.html")
    alone = len(runs) == 1
    write_text(file, run_page(runs[0]) if alone else comparison_page(runs, _title(paths)))
    drawn: dict[str, go.Figure | None] = {}
    if png:
        drawn = {n: f(runs[0]) for n, f in FIGURES.items()} if alone else {n: f(runs) for n, f in COMPARISONS.items()}
    pictures = write_pictures({n: f for n, f in drawn.items() if f is not None}, file.parent / "figures")
    return Report(tuple(runs), (file, *pictures), tuple(verdicts(runs[0])) if alone else ())


def _runs(paths: Sequence[str | Path]) -> list[RunFacts]:
    found: dict[Path, RunFacts] = {}
    for path in paths:
        folder = RunFolder(path)
        below = [] if folder.is_run() else find_runs(path)
        if not below:
            found[folder.path.resolve()] = read_facts(path)
            continue
        for run in below:
            try:
                found[run.path.resolve()] = read_facts(run.path)
            except StoreError as error:
                warn(f"left out: {error}")
    if not found:
        raise StoreError(f"{paths[0]}: none of its runs can be read")
    return list(found.values())


def _title(paths: Sequence[str | Path]) -> str:
    return f"Runs of {Path(paths[0]).resolve().name}" if len(paths) == 1 else "Comparison of runs"


def write_pictures(figures: Mapping[str, go.Figure], folder: Path) -> list[Path]:
    """Writes figures as PNG files in the style of papers: white, with larger letters, twice the resolution.

    Raises:
        StoreError: kaleido is not installed, finds no Chrome or Chromium, or the folder cannot be written.
    """
    if not figures:
        return []
    import plotly.io

    try:
        import_module("kaleido")  # plotly finds it
    except ImportError:
        raise StoreError("--png: needs kaleido; pip install 'vmaptune[report]'") from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / f"{name}.png" for name in figures]
        for figure in figures.values():
            figure.update_xaxes(title_font_size=18).update_yaxes(title_font_size=18)
            figure.update_layout(
                paper_bgcolor="white", plot_bgcolor="white", font={"size": 18, "color": "black", "family": FONT}
            )
        heights = [int(figure.layout.height * 1.15) for figure in figures.values()]
        plotly.io.write_images(list(figures.values()), files, width=1100, height=heights, scale=2)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written: {error.strerror}") from None
    except Exception as error:
        if "chrome" in f"{type(error).__name__} {error}".lower():
            raise StoreError("--png: needs Chrome or Chromium on this machine; install one, or leave --png out") from None
        raise
    return files
