"""Studies: their statistics against closed forms, their designs, and their answers where the truth is known."""

import csv
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tomlkit
from click.testing import CliRunner

from vmaptune.cli.main import main
from vmaptune.config import resolve
from vmaptune.errors import ConfigError
from vmaptune.loop import tune
from vmaptune.schedules import SCHEDULES
from vmaptune.space import Axis
from vmaptune.store.folder import RunFolder
from vmaptune.store.reading import read_run
from vmaptune.studies import design as designs
from vmaptune.studies import evaluate_schedules, lr_range_test
from vmaptune.studies.schedules import _best_shapes
from vmaptune.studies.scores import basin_decades, difference_interval, median_interval
from vmaptune.tasks import expected_loss
from vmaptune.toml import load_config

STEPS, BATCH, DIMENSION = 60, 16, 16
ORACLE = {
    "task": {"name": "linear_regression", "dimension": DIMENSION, "decay_percent": 50},
    "batch": {"size": BATCH},
    "optimizer": {"name": "sgd", "momentum": 0.0, "learning_rate": {"low": 0.05, "high": 1.5, "scale": "log"}},
    "schedule": {"name": "constant"},
    "population": {"size": 4, "segment_steps": STEPS, "generations": 1},
}
FAMILIES = ["linear", "polynomial"]  # and, always, constant and cosine
SMALL = {"families": FAMILIES, "shapes": 3, "learning_rates": 3, "seeds": 2, "refine": 1, "confirm": 8}


def call(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments], prog_name="vmaptune")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return evaluate_schedules(config=ORACLE, out=tmp_path_factory.mktemp("study") / "s", **SMALL)


# ----------------------------------------------------------------------------------------------------------- statistics


def test_an_interval_of_medians_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    found = [median_interval(rng.normal(size=24), seed=i) for i in range(300)]
    assert 0.90 < np.mean([i.low <= 0 <= i.high for i in found]) < 0.995
    assert all(i.low <= i.value <= i.high for i in found)


def test_what_a_seed_does_to_both_cancels_in_their_difference():
    rng = np.random.default_rng(1)
    seeds = 10 * rng.normal(size=30)
    one, other = seeds + 0.5, seeds
    paired = difference_interval(one, other)
    assert paired == pytest.approx((0.5, 0.5, 0.5))
    assert difference_interval(one, one) == (0.0, 0.0, 0.0)
    apart = difference_interval(one, rng.permutation(other))
    assert apart.high - apart.low > 1


def test_seeds_that_diverged_count_as_infinitely_bad():
    scores = np.array([1.0, 2.0, 3.0, np.inf, np.inf, np.inf, np.inf])
    assert math.isinf(median_interval(scores).value)
    assert median_interval(scores[:5]).value == 3.0
    assert math.isinf(difference_interval(scores, np.ones(7)).value)
    assert not any(math.isnan(x) for x in difference_interval(scores, scores))


@pytest.mark.parametrize("slope", [0.5, 2.0])
def test_the_basin_of_a_valley_is_as_wide_as_its_slopes_say(slope):
    """score = 1 + slope * |decades from the best|: a quarter worse at 0.25 / slope decades to either side."""
    rates = np.logspace(-4, 0, 9)
    scores = 1 + slope * abs(np.log10(rates) + 2)
    assert basin_decades(rates, scores) == pytest.approx(2 * 0.25 / slope)


def test_a_basin_ends_where_training_diverges_and_where_the_axis_does():
    rates = np.logspace(-3, 0, 4)
    assert basin_decades(rates, np.array([1.0, 1.0, 1.0, np.inf])) == pytest.approx(2.0)
    assert basin_decades(rates, np.array([1.0, 1.1, 1.2, 1.0])) == pytest.approx(3.0)


# --------------------------------------------------------------------------------------------------------------- design


def space_of(families):
    tree = ORACLE | {"schedule": designs.shape_axes(families)}
    return resolve(tree)[0].space


