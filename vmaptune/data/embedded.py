"""Real data sets that ship inside scikit-learn: nothing is downloaded."""

from __future__ import annotations

import numpy as np

from vmaptune.data.preparation import Scale
from vmaptune.data.splits import Splits, split_classification, split_rows


def digits() -> Splits:
    """Handwritten digits: 1,797 images of 8x8, ten classes; pixels scaled to [0, 1], flattened.

    Returns:
        Splits of `(f32[n, 64], i32[n])`: 1,077 train, 360 validation, 360 test, the same in every run.

    References:
        Alpaydin & Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998
    """
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return split_classification((pixels / 16.0).astype(np.float32), labels.astype(np.int32))


def breast_cancer(*, validation: float = 0.2, test: float = 0.2, seed: int = 0) -> Splits:
    """Breast cancer (Wisconsin, diagnostic): 569 tumours, 30 measurements of each, label 1 if benign (63 %), else 0.

    Args:
        validation: Share of the examples for validation.
        test: Share of the examples for test.
        seed: Of the cut, which is stratified.

    Returns:
        Splits of `(f32[n, 30], i32[n])`, inputs standardised by the training split.

    References:
        Street et al., Nuclear feature extraction for breast tumor diagnosis, SPIE 1905, 1993
    """
    return scaled_breast_cancer(validation=validation, test=test, seed=seed)[0]


def scaled_breast_cancer(*, validation: float, test: float, seed: int) -> tuple[Splits, Scale]:
    """`breast_cancer`, and what was taken out of its inputs."""
    from sklearn.datasets import load_breast_cancer

    inputs, labels = load_breast_cancer(return_X_y=True)
    parts = split_rows(len(labels), validation=validation, test=test, seed=seed, stratify=labels)
    scale = _scale(inputs[parts[0]])
    scaled = scale.removed(inputs)
    return Splits(*((scaled[rows], labels[rows].astype(np.int32)) for rows in parts)), scale


def diabetes(*, validation: float = 0.2, test: float = 0.2, seed: int = 0) -> Splits:
    """Diabetes: how far the disease went in a year, for 442 patients, from age, sex, body mass, blood pressure and serum.

    Args:
        validation: Share of the examples for validation.
        test: Share of the examples for test.
        seed: Of the cut, which is random.

    Returns:
        Splits of `(f32[n, 10], f32[n])`, inputs and targets standardised by the training split.

    References:
        Efron et al., Least Angle Regression, https://arxiv.org/abs/math/0406456
    """
    return scaled_diabetes(validation=validation, test=test, seed=seed)[0]


def scaled_diabetes(*, validation: float, test: float, seed: int) -> tuple[Splits, Scale, Scale]:
    """`diabetes`, and what was taken out of its inputs and of its targets."""
    from sklearn.datasets import load_diabetes

    inputs, targets = load_diabetes(return_X_y=True, scaled=False)
    parts = split_rows(len(targets), validation=validation, test=test, seed=seed)
    scales = _scale(inputs[parts[0]]), _scale(targets[parts[0]])
    scaled, answers = (scale.removed(values) for scale, values in zip(scales, (inputs, targets), strict=True))
    return Splits(*((scaled[rows], answers[rows]) for rows in parts)), *scales


def _scale(train: np.ndarray) -> Scale:
    """What gives columns mean 0 and variance 1 over the training rows."""
    return Scale(train.mean(axis=0).tolist(), train.std(axis=0).tolist())
