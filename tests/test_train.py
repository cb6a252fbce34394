import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.solo import batches, train_alone
from vmaptune.errors import ConfigError
from vmaptune.optimizers import OPTIMIZERS, adamw, sgd
from vmaptune.plan import Plan
from vmaptune.population import Status, Stream, init_population, stream_key, take_member
from vmaptune.schedules import constant, cosine
from vmaptune.space import Axis, Space
from vmaptune.train import make_evaluate, make_segment

SPACE = Space(
    {
        "optimizer.learning_rate": Axis(1e-3, 1e-1, "log"),
        "optimizer.weight_decay": Axis(1e-6, 1e-1, "log"),
        "optimizer.clip_norm": 1.0,
        "schedule.warmup": Axis(0.0, 0.3),
        "task.dropout": Axis(0.0, 0.5),
    }
)
RUN = {"horizon": 20, "batch_size": 16}


def close(tree, other, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **({"rtol": 2e-4, "atol": 2e-6} | tolerance)), tree, other)


def trained(task, *, size=4, seed=0, generations=2, optimizer=adamw, space=SPACE, schedule=cosine, steps=10, **options):
    population = init_population(task, space, optimizer, size=size, seed=seed)
    segment = make_segment(task, space, optimizer, schedule, steps=steps, seed=seed, **(RUN | options))
    metrics = None
    for generation in range(generations):
        population, metrics = segment(population, generation)
    return population, metrics


@pytest.mark.parametrize(("optimizer", "order"), [*((row, "shared") for row in OPTIMIZERS.values()), (adamw, "independent")])
def test_a_population_is_its_members_trained_alone_by_plain_optax(blob_task, optimizer, order):
    population, metrics = trained(blob_task, optimizer=optimizer, order=order)
    start = init_population(blob_task, SPACE, optimizer, size=4)
    for slot in range(4):
        values = SPACE.decode(start.genotype[slot])
        params, _, losses = train_alone(
            blob_task, values, optimizer, cosine, trial=slot, steps=20, independent=order == "independent", **RUN
        )
        close(take_member(population, slot).params, params)
        assert metrics["loss"][slot] == pytest.approx(np.mean(losses[10:]), rel=1e-4)
    assert population.step.tolist() == [20] * 4


def test_batch_statistics_follow_each_member(normed_task):
    space = Space({"optimizer.learning_rate": Axis(1e-3, 1e-1, "log")})
    # SGD: a bias before batch norm has no gradient but rounding, which Adam would blow up.
    population, _ = trained(normed_task, space=space, optimizer=sgd, schedule=constant)
    start = init_population(normed_task, space, sgd, size=4)
    for slot in range(4):
        values = space.decode(start.genotype[slot])
        params, state, _ = train_alone(normed_task, values, sgd, constant, trial=slot, steps=20, **RUN)
        close(take_member(population, slot).params, params)
        close(take_member(population, slot).model_state, state)


@pytest.mark.parametrize("plan", [Plan(1, 4), Plan(2, 2), Plan(1, 2), Plan(2, 1), Plan(1, 1)])
def test_the_layout_changes_nothing_but_rounding(blob_task, plan):
    close(trained(blob_task, plan=plan), trained(blob_task, plan=Plan(1, 4)))


def test_one_long_segment_equals_two_short_ones(blob_task):
    close(trained(blob_task, generations=1, steps=20)[0].params, trained(blob_task, generations=2, steps=10)[0].params)


