"""Real data sets that ship inside scikit-learn: nothing is downloaded."""

from __future__ import annotations

import numpy as np

from vmaptune.data.splits import Splits, split_classification


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
