import pytest

from vmaptune.errors import AllMembersFailed, ConfigError, StoreError, VmaptuneError, did_you_mean

KNOWN = ("optimizer.learning_rate", "optimizer.weight_decay", "optimizer.b1", "task.dropout")


def test_a_close_name_is_suggested():
    assert did_you_mean("adam", ["adamw", "sgd"]) == "; did you mean 'adamw'?"


def test_a_name_that_differs_in_case_alone_is_suggested():
    assert did_you_mean("Y", ["x", "y"]) == "; did you mean 'y'?"


def test_the_closest_of_several_is_suggested():
    assert did_you_mean("schedul", ["scheduler", "schedule", "sched"]) == "; did you mean 'schedule'?"


def test_a_bare_name_finds_a_dotted_one_by_its_tail():
    assert did_you_mean("dropuot", KNOWN) == "; did you mean 'task.dropout'?"


def test_a_name_under_the_wrong_section_is_found_by_its_tail():
    assert did_you_mean("model_settings.b1", KNOWN) == "; did you mean 'optimizer.b1'?"


def test_initials_find_a_name():
    assert did_you_mean("lr", ["learning_rate", "momentum", "weight_decay"]) == "; did you mean 'learning_rate'?"
    assert did_you_mean("wd", ["learning_rate", "momentum", "weight_decay"]) == "; did you mean 'weight_decay'?"


def test_initials_find_a_dotted_name():
    assert did_you_mean("optimizer.wd", ["optimizer.learning_rate", "optimizer.weight_decay"]) == (
        "; did you mean 'optimizer.weight_decay'?"
    )
    assert did_you_mean("lr", KNOWN) == "; did you mean 'optimizer.learning_rate'?"


def test_one_letter_is_no_abbreviation():
    assert did_you_mean("m", ["momentum", "nesterov"]) == "; known: momentum, nesterov"


def test_nothing_close_lists_the_known_in_order():
    assert did_you_mean("xyzzy", ["warmup", "floor", "gamma"]) == "; known: floor, gamma, warmup"


def test_nothing_known_says_nothing():
    assert did_you_mean("anything", []) == ""


def test_known_names_may_be_any_iterable():
    assert did_you_mean("adam", (name for name in ("adamw", "sgd"))) == "; did you mean 'adamw'?"


@pytest.mark.parametrize(("error", "code"), [(ConfigError, 2), (StoreError, 2), (AllMembersFailed, 1)])
def test_every_error_is_ours_and_has_an_exit_code(error, code):
    assert issubclass(error, VmaptuneError)
    assert error.exit_code == code
