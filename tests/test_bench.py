"""What `vmaptune bench` reports; nothing here depends on how fast the machine is."""

import json

import jax
import numpy as np
import pytest
from click.testing import CliRunner

import vmaptune.bench as bench
from vmaptune.cli.main import main
from vmaptune.plan import Plan

TINY = {"members": 3, "width": 8, "batch_size": 16, "rounds": 1, "assignments": ["population.segment_steps=2"]}


@pytest.fixture(scope="module")
def found():
    return bench.bench("mlp", scaling=False, overhead=False, **TINY)


def test_every_way_is_measured_and_compared(found):
    speeds = {row["name"]: row["member_steps_per_s"] for row in found["rows"]}
    assert list(speeds) == ["eager", "loop", "scan", "vmap", "vmaptune"]
    assert found["ratio"] == {name: speeds["vmaptune"] / speeds[name] for name in ("eager", "loop", "scan", "vmap")}
    for row in found["rows"]:
        assert row["n"] == 1
        assert row["spread"][0] <= row["member_steps_per_s"] <= row["spread"][1]


def test_the_fraction_is_of_the_lower_ceiling(found):
    top = found["ceiling"]
    possible = min(top["flops"] / top["flops_per_member_step"], top["bytes_per_s"] / top["bytes_per_member_step"])
    speed = next(row["member_steps_per_s"] for row in found["rows"] if row["name"] == "vmaptune")
    assert top["fraction"] == pytest.approx(speed / possible)
    assert (top["bound"] == "compute") == (
        top["flops"] / top["flops_per_member_step"] < top["bytes_per_s"] / top["bytes_per_member_step"]
    )


def test_flops_of_an_mlp_are_those_of_its_matrix_products(found):
    # Forward and weight gradient of each layer, input gradient of all but the first; two FLOPs a multiplication and addition.
    layers = np.array([64 * 8, 8 * 8, 8 * 10])
    assert found["ceiling"]["flops_per_member_step"] == 2 * 16 * (3 * layers.sum() - layers[0])


def test_bytes_are_the_state_twice_and_the_batch(found):
    parameters = 64 * 8 + 8 + 8 * 8 + 8 + 8 * 10 + 10
    state = 4 * (parameters + 2 * parameters + 1)  # weights, two moments of Adam, its count
    assert found["ceiling"]["bytes_per_member_step"] == pytest.approx(2 * state + 16 * 65 * 4, rel=0.01)


def test_flops_of_a_convolution():
    def conv(x, k):
        return jax.lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    x, k = np.ones((2, 5, 6, 3), np.float32), np.ones((3, 3, 3, 4), np.float32)
    jaxpr = jax.make_jaxpr(lambda x, k: jax.lax.map(lambda x: conv(x[None], k), x))(x, k)
    inside = jax.make_jaxpr(conv)(x, k)
    assert bench._flops(inside.jaxpr) == bench._flops(jaxpr.jaxpr) == 2 * (2 * 5 * 6 * 4) * 3 * 3 * 3


def test_flops_of_a_recurrent_layer_count_every_step():
    task = bench._gru(8)
    work = bench.Work(bench._config(task, 2, 4, 2, []), task)
    tokens, embedded, width = task.init(jax.random.key(0), task.sample)[0]["embedding"]["table"].shape[0], 32, 8
    # Embedding: forward and weights' gradient; each of the others also its inputs' gradient.
    products = 2 * tokens * embedded + 3 * (embedded * 3 * width + width * 3 * width + width * tokens)
    assert bench._flops(jax.make_jaxpr(work.gradient)(*work.arguments).jaxpr) == 2 * 4 * 64 * products


def test_the_five_ways_train_what_they_say():
    task = bench._mlp(8)
    config = bench._config(task, 3, 16, 2, [])
    ways = bench._contenders(config, task, Plan(1, 3))
    assert {name: way() for name, way in ways.items()} == dict.fromkeys(ways, 3 * 2)


def test_the_command_prints_the_json_of_its_issue():
    arguments = (
        "bench --task cnn --members 2 --batch 4 --rounds 1 --no-scaling --set plan.chunk=1 --set plan.lowering=canonical"
    )
    done = CliRunner().invoke(main, [*arguments.split(), "--set", "population.segment_steps=2", "--no-overhead", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert {"device", "task", "rows", "ratio", "ceiling", "plan"} <= found.keys()
    assert (found["plan"]["chunk"], found["plan"]["lowering"]) == (1, "canonical")


def test_scaling_and_overhead(monkeypatch):
    monkeypatch.setattr(bench, "_SIZES", (1, 3))
    monkeypatch.setattr(bench, "_ROUND_SECONDS", 0.01)
    task = bench._mlp(8)
    config = bench._config(task, 3, 16, 2, [])
    assert [row["members"] for row in bench._scaling(config, task, Plan(2, 2), 1)] == [1, 3]
    shares = bench._overhead(config, task, Plan(2, 2), speed=30.0, rounds=1)
    assert shares.keys() == {"overhead_fraction", "overhead_fraction_5_steps"}
    assert all(0 <= share < 1 for share in shares.values())


def test_an_unknown_setting_is_refused():
    done = CliRunner().invoke(main, ["bench", "--set", "plan.chnk=1"])
    assert done.exit_code == 2
    assert "did you mean 'chunk'" in done.stderr