def test_every_family_of_learning_rates_can_be_explored():
    families = [name for name in SCHEDULES if name != "one_cycle_momentum"]
    space = space_of(families)
    drawn = designs.explore(space, families, shapes=4, rates=[0.1, 0.2], decays=[], seed=0)
    assert list(drawn) == families
    for index, family in enumerate(families):
        shapes = drawn[family]
        assert [len(shape) for shape in shapes] == [2] * 4
        for candidate in [c for shape in shapes for c in shape]:
            assert candidate["schedule.family"] == index
            assert set(candidate) == {"schedule.family", "optimizer.learning_rate", *designs.own_axes(space, family)}
    columns = designs.table([c for own in drawn.values() for shape in own for c in shape], space, seeds=3)
    assert {len(column) for column in columns.values()} == {len(families) * 4 * 2 * 3}
    genes = space.encode_columns(columns, optional=space.axes)  # refuses a value that is not on its axis
    assert genes.shape == (len(families) * 24, space.dimension)


def test_the_first_shape_is_the_family_by_default():
    space = space_of(["cosine", "rex", "table"])
    drawn = designs.explore(space, ["cosine", "rex", "table"], shapes=2, rates=[0.1], decays=[], seed=0)
    assert drawn["cosine"][0][0] | {"schedule.warmup": 0.0} == drawn["cosine"][0][0]
    assert drawn["cosine"][0][0]["schedule.cosine.exponent"] == 1.0
    assert drawn["rex"][0][0]["schedule.rex.beta"] == 0.5
    assert [drawn["table"][0][0][f"schedule.table.values.{i}"] for i in range(5)] == [1.0, 0.75, 0.5, 0.25, 0.0]


def test_what_is_tried_around_a_candidate_is_near_it_and_on_its_axes():
    space = space_of(["cosine", "linear"])
    centre = {"schedule.family": 0.0, "schedule.warmup": 0.0, "schedule.cosine.exponent": 1.0, "schedule.cosine.end": 0.25}
    centre |= {"optimizer.learning_rate": 1.5}
    found = designs.around(space, "cosine", centre, sigma=0.05, count=200, rng=np.random.default_rng(0))
    assert found[0] == centre
    assert len(found) == 201
    genes = space.encode_columns(designs.table(found, space, seeds=1), optional=space.axes)
    own = [list(space.axes).index(name) for name in centre if name != "schedule.family"]
    moves = genes[1:, own] - genes[0, own]
    assert 0.03 < moves[:, 1:3].std() < 0.07  # inside of their axes
    assert (moves[:, 0] == 0).mean() == pytest.approx(0.5, abs=0.1)  # half would leave the axis: no warm-up stays likely
    assert {c["schedule.family"] for c in found} == {0.0}


def test_a_grid_has_both_ends_and_even_steps():
    assert designs.grid(Axis(1e-4, 1.0, "log"), 5) == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1.0])
    assert designs.grid(Axis(0.0, 1.0), 1) == [0.5]


# ------------------------------------------------------------------------------------------------------------ schedules


def loss_of(rates, **problem):
    return float(expected_loss(jnp.asarray(rates), decay_percent=50, **problem)[-1])


def rates_of(path):
    with path.open() as file:
        return [float(row["optimizer.learning_rate"]) for row in csv.DictReader(file)]


