"""What process 0 keeps and shows of a search, and what all others do instead: nothing."""

import contextlib
from collections.abc import Sequence

from ml_collections import ConfigDict

from evonorms_jax.evolution.archive import Archive
from evonorms_jax.evolution.devices import Devices
from evonorms_jax.evolution.history import Evaluation, History, Record
from evonorms_jax.evolution.progress import Progress
from evonorms_jax.search_space import Graph
from evonorms_jax.training.display import Display
from evonorms_jax.training.metrics import Scalars
from evonorms_jax.training.workdir import claim_workdir


class Spectator:
    """What a process other than 0 does with a search: it writes and shows nothing. A context manager.

    Attributes:
      history: what an earlier run left.
    """

    def __init__(self):
        self.history = History()

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        pass

    def known_layers(self) -> list[str]:
        """Names of the known layers that are evaluated already."""
        return []

    def prepare(self, what: str) -> None:
        """Shows what is done before the first candidate."""

    def add_known_layer(self, name: str, graph: Graph, evaluation: Evaluation) -> None:
        """Saves the evaluation of a known layer."""

    def start(self) -> None:
        """Starts the clock of the search proper."""

    def examined(self, records: Sequence[Record]) -> None:
        """Saves and shows a round, which the history has by now."""

    def finish(self) -> None:
        """Saves the state in which the search stops."""


class Keeper(Spectator):
    """The archive, the curves and the display of a search.

    Args:
      config: of the search.
      workdir: claimed for this config.
      devices: whose use is shown.

    Raises:
      ValueError: if the work directory belongs to another config or is damaged.
      OSError: if it cannot be written to.
    """

    def __init__(self, config: ConfigDict, workdir: str, devices: Devices):
        path = claim_workdir(workdir, config.to_dict())
        self._every = config.checkpoint_every
        with contextlib.ExitStack() as opened:
            self._archive = opened.enter_context(Archive(path, config.top_k))
            self.history = self._archive.restore()
            display = opened.enter_context(Display(f"{config.name}, {config.method}"))
            self._scalars = opened.enter_context(Scalars(path / "tensorboard", step=len(self.history)))
            self._progress = Progress(display, self._scalars, self.history, config.budget, devices)
            self._opened = opened.pop_all()

    def __exit__(self, *error) -> None:
        self._opened.__exit__(*error)

    def known_layers(self) -> list[str]:
        return list(self._archive.known_layers())

    def prepare(self, what: str) -> None:
        self._progress.preparing(what)

    def add_known_layer(self, name: str, graph: Graph, evaluation: Evaluation) -> None:
        self._archive.add_known_layer(name, graph, evaluation)

    def start(self) -> None:
        self._progress.start(self._archive.known_layers()["bn_relu"]["scores"])

    def examined(self, records: Sequence[Record]) -> None:
        self._archive.append(records)
        self._progress.examined(records)
        first, end = records[0].index, records[-1].index + 1
        if end // self._every > first // self._every:
            self._scalars.flush()
            self._archive.checkpoint(self.history)

    def finish(self) -> None:
        self._archive.checkpoint(self.history)
