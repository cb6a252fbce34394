from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.conftest import forget
from vmaptune import models, tasks
from vmaptune.data.splits import Splits
from vmaptune.errors import ConfigError
from vmaptune.tasks.augmentation import augmented

KEY = jax.random.key(0)
IMAGES = np.random.default_rng(0).uniform(0.5, 1.0, (400, 7, 6, 2)).astype(np.float32)  # no pixel is 0


def augment(images=IMAGES, **strengths):
    return np.asarray(jax.jit(partial(augmented, **strengths))(images, KEY))


def shifted(image, down, right):
    """The image moved by whole pixels, zeros coming in."""
    height, width, _ = image.shape
    padded = np.pad(image, ((height, height), (width, width), (0, 0)))
    return padded[height - down : 2 * height - down, width - right : 2 * width - right]


def test_nothing_is_drawn_where_all_is_off():
    assert augmented(IMAGES, KEY) is IMAGES
    off = augment(flip=jnp.float32(0), crop=jnp.float32(0), cutout=jnp.float32(0))
    np.testing.assert_array_equal(off, IMAGES)  # a traced 0 computes the same


@pytest.mark.parametrize("flip", [0.3, 1.0])
def test_a_flip_mirrors_so_many_of_the_images(flip):
    flipped = augment(flip=flip)
    mirrored = (flipped == IMAGES[:, :, ::-1]).all((1, 2, 3))
    assert (mirrored | (flipped == IMAGES).all((1, 2, 3))).all()
    assert mirrored.mean() == pytest.approx(flip, abs=0.07)


def test_a_crop_shifts_by_whole_pixels_all_equally_likely():
    cropped = augment(crop=2.0)
    shifts = [(down, right) for down in range(-2, 3) for right in range(-2, 3)]
    found = np.array(
        [[(out == shifted(image, *by)).all() for by in shifts] for image, out in zip(IMAGES, cropped, strict=True)]
    )
    assert (found.sum(1) == 1).all()
    counts = found.sum(0)
    chi_squared = ((counts - 16) ** 2 / 16).sum()
    assert chi_squared < 51.2  # the 0.999 quantile for 24 degrees of freedom
    assert not augment(crop=1e30).all((1, 2, 3)).any()  # shifted out of sight, no error


def test_what_one_draws_does_not_depend_on_the_others():
    both = augment(flip=0.5, crop=2.0)
    flipped = augment(flip=0.5)
    cropped = augment(crop=2.0)
    mirrored = (flipped == IMAGES[:, :, ::-1]).all((1, 2, 3))
    by_hand = []
    for image, out, mirror in zip(IMAGES, cropped, mirrored, strict=True):
        by = next((d, r) for d in range(-2, 3) for r in range(-2, 3) if (out == shifted(image, d, r)).all())
        by_hand.append(shifted(image[:, ::-1] if mirror else image, *by))
    np.testing.assert_array_equal(both, by_hand)


def test_a_cutout_hides_a_square_around_a_pixel():
    ones = np.ones((4000, 9, 9, 1), np.float32)
    hidden = augment(ones, cutout=1 / 3)[..., 0] == 0
    rows, columns = hidden.any(2), hidden.any(1)
    assert (hidden == rows[:, :, None] & columns[:, None, :]).all()
    assert set(rows.sum(1)) == set(columns.sum(1)) == {2, 3}  # at an edge, part of it is outside
    share = np.array([2, 3, 3, 3, 3, 3, 3, 3, 2]) / 9  # of centres, uniform over 9 pixels, within 1.5 of a pixel's
    np.testing.assert_allclose([rows.mean(0), columns.mean(0)], [share, share], atol=0.03)


def test_each_member_has_its_own_strengths_and_nothing_is_augmented_in_evaluation():
    images = IMAGES[:20]
    splits = Splits(*[(images, np.arange(20, dtype=np.int32) % 2)] * 3)
    flat = models.Model(
        lambda key: ({"w": jnp.ones((1, 2))}, {}),
        lambda params, state, x, key, *, train: (x[:, 2:4, 1:3].mean((1, 2)) * params["w"], state),
    )
    task = tasks.classification(flat, splits, transform=augmented)
    params, state = task.init(KEY, task.sample)

    def loss(flip, crop, cutout, train):
        return task.loss(params, state, splits.train, KEY, train=train, flip=flip, crop=crop, cutout=cutout)[0]

    trained, measured = (jax.jit(partial(loss, train=train)) for train in (True, False))

    strengths = jnp.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.5, 2.0, 0.0], [0.5, 2.0, 0.5]])
    together = jax.vmap(trained)(*strengths.T)
    alone = [trained(*s) for s in strengths]
    np.testing.assert_allclose(together, alone, rtol=1e-6)
    assert len(set(map(float, together))) == 4
    alike = jax.vmap(measured)(*strengths.T)
    np.testing.assert_array_equal(alike, np.full(4, measured(0.0, 0.0, 0.0)))
    forget()


def test_what_is_no_image_is_refused():
    with pytest.raises(ConfigError, match=r"need images of shape \(height, width, channels\); given: \(4,\)"):
        augmented(jnp.ones((3, 4)), KEY, flip=0.5)
