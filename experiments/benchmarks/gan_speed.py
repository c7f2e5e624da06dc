"""The training step of our BigGAN beside the same networks in plain PyTorch, on the CPU, in one run.

  python -m experiments.benchmarks.gan_speed
  python -m experiments.benchmarks.gan_speed --network=biggan_deep --batch_size=64 --width=32

A step is one update of the discriminator and one of the generator with BN-ReLU, at the settings of
`experiments/configs/gan_digits.py`: images of 28 x 28 x 1 of 10 classes, hinge loss, Adam, spectral
normalization with one power iteration, a projection discriminator, and a moving average of the generator.
Both sides draw latents and labels in the step. The random shifts of the recipe are off. Our step also
computes the metrics of its log.

The baseline is `experiments/benchmarks/torch_biggan.py`, which runs eagerly. Its networks must have as many
parameters as ours. Both sides have a thread for each core and take turns round by round, so that other load
on the machine affects both. The first steps, which build the program, are not timed. The time of a round is
the mean over its steps. The median, the least and the largest time of the rounds are reported.

It needs PyTorch (`pip install torch`). Writes gan_speed.json into the work directory.
"""

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import jax
import numpy as np
from absl import flags as absl_flags
from ml_collections import ConfigDict
from rich.table import Table

from evonorms_jax.errors import UserError
from evonorms_jax.gan.adversarial import DISCRIMINATOR, GENERATOR
from evonorms_jax.gan.construction import build_networks
from evonorms_jax.gan.layouts import LAYOUTS, BlockLayout
from evonorms_jax.gan.networks import Networks
from evonorms_jax.gan.task import make_programs
from evonorms_jax.packages import require
from evonorms_jax.training.mesh import data_mesh
from experiments import flags
from experiments.benchmarks import results, turns
from experiments.configs import gan_digits

OURS, THEIRS = "evonorms_jax", "pytorch"
_CLASSES, _CHANNELS = 10, 1  # of the digits
_LOSSES = ("discriminator_loss", "generator_loss")

FLAGS = absl_flags.FLAGS
_SETTINGS = ("network", "batch_size", "width", "steps", "rounds", "warmup")


def define_flags() -> None:
    """Defines the flags of this main. A function, so that tests can import the file."""
    absl_flags.DEFINE_enum("network", "biggan", list(LAYOUTS), "Kind of networks.")
    flags.define_counts(
        ("batch_size", 32, "Real images of a step, and images generated for each update."),
        ("width", 16, "Channels of which all channel counts are multiples."),
        ("steps", 5, "Number of steps in a round."),
        ("rounds", 15, "Number of timed rounds of each side."),
        ("warmup", 3, "Number of steps of each side before the first round."),
    )
    flags.define_results()


def main(argv):
    """Measures, prints the table, and writes the results."""
    del argv
    measured = measure({name: FLAGS[name].value for name in _SETTINGS})
    results.publish(FLAGS.workdir, "gan_speed.json", measured, table(measured))


