"""Images of a generator: latents with a truncation, standing statistics, and a sampler by labels and seed.

N images, P their side, C their channels, Z the size of a latent.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from ml_collections import ConfigDict

#: `(labels int32 [N], seed) -> uint8 [N, P, P, C]`.
Sampler = Callable[[np.ndarray, int], np.ndarray]


def make_sampler(config: ConfigDict, state: Any) -> Sampler:
    """Builds `sample(labels, seed) -> images` from the averaged generator of a state.

    Statistics of the batch are accumulated here, once, for the truncation of the config. Image number i
    depends on `labels[i]`, the seed and i alone, and neither on N nor on the batch size or the devices.

    Args:
      config: config of the training, with the keys of `experiments/configs/gan_digits.py`. The group
        `sampling` names the truncation, the batch size and the statistics.
      state: state of the training, of `build_task(config).target`'s shapes.

    Raises:
      ValueError: if a setting is out of range; by the sampler, if a label is no class of the generator.
    """
    raise NotImplementedError