def dense_optimum(families, count=10_000, **problem):
    """The lowest expected loss of very many shapes and rates, by the recursion: nothing is trained."""
    config, task = resolve(ORACLE | {"schedule": designs.shape_axes(families)})
    recipe, steps = config.recipe(task), jnp.arange(STEPS, dtype=jnp.int32)
    which = list(config.space.axes).index("schedule.family")

    @jax.jit
    @jax.vmap
    def loss(genotype):
        rates = recipe.shaped(config.space.decode(genotype), steps)["optimizer.learning_rate"]
        return expected_loss(rates, decay_percent=50, **problem)[-1]

    rng = np.random.default_rng(0)
    genes = rng.uniform(size=(count, config.space.dimension)).astype(np.float32)
    best = np.inf
    for sigma in (0.2, 0.05, 0.02, 0.01):
        losses = np.asarray(loss(jnp.asarray(genes)))
        best = min(best, float(losses.min()))
        elite = np.repeat(genes[np.argsort(losses)[:20]], count // 20, axis=0)
        genes = np.clip(elite + sigma * rng.normal(size=elite.shape), 0, 1).astype(np.float32)
        genes[:, which] = elite[:, which]
    return best


def test_a_study_of_the_oracle_finds_what_a_dense_search_of_its_expected_loss_finds(tmp_path):
    """Trained candidates, judged by what they would lose on average: within 1 % of the best there is in these families.

    As users run it, with XLA's optimisations: 98,400 trainings, which take ten times as long without.
    """
    tree = ORACLE | {"task": {"name": "linear_regression", "dimension": 64, "decay_percent": 50}, "batch": {"size": 8}}
    (tmp_path / "oracle.toml").write_text(tomlkit.dumps(tree))
    counts = {"shapes": 32, "lrs": 6, "seeds": 96, "refine": 8, "confirm": 192}
    options = [f"--{name}={count}" for name, count in counts.items()]
    command = [sys.executable, "-m", "vmaptune", "schedules", "oracle.toml", "--families=cosine", *options, "--out=s", "--json"]
    environment = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
    done = subprocess.run([*command, "-q"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    first, second = json.loads(done.stdout)["families"]
    assert (first["family"], second["family"], second["tied"]) == ("cosine", "constant", False)
    losses = {
        name: loss_of(rates_of(tmp_path / "s" / "families" / f"{name}.csv"), batch_size=8, dimension=64)
        for name in ("cosine", "constant")
    }
    best = dense_optimum(["constant", "cosine"], batch_size=8, dimension=64)
    assert losses["cosine"] < 1.01 * best
    assert losses["constant"] > 1.3 * best  # so 1 % is little, here


def test_families_are_ranked_and_compared_with_the_baselines(study):
    names = [f.family for f in study.families]
    assert sorted(names) == ["constant", "cosine", "linear", "polynomial"]
    assert [f.score.value for f in study.families] == sorted(f.score.value for f in study.families)
    first = study.families[0]
    assert first.tied
    assert first.regret == (0.0, 0.0, 0.0)
    by_name = {f.family: f for f in study.families}
    assert by_name["constant"].over_constant == (0.0, 0.0, 0.0)
    assert by_name["cosine"].over_cosine == (0.0, 0.0, 0.0)
    assert by_name["linear"].over_constant.value == pytest.approx(
        by_name["linear"].score.value - by_name["constant"].score.value
    )
    assert {f.seeds for f in study.families} == {4}  # the other four of eight chose


def test_a_study_is_ordinary_runs_and_its_rows_are_configs(study, tmp_path):
    explored = read_run(RunFolder(study.folder))
    assert explored["status"] == "finished"
    stages = [study.folder, *(study.folder / s for s in ("refine-1", "refine-2", "refine-3", "confirm"))]
    trials = [len(RunFolder(stage).start.read_text().splitlines()) - 1 for stage in stages]
    assert trials[0] == 4 * 3 * 3 * 2  # families, shapes, rates, seeds
    assert trials[-1] == 4 * 4 * 8
    assert study.trainings == sum(trials)
    assert study.member_steps == STEPS * sum(trials)
    for family in study.families:
        config, task = load_config(study.folder / "families" / f"{family.family}.toml")
        assert config.schedules["optimizer.learning_rate"].name == family.family
        assert config.optimizer.values["learning_rate"] == pytest.approx(family.hyperparameters["optimizer.learning_rate"])
        result = tune(config, task=task, out=tmp_path / family.family)
        assert rates_of(tmp_path / family.family / "best" / "schedule.csv") == pytest.approx(
            rates_of(study.folder / "families" / f"{family.family}.csv"), rel=1e-5
        )
        assert result.member_steps == STEPS
    page = (study.folder / "families.html").read_text()
    assert "polynomial" in page
    assert not re.search(r'<(script|link)[^>]+(src|href)="?http', page)  # it is read offline


@pytest.mark.parametrize("stages", [1, 2, 4])
def test_a_stopped_study_goes_on_to_the_same_answer(study, tmp_path, stages):
    """Stopped after some of its five stages, each of which is a single dispatch here."""
    begun = []

    def listen(stage, config, task):
        begun.append(stage)
        return ()

    options = SMALL | {"config": ORACLE, "out": tmp_path / "s"}
    assert evaluate_schedules(**options, listen=listen, should_stop=lambda: len(begun) >= stages) is None
    assert begun == ["explore", "refine-1", "refine-2", "refine-3", "confirm"][:stages]
    finished = evaluate_schedules(**options)
    assert finished.as_csv() == study.as_csv()
    assert evaluate_schedules(**options).as_csv() == study.as_csv()  # all its runs are finished: only read


def test_a_family_that_always_diverges_is_kept_to_be_reported():
    pool = [{"schedule.warmup": w, "optimizer.learning_rate": r} for w in (0.0, 0.1, 0.2) for r in (1.0, 2.0)]
    assert _best_shapes(pool, np.full(6, np.inf), 2) == [0, 2]
    scores = np.array([np.inf, 3.0, 2.0, np.inf, np.inf, 1.0])
    assert _best_shapes(pool, scores, 5) == [5, 2, 1]  # each shape once, at its best rate


def test_a_task_of_ones_own_needs_no_config(blob_task, tmp_path):
    options = {"families": ["linear"], "shapes": 1, "learning_rates": 2, "seeds": 1, "refine": 0, "confirm": 4, "steps": 3}
    found = evaluate_schedules(blob_task, assignments=["batch.size=16"], out=tmp_path / "s", **options)
    assert sorted(f.family for f in found.families) == ["constant", "cosine", "linear"]
    assert found.member_steps == 3 * found.trainings


def test_candidates_are_compared_on_the_same_seeds(tmp_path):
    """Two candidates that are the same train to the same loss, seed by seed."""
    tree = ORACLE | {"population": ORACLE["population"] | {"size": 6, "seeds": 3}, "search": {"method": "random"}}
    rates = [0.3, 0.3, 0.3] * 2
    result = tune(tree, start={"optimizer.learning_rate": rates}, out=tmp_path / "run")
    loss = result.history["validation.loss"]
    np.testing.assert_allclose(loss[:3], loss[3:], rtol=1e-5)
    assert len(set(loss[:3].tolist())) == 3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--families", "cosin"], "no schedule 'cosin' for learning rates; did you mean 'cosine'"),
        (["--families", "one_cycle_momentum"], "no schedule 'one_cycle_momentum' for learning rates"),
        (["--shapes", "0"], "shapes must be at least 1; given: 0"),
        (["--steps", "0"], "steps must be at least 1; given: 0"),
        (["--steps", "-3"], "steps must be at least 1; given: -3"),
        (["--confirm", "2"], "confirm >= 4"),
        (["--set", "optimizer.learning_rate=0.1"], "optimizer.learning_rate: a study wants an axis here"),
        (["--weight-decays", "3"], "optimizer.weight_decay: a study wants an axis here"),
        (["--score", "accurac"], "no validation metric 'accurac'; known: loss"),
    ],
)
def test_what_cannot_be_studied_is_refused_in_one_sentence(tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    lines = ['[task]\nname = "linear_regression"', '[optimizer]\nname = "sgd"\nweight_decay = 0.0']
    lines.append('learning_rate = { low = 0.1, high = 1.0, scale = "log" }')
    lines.append("[batch]\nsize = 4\n[population]\nsize = 2\nsegment_steps = 2\ngenerations = 1")
    Path("study.toml").write_text("\n".join(lines))
    tiny = ["--families", "linear", "--shapes", 1, "--lrs", 2, "--seeds", 1, "--refine", 0, "--confirm", 4, "--quiet"]
    result = call("schedules", "study.toml", *tiny, *arguments)
    assert result.exit_code == 2, result.output
    assert sentence in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_the_command_prints_a_line_a_family_and_speaks_json_and_csv(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = '[task]\nname = "linear_regression"\n[optimizer]\nname = "sgd"\nlearning_rate = {low = 0.1, high = 1.0}\n'
    Path("study.toml").write_text(text + "[batch]\nsize = 4\n[population]\nsize = 2\nsegment_steps = 4\ngenerations = 1")
    options = ["--families", "linear", "--shapes", 2, "--lrs", 2, "--seeds", 1, "--refine", 0, "--confirm", 4, "--out", "s"]
    first = call("schedules", "study.toml", *options)
    assert first.exit_code == 0, first.output
    assert "explore: 12 trainings of 4 steps" in first.stderr
    assert all(f"\n{name} " in first.stdout for name in ("constant", "linear", "cosine"))
    facts = json.loads(call("schedules", "study.toml", *options, "--json", "-q").stdout)
    rows = list(csv.DictReader(Path("s/families.csv").read_text().splitlines()))
    assert [f["family"] for f in facts["families"]] == [row["family"] for row in rows]
    printed = call("schedules", "study.toml", *options, "--csv", "-q")
    assert printed.stdout == Path("s/families.csv").read_text()


# -------------------------------------------------------------------------------------------------------- range test


def test_a_range_test_finds_the_edge_of_stability_and_brackets_the_best_rate(tmp_path):
    edge = 2 / (1 + (1 + DIMENSION) / BATCH)  # all inputs alike: p' = ((1 - r)^2 + r^2 (1 + d) / B) p shrinks below it
    tree = ORACLE | {"task": {"name": "linear_regression", "dimension": DIMENSION, "decay_percent": 0}}
    found = lr_range_test(config=tree, low=0.003, high=10.0, points=24, seeds=8, steps=80, out=tmp_path / "r", ramp=True)
    assert edge / 1.5 < found.edge < edge * 1.5
    low, high = found.suggested
    assert low < found.best[0] <= high == found.edge
    assert found.loss.shape == (1, 24)
    rates = np.array(found.rates)
    expected = [
        float(expected_loss(jnp.full(80, r), batch_size=BATCH, dimension=DIMENSION, decay_percent=0)[-1]) for r in rates[:12]
    ]
    ratio = found.loss[0, :12] / np.array(expected)
    assert ((ratio > 0.5) & (ratio < 1.5)).all()
    assert len(found.ramp) == 80
    assert found.ramp[0][0] == pytest.approx(0.003)
    assert found.ramp[40][0] == pytest.approx(0.003 * (10.0 / 0.003) ** 0.5, rel=1e-4)
    assert found.ramp[-1][1] > 10 * min(loss for _, loss in found.ramp)  # it broke on the way
    assert (tmp_path / "r" / "lr_range.html").is_file()
    with (tmp_path / "r" / "lr_range.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 24


def test_a_second_axis_makes_a_map(tmp_path):
    tree = ORACLE | {"optimizer": ORACLE["optimizer"] | {"weight_decay": {"low": 1e-4, "high": 1.0, "scale": "log"}}}
    found = lr_range_test(config=tree, low=0.01, high=1.0, points=4, seeds=2, steps=20, grid_name="weight_decay", grid_points=3,
                          out=tmp_path / "r")  # fmt: skip
    assert found.grid == "optimizer.weight_decay"
    assert found.grid_values == pytest.approx([1e-4, 1e-2, 1.0])
    assert found.loss.shape == (3, 4)
    assert (found.loss[2] > found.loss[0]).all()  # so much decay pulls the weights off the target
    assert found.best[1] == pytest.approx(1e-4, rel=1e-3) or found.best[1] == pytest.approx(1e-2, rel=1e-3)


def test_a_range_in_which_nothing_is_learned_suggests_nothing(tmp_path):
    found = lr_range_test(config=ORACLE, low=1e-12, high=1e-9, points=3, seeds=1, steps=2, out=tmp_path / "r")
    assert found.suggested is None


@pytest.mark.parametrize("wrong", [{"low": 1.0, "high": 0.1}, {"points": 1}, {"seeds": 0}, {"steps": 0}, {"low": -1.0}])
def test_impossible_ranges_are_refused(wrong):
    with pytest.raises(ConfigError, match="expected 0 < low < high"):
        lr_range_test(config=ORACLE, **wrong)
