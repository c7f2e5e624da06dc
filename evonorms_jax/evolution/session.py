"""One search: start or resume, run, save, show; on one host or several."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import jax
from absl import logging
from ml_collections import ConfigDict

from evonorms_jax import data
from evonorms_jax.evolution.devices import release_programs
from evonorms_jax.evolution.evaluator import Evaluator
from evonorms_jax.evolution.history import History, Record
from evonorms_jax.evolution.proposal import EvolutionSettings, check_settings, fit
from evonorms_jax.evolution.proxy import ProxySettings
from evonorms_jax.evolution.recorder import Recorder, SilentRecorder
from evonorms_jax.evolution.rejection import RejectionSettings
from evonorms_jax.evolution.search import search
from evonorms_jax.layers import load_layer
from evonorms_jax.models import get_anchor
from evonorms_jax.runs.hosts import Hosts
from evonorms_jax.runs.interrupt import stop_requested
from evonorms_jax.runs.ranges import check_ranges
from evonorms_jax.runs.workdir import absolute, write_whole
from evonorms_jax.search_space import BASELINES, CATALOG, Graph

#: Published layers that are trained the same way, for people to compare with.
SEARCH_BASELINES: dict[str, Graph] = {
    name: (BASELINES | CATALOG)[name] for name in ("bn_relu", "gn_relu", "evonorm_b0", "evonorm_s0")
}
METHODS = ("evolution", "random_search", "random")
_SLOTS = 32  # trainings that a device holds; of a longer round it gets its share in several calls


def run_search(config: ConfigDict, workdir: str, hosts: Hosts | None = None) -> bool:
    """Runs the search of a config, or goes on with it where it was stopped.

    Args:
      config: see `experiments/configs/search_defaults.py`.
      workdir: of the run; process 0 alone reads and writes there.
      hosts: those that share the work; all of them call this with the same config.

    Returns:
      True when it is done; False if Ctrl-C or SIGTERM stopped it, with all examined candidates saved.

    Raises:
      ValueError: if a setting is wrong, or the work directory belongs to another config or is damaged.
      DataNotFoundError: if the data set is not there.
      ConnectionError: if a host is lost.
    """
    # The order of a resume: 1 settings are checked, 2 the data are read, 3 the work directory is claimed,
    # 4 the history is restored and sent to all hosts, 5 baselines are trained unless they were, 6 the
    # search goes on.
    hosts = hosts or Hosts()
    settings = _evolution_settings(config)
    release_programs()
    evaluator = make_evaluator(config, hosts)
    hosts.check_same("the config", config.to_dict())
    recorder = Recorder(config, workdir, evaluator.devices) if hosts.leader else SilentRecorder()
    with stop_requested() as stopping, recorder:

        def stopped() -> bool:
            # A host that is asked to stop takes the others with it, after the same round.
            return any(hosts.gather(stopping()))

        lines = hosts.broadcast([record.to_json() for record in recorder.history])
        history = recorder.history if hosts.leader else History(map(Record.from_json, lines))
        _train_baselines(evaluator, recorder, hosts, stopped)
        rounds = search(
            history,
            evaluator.examine,
            settings,
            seed=config.seed,
            budget=config.budget,
            stop_at_first=config.method == "random",
        )
        interrupted = stopped()
        while not interrupted and (records := next(rounds, None)) is not None:
            recorder.examined(records)
            interrupted = stopped()
        recorder.finish()
        if hosts.leader and evaluator.devices.used:
            _write_use(evaluator, workdir)
        return not interrupted


def _write_use(evaluator: Evaluator, workdir: str) -> None:
    devices = evaluator.devices
    use = {"devices": len(devices.devices), "idle_share": devices.idle_share}
    write_whole(absolute(workdir) / "devices.json", json.dumps(use) + "\n")


def make_evaluator(
    config: ConfigDict, hosts: Hosts | None = None, devices: Sequence[jax.Device] | None = None
) -> Evaluator:
    """The evaluator of a config, with its data read; errors as `run_search`."""
    check_ranges(config, "search")
    anchors = [get_anchor(name) for name in config.anchors]
    if not anchors:
        raise ValueError("anchors must name at least one anchor, got none")
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
    )


def slots(config: ConfigDict) -> int:
    """The most candidates that a device gets in one call."""
    return min(config.evolution.round_size, _SLOTS)


def load_images(config: ConfigDict, **options: Any) -> data.ImageData:
    """The images of `config.data`; options and errors as `data.load`."""
    fields = {key: value for key, value in config.data.to_dict().items() if key not in ("crop", "flip")}
    return data.load(**fields, **options)


def proxy_settings(config: ConfigDict, **changes: Any) -> ProxySettings:
    """The settings of `config.proxy` and `config.data`, with changes."""
    return ProxySettings(**config.proxy.to_dict() | changes, crop=config.data.crop, flip=config.data.flip)


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


def _evolution_settings(config: ConfigDict) -> EvolutionSettings:
    if config.method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {config.method!r}")
    evolution = config.evolution.to_dict()
    names = evolution.pop("seed_layers")
    settings = EvolutionSettings(config.method == "evolution", **evolution, **config.search_space)
    check_settings(settings)
    seeds = tuple(fit(_seed_layer(name), name, settings) for name in names)
    return settings._replace(seed_layers=seeds)


def _seed_layer(name: str) -> Graph:
    known = BASELINES | CATALOG
    if name not in known and ".json" not in name:
        raise ValueError(f"evolution.seed_layers must be of {', '.join(known)} or file.json#0, got {name!r}")
    return known[name] if name in known else load_layer(name)


def _train_baselines(
    evaluator: Evaluator, recorder: SilentRecorder, hosts: Hosts, stopped: Callable[[], bool]
) -> None:
    """Evaluates the baselines that are not in the archive."""
    done = hosts.broadcast(recorder.baselines())
    missing = [name for name in SEARCH_BASELINES if name not in done]
    if missing:
        recorder.prepare(f"building the programs, then training {', '.join(missing)} to compare with")
    # One for each device at a time: what is done is saved before the next.
    size = sum(hosts.gather(len(evaluator.devices.devices)))
    for start in range(0, len(missing), size):
        if stopped():
            return
        share = missing[start : start + size]
        evaluations = evaluator.evaluate([SEARCH_BASELINES[name] for name in share])
        for name, evaluation in zip(share, evaluations, strict=True):
            recorder.add_baseline(name, SEARCH_BASELINES[name], evaluation)
            if evaluation.outcome not in ("accepted", "batch_dependent"):
                logging.warning(
                    "%s is rejected as %s, %s: the proxy task is too hard for layers known to be good",
                    name,
                    evaluation.outcome,
                    evaluation.evidence,
                )
    recorder.start()
