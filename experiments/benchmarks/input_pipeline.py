"""How many pictures a second does a host read for training, and how many cores does a TPU host need?

  python -m experiments.benchmarks.input_pipeline
  python -m experiments.benchmarks.input_pipeline --size=300 --images_per_second=4000 --counts=1,8,32

Photographs as large as ImageNet's, 500 x 375 pixels and some 110 kB, are made up and written in the format
that training reads.

- A core: from record to augmented image, one after the other, they go through our decoder, which decodes a
  JPEG at a reduced scale where that suffices, and through Pillow, which decodes all of it, each with and
  without RandAugment; the two take turns, round by round. Pictures a second are counted in the time of the
  processor, so other work on the machine hardly matters.
- The pipeline: what comes out of it, batches and all, with so many threads of one process, and with so many
  processes of one thread each (`config.data.threads` and `config.data.workers`), by the clock: on a machine
  with nothing else to do.

The threads of one process take turns at the part of the work that is Python; about a third was counted on two
cores. So threads alone are not expected to keep more than three cores busy; how processes do on many cores is
to be measured there. The cores for a demand are those at the measured rate a core, not a measurement.

What a host has to deliver is an assumption: 16,000 images/s for the eight chips of a v5e-8, 2,000 each, a
quarter of what their arithmetic allows for ResNet-50.

On two cores it takes about two minutes, nearly all of it in the pipeline: `--seconds` for each row of it and
some more to start. Expected of a core of a cloud machine: 570 pictures/s with ours and 330 with RandAugment,
380 and 250 with Pillow.
"""

import functools
import io
import itertools
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import simplejpeg
from absl import flags as absl_flags
from absl import logging
from PIL import Image
from rich.console import Console
from rich.table import Table

from evonorms_jax.data import open_stream, photographs
from evonorms_jax.data.photographs import decode_crop
from evonorms_jax.data.policies import RandAugment
from evonorms_jax.data.prepared import Records, open_prepared
from evonorms_jax.data.writing import write_set
from evonorms_jax.errors import UserError
from experiments import flags
from experiments.benchmarks.candidates import headline, machine, write_figures

_PICTURES = absl_flags.DEFINE_integer("pictures", 128, "Photographs made up.", lower_bound=1)
_ROUNDS = absl_flags.DEFINE_integer("rounds", 3, "How often a core reads each in each way.", lower_bound=1)
_SIZE = absl_flags.DEFINE_integer("size", 224, "Side of the images to train on.", lower_bound=1)
_NEEDED = absl_flags.DEFINE_float(
    "images_per_second", 16_000.0, "What a host has to deliver, an assumption.", lower_bound=1
)
_COUNTS = absl_flags.DEFINE_list(
    "counts", None, "Threads, and processes, of the pipeline; 1, 2, 4 and so on up to the cores by default."
)
_SECONDS = absl_flags.DEFINE_float("seconds", 8.0, "For each row of the pipeline.", lower_bound=0)
_WORKDIR = absl_flags.DEFINE_string("workdir", "runs/benchmarks", "Where input_pipeline.json is written.")

HEIGHT, WIDTH, QUALITY = 375, 500, 87
OURS, PILLOW = "libjpeg-turbo, reduced", "Pillow, whole"
BATCH = 64
POLICIES = {"none": None, "randaugment": RandAugment()}


def photograph(rng: np.random.Generator) -> bytes:
    """A JPEG of noise whose amplitude falls with the frequency, as it does in photographs."""
    frequency = np.hypot(np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH))
    frequency[0, 0] = np.inf
    parts = rng.normal(size=(2, 4, *frequency.shape))
    planes = np.fft.irfft2((parts[0] + 1j * parts[1]) / frequency, s=(HEIGHT, WIDTH))
    planes /= planes.std((1, 2), keepdims=True)
    # Colours differ less than brightness does.
    levels = 118 + 55 * planes[0][..., None] + 20 * np.moveaxis(planes[1:], 0, -1)
    levels = np.ascontiguousarray(np.clip(levels, 0, 255).astype(np.uint8))
    return simplejpeg.encode_jpeg(levels, quality=QUALITY, colorsubsampling="420")


def decode_whole(encoded: bytes, choose: Callable[[int, int], photographs.Box], size: int) -> np.ndarray:
    """What `decode_crop` does, as one would write it with Pillow."""
    with Image.open(io.BytesIO(encoded)) as picture:
        whole = picture.convert("RGB")
    top, left, height, width = choose(whole.height, whole.width)
    box = (left, top, left + width, top + height)
    return np.asarray(whole.resize((size, size), Image.Resampling.BILINEAR, box))


DECODERS = {OURS: decode_crop, PILLOW: decode_whole}


