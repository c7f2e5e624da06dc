"""Estimates the cost of the paper's full search on this machine, on a GPU, and on slices of a TPU pod.

  python -m experiments.benchmarks.cost_model --config=experiments/configs/search_cifar10_b.py \\
      --workdir=runs/benchmarks/cost_model --history=runs/mnist5k

It measures training steps on the anchors of the config, in the universal program and in one compiled for a
candidate, and the time to build the latter. The outcomes of candidates, and the number of steps before they
are rejected, come from the history of a search (`--history`), or from candidates that are examined here with
the default search. From these numbers follow the cost of a mean candidate (`search_cost.py`) and the number
of candidates in the paper's budget of 5,000 workers of two cores for two days. All assumptions are printed.
Prices and sustained speeds are flags.

On a machine with a GPU, the GPU is measured. To get CPU and GPU into one table, run it on both machines and
pass the file of one to the other: `--measured=OTHER/cost_model.json`. Slices of TPU v5e sustain an assumed
share of their peak. With `--compile_check=FILE`, a `--json` of `experiments.compile_check` for the same
search, they have its rooflines, which are bounds. The images are made up. On two CPU cores it takes 10 to 15
minutes for the paper's anchors. Writes cost_model.json into the work directory.
"""

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags as absl_flags
from absl import logging
from ml_collections import ConfigDict
from rich.table import Table

from evonorms_jax.data import EvalBatches, stripes
from evonorms_jax.errors import UserError
from evonorms_jax.evolution.devices import Devices
from evonorms_jax.evolution.executors import Job, Shared, Universal, share
from evonorms_jax.evolution.history import History
from evonorms_jax.evolution.proxy import ProxyData, ProxySettings, ProxyTask, make_proxy_task
from evonorms_jax.evolution.records import read_search
from evonorms_jax.evolution.session import proxy_settings, search_baselines
from evonorms_jax.models import get_anchor
from evonorms_jax.models.networks import operations
from evonorms_jax.runs.files import absolute
from evonorms_jax.search_space import CATALOG, Graph
from experiments import flags
from experiments.benchmarks import results
from experiments.benchmarks.candidates import Pass, mutants, random_graphs, rounds
from experiments.benchmarks.search_cost import (
    MEANINGS,
    PAPER_CORE_HOURS,
    AnchorCost,
    Assumed,
    Mix,
    Protocol,
    mix_of,
    model,
)
from experiments.configs import search_mnist5k

# The sizes of CIFAR-10. The time of a step does not depend on the content of the images.
_SIDE, _CHANNELS, _CLASSES, _VALIDATION_IMAGES = 32, 3, 10, 5_000
_EVAL_BATCH = 8  # number of validation images while steps are timed
# The layer in place of a candidate: six live nodes. Random graphs that are not inert have three on average,
# mutated EvoNorms five.
_LAYER = "evonorm_b0"

FLAGS = absl_flags.FLAGS


def define_flags() -> None:
    """Defines the flags of this main. A function, so that tests can import the file."""
    flags.define_config()
    flags.define_cpu_devices()
    absl_flags.DEFINE_string("history", None, "Work directory of a search with the outcomes of candidates.")
    absl_flags.DEFINE_integer(
        "sample", 100, "Number of candidates examined here without --history.", lower_bound=1
    )
    absl_flags.DEFINE_integer("measure_steps", 5, "Number of timed training steps.", lower_bound=1)
    absl_flags.DEFINE_bool(
        "cold", True, "Build every program. --nocold uses the compilation cache, for trials."
    )
    absl_flags.DEFINE_multi_string("measured", [], "A cost_model.json of another machine.")
    absl_flags.DEFINE_multi_string(
        "compile_check", [], "A --json of experiments.compile_check for this search on TPU v5e or v6e."
    )
    for name, text in MEANINGS.items():
        value = Assumed._field_defaults[name]
        absl_flags.DEFINE_float(name, value, f"Assumption: {text}.", lower_bound=0)


