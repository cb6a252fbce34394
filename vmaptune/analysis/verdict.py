"""What a run's curves say, in sentences with the numbers behind them, and what to try next.

All rules look at what the history holds. Training values are means over a generation with dropout and augmentation on: they
make a model look worse on its training data than it is, so a gap between train and validation is at least as wide as it
looks, and none is concluded from training values that are the worse ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from vmaptune.analysis.axes import AxisFacts
from vmaptune.analysis.facts import RunFacts

Kind = Literal["overfits", "gap", "underfits", "learning", "fits", "improving", "diverged", "edge", "short"]

_LEAST = 4  # generations of a curve that can be judged
_RISE = 0.05  # of validation loss above its lowest, as a share of it
_GAP = 1.5  # validation loss to train loss
_GAIN = 0.1  # of all that was gained, in the last quarter
_EDGE = 0.02  # of an axis
_LONGER = "A longer run: more generations, or longer segments"
_SHARES = ("accuracy", "balanced_accuracy", "f1", "roc_auc", "r2")  # metrics that are 1 at best


@dataclass(frozen=True)
class Verdict:
    """One finding.

    Attributes:
        kind: What was found.
        of: Whose curves: "the winner", "the median member", or "the population".
        sentence: It in words, with numbers.
        numbers: The numbers behind it.
        advice: What to try next; "" if nothing needs to be done.
    """

    kind: Kind
    of: str
    sentence: str
    numbers: Mapping[str, float]
    advice: str

    @property
    def worry(self) -> bool:
        """Whether there is something to do about it."""
        return bool(self.advice)

    def as_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        fields = {"kind": self.kind, "of": self.of, "sentence": self.sentence, "numbers": dict(self.numbers)}
        return fields | {"advice": self.advice}


@dataclass(frozen=True)
class Curves:
    """What over- and underfitting is read from.

    Attributes:
        generation: i64[L], from 0.
        train: f64[L], training loss.
        validation: f64[L], validation loss.
        share: f64[L], a metric that is 1 at best, the better one of train and of validation, which has no dropout; or None.
        share_name: Its name.
    """

    generation: np.ndarray
    train: np.ndarray
    validation: np.ndarray
    share: np.ndarray | None = None
    share_name: str = ""


def verdicts(facts: RunFacts) -> list[Verdict]:
    """All that can be said of a run; the fit of the winner first. Empty while there is no sound member."""
    if facts.best is None:
        return list(_diverged(facts))
    winner = judge_fit(winner_curves(facts), "the winner")
    median = judge_fit(median_curves(facts), "the median member")
    others = [median] if median.kind != winner.kind and median.kind in ("overfits", "underfits") else []
    if winner.kind == "learning" and facts.run["status"] == "running":
        winner = replace(winner, advice="")
    return [winner, *others, *_improving(facts), *_diverged(facts), *_at_edges(facts)]


def winner_curves(facts: RunFacts) -> Curves:
    """The curves of the weights that won, through all ancestors that trained them."""
    rows = facts.lineage
    return _curves(facts, facts.generation[rows], {name: column[rows] for name, column in facts.columns.items()})


def median_curves(facts: RunFacts) -> Curves:
    """The medians of the sound members by generation."""
    sound = np.isfinite(facts.fitness)
    rows = [kept for r in facts.by_generation() if len(kept := r[sound[r]])]
    names = [name for name in facts.columns if name.partition(".")[0] in ("train", "validation")]
    medians = {name: np.array([np.median(facts.columns[name][r]) for r in rows]) for name in names}
    return _curves(facts, np.array([facts.generation[r[0]] for r in rows]), medians)


def _curves(facts: RunFacts, generation: np.ndarray, columns: Mapping[str, np.ndarray]) -> Curves:
    known = [
        name
        for name in (facts.metric, *_SHARES)
        if name in _SHARES and {f"train.{name}", f"validation.{name}"} <= columns.keys()
    ]
    nothing = np.full(len(generation), np.nan)
    train, validation = (columns.get(f"{room}.loss", nothing) for room in ("train", "validation"))
    share = np.fmax(*(columns[f"{room}.{known[0]}"] for room in ("train", "validation"))) if known else None
    return Curves(generation, train, validation, share, known[0] if known else "")


def judge_fit(curves: Curves, of: str) -> Verdict:
    """Whether curves show overfitting, underfitting, or neither.

    Overfits: validation loss is 5 % or more above its lowest, which it had at least a fifth of the curve ago, while training
    loss went on falling. Gap: validation loss is half as much again as training loss, by over a fiftieth of where it began.
    Underfits: neither, and training loss is flat in the last quarter, while both losses are still above half of the first one;
    where there is a metric that is 1 at best, while it is below 0.9 on train and validation. Learning: the same, but training
    loss still falls.

    Args:
        curves: Of one member or of many.
        of: Whose they are, for the sentence.
    """
    sound = np.isfinite(curves.train) & np.isfinite(curves.validation)
    train, validation, generation = curves.train[sound], curves.validation[sound], curves.generation[sound]
    Of = of[0].upper() + of[1:]  # noqa: N806 (a sentence begins with it)
    if len(train) < _LEAST:
        many = f"{len(train)} generation{'s' * (len(train) != 1)}"
        sentence = f"{Of} has {many} of loss on record; it takes {_LEAST} to tell over- from underfitting"
        return Verdict("short", of, sentence, {"generations": float(len(train))}, "")
    low = int(np.argmin(validation))
    rise = float(validation[-1] - validation[low]) / max(abs(float(validation[low])), 1e-12)
    gap = float(validation[-1] - train[-1])
    numbers = {
        "train_loss": float(train[-1]),
        "validation_loss": float(validation[-1]),
        "lowest_validation_loss": float(validation[low]),
        "lowest_in_generation": float(generation[low] + 1),
    }
    against = f"train loss {train[-1]:.3g} against validation {validation[-1]:.3g}"
    wide = train[-1] > 0 and validation[-1] > _GAP * train[-1] and gap > 0.02 * abs(float(validation[0]))
    if rise > _RISE and low < 0.8 * (len(train) - 1) and train[-1] < train[low] and gap > 0:
        since = f"validation loss rising since generation {generation[low] + 1}, when it was {validation[low]:.3g}"
        advice = "More dropout, weight decay, L1 or augmentation; more data; a shorter run; or a smaller model"
        return Verdict("overfits", of, f"{Of} overfits: {against}, {since}", numbers | {"rise": rise}, advice)
    if wide:
        sentence = f"{Of} fits its training data better than what is new to it: {against}"
        advice = "More regularisation (dropout, weight decay, augmentation) or more data may narrow the gap"
        return Verdict("gap", of, sentence, numbers | {"gap": gap}, advice)
    tail = train[-max(3, len(train) // 4) :]
    flat = float(tail[0] - tail[-1]) <= 0.05 * max(abs(float(tail[0])), 1e-12)
    share = float(curves.share[sound][-1]) if curves.share is not None else np.nan
    high = share < 0.9 if np.isfinite(share) else min(train[-1], validation[-1]) > 0.5 * train[0]
    if high:
        but = f", and {curves.share_name} only {share:.3g}" if np.isfinite(share) else f", after {train[0]:.3g} at first"
        numbers |= {"share": share} if np.isfinite(share) else {}
        if not flat:
            sentence = f"{Of} has learnt little yet: {against}{but}, and the loss still falls"
            return Verdict("learning", of, sentence, numbers, f"{_LONGER}; or a larger learning rate")
        advice = (
            "More capacity, less dropout, weight decay or L1, a larger learning rate, or better inputs; a longer run, if the "
            "schedule had brought the learning rate near 0; noise looks the same"
        )
        sentence = f"{Of} underfits: {against}{but}, and the loss no longer falls"
        return Verdict("underfits", of, sentence, numbers, advice)
    return Verdict("fits", of, f"{Of} shows neither over- nor underfitting: {against}", numbers, "")


def _improving(facts: RunFacts) -> Iterator[Verdict]:
    """Whether the score of the winner's lineage was still getting better."""
    score = facts.columns[f"{facts.judged}.{facts.metric}"][facts.lineage] * facts.sign
    score = score[np.isfinite(score)]
    if len(score) < 2 * _LEAST or facts.run["status"] == "running":
        return
    if facts.generation[facts.lineage[-1]] < facts.generations[-1]:
        return  # what came after it was worse
    part = len(score) // 4
    few = max(1, min(3, part))
    late, before = float(np.mean(score[-few:])), float(np.mean(score[-part - few : -part]))
    gained = late - float(score[0])
    if gained <= 0 or late - before < _GAIN * gained:
        return
    first, last = before * facts.sign, late * facts.sign
    yield Verdict(
        "improving",
        "the winner",
        f"Still improving when it ended: {facts.judged} {facts.metric} from {first:.4g} to {last:.4g} in the last quarter",
        {"before": first, "last": last, "share_of_all_gained": (late - before) / gained},
        _LONGER,
    )


