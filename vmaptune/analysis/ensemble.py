"""Ensembles of a run's members: several networks that answer together, or one whose weights are a mean.

Chosen on validation, by the run's own metric, and by construction no worse there than the run's winner. What that is worth
the test split says, read once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from vmaptune.analysis.judging import Judge
from vmaptune.analysis.lineage import founders
from vmaptune.analysis.picking import mix_greedily, pick_greedily
from vmaptune.analysis.predictor import require_winner
from vmaptune.analysis.retraining import opened_again
from vmaptune.analysis.testing import warn_of_other_data
from vmaptune.analysis.weights import Candidate, read_candidates, write_ensemble
from vmaptune.cache import use_compilation_cache
from vmaptune.errors import ConfigError, StoreError, did_you_mean
from vmaptune.plan import prepare_backend
from vmaptune.store.folder import RunFolder
from vmaptune.store.history import History, connect
from vmaptune.store.ledger import read_test, recorded_test
from vmaptune.store.reading import read_run, test_reads
from vmaptune.strict_json import finite_json
from vmaptune.tasks import Task

Method = Literal["greedy", "soup"]
METHODS: tuple[Method, ...] = ("greedy", "soup")
_HELD = 2**28  # bytes of answers, of the members that are chosen from; what is made of them takes several times that


@dataclass(frozen=True)
class Ensemble:
    """An ensemble of a run's members.

    Attributes:
        run: The run folder.
        method: "greedy": members that answer together; "soup": one whose weights are the mean of theirs.
        metric: What it was chosen by.
        direction: "max" or "min".
        candidates: Members that there were to choose from.
        picks: Trials, in the order in which they were picked.
        best: How many of them validation asks for.
        validation: Metrics of the run's winner ("single") and of the ensemble.
        test: The same on the test split; None where it was not read, see `ensemble`.
        test_reads: How often the test split was read in this run by now.
    """

    run: Path
    method: Method
    metric: str
    direction: str
    candidates: int
    picks: list[int]
    best: int
    validation: Mapping[str, Mapping[str, float]]
    test: Mapping[str, Mapping[str, float]] | None
    test_reads: int

    @property
    def members(self) -> dict[int, int]:
        """How often each trial was picked, of the picks that validation asks for."""
        kept = self.picks[: self.best]
        return {trial: kept.count(trial) for trial in dict.fromkeys(kept)}

    def as_json(self) -> dict[str, Any]:
        """As strict JSON values."""
        plain = ("method", "metric", "direction", "candidates", "picks", "best", "validation", "test", "test_reads")
        facts = {"run": str(self.run), **{name: getattr(self, name) for name in plain}}
        return finite_json(facts | {"members": {str(trial): n for trial, n in self.members.items()}})


def ensemble(
    run: str | Path, *, size: int = 25, method: Method = "greedy", task: Task | None = None, again: bool = False
) -> Ensemble:
    """Builds an ensemble of the members of a run's last checkpoint and its winner, and keeps it in `RUN/ensemble`.

    greedy: members that answer together, see `pick_greedily`. What is averaged is probabilities, or the outputs of a
    regression.

    soup: one network, whose weights are the mean of the best member's and of those of its relatives that make it no worse, see
    `mix_greedily`. Relatives have a founder in common: their weights were the same once. Members with state of their own,
    such as batch statistics, are refused, because a mean of it belongs to no network.

    The test split is read for it only after it was read for the winner, and once: not for another ensemble of the same
    method, unless asked to. Every reading is on record.

    Args:
        run: The run folder, of a run that is not going on at the moment.
        size: Picks. The ensemble is the first so many of them that validation is best with.
        method: How they become one answer.
        task: The run's task, if it was passed from Python.
        again: Read the test split for this ensemble, whatever it was read for before.

    Raises:
        StoreError: Not a run folder, one in use, no checkpoint, or no relatives to average with.
        ConfigError: The task was passed from Python and is not given, or does not say how its model is used.

    References:
        Caruana et al., Ensemble Selection from Libraries of Models, ICML 2004
        Wortsman et al., Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
        inference time, https://arxiv.org/abs/2203.05482
    """
    if method not in METHODS:
        raise ConfigError(f"method: expected greedy or soup; given: {method!r}{did_you_mean(method, METHODS)}")
    if size < 1:
        raise ConfigError(f"size: expected int >= 1; given: {size}")
    prepare_backend()
    use_compilation_cache()
    folder = RunFolder(run).require_run()
    with folder.locked():
        return _made(folder, size, method, task, again)


def _made(folder: RunFolder, size: int, method: Method, task: Task | None, again: bool) -> Ensemble:
    row = read_run(folder)
    require_winner(folder)
    config, task = opened_again(folder, row, task, "ensemble")
    warn_of_other_data(folder, task)
    judge = Judge(task, row["config"], "validation", str(folder.path))
    candidates = read_candidates(folder, config, task)
    members, answers, single = _sorted(judge, candidates)
    if method == "greedy":
        chosen = pick_greedily(answers, lambda several: [judge.score(m) for m in judge.measure(several)], size)
        weights = {i: chosen.picks[: chosen.best].count(i) / chosen.best for i in dict.fromkeys(chosen.picks)}
        networks = {f"trial-{members[i].trial}-step-{members[i].step}": (share, members[i]) for i, share in weights.items()}
        names = [f"trial-{members[i].trial}-step-{members[i].step}" for i in chosen.picks]
    else:
        members = relatives(folder, members)
        chosen, params = mix_greedily(
            [member.params for member in members],
            lambda params: judge.score(judge.measure(judge.answers(params, members[0].model_state)[None])[0]),
            size,
        )
        networks, names = {"soup": (1.0, members[0]._replace(params=params))}, ["soup"]
    kept = [members[i] for i in chosen.picks]
    trials = [member.trial for member in kept]
    found = _measured(judge, networks)
    facts: dict[str, Any] = {
        "method": method,
        "picks": names,
        "trials": trials,
        "best": chosen.best if method == "greedy" else 1,
    }
    facts |= {"metric": task.metric, "validation": {"single": single, "ensemble": found}}
    write_ensemble(folder, finite_json(facts), {name: (m.params, m.model_state) for name, (_, m) in networks.items()})
    return Ensemble(
        run=folder.path,
        method=method,
        metric=task.metric,
        direction=task.direction,
        candidates=len(members),
        picks=trials,
        best=chosen.best,
        validation={"single": single, "ensemble": found},
        test=_tested(folder, row, task, method, kept[: chosen.best], networks, again=again),
        test_reads=len(test_reads(folder.history)),
    )


def _sorted(judge: Judge, candidates: Sequence[Candidate]) -> tuple[list[Candidate], np.ndarray, dict[str, float]]:
    """Candidates, the best on validation first, as many as can be held at once; their answers; and the winner's metrics."""
    held: list[tuple[Any, Candidate, np.ndarray]] = []
    single: dict[str, float] = {}
    for candidate in candidates:
        answer = judge.answers(candidate.params, candidate.model_state)
        metrics = judge.measure(answer[None])[0]
        single = single or metrics  # the winner is the first
        score = judge.score(metrics)
        if np.isfinite(answer).all() and np.isfinite(score).all():
            held.append((score, candidate, answer))
        held.sort(key=lambda entry: entry[0], reverse=True)
        held = held[: max(1, _HELD // answer.nbytes)]
    if not held:
        raise StoreError("not one member of the last checkpoint has a finite score, so there is nothing to choose from")
    return [c for _, c, _ in held], np.stack([a for _, _, a in held]), single


def _measured(judge: Judge, networks: Mapping[str, tuple[float, Candidate]]) -> dict[str, float]:
    """Metrics of the mean answer."""
    answer = sum(share * judge.answers(m.params, m.model_state).astype(np.float64) for share, m in networks.values() if share)
    return judge.measure(np.asarray(answer, np.float32)[None])[0]


def relatives(folder: RunFolder, members: Sequence[Candidate]) -> list[Candidate]:
    """The best member, and those who descend from the same founder."""
    if any(jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in jax.tree.leaves(members[0].model_state)):
        raise StoreError(
            f"{folder.path}: its members have state besides weights, such as batch statistics, and a mean of that belongs to "
            "no network; choose the method greedy"
        )
    with closing(connect(folder.history)) as db:
        rows = db.execute("SELECT trial, parent FROM trial").fetchall()
    founder = founders({row["trial"]: row["parent"] for row in rows})
    best = founder[members[0].trial]
    found = [member for member in members if founder[member.trial] == best]
    if len(found) == 1:
        raise StoreError(
            f"{folder.path}: no other member descends from the founder of trial {members[0].trial}, and a mean of unrelated "
            "weights belongs to no network; choose the method greedy"
        )
    return found


def _tested(
    folder: RunFolder,
    row: Mapping[str, Any],
    task: Task,
    method: Method,
    kept: Sequence[Candidate],
    networks: Mapping[str, tuple[float, Candidate]],
    *,
    again: bool,
) -> dict[str, dict[str, float]] | None:
    """Test metrics of the winner, as they are on record, and of the ensemble."""
    result = row["result"] or {}
    if not result.get("test"):
        return None
    single = {name: float(value) for name, value in result["test"].items()}
    best = result["best"]
    if {(member.trial, member.step) for member in kept} == {(best["trial"], best["step"])}:
        return {"single": single, "ensemble": single}  # it is the winner, and nothing needs to be read
    what = "ensemble" if method == "greedy" else "soup"
    members = {"members": [member.trial for member in kept], "steps": [member.step for member in kept]}
    subject = {"what": what, "trial": best["trial"], **members}
    found = None if again else recorded_test(folder.history, subject)
    if found is None:
        if not again and any(read["what"] == what for read in test_reads(folder.history)):
            return None
        judge = Judge(task, row["config"], "test", str(folder.path))
        with closing(History(folder.history)) as history:
            found = read_test(history, folder.history, subject, lambda: _measured(judge, networks), again=again)
    return {"single": single, "ensemble": found}