def main(argv):
    """Measures, prints the tables and the assumptions, and writes the results."""
    del argv
    flags.use_cpu_devices(FLAGS.cpu_devices)
    jax.config.update("jax_enable_compilation_cache", not FLAGS.cold)
    config = FLAGS.config
    others = [_read(path, "measured", ("machine", "anchors")) for path in FLAGS.measured]
    checks = [_read(path, "compile_check", ("chip", "programs")) for path in FLAGS.compile_check]
    _check(config, others)
    mix = mix_of_search(FLAGS.history) if FLAGS.history else mix_of_sample(FLAGS.sample)
    logging.info("measuring steps and builds on %s", ", ".join(config.anchors))
    anchors = [cost._asdict() for cost in measure_anchors(config, FLAGS.measure_steps)]
    here = {"machine": results.machine(), "anchors": anchors}
    protocol = Protocol(config.proxy.steps, config.rejection.stability_batch_size / config.proxy.batch_size)
    assumed = Assumed(**{name: FLAGS[name].value for name in Assumed._fields})
    costs = here | model([here, *others], mix, protocol, config.budget, assumed, checks)
    numbered = [f"assumption {number}: {text}" for number, text in enumerate(costs["assumptions"], 1)]
    shown = anchor_table(costs), mix_line(costs), machine_table(costs), *numbered
    results.publish(FLAGS.workdir, "cost_model.json", costs, *shown)


def _read(path: str, flag: str, keys: Sequence[str]) -> dict[str, Any]:
    kinds = {"measured": "cost_model.json", "compile_check": "result of compile_check"}
    try:
        other = json.loads(absolute(path).read_text())
        return {key: other[key] for key in keys}
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"--{flag}={path} is no {kinds[flag]}: {error!r}") from None


def _check(config: ConfigDict, others: Sequence[Mapping[str, Any]]) -> None:
    platforms = [jax.default_backend(), *(other["machine"]["platform"] for other in others)]
    if len(set(platforms)) < len(platforms):
        raise UserError(f"--measured must be of other platforms than this one, got {', '.join(platforms)}")
    for other in others:
        names = [anchor["name"] for anchor in other["anchors"]]
        if set(names) != set(config.anchors):
            raise UserError(f"--measured must be of {', '.join(config.anchors)}, got {', '.join(names)}")


# -- Steps and builds


def measure_anchors(config: ConfigDict, steps: int) -> list[AnchorCost]:
    """Times training steps and builds on the anchors of a search with all devices busy.

    Args:
      config: config of the search. The images are made up.
      steps: number of timed steps.

    Returns:
      The costs, the cheapest anchor first.
    """
    proxy = proxy_settings(config, learning_rate=0.0, eval_batch_size=_EVAL_BATCH)
    costs = []
    for name in config.anchors:
        started = time.monotonic()
        layer_fields = config.layer.to_dict()
        task = make_proxy_task(get_anchor(name), _CLASSES, layer_fields, proxy, _CHANNELS)
        costs.append(_measure(name, task, proxy, steps))
        logging.info("%s measured in %.0f s", name, time.monotonic() - started)
    return sorted(costs, key=lambda cost: cost.operations)


def _measure(name: str, task: ProxyTask, proxy: ProxySettings, steps: int) -> AnchorCost:
    graph, keys = CATALOG[_LAYER], jax.random.split(jax.random.key(0, impl="rbg"))
    template = jax.jit(task.init)(task.encode(graph), keys[0])
    data = _images(proxy.batch_size)
    shared = share(data, [(keys[1], template)])
    _, universal = _time(task, shared, steps)
    build, compiled = _time(_compiled_for(graph, task), shared, steps)
    params, stats = template.params, template.stats
    crops = jnp.zeros((proxy.batch_size, proxy.crop, proxy.crop, _CHANNELS))

    def gradient(params, stats, images, labels):
        return jax.grad(lambda params: task.loss(graph, params, stats, images, labels)[0])(params)

    step = operations(gradient, params, stats, crops, jnp.zeros(len(crops), jnp.int32))
    of_batch = operations(lambda state, data: task.accuracy(graph, state, data), template, data)
    validation = of_batch * _VALIDATION_IMAGES / _EVAL_BATCH
    return AnchorCost(
        name,
        operations=step,
        validation=validation / step,
        universal=universal,
        compiled=compiled,
        build=build,
    )


def _time(task: ProxyTask, shared: Shared, steps: int) -> tuple[float, float]:
    """Seconds to build the program of a task, and seconds of a step in it with all devices busy."""
    devices = Devices(1)
    executor = Universal(task, devices.replicate(shared), devices)

    def train(stop):
        return executor.train([Job(CATALOG[_LAYER], stop)] * len(devices.devices))

    started = time.monotonic()
    first = train(1)
    build = time.monotonic() - started - max(one.seconds for one in first)
    return build, statistics.mean(one.seconds / one.step for one in train(steps))


def _compiled_for(graph: Graph, task: ProxyTask) -> ProxyTask:
    """The task with programs compiled for one graph, which ignore the candidate of the call."""
    return task._replace(
        train=lambda _, *arguments: task.train(graph, *arguments),
        accuracy=lambda _, *arguments: task.accuracy(graph, *arguments),
    )