def measure(count: int, rounds: int, size: int, needed: float) -> dict[str, Any]:
    """Makes `count` photographs and reads them `rounds` times in each way, and through the pipeline.

    Returns:
      A JSON object: `rows` for each decoder and policy with pictures a second and core, `pipeline` for each
      policy and number of threads or processes with pictures a second by the clock; in both, the cores that
      `needed` pictures a second take at this rate a core.
    """
    counts = _counts()
    rng = np.random.default_rng(0)
    encoded = [photograph(rng) for _ in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        write_set(folder, "photographs", {"train": [(each, 0) for each in encoded]}, num_classes=1)
        records = open_prepared("photographs", folder).records("train")
        ways = list(itertools.product(DECODERS, POLICIES))
        seconds = dict.fromkeys(ways, 0.0)
        for way in ways:
            _read(records, 1, *way, size)  # opens files, fills caches
        for _ in range(rounds):
            for way in ways:
                seconds[way] += _read(records, count, *way, size)
        rates = {
            way: _pipeline(folder, *way, size, _SECONDS.value)
            for way in itertools.product(POLICIES, ("threads", "processes"), counts)
        }
    rows = [
        {
            "decoder": decoder,
            "augment": augment,
            "per_core": count * rounds / spent,
            "cores": needed * spent / (count * rounds),
        }
        for (decoder, augment), spent in seconds.items()
    ]
    pipeline = [
        {
            "augment": augment,
            "kind": kind,
            "count": number,
            "per_second": rate,
            "scaling": rate / rates[augment, "threads", counts[0]],
            "cores": needed * number / rate,
        }
        for (augment, kind, number), rate in rates.items()
    ]
    return {
        "machine": machine(),
        "pictures": count,
        "rounds": rounds,
        "size": size,
        "kilobytes": sum(map(len, encoded)) / count / 1e3,
        "assumed_images_per_second": needed,
        "rows": rows,
        "pipeline": pipeline,
    }


def _counts() -> list[int]:
    """The numbers of threads and processes to try."""
    if _COUNTS.value is None:
        cores = flags.cores()
        return sorted({cores, *(2**power for power in range(cores.bit_length()))})
    for count in _COUNTS.value:
        if not count.isdecimal() or int(count) < 1:
            raise UserError(f"--counts takes whole numbers above 0, got {count!r}")
    return sorted({int(count) for count in _COUNTS.value})


def _read(records: Records, count: int, decoder: str, augment: str, size: int) -> float:
    """Seconds of the processor for so many pictures."""
    rng = np.random.default_rng(1)
    choose = functools.partial(photographs.random_resized, rng)
    decode, policy = DECODERS[decoder], POLICIES[augment]
    started = time.process_time()
    for index in range(count):
        image = decode(records[index].encoded, choose, size)
        if policy is not None:
            policy(rng, image)
    return time.process_time() - started


def _pipeline(folder: str, augment: str, kind: str, number: int, size: int, seconds: float) -> float:
    """Pictures a second of the stream by the clock, once all of it runs."""
    threads, workers = (number, 0) if kind == "threads" else (1, number)
    stream = open_stream(
        "tfds:photographs",
        data_dir=folder,
        image_size=size,
        augment=augment,
        validation_size=0,
        threads=threads,
        workers=workers,
    )
    batches = stream.train_batches(BATCH)
    for _ in range(2 * number + 2):
        next(batches)  # every process starts, and what was read meanwhile is used up
    started, read = time.perf_counter(), 0
    while not read or time.perf_counter() - started < seconds:
        next(batches)
        read += BATCH
    rate = read / (time.perf_counter() - started)
    batches.close()
    return rate


def tables(figures: dict[str, Any]) -> list[Table]:
    """Pictures a second of a core and of the pipeline, and the cores that a host needs."""
    size, kilobytes = figures["size"], figures["kilobytes"]
    cores = f"cores for {figures['assumed_images_per_second']:,.0f}/s"
    title = f"A core: {WIDTH} x {HEIGHT} pixels, {kilobytes:.0f} kB, to {size} x {size}"
    core = Table("decoder", "augment", "pictures/s", cores, title=title)
    for row in figures["rows"]:
        core.add_row(row["decoder"], row["augment"], f"{row['per_core']:,.0f}", f"{row['cores']:,.0f}")
    title = "The pipeline, by the clock"
    pipeline = Table("augment", "with", "pictures/s", "x the first", cores, title=title)
    for row in figures["pipeline"]:
        speed = f"{row['per_second']:,.0f}", f"{row['scaling']:.2f}", f"{row['cores']:,.0f}"
        pipeline.add_row(row["augment"], f"{row['count']} {row['kind']}", *speed)
    return [core, pipeline]


def main(argv):
    """Measures, prints, and writes the figures."""
    del argv
    logging.set_verbosity(logging.WARNING)  # tfds tells of every file it writes
    needed = _NEEDED.value
    figures = measure(_PICTURES.value, _ROUNDS.value, _SIZE.value, needed)
    console = Console()
    console.print(headline(figures["machine"]), highlight=False)
    console.print(*tables(figures), sep="\n")
    print(f"{needed:,.0f} images/s is an assumption about the host: --images_per_second")
    print(f"written to {write_figures(_WORKDIR.value, 'input_pipeline.json', figures)}")


if __name__ == "__main__":
    flags.run(main, holds=_WORKDIR)
