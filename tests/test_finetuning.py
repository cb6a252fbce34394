from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors.numpy import load_file, save_file

from tests.solo import train_alone
from vmaptune import tasks
from vmaptune.config import resolve
from vmaptune.data.weights import read_weights
from vmaptune.errors import ConfigError
from vmaptune.finetuning import Frozen, finetuned, frozen, named, scaled, started_from, whole
from vmaptune.loop import tune
from vmaptune.optimizers import OPTIMIZERS
from vmaptune.settings import settings
from vmaptune.toml import load_config, load_tree, read_toml, to_toml

KEY = jax.random.key(0)
BASE = {"batch": {"size": 32}}


def refusal(tree, task):
    with pytest.raises(ConfigError) as error:
        resolve(BASE | tree, task=task)
    return str(error.value)


def some_weights(task, path, **changes):
    """A file with weights and state of a task, drawn from another key than a run's."""
    params, state = task.init(jax.random.key(7), task.sample)
    tensors = {f"params.{k}": np.asarray(v) for k, v in named(params).items()}
    tensors |= {f"model_state.{k}": np.asarray(v) + 1 for k, v in named(state).items()}
    save_file({k: v for k, v in (tensors | changes).items() if v is not None}, path)
    return load_file(path)


# ------------------------------------------------------------------------------------------------------------ real use


def test_a_body_trained_on_one_half_of_the_digits_serves_the_other_half(tmp_path):
    """Taken over and frozen, it beats a new network after as many steps; the new head's learning rate is multiplied."""
    digits = tasks.digits(hidden=(16,))
    rows = digits.splits.size("train") // 2
    one, other = (
        digits._replace(splits=digits.splits._replace(train=jax.tree.map(lambda x, half=half: x[half], digits.splits.train)))
        for half in (slice(0, rows), slice(rows, None))
    )
    tree = BASE | {"optimizer": {"learning_rate": 0.03}, "search": {"method": "random"}}
    size = {"size": 2, "segment_steps": 10, "generations": 1}
    donor = tune(tree | {"population": size | {"size": 1, "generations": 20}}, task=one, out=tmp_path / "donor")
    tree |= {
        "init": {"from": f"run:{tmp_path / 'donor'}", "part": "hidden.*", "freeze": "hidden.*"},
        "groups": {"new": {"match": "head.*", "learning_rate": {"low": 0.1, "high": 4.0}}},
        "population": size,
    }
    tuned = tune(tree, task=other, out=tmp_path / "tuned", start={"groups.new.learning_rate": [0.25, 4.0]})
    np.testing.assert_array_equal(tuned.history["groups.new.learning_rate"], np.float32([0.25, 4.0]))
    pinned = read_toml(tmp_path / "tuned" / "best" / "hyperparameters.toml")
    assert pinned["groups"]["new"] == {"match": "head.*", "learning_rate": [0.25, 4.0][tuned.best.trial]}

    plain = {"trial": 0, "steps": 10, "horizon": 10, "batch_size": 32}
    values, adamw = {"optimizer.learning_rate": 0.03 * 0.25}, OPTIMIZERS["adamw"]
    slow = named(train_alone(resolve(tree, task=other)[1], values, adamw, lambda t: 1.0, **plain)[0])
    assert {*slow} == {"head.kernel", "head.bias"}
    for name, expected in slow.items():
        np.testing.assert_allclose(named(tuned.population.params)[name][0], expected, rtol=1e-4, atol=1e-6, err_msg=name)
    assert donor.history["step"][0] == tuned.best.step == 10
    assert tuned.best.validation["accuracy"] > 0.2 + donor.history["validation.accuracy"][0]
    assert tuned.history["validation.loss"].max() < donor.history["validation.loss"][0]

    # Bit for bit the donor's body in every member, and names as ever.
    before, after = (load_file(tmp_path / run / "best" / "weights.safetensors") for run in ("donor", "tuned"))
    assert {*before} == {*after}
    for name in before:
        assert np.array_equal(before[name], after[name]) == (".hidden." in name), name
    params, _ = whole(tuned.population.params, tuned.population.model_state)
    np.testing.assert_array_equal(params["hidden"][0]["kernel"], np.stack([before["params.hidden.0.kernel"]] * 2))

    # What it leaves behind is a whole network, for the plain task too.
    again = started_from(other, read_weights(f"run:{tmp_path / 'tuned'}"))
    loss, _ = other.loss(*again.init(KEY, other.sample), other.splits.validation, KEY, train=False)
    assert loss == pytest.approx(tuned.best.validation["loss"], rel=1e-5)

    # The run is of these weights: it does not go on with others.
    begun = read_toml(tmp_path / "tuned" / "config.toml")
    assert resolve(begun, task=other)[0] == tuned.config
    save_file(
        before | {"params.head.bias": before["params.head.bias"] + 1}, tmp_path / "donor" / "best" / "weights.safetensors"
    )
    assert "weights.safetensors has changed: it is" in refusal(begun, other)
    assert resolve(tree, task=other)[0].run_id != tuned.config.run_id


