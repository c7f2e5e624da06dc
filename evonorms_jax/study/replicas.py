"""Learning curves with several seeds of weights, batches and crops."""

from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from evonorms_jax.evolution.evaluator import Evaluator
from evonorms_jax.evolution.session import make_evaluator
from evonorms_jax.search_space import Graph


class Replicas:
    """An evaluator for each seed, made on first use.

    Args:
      config: config of a search.
      seeds: seeds of weights, batches and crops, at least one.

    Raises:
      ValueError: if a setting of the config is wrong.
    """

    def __init__(self, config: ConfigDict, seeds: Sequence[int]):
        self._config, self._seeds = config, list(seeds)
        self._evaluators: dict[int, Evaluator] = {}
        self.evaluator = self._evaluator(self._seeds[0])

    def _evaluator(self, seed: int) -> Evaluator:
        if seed not in self._evaluators:
            config = self._config.copy_and_resolve_references()
            with config.unlocked():
                config.seed = seed
            self._evaluators[seed] = make_evaluator(config)
        return self._evaluators[seed]

    def curves(self, graphs: Sequence[Graph], steps: Sequence[int]) -> list[dict[str, np.ndarray]]:
        """Validation accuracies of each graph by anchor, float64 `[seeds, steps]`.

        An accuracy is 0 once the loss is not finite.
        """
        by_seed = [self._evaluator(seed).learning_curves(graphs, steps) for seed in self._seeds]
        return [
            {name: np.array([curves[place][name] for curves in by_seed]) for name in by_seed[0][place]}
            for place in range(len(graphs))
        ]