def measure(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Times the steps of both sides.

    Args:
      settings: values of the flags by name, without the work directory.

    Returns:
      A JSON object with the machine, the settings, the number of parameters by network, and one row for each
      side, ours first. Times are in milliseconds. The ratio is the time of a step to that of ours. Losses
      are those of the last step.

    Raises:
      ModuleNotFoundError: if PyTorch is not installed.
      UserError: if a width does not fit, or the networks of both sides differ in their parameters.
      FloatingPointError: if a loss is not finite.
    """
    torch_biggan = import_baseline()
    config = _config(settings)
    images, labels = made_up_digits(settings["batch_size"], config.data.crop)
    sides = {OURS: _Jax(config, images, labels), THEIRS: _Torch(torch_biggan, config, images, labels)}
    check_parameters({name: side.parameters for name, side in sides.items()})
    timed = turns.time_by_turns(sides, **{name: settings[name] for name in ("warmup", "rounds", "steps")})
    return {
        "machine": results.machine() | {"torch": torch_biggan.torch.__version__},
        "settings": dict(settings),
        "parameters": sides[OURS].parameters,
        "rows": [row | {"steps_per_second": 1e3 / row["milliseconds"]} for row in turns.rows(timed)],
    }


def import_baseline() -> ModuleType:
    """The module of the baseline. Raises `ModuleNotFoundError` if PyTorch is not installed."""
    require(("torch",), "the baseline", install="torch")
    from experiments.benchmarks import torch_biggan

    return torch_biggan


def made_up_digits(count: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Random images uint8 `[count, side, side, 1]` and labels int32 `[count]`, always the same."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, side, side, _CHANNELS), np.uint8)
    return images, rng.integers(0, _CLASSES, count, np.int32)


def check_parameters(counts: Mapping[str, Mapping[str, int]]) -> None:
    """Raises `UserError` unless the networks of both sides have as many parameters.

    Args:
      counts: number of parameters by side and network.
    """
    for network in (GENERATOR, DISCRIMINATOR):
        ours, theirs = counts[OURS][network], counts[THEIRS][network]
        if ours != theirs:
            raise UserError(
                f"the {network}s must have the same number of parameters, got {ours:,} of {OURS} and "
                f"{theirs:,} of {THEIRS}"
            )


class _Jax:
    """Our training, as `experiments.generate` runs it, on the CPU as one device: a `turns.Side`."""

    parameters: dict[str, int]  # by network

    def __init__(self, config: ConfigDict, images: np.ndarray, labels: np.ndarray):
        programs = make_programs(config, _CLASSES, _CHANNELS, data_mesh(jax.devices("cpu")[:1], groups=1))
        init_key, self._key = jax.random.split(jax.random.key(config.seed))
        self._step, self._state = programs.train_step, programs.init(init_key)
        self._batch = jax.device_put((images, labels))
        self.parameters = turns.count_parameters(self._state.params)

    def run(self, steps: int) -> dict[str, float]:
        for _ in range(steps):
            self._state, metrics = self._step(self._state, self._batch, self._key)
        jax.block_until_ready((self._state, metrics))
        return {name: float(metrics[name]) for name in _LOSSES}


class _Torch:
    """The training of the baseline: a `turns.Side`."""

    parameters: dict[str, int]  # by network

    def __init__(self, module: ModuleType, config: ConfigDict, images: np.ndarray, labels: np.ndarray):
        torch = module.torch
        torch.set_num_threads(flags.cores())
        torch.manual_seed(config.seed)
        generator, discriminator = make_torch_networks(module, build_networks(config, _CLASSES, _CHANNELS))
        self._training = module.Training(
            generator,
            discriminator,
            generator_rate=config.adam.generator_rate,
            discriminator_rate=config.adam.discriminator_rate,
            betas=(config.adam.b1, config.adam.b2),
            epsilon=config.adam.epsilon,
            decay=config.average_decay,
        )
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        self._batch = pixels, torch.from_numpy(labels).long()
        self.parameters = {
            GENERATOR: module.count_parameters(generator),
            DISCRIMINATOR: module.count_parameters(discriminator),
        }

    def run(self, steps: int) -> dict[str, float]:
        for _ in range(steps):
            losses = self._training.step(*self._batch)
        return dict(zip(_LOSSES, map(float, losses), strict=True))


def make_torch_networks(module: ModuleType, networks: Networks) -> tuple[Any, Any]:
    """Generator and discriminator of the baseline with the sizes of ours.

    Args:
      module: `experiments.benchmarks.torch_biggan`.
      networks: our networks, without attention.
    """
    ours, judge = networks
    (bottom, *_), *blocks = ours.layout
    generator = module.Generator(
        deep=ours.deep,
        side=ours.bottom,
        bottom=bottom * ours.width,
        blocks=_blocks(module, blocks, ours.width),
        channels=ours.channels,
        num_classes=ours.num_classes,
        latent=ours.latent,
        embedding=ours.embedding,
        embedding_scale=ours.embedding_scale,
    )
    blocks = _blocks(module, judge.layout, judge.width)
    discriminator = module.Discriminator(
        deep=judge.deep,
        stem=blocks.pop(0).channels if judge.deep else None,
        blocks=blocks,
        channels=ours.channels,
        num_classes=judge.num_classes,
    )
    return generator, discriminator


def _blocks(module: ModuleType, layout: Sequence[BlockLayout], width: int) -> list[Any]:
    return [module.Block(channels * width, resample) for channels, resample, _ in layout]


def _config(settings: Mapping[str, Any]) -> ConfigDict:
    config = gan_digits.get_config()
    config.networks.name, config.networks.width = settings["network"], settings["width"]
    config.batch_size, config.shift = settings["batch_size"], 0
    return config


def table(measured: dict[str, Any]) -> Table:
    """The rows for people."""
    counts = measured["parameters"]
    title = "{network}, {batch_size} images a step, width {width}".format(**measured["settings"])
    sizes = f"{counts[GENERATOR]:,} and {counts[DISCRIMINATOR]:,} parameters"
    shown = Table(title=f"{title}\n{sizes}, torch {measured['machine']['torch']}")
    for column in ("side", "ms a step", "least to largest", "G steps/s", "x ours"):
        shown.add_column(column, justify="left" if column == "side" else "right")
    for row in measured["rows"]:
        spread = f"{row['least']:.1f} to {row['largest']:.1f}"
        speed = f"{row['milliseconds']:.1f}", spread, f"{row['steps_per_second']:.1f}"
        shown.add_row(row["side"], *speed, f"{row['ratio']:.2f}")
    return shown


if __name__ == "__main__":
    define_flags()
    flags.run(main, holds="workdir")