# --------------------------------------------------------------------------------------------------------- from a file


def test_all_members_take_over_the_same_part(normed_task, tmp_path):
    path = tmp_path / "weights.safetensors"
    kept = some_weights(normed_task, path)
    config, task = resolve(BASE | {"init": {"from": str(path), "part": ["first.*", "norm.[bm]*"]}}, task=normed_task)
    assert config.init.sha256 == read_weights(str(path)).sha256
    keys = jax.random.split(KEY, 3)
    new, old = (jax.vmap(t.init, in_axes=(0, None))(keys, task.sample) for t in (task, normed_task))
    taken = set()
    for room, mine, theirs in zip(("params", "model_state"), map(named, new), map(named, old), strict=True):
        for name in mine:
            if name.startswith(("first.", "norm.b", "norm.m")):
                taken.add(name)
                np.testing.assert_array_equal(mine[name], np.stack([kept[f"{room}.{name}"]] * 3), err_msg=name)
            else:
                np.testing.assert_array_equal(mine[name], theirs[name], err_msg=name)
    assert taken == {"first.kernel", "first.bias", "norm.bias", "norm.mean"}


def test_a_config_names_weights_from_where_it_lies(blob_task, tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    some_weights(blob_task, tmp_path / "there" / "w.safetensors")
    (tmp_path / "there" / "run.toml").write_text('[init]\nfrom = "w.safetensors"\n')
    monkeypatch.chdir(tmp_path)
    whole_path = str(tmp_path / "there" / "w.safetensors")
    assert load_tree("there/run.toml")["init"]["from"] == whole_path
    assert load_tree("there/run.toml", ["init.from=there/w.safetensors"])["init"]["from"] == whole_path
    config, task = resolve(BASE | {"init": {"from": "there/w.safetensors"}}, task=blob_task)
    assert config.tree["init"]["from"] == whole_path
    (tmp_path / "config.toml").write_text(to_toml(config, task))
    monkeypatch.chdir("there")
    assert resolve(load_tree(tmp_path / "config.toml"), task=blob_task)[0] == config
    with pytest.raises(ConfigError, match=r"init.from: no such file; given: '/.*/there/x.safetensors'"):
        load_config("run.toml", ["init.from=" + str(tmp_path / "there" / "x.safetensors")])


def test_weights_that_cannot_be_taken_over_are_refused_in_one_sentence(blob_task, normed_task, tmp_path):
    path = tmp_path / "w.safetensors"
    kernel = some_weights(blob_task, path)["params.head.kernel"]

    def given(task=blob_task, **init):
        return refusal({"init": {"from": str(path)} | init}, task)

    assert given(**{"from": "absent"}) == "config: init.from: no such file; given: 'absent'"
    assert given(**{"from": "run:absent"}) == "config: init.from: no such run folder; given: 'run:absent'"
    assert "best/weights.safetensors; is it finished? given: " in given(**{"from": f"run:{tmp_path}"})
    assert given(part="haed.*") == (
        "config: init.part: fits no parameter; did you mean 'head.*'?; there are: head.bias, head.kernel, hidden.0.bias, "
        "hidden.0.kernel; given: 'haed.*'"
    )
    assert "init.part: nothing is taken over" in given(part=[])
    assert "init.part: expected str or list of str; given: 1" in given(part=1)
    assert "w.safetensors has changed: it is " in given(sha256="0" * 64)
    missing = (
        f"config: init.from: {path} has no params.first.bias; did you mean 'params.head.bias'?; init.part can leave it out"
    )
    assert given(normed_task) == missing
    some_weights(blob_task, path, **{"params.head.kernel": kernel[:, :2]})
    assert given() == (
        "config: init.from: params.head.kernel does not fit: expected float32[8, 3], found float32[8, 2] in "
        f"{path}; init.part can leave it out"
    )
    some_weights(blob_task, path, **{"params.head.kernel": kernel.astype(np.float64)})
    assert "expected float32[8, 3], found float64[8, 3]" in given()
    path.write_bytes(b"no weights")
    assert f"config: init.from: {path} cannot be read as safetensors: " in given()
    assert refusal({"init": {"part": "head.*"}}, blob_task) == (
        "config: init.part: there are no weights that it could be of; give init.from"
    )
    assert "init: this section has no setting 'freze'; did you mean 'freeze'?" in refusal({"init": {"freze": "x"}}, blob_task)


# -------------------------------------------------------------------------------------------------------- not trained


def test_what_is_frozen_is_out_of_the_optimizers_sight(normed_task):
    task = frozen(normed_task, ("first.*", "norm.*"))
    params, state = task.init(KEY, task.sample)
    everything, plain_state = normed_task.init(KEY, task.sample)
    assert {*named(params)} == {"head.kernel", "head.bias"}
    assert isinstance(state, Frozen)
    for mine, theirs in zip(jax.tree.leaves(whole(params, state)), jax.tree.leaves((everything, plain_state)), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    batch = jax.tree.map(lambda x: x[:16], task.splits.train)

    def graded(task, *of):
        return jax.jit(jax.value_and_grad(partial(task.loss, train=True), has_aux=True))(*of, batch, KEY)

    (loss, (after, _)), gradient = graded(task, params, state)
    (plain_loss, (plain_after, _)), plain_gradient = graded(normed_task, everything, plain_state)
    np.testing.assert_allclose(loss, plain_loss, rtol=1e-6)
    for name, leaf in named(gradient).items():
        np.testing.assert_allclose(leaf, named(plain_gradient)[name], rtol=1e-5, atol=1e-7, err_msg=name)
    np.testing.assert_array_equal(after.params["first"]["kernel"], everything["first"]["kernel"])
    np.testing.assert_allclose(after.state["norm"]["mean"], plain_after["norm"]["mean"], rtol=1e-6, atol=1e-7)
    assert not np.array_equal(after.state["norm"]["mean"], plain_state["norm"]["mean"])
    assert settings(task.loss) == settings(normed_task.loss)


def test_every_optimizer_trains_what_is_left():
    params = {"a": [jnp.ones((3, 2)), None], "b": (None, jnp.ones(3))}
    for name, optimizer in OPTIMIZERS.items():
        transformation = optimizer()
        updates, _ = jax.eval_shape(lambda p, t=transformation: t.update(p, t.init(p), p), params)
        assert jax.tree.structure(updates) == jax.tree.structure(params), name


def test_a_score_sees_the_whole_network():
    task = tasks.TASKS["digits"](hidden=(4,))
    scored = task._replace(
        predict=lambda p, s, b: b[0] @ p["hidden"][0]["kernel"], score=lambda outputs, data: {"sum": outputs.sum()}
    )
    half, _ = finetuned(scored, "", freeze="hidden.*")
    outputs = half.predict(*half.init(KEY, task.sample), task.sample)
    np.testing.assert_array_equal(outputs, scored.predict(*scored.init(KEY, task.sample), task.sample))
    assert finetuned(task, "") == (task, "")


def test_what_cannot_be_frozen_is_refused_in_one_sentence(blob_task):
    assert refusal({"init": {"freeze": "*"}}, blob_task) == (
        "config: init.freeze: freezes all 4 parameters, so nothing is left to train; given: '*'"
    )
    assert "init.freeze: fits no parameter; " in refusal({"init": {"freeze": ["head.*", "hidden.1.*"]}}, blob_task)


# ------------------------------------------------------------------------------------------------------------- groups


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_groups_multiplier_is_a_learning_rate_of_its_own(name, blob_task):
    """Where the optimizer's steps are in proportion to it; another optimizer is refused."""
    optimizer = partial(OPTIMIZERS[name], **({"estim_lr0": 1e-3} if name == "prodigy" else {}))
    rate, steps = (1.0, 10) if name == "prodigy" else (0.01, 3)

    @jax.jit
    def step(params, state, gradient, rate, factor):
        updates, state = optimizer(learning_rate=rate).update(gradient, state, params)
        return optax.apply_updates(params, scaled(updates, [("a", factor)])), state

    def trained(rate, factor):
        params = {"a": jnp.linspace(-1.0, 1.0, 6).reshape(3, 2), "b": jnp.linspace(0.5, 1.0, 3)}
        state = optimizer().init(params)
        for i in range(steps):
            gradient = {k: np.sin(3 * np.asarray(p) + 0.1 * i) for k, p in params.items()}
            params, state = step(params, state, gradient, jnp.float32(rate), jnp.float32(factor))
        return params

    both, slow, fast = trained(rate, 0.25), trained(rate * 0.25, 1.0), trained(rate, 1.0)
    assert not np.allclose(slow["a"], fast["a"], rtol=1e-5)
    tree = {"optimizer": {"name": name}, "groups": {"x": {"match": "head.*", "learning_rate": 0.5}}}
    if name in ("schedule_free_sgd", "schedule_free_adamw", "prodigy"):
        assert not np.allclose(both["a"], slow["a"], rtol=1e-5)
        expected = f"config: groups: {name} does not step in proportion to its learning rate; choose another optimizer.name"
        assert refusal(tree, blob_task) == expected
    else:
        np.testing.assert_allclose(both["a"], slow["a"], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(both["b"], fast["b"], rtol=1e-5)
        assert resolve(BASE | tree, task=blob_task)[0].space.constants["groups.x.learning_rate"] == 0.5


def test_a_group_that_rests_at_one_is_left_out_of_the_program(blob_task):
    tree = BASE | {"groups": {"x": {"match": "head.*"}, "y": {"match": "hidden.*", "learning_rate": 2.0}}}
    config, task = resolve(tree, task=blob_task)
    recipe = config.recipe(task)
    assert recipe.passed("groups") == ["y.learning_rate"]
    updates = {"head": {"bias": jnp.ones(2)}, "hidden": [{"bias": jnp.ones(2, jnp.bfloat16)}]}
    stepped = recipe.stepped(updates, {"groups.y.learning_rate": jnp.float32(2.0)})
    assert stepped["head"]["bias"] is updates["head"]["bias"]
    np.testing.assert_array_equal(stepped["hidden"][0]["bias"], jnp.full(2, 2.0, jnp.bfloat16))
    assert stepped["hidden"][0]["bias"].dtype == jnp.bfloat16


GROUPS = [
    ({"x": {}}, "groups.x.match: must be given (str or list of str); it has no default"),
    ({"x": 1}, "groups.x: expected a table, [groups.x]; given: 1"),
    ({"low": {"match": "*"}}, "groups: expected a word for the name of a group, and none of choices, high, low; given: 'low'"),
    ({"x": {"match": "*", "lr": 1.0}}, "groups.x: a group has no setting 'lr'; did you mean 'learning_rate'?"),
    ({"x": {"match": "*", "learning_rate": -1.0}}, "groups.x.learning_rate: expected float >= 0; given: -1.0"),
    ({"x": {"match": "nose.*"}}, "groups.x.match: fits no parameter"),
    (
        {"x": {"match": "*.bias"}, "y": {"match": ["head.*"]}},
        "groups.y.match: head.bias is in [groups.x] already; it can be in one group",
    ),
]


@pytest.mark.parametrize(("groups", "sentence"), GROUPS)
def test_bad_groups_are_refused_in_one_sentence(groups, sentence, blob_task):
    assert refusal({"groups": groups}, blob_task).startswith(f"config: {sentence}")


def test_groups_and_averages_do_not_go_together(blob_task):
    axis = {"low": 0.9, "high": 0.99}
    tree = {"optimizer": {"average": axis}, "groups": {"x": {"match": "head.*"}}}
    assert "groups: optimizer.average averages" in refusal(tree, blob_task)


def test_the_order_of_groups_does_not_move_genes(blob_task):
    axis = {"low": 0.1, "high": 1.0}
    groups = {name: {"match": f"{name}.*", "learning_rate": axis} for name in ("hidden", "head")}
    one, other = (
        resolve(BASE | {"groups": dict(items)}, task=blob_task)[0] for items in (groups.items(), reversed(groups.items()))
    )
    assert list(one.space.axes) == list(other.space.axes) == ["groups.head.learning_rate", "groups.hidden.learning_rate"]
    assert one.with_values(dict.fromkeys(one.space.axes, 0.5)).tree["groups"]["head"]["learning_rate"] == 0.5