def _images(count: int) -> ProxyData:
    rng, count = np.random.default_rng(0), max(count, _EVAL_BATCH)
    images, labels = stripes(rng, count, size=_SIDE, channels=_CHANNELS, num_classes=_CLASSES)
    first = images[None, :_EVAL_BATCH], labels[None, :_EVAL_BATCH]
    validation = EvalBatches(*first, np.ones((1, _EVAL_BATCH), np.float32))
    return ProxyData(images, labels, validation, np.full(_CHANNELS, 128.0), np.full(_CHANNELS, 64.0))


# -- Outcomes


def mix_of_search(workdir: str) -> Mix:
    """The mean course of the candidates of a search.

    Raises:
      WorkdirError: if the directory is not the work directory of a search.
      ValueError: if no candidate was examined yet.
    """
    search = read_search(workdir)
    return _mix(search.history, ConfigDict(search.config))


def mix_of_sample(count: int, config: ConfigDict | None = None) -> Mix:
    """The mean course of candidates that are examined here.

    Args:
      count: number of candidates, half random graphs and half mutated known layers.
      config: config of a search, by default the search on embedded digits.
    """
    config = config or search_mnist5k.get_config()
    half = count // 2
    graphs: Sequence = random_graphs(count - half, config.seed)
    graphs = [*graphs, *mutants(list(search_baselines(config).values()), half, config.seed)]
    examined = Pass(config)
    for batch in rounds(graphs, config.evolution.round_size):
        examined.examine(batch)
        logging.info("%d of %d candidates examined", len(examined.history), count)
    return _mix(examined.history, config)


def _mix(history: History, config: ConfigDict) -> Mix:
    tests, evaluations = config.rejection, (record.evaluation for record in history)
    steps = {"stability_steps": tests.stability_steps, "quality_steps": tests.quality_steps}
    return mix_of(evaluations, **steps)


# -- Tables


def anchor_table(costs: Mapping[str, Any]) -> Table:
    """Measured times by anchor."""
    columns = ("GFLOP a step", "universal, s a step", "compiled, s a step", "build, s")
    columns += ("full trainings an hour: universal", "compiled, with builds")
    table = Table("anchor", *columns, title="measured here, on one device with all busy")
    for anchor in costs["anchors"]:
        times = (anchor["universal"], anchor["compiled"])
        cells = (f"{anchor['operations'] / 1e9:.3g}", *(f"{time:.3g}" for time in times))
        per_hour = (f"{rate:,.3g}" for rate in costs["trainings_per_hour"][anchor["name"]])
        table.add_row(anchor["name"], *cells, f"{anchor['build']:.0f}", *per_hour)
    return table


def mix_line(costs: Mapping[str, Any]) -> str:
    """The outcomes of candidates, and the cost of a full training and of the paper's budget."""
    mix, count = costs["mix"], costs["candidates"]["paper"]
    paper = "unknown, no CPU is measured" if count is None else f"{count:,.0f}"
    untrained, rejected, trained = (100 * mix[key] for key in ("untrained", "rejected", "trained"))
    return (
        f"of {mix['examined']} candidates {untrained:.0f} % are not trained, {rejected:.0f} % are rejected "
        f"while trained, {trained:.1f} % are trained in full\n"
        f"operations of a full training: {costs['operations_per_training']:.2g}\n"
        f"the paper's budget, 5,000 workers of two cores for two days: {PAPER_CORE_HOURS:,} hours of a core, "
        f"${PAPER_CORE_HOURS * costs['assumed']['core_price']:,.0f}\n"
        f"candidates in that budget: {paper}"
    )


def machine_table(costs: Mapping[str, Any]) -> Table:
    """Hours and dollars by machine."""
    budget = costs["candidates"]["config"]
    columns = ("device s a candidate", f"{budget:,} candidates", "the paper's budget")
    table = Table("machine", "basis", *columns)
    for row in costs["rows"]:
        each = sum(row["device_seconds"].values())
        prices = [
            "-" if row["hours"][key] is None else f"{row['hours'][key]:,.1f} h, ${row['dollars'][key]:,.0f}"
            for key in ("config", "paper")
        ]
        table.add_row(row["machine"], row["basis"], f"{each:,.2f}", *prices)
    return table


if __name__ == "__main__":
    define_flags()
    flags.run(main, example="experiments/configs/search_cifar10_b.py", holds="workdir")
