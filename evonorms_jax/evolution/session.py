"""One search in one work directory: start or resume, run, save, show."""

import time
from collections import Counter
from collections.abc import Callable

from absl import logging
from ml_collections import ConfigDict

from evonorms_jax import data
from evonorms_jax.evolution.archive import Archive
from evonorms_jax.evolution.evaluator import Evaluator, RejectionSettings
from evonorms_jax.evolution.history import OUTCOMES, History, Record
from evonorms_jax.evolution.proposal import EvolutionSettings, check_selection
from evonorms_jax.evolution.proxy import ProxySettings
from evonorms_jax.evolution.search import search
from evonorms_jax.layers import load_layer
from evonorms_jax.models import get_anchor
from evonorms_jax.search_space import BASELINES, CATALOG, Graph
from evonorms_jax.training.display import Display
from evonorms_jax.training.interrupt import stop_requested
from evonorms_jax.training.metrics import Scalars
from evonorms_jax.training.workdir import claim_workdir

#: Published layers that are trained the same way, for people to compare with.
KNOWN_LAYERS: dict[str, Graph] = {
    name: (BASELINES | CATALOG)[name] for name in ("bn_relu", "gn_relu", "evonorm_b0", "evonorm_s0")
}
METHODS = ("evolution", "random_search", "random")
_SCALARS_EVERY = 10  # candidates


def run_search(config: ConfigDict, workdir: str) -> bool:
    """Runs the search of a config, or goes on with it where it was stopped.

    Returns:
      True when it is done; False if Ctrl-C or SIGTERM stopped it, with all examined candidates saved.

    Raises:
      ValueError: if a setting is wrong, or the work directory belongs to another config or is damaged.
      DataNotFoundError: if the data set is not there.
    """
    # The order of a resume: 1 settings are checked, 2 the data are read, 3 the work directory is claimed,
    # 4 the history is restored, 5 known layers are trained unless they were, 6 the search goes on.
    settings = _evolution_settings(config)
    evaluator = make_evaluator(config)
    path = claim_workdir(workdir, config.to_dict())
    with Archive(path, config.top_k) as archive, stop_requested() as stopping:
        history = archive.restore()
        with (
            Display(f"{config.name}, {config.method}") as display,
            Scalars(path / "tensorboard", step=len(history)) as scalars,
        ):
            progress = _Progress(display, scalars, history, config.budget)
            if not _train_known_layers(evaluator, archive, progress, stopping):
                return False
            for record in search(
                history,
                evaluator.examine,
                settings,
                seed=config.seed,
                budget=config.budget,
                stop_at_first=config.method == "random",
            ):
                archive.append(record)
                progress.examined(record)
                if len(history) % config.checkpoint_every == 0:
                    scalars.flush()
                    archive.checkpoint(history)
                if stopping():
                    break
            archive.checkpoint(history)
        return not stopping()


def make_evaluator(config: ConfigDict) -> Evaluator:
    """The evaluator of a config, with its data read; errors as `run_search`."""
    anchors = [get_anchor(name) for name in config.anchors]
    if not anchors:
        raise ValueError("anchors must name at least one anchor, got none")
    tests = RejectionSettings(**config.rejection)
    fields = config.data.to_dict()
    crop, flip = fields.pop("crop"), fields.pop("flip")
    images = data.load(**fields)
    proxy = ProxySettings(**config.proxy, crop=crop, flip=flip)
    _check_sizes(proxy, tests, images)
    return Evaluator(
        anchors, images, proxy, tests, config.layer.to_dict(), executor=config.executor, seed=config.seed
    )


def _check_sizes(proxy: ProxySettings, tests: RejectionSettings, images: data.ImageData) -> None:
    count, *sides, _ = images.train.images.shape
    if not 1 <= proxy.batch_size <= count:
        raise ValueError(f"proxy.batch_size must be from 1 to {count}, got {proxy.batch_size}")
    if not 1 <= tests.stability_batch_size <= count:
        raise ValueError(
            f"rejection.stability_batch_size must be from 1 to {count}, got {tests.stability_batch_size}"
        )
    if not 1 <= proxy.crop <= min(sides):
        raise ValueError(f"data.crop must be from 1 to {min(sides)}, got {proxy.crop}")
    if not 1 <= tests.quality_steps <= proxy.steps:
        raise ValueError(
            f"rejection.quality_steps must be from 1 to proxy.steps, {proxy.steps}, got {tests.quality_steps}"
        )
    if proxy.replicas < 1:
        raise ValueError(f"proxy.replicas must be at least 1, got {proxy.replicas}")