def test_a_schedule_may_shape_any_traced_hyperparameter(blob_task):
    names = {"optimizer.learning_rate": 0.1, "optimizer.weight_decay": 0.5, "schedule.weight_decay.warmup": 0.5}
    shaped = {"optimizer.learning_rate": constant, "optimizer.weight_decay": cosine}
    population, _ = trained(blob_task, space=Space(names), schedule=shaped, optimizer=sgd, size=1)
    # The same by hand: the decay of each step, written out.
    params, state = blob_task.init(stream_key(0, Stream.INIT, 0), blob_task.sample)
    opt_state = sgd().init(params)
    for s, row in enumerate(batches(0, 0, 20, 16, blob_task.splits.size("train"))):
        decay = 0.5 * float(cosine(jnp.float32(s / 20), warmup=0.5))
        batch = jax.tree.map(lambda leaf, row=row: leaf[row], blob_task.splits.train)
        gradient = jax.grad(blob_task.loss, has_aux=True)(params, state, batch, stream_key(0, Stream.STEP, 0, s), train=True)[0]
        updates, opt_state = sgd(learning_rate=0.1, weight_decay=decay).update(gradient, opt_state, params)
        params = optax.apply_updates(params, updates)
    close(take_member(population, 0).params, params)


def test_a_diverged_member_has_a_status_and_the_others_do_not_notice(blob_task):
    wild = Space({"optimizer.learning_rate": Axis(choices=(1e-2, 1e20)), "optimizer.momentum": 0.0})
    calm = Space({"optimizer.learning_rate": 1e-2, "optimizer.momentum": 0.0})

    def run(space, genotype):
        population = init_population(blob_task, space, sgd, size=4)._replace(genotype=jnp.array(genotype, jnp.float32))
        return make_segment(blob_task, space, sgd, constant, steps=10, **RUN)(population, 0)[0]

    mixed = run(wild, [[0.1], [0.9], [0.1], [0.9]])
    alone = run(calm, np.zeros((4, 0)))
    assert mixed.status.tolist() == [Status.OK, Status.NONFINITE_LOSS, Status.OK, Status.NONFINITE_LOSS]
    for slot in (0, 2):
        jax.tree.map(np.testing.assert_array_equal, take_member(mixed, slot).params, take_member(alone, slot).params)


def test_weights_that_break_in_the_last_step_are_noticed(blob_task):
    space = Space({"optimizer.learning_rate": 3e38, "optimizer.momentum": 0.0})
    population = init_population(blob_task, space, sgd, size=2)
    params = jax.tree.map(lambda leaf: leaf * 1e4, population.params)
    after, metrics = make_segment(blob_task, space, sgd, constant, steps=1, **RUN)(population._replace(params=params), 0)
    assert jnp.isfinite(metrics["loss"]).all()
    assert after.status.tolist() == [Status.NONFINITE_PARAMS] * 2


# Those rows whose state the traced settings would promote; what each row keeps by itself: test_optimizers.
@pytest.mark.parametrize("name", ["adafactor", "lars", "rmsprop", "schedule_free_adamw", "schedule_free_sgd"])
def test_bfloat16_weights_stay_bfloat16(blob_task, name):
    def low(tree):
        return jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16) if leaf.dtype == jnp.float32 else leaf, tree)

    population = init_population(blob_task, SPACE, OPTIMIZERS[name], size=2)
    before = population._replace(params=low(population.params), opt_state=low(population.opt_state))
    dtypes = jax.tree.map(lambda leaf: leaf.dtype, before)
    after, _ = make_segment(blob_task, SPACE, OPTIMIZERS[name], cosine, steps=3, **RUN)(before, 0)
    assert jax.tree.map(lambda leaf: leaf.dtype, after) == dtypes
    assert after.status.tolist() == [0, 0]


@pytest.mark.parametrize("batch_size", [4096, 24, 7, 1])
def test_evaluation_is_the_mean_over_the_split_whatever_the_batch(normed_task, batch_size):
    population = init_population(normed_task, Space({}), adamw, size=3)
    found = make_evaluate(normed_task, batch_size=batch_size)(population)
    for slot in range(3):
        member = take_member(population, slot)
        loss, (_, metrics) = normed_task.loss(
            member.params, member.model_state, normed_task.splits.validation, jax.random.key(5), train=False
        )
        assert found["loss"][slot] == pytest.approx(float(loss), rel=1e-5)
        assert found["accuracy"][slot] == pytest.approx(float(metrics["accuracy"]), rel=1e-6)


