"""Everything below experiments/ runs, at tiny size: every config and every script."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vmaptune.loop import tune
from vmaptune.toml import load_config

EXPERIMENTS = Path(__file__).parent.parent / "experiments"
REQUIRED = {EXPERIMENTS / "own_model.py"}
SCRIPTS = sorted(REQUIRED | set(EXPERIMENTS.glob("*.py")))
CONFIGS = [None, *sorted(EXPERIMENTS.rglob("config.toml"))]  # None: the embedded default, the first of all examples
TINY = ["population.size=4", "population.segment_steps=2", "population.generations=2", "plan.devices=0", "plan.chunk=0"]

SMALLER = {"text": ["task.limit=8000", "task.width=8"]}  # what the size of the population does not make tiny


def name(path):
    return str(path.relative_to(EXPERIMENTS)) if path else "default"


def test_the_examples_that_must_exist_do():
    assert [name(path) for path in REQUIRED if not path.is_file()] == []
    assert set(SCRIPTS) >= REQUIRED


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_a_config_resolves_as_it_stands_and_runs_tiny(path, tmp_path):
    whole, _ = load_config(path)
    assert whole.population.horizon > 4  # as it stands it is no tiny run
    trials = ["search.trials=4", "search.stop=none"] if "trials" in whole.search.values else []
    config, task = load_config(path, [*TINY, *trials, *SMALLER.get(whole.task.name, [])])
    result = tune(config, task=task, out=tmp_path / "run")
    assert result.status == "finished"
    assert len(result.history) == 4 * 2
    assert np.isfinite(list(result.best.validation.values())).all()


@pytest.mark.parametrize("path", SCRIPTS, ids=name)
def test_a_script_runs_tiny(path, tmp_path):
    environment = os.environ | {"VMAPTUNE_TINY": "1"}
    done = subprocess.run([sys.executable, path], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout
