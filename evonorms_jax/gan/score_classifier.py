"""The classifier whose features score images that no public network knows, such as small digits.

This project trains it by a recipe on the training part of the data, once, in a cache folder. Distances in its
features compare generators with each other. They are no FID, and comparable for one classifier alone, which
results name by the CRC of its weights. The authors of FID advise such a classifier for digits
(https://github.com/bioinf-jku/TTUR/issues/24).
"""

import json
import time
import zlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from etils import epath
from flax import linen as nn
from ml_collections import ConfigDict

from evonorms_jax.data import ImageData, normalize
from evonorms_jax.errors import UserError
from evonorms_jax.gan.features import FeatureNetwork
from evonorms_jax.layers import norm_act
from evonorms_jax.models import build_model
from evonorms_jax.runs.checkpoint import Checkpoints
from evonorms_jax.runs.files import absolute
from evonorms_jax.runs.lock import WorkdirInUseError
from evonorms_jax.runs.tensors import fingerprint, flat_tensors
from evonorms_jax.training import loop

_WAIT = 5.0  # s between two looks at a folder in which another process trains


class ScoreClassifier(NamedTuple):
    """A trained classifier for scores."""

    network: FeatureNetwork
    accuracy: float  # on the test part
    folder: epath.Path  # work directory of its training


def train_classifier(recipe: ConfigDict, data: ImageData, cache: epath.PathLike) -> ScoreClassifier:
    """The classifier of a recipe, trained on first use, by which its folder in the cache is named.

    Args:
      recipe: config of `experiments.train` for the training part of the data.
      data: the data, for the moments by which images are normalized.
      cache: folder of all such classifiers.

    Raises:
      ValueError: if the recipe cannot be trained.
      KeyboardInterrupt: on Ctrl-C or SIGTERM, after saving.
    """
    described = json.dumps(loop.describe(recipe), sort_keys=True)
    folder = absolute(cache) / f"classifier-{data.name}-{zlib.crc32(described.encode()):08x}"
    if not (folder / loop.RESULT).exists():
        logging.info("training the classifier for the scores, once for all runs, in %s", folder)
    result = _train(recipe, folder)
    with Checkpoints(folder / loop.CHECKPOINTS, write=False) as checkpoints:
        restored = checkpoints.restore()
    if restored is None:
        raise UserError(f"{folder} has no sound checkpoint: remove it, and the classifier is trained again")
    state = restored.arrays
    variables = state.get("average") or {"params": state["params"], "batch_stats": state["batch_stats"]}
    network = _network(recipe, data, variables)
    return ScoreClassifier(network, result.test["accuracy"], folder)


def _train(recipe: ConfigDict, folder: epath.Path) -> loop.Result:
    """Trains, or waits for the process that trains it now."""
    while True:
        try:
            return loop.train(recipe, folder)
        except WorkdirInUseError:
            logging.log_first_n(logging.INFO, "another process trains it: waiting", 1)
            time.sleep(_WAIT)


def _network(recipe: ConfigDict, data: ImageData, variables: dict[str, Any]) -> FeatureNetwork:
    layer = norm_act(**recipe.layer)
    model = build_model(
        **recipe.model, norm_act=layer, num_classes=data.num_classes, dtype=jnp.dtype(recipe.dtype)
    )

    def extract(variables, images):
        logits, seen = model.apply(
            variables,
            normalize(images, data.mean, data.std),
            train=False,
            capture_intermediates=lambda module, _: isinstance(module, nn.Dropout),
        )
        # The classifier pools, drops nothing in inference, and projects.
        (features,) = seen["intermediates"]["classifier"]["Dropout_0"]["__call__"]
        return features, logits

    shape = jax.ShapeDtypeStruct((1, *data.train.images.shape[1:]), jnp.uint8)
    features, _ = jax.eval_shape(extract, variables, shape)
    crc = fingerprint({name: np.asarray(leaf) for name, leaf in flat_tensors(variables).items()})
    name = f"classifier {recipe.model.name}"
    return FeatureNetwork(name, crc, "none", features.shape[-1], variables, extract)
