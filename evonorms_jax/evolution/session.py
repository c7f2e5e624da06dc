"""One search, on one host or several: starts or resumes it, runs it, and records it."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from absl import logging
from ml_collections import ConfigDict

from evonorms_jax import data
from evonorms_jax.errors import UserError
from evonorms_jax.evolution.devices import release_programs
from evonorms_jax.evolution.evaluator import Evaluator, check_executor
from evonorms_jax.evolution.history import History, Record
from evonorms_jax.evolution.proposal import EvolutionSettings, check_settings, fit
from evonorms_jax.evolution.proxy import ProxySettings
from evonorms_jax.evolution.recorder import Recorder, SilentRecorder
from evonorms_jax.evolution.records import DEVICES_FILE, top_layers
from evonorms_jax.evolution.rejection import RejectionSettings
from evonorms_jax.evolution.reranking import RerankedLayer, rerank, to_rerank
from evonorms_jax.evolution.search import search
from evonorms_jax.layers import load_layer
from evonorms_jax.models import get_anchor
from evonorms_jax.runs.files import absolute, write_whole
from evonorms_jax.runs.hosts import Hosts
from evonorms_jax.runs.interrupt import stop_requested
from evonorms_jax.runs.ranges import check_ranges
from evonorms_jax.search_space import KNOWN, Graph
from evonorms_jax.search_space.encoding import encode, instruction_set
from evonorms_jax.training.optimizer import optimizer_named

METHODS = ("evolution", "random_search", "random")
# Largest number of training states that a device holds. A device runs a larger share of a round in several
# calls, so its memory does not grow with the size of a round.
_MOST_SLOTS = 32


def run_search(config: ConfigDict, workdir: str, hosts: Hosts | None = None) -> bool:
    """Runs the search of a config, or resumes it.

    Args:
      config: see `experiments/configs/search_defaults.py`.
      workdir: work directory. Only process 0 reads and writes it.
      hosts: connection to the hosts that share the work. All of them call this with the same config.

    Returns:
      True when the search is done. False if Ctrl-C or SIGTERM stopped it, with all examined candidates saved.

    Raises:
      ValueError: if a setting is wrong, or the work directory belongs to another config or is damaged.
      DataNotFoundError: if the data set does not exist.
      ConnectionError: if a host is lost.
    """
    # The order of a resume:
    # 1. Check the settings.
    # 2. Read the data.
    # 3. Claim the work directory.
    # 4. Restore the history, and send it to all hosts.
    # 5. Train the baselines that are not in the archive.
    # 6. Search from the end of the history.
    # 7. Train the best layers again that are not in the archive's re-ranking.
    hosts = hosts or Hosts()
    settings, baselines = evolution_settings(config), search_baselines(config)
    release_programs()
    evaluator = make_evaluator(config, hosts)
    hosts.check_same("the config", config.to_dict())
    recorder = Recorder(config, workdir, evaluator.devices) if hosts.leader else SilentRecorder()
    with stop_requested() as stopping, recorder:

        def stopped() -> bool:
            # All hosts stop after the same round if one of them is asked to.
            return any(hosts.gather(stopping()))

        history = _send_history(recorder, hosts)
        train_baselines(evaluator, baselines, recorder, hosts, stopped)
        first_only = config.method == "random"
        rounds = search(
            history,
            evaluator.examine,
            settings,
            seed=config.seed,
            budget=config.budget,
            device_steps=config.device_steps,
            stop_at_first=first_only,
        )
        interrupted = stopped()
        while not interrupted and (records := next(rounds, None)) is not None:
            recorder.examined(records)
            interrupted = stopped()
        if not interrupted and config.rerank_replicas:
            best = top_layers(history, config.top_k)[: config.top_k]  # no two alike
            layers = to_rerank([(layer.index, layer.graph) for layer in best], baselines)
            interrupted = not _rerank(evaluator, layers, recorder, hosts, stopped)
        recorder.finish()
        if hosts.leader and evaluator.devices.used:
            _write_use(evaluator, workdir)
        return not interrupted


def _send_history(recorder: SilentRecorder, hosts: Hosts) -> History:
    """The history of process 0, on every host."""
    lines = hosts.broadcast([record.to_json() for record in recorder.history])
    return recorder.history if hosts.leader else History(map(Record.from_json, lines))


def check_search(config: ConfigDict) -> None:
    """Checks the settings of a search that can be checked without data and devices.

    Raises:
      ValueError: if a setting is wrong.
    """
    check_ranges(config, "search")
    evolution_settings(config)
    for name in (*config.anchors, *filter(None, [config.rejection.stability_anchor])):
        get_anchor(name)
    check_executor(config.executor)
    proxy_settings(config)
    search_baselines(config)


def search_baselines(config: ConfigDict) -> dict[str, Graph]:
    """Known layers by name that a search trains in the way of its candidates, for people to compare with.

    Raises:
      UserError: if a layer is unknown, or uses an op beyond the paper that the search does not have.
    """
    instructions = instruction_set(config.search_space.ops)
    baselines = {name: _known_layer("baselines", name) for name in config.baselines}
    for name, graph in baselines.items():
        try:
            encode(graph, instructions)
        except UserError as error:
            raise UserError(f"baselines: {name} is out of the search space: {error}") from None
    return baselines


def _write_use(evaluator: Evaluator, workdir: str) -> None:
    devices = evaluator.devices
    use = {"devices": len(devices.devices), "idle_share": devices.idle_share}
    write_whole(absolute(workdir) / DEVICES_FILE, json.dumps(use) + "\n")


def make_evaluator(
    config: ConfigDict, hosts: Hosts | None = None, devices: Sequence[jax.Device] | None = None
) -> Evaluator:
    """The evaluator of a config, with its data read. Raises the errors of `run_search`.

    It evaluates graphs of the paper's ops and of those in `config.search_space.ops`.
    """
    check_ranges(config, "search")
    anchors = [get_anchor(name) for name in config.anchors]
    if not anchors:
        raise UserError("anchors must name at least one anchor, got none")
    tests, proxy, images = RejectionSettings(**config.rejection), proxy_settings(config), load_images(config)
    _check_sizes(proxy, tests, images)
    return Evaluator(
        anchors,
        images,
        proxy,
        tests,
        config.layer.to_dict(),
        executor=config.executor,
        slots=slots(config),
        hosts=hosts,
        devices=devices,
        seed=config.seed,
        fresh_replicas=config.rerank_replicas,
        instructions=instruction_set(config.search_space.ops),
    )


def slots(config: ConfigDict) -> int:
    """The most candidates that a device gets in one call."""
    return min(config.evolution.round_size, _MOST_SLOTS)


def load_images(config: ConfigDict, **options: Any) -> data.ImageData:
    """The images of `config.data`, with the options and errors of `data.load_images`."""
    return data.load_images(data.DataSettings(**config.data), **options)


def proxy_settings(config: ConfigDict, **changes: Any) -> ProxySettings:
    """The settings of the proxy task in `config.proxy` and `config.data`, with changes.

    Raises `ValueError` if the optimizer is unknown.
    """
    optimizer_named(config.proxy.optimizer)
    return ProxySettings(**config.proxy.to_dict() | changes, crop=config.data.crop, flip=config.data.flip)


def _check_sizes(proxy: ProxySettings, tests: RejectionSettings, images: data.ImageData) -> None:
    count, *sides, _ = images.train.images.shape
    for name, value, most, text in (
        ("proxy.batch_size", proxy.batch_size, count, count),
        ("rejection.stability_batch_size", tests.stability_batch_size, count, count),
        ("data.crop", proxy.crop, min(sides), min(sides)),
        ("rejection.quality_steps", tests.quality_steps, proxy.steps, f"proxy.steps, {proxy.steps}"),
    ):
        if not 1 <= value <= most:
            raise UserError(f"{name} must be from 1 to {text}, got {value}")


def evolution_settings(config: ConfigDict) -> EvolutionSettings:
    """The settings of the proposals of a search. Raises `ValueError` if one is wrong."""
    if config.method not in METHODS:
        raise UserError(f"method must be one of {', '.join(METHODS)}, got {config.method!r}")
    evolution = config.evolution.to_dict()
    names = evolution.pop("seed_layers")
    settings = EvolutionSettings(config.method == "evolution", **evolution, **config.search_space)
    check_settings(settings)
    seeds = tuple(fit(_seed_layer(name), name, settings) for name in names)
    return settings._replace(seed_layers=seeds)


def _seed_layer(name: str) -> Graph:
    if ".json" in name:
        return load_layer(name)
    return _known_layer("evolution.seed_layers", name, " or file.json#0")


def _known_layer(key: str, name: str, others: str = "") -> Graph:
    if name not in KNOWN:
        raise UserError(f"{key} must be of {', '.join(KNOWN)}{others}, got {name!r}")
    return KNOWN[name]


def train_baselines(
    evaluator: Evaluator,
    baselines: Mapping[str, Graph],
    recorder: SilentRecorder,
    hosts: Hosts,
    stopped: Callable[[], bool],
) -> None:
    """Evaluates and records the baselines that are not in the archive."""
    done = hosts.broadcast(recorder.baselines())
    missing = [name for name in baselines if name not in done]
    if missing:
        recorder.prepare(f"building the programs, then training {', '.join(missing)} to compare with")
    # One for each device at a time, so that a stop loses at most one training of each.
    size = sum(hosts.gather(len(evaluator.devices.devices)))
    for start in range(0, len(missing), size):
        if stopped():
            return
        share = missing[start : start + size]
        evaluations = evaluator.evaluate([baselines[name] for name in share])
        for name, evaluation in zip(share, evaluations, strict=True):
            recorder.add_baseline(name, baselines[name], evaluation)
            outcome, evidence, *_ = evaluation
            if outcome not in ("accepted", "batch_dependent"):
                text = "%s is rejected as %s, %s: the proxy task is too hard for good layers"
                logging.warning(text, name, outcome, evidence)
    recorder.start()


def _rerank(
    evaluator: Evaluator,
    layers: Sequence[RerankedLayer],
    recorder: SilentRecorder,
    hosts: Hosts,
    stopped: Callable[[], bool],
) -> bool:
    """Trains layers again with fresh seeds. Returns False if it was stopped."""
    done = hosts.broadcast(recorder.reranked())
    missing = [layer for layer in layers if layer.index not in done and layer.name not in done]
    left = len(missing)
    for chunk in rerank(missing, evaluator.retrain, sum(hosts.gather(len(evaluator.devices.devices)))):
        left -= len(chunk)
        recorder.add_reranked(chunk, left)
        if left and stopped():
            return False
    return True