@pytest.mark.parametrize(
    ("names", "schedule", "sentence"),
    [
        (
            {"optimizer.learning_rat": 0.1},
            constant,
            "has a setting 'optimizer.learning_rat'; did you mean 'optimizer.learning_rate'",
        ),
        ({"lr": 0.1}, constant, "did you mean 'optimizer.learning_rate'"),
        ({"schedule.wormup": 0.1}, constant, "has a setting 'schedule.wormup'"),
        ({"optimizer.nesterov": 1.0}, constant, "has a setting 'optimizer.nesterov'"),
        ({}, {"optimizer.momentum": constant}, "no hyperparameter 'optimizer.momentum' to shape"),
    ],
)
def test_a_name_that_nothing_reads_is_refused(blob_task, names, schedule, sentence):
    with pytest.raises(ConfigError, match=sentence):
        make_segment(blob_task, Space(names), adamw, schedule, steps=2, **RUN)


@pytest.mark.parametrize("batch_size", [0, 10_000])
def test_an_impossible_batch_is_refused(blob_task, batch_size):
    with pytest.raises(ConfigError, match=f"between 1 and the 72 training examples; given: {batch_size}"):
        make_segment(blob_task, SPACE, adamw, cosine, steps=2, horizon=2, batch_size=batch_size)


def test_broken_model_state_fails_a_member_whose_metric_looks_sound(normed_task):
    population = init_population(normed_task, Space({}), adamw, size=2)
    state = jax.tree.map(lambda leaf: leaf.at[1].set(jnp.inf), population.model_state)
    after, _ = make_segment(normed_task, Space({}), adamw, constant, steps=2, **RUN)(population._replace(model_state=state), 0)
    assert after.status.tolist() == [Status.OK, Status.NONFINITE_PARAMS]


def test_an_optimizer_with_a_required_setting_is_legal(blob_task):
    def plain(*, learning_rate: float):
        return optax.sgd(learning_rate)

    space = Space({"optimizer.learning_rate": 0.1})
    population = init_population(blob_task, space, plain, size=2)
    after, _ = make_segment(blob_task, space, plain, constant, steps=2, **RUN)(population, 0)
    assert after.step.tolist() == [2, 2]


def test_an_optimizer_without_settings_is_refused(blob_task):
    with pytest.raises(ConfigError, match="no keyword-only float settings"):
        make_segment(blob_task, Space({}), optax.adam, constant, steps=2, **RUN)


def test_keys_are_threefry_whatever_the_users_default(blob_task):
    expected = trained(blob_task, order="independent", plan=Plan(1, 4))[0]
    with jax.default_prng_impl("rbg"):
        found = trained(blob_task, order="independent", plan=Plan(2, 1))[0]
    close(found.params, expected.params)


def test_a_vector_of_the_loss_reaches_it_and_each_of_its_numbers_may_be_searched(blob_task):
    def loss(params, model_state, batch, key, *, train, weights: tuple[float, ...] = (1.0, 1.0)):
        value, (state, metrics) = blob_task.loss(params, model_state, batch, key, train=train)
        return value, (state, metrics | {"first": jnp.asarray(weights)[0], "second": jnp.asarray(weights)[1]})

    task = blob_task._replace(loss=loss)
    rate = {"optimizer.learning_rate": 0.01}
    for entries, expected in [
        ({}, (1.0, 1.0)),
        ({"task.weights.0": 1.0, "task.weights.1": 1.0}, (1.0, 1.0)),
        ({"task.weights.0": 1.0, "task.weights.1": 3.0}, (1.0, 3.0)),
        ({"task.weights.0": 2.0, "task.weights.1": Axis(0.0, 1.0)}, (2.0, None)),
    ]:
        space = Space(rate | entries)
        population = init_population(task, space, adamw, size=2)
        genotype = population.genotype
        _, metrics = make_segment(task, space, adamw, constant, steps=2, **RUN)(population, 0)
        second = genotype[:, 0] if expected[1] is None else np.full(2, expected[1])
        np.testing.assert_allclose(metrics["first"], expected[0])
        np.testing.assert_allclose(metrics["second"], second, rtol=1e-6)
