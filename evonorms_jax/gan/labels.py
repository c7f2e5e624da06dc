"""Whether the labels of the training images fit the number of classes.

A wrong folder can give all images one label. The networks then collapse at once, without an error.
"""

import numpy as np

from evonorms_jax.errors import UserError


def check_all_labels(labels: np.ndarray, num_classes: int, name: str) -> None:
    """Raises `ValueError` unless every class occurs among the labels `[N]` of a whole training part."""
    missing = np.flatnonzero(np.bincount(labels, minlength=num_classes) == 0)
    if len(missing):
        raise UserError(
            f"{name}: {len(missing)} of {num_classes} classes have no training image, the first is class "
            f"{missing[0]}: give more images by data.train_size, or data with all classes"
        )


def check_drawn_labels(labels: np.ndarray, num_classes: int, name: str) -> None:
    """Raises `ValueError` if labels `[N]` of a batch show half or less of the classes to be expected.

    Of K equally frequent classes a batch shows `K (1 - (1 - 1 / K)^N)` in the mean.
    """
    found = len(np.unique(labels))
    expected = num_classes * (1 - (1 - 1 / num_classes) ** len(labels))
    if found < expected / 2:
        raise UserError(
            f"{name}: the first {len(labels)} training images have {found} of {num_classes} classes, "
            f"{expected:.0f} were expected: are the labels right?"
        )