def _evolution_settings(config: ConfigDict) -> EvolutionSettings:
    if config.method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {config.method!r}")
    for key in ("budget", "checkpoint_every", "top_k"):
        if config[key] < 1:
            raise ValueError(f"{key} must be at least 1, got {config[key]}")
    fields = config.evolution.to_dict()
    for key in ("population_size", "mutations", "round_size"):
        if fields[key] < 1:
            raise ValueError(f"evolution.{key} must be at least 1, got {fields[key]}")
    for key in ("tournament_fraction", "random_probability"):
        if not 0 <= fields[key] <= 1:
            raise ValueError(f"evolution.{key} must be from 0 to 1, got {fields[key]}")
    check_selection(fields["selection"])
    seeds = tuple(_seed_layer(name) for name in fields.pop("seed_layers"))
    return EvolutionSettings(select=config.method == "evolution", seed_layers=seeds, **fields)


def _seed_layer(name: str) -> Graph:
    known = BASELINES | CATALOG
    if name not in known and ".json" not in name:
        raise ValueError(
            f"evolution.seed_layers must be of {', '.join(known)} or file.json#0, got {name!r}"
        )
    return known[name] if name in known else load_layer(name)


def _train_known_layers(
    evaluator: Evaluator, archive: Archive, progress: "_Progress", stopping: Callable[[], bool]
) -> bool:
    """Evaluates the known layers that are not in the archive; False if it was to stop."""
    done = list(archive.known_layers())
    for name, graph in KNOWN_LAYERS.items():
        if stopping():
            return False
        if name not in done:
            building = "" if done else ", after the programs are built"
            progress.preparing(f"training {name}, to compare with{building}")
            started = time.monotonic()
            evaluation = evaluator.evaluate(graph)
            evaluation = evaluation._replace(seconds=time.monotonic() - started)
            archive.add_known_layer(name, graph, evaluation)
            done.append(name)
            if evaluation.outcome not in ("accepted", "batch_dependent"):
                logging.warning(
                    "%s is rejected as %s, %s: the proxy task is too hard for layers known to be good",
                    name,
                    evaluation.outcome,
                    evaluation.figure,
                )
    bar = archive.known_layers()["bn_relu"]["scores"]
    progress.start("BN-ReLU " + (_percentages(bar) if bar else "is rejected"))
    return True


class _Progress:
    """What a person sees of a search: counts, speed, the best layer so far beside BN-ReLU."""

    def __init__(self, display: Display, scalars: Scalars, history: History, budget: int):
        self._display, self._scalars = display, scalars
        self._history, self._budget = history, budget
        self._outcomes = Counter(record.evaluation.outcome for record in history)
        ranked = history.ranked()
        self._best: Record | None = ranked[0] if ranked else None
        self._started, self._first = time.monotonic(), len(history)
        self._bar = ""

    def start(self, bar: str) -> None:
        """Starts the clock of the search proper; `bar` is what the best layer is shown beside."""
        self._started, self._bar = time.monotonic(), bar

    def preparing(self, what: str) -> None:
        """Shows what is done before the first candidate."""
        self._display.update(
            completed=len(self._history), total=self._budget, rows=[("preparing", what)]
        )

    def examined(self, record: Record) -> None:
        """Shows the state after a new record."""
        self._outcomes[record.evaluation.outcome] += 1
        original = record.evaluation.duplicate_of is None
        if record.selectable and original and (
            self._best is None or record.mean_score > self._best.mean_score
        ):
            self._best = record
        minutes = max(time.monotonic() - self._started, 1e-9) / 60
        rate = (len(self._history) - self._first) / minutes
        seen = ((self._outcomes[outcome], outcome.replace("_", " ")) for outcome in OUTCOMES)
        counts = ", ".join(f"{number} {outcome}" for number, outcome in seen if number)
        rows = [
            ("outcomes", counts),
            ("speed", f"{rate:.0f} candidates a minute"),
            ("best so far", self._describe_best()),
            ("to compare", self._bar),
        ]
        self._display.update(completed=len(self._history), total=self._budget, rows=rows)
        if len(self._history) % _SCALARS_EVERY == 0:
            self._write_scalars(rate)

    def _describe_best(self) -> str:
        if self._best is None:
            return "none is accepted yet"
        return f"{self._best.graph}  {_percentages(self._best.evaluation.scores)}"

    def _write_scalars(self, rate: float) -> None:
        values = {f"outcomes/{outcome}": self._outcomes[outcome] for outcome in OUTCOMES}
        values["candidates_per_minute"] = rate
        if self._best is not None:
            values["best/mean"] = self._best.mean_score
            values |= {f"best/{name}": score for name, score in self._best.evaluation.scores.items()}
        self._scalars.write(len(self._history), values)


def _percentages(scores: dict[str, float]) -> str:
    return ", ".join(f"{100 * score:.1f} % {name}" for name, score in scores.items())