def _diverged(facts: RunFacts) -> Iterator[Verdict]:
    """How many trials diverged, and what they have in common."""
    failed_rows = np.flatnonzero(~np.isfinite(facts.fitness))
    if not len(failed_rows):
        return
    failed = np.unique(facts.columns["trial"][failed_rows])
    there = np.unique(facts.columns["trial"])
    share = len(failed) / len(there)
    common, axis = _in_common(facts, failed_rows)
    often = "often" if share >= 0.1 else "at times"
    sentence = f"Diverged {often}: {len(failed):,} of {len(there):,} trials{common}"
    advice = "A smaller learning rate, clip_norm, or more warm-up" if not axis else f"A narrower range of {axis}, or clip_norm"
    numbers = {"diverged": float(len(failed)), "trials": float(len(there)), "share": share}
    yield Verdict("diverged", "the population", sentence, numbers, advice if share >= 0.1 else "")


def _in_common(facts: RunFacts, failed_rows: np.ndarray) -> tuple[str, str]:
    """The one axis beyond a value of which all that diverged lie, and few of the others; "" if there is none."""
    sound_rows = np.flatnonzero(np.isfinite(facts.fitness))
    found = []
    for name, axis in facts.axes.items():
        bad, good = facts.columns[name][failed_rows], facts.columns[name][sound_rows]
        bad, good = bad[np.isfinite(bad)], good[np.isfinite(good)]
        if len(bad) < 3 or not len(good) or axis.labels:
            continue
        for edge, beyond, word in (
            (bad.min(), np.mean(good >= bad.min()), "above"),
            (bad.max(), np.mean(good <= bad.max()), "below"),
        ):
            found.append((float(beyond), axis.short, f", all with {axis.short} {word} {edge:.3g}"))
    best = min(found, default=(1.0, "", ""))
    return (best[2], best[1]) if best[0] < 0.5 else ("", "")


def _at_edges(facts: RunFacts) -> Iterator[Verdict]:
    """Axes at whose end the winner sits."""
    for name, axis in facts.axes.items():
        value = facts.columns[name][facts.lineage[-1]]
        if axis.choices or not np.isfinite(value):
            continue
        place = float(axis.unit(np.array([value]))[0])
        high = place > 1 - _EDGE
        if not high and not (place < _EDGE and axis.low != 0):  # nothing is below 0: that is no edge of the search
            continue
        wider = _wider(axis, high=high)
        yield Verdict(
            "edge",
            "the winner",
            f"At the edge of the searched range: {axis.short} {value:.3g} of {axis.low:g} to {axis.high:g}",
            {"value": float(value), "low": axis.low, "high": axis.high},
            f"A wider range of {name}{wider}",
        )


def _wider(axis: AxisFacts, *, high: bool) -> str:
    if axis.log:
        return f", such as up to {axis.high * 10:g}" if high else f", such as down to {axis.low / 10:g}"
    return f", beyond {axis.high:g}, if that can be" if high else f", below {axis.low:g}, if that can be"
