"""Photographs per second that a host reads for training, and the number of cores that a TPU host needs.

  python -m experiments.benchmarks.input_pipeline
  python -m experiments.benchmarks.input_pipeline --size=300 --images_per_second=4000 --counts=1,8,32

It makes up photographs of the size of ImageNet's, 500 x 375 pixels and about 110 kB, and writes them in the
format that training reads. Two things are measured:

- One core, from a record to an augmented image, photograph by photograph. Our decoder reads a JPEG at a
  reduced scale where that suffices, Pillow reads all of it. Each runs with and without RandAugment, by turns.
  Only processor time counts, so other load on the machine hardly matters.
- The pipeline with its batches, for several numbers of threads in one process, and of processes with one
  thread each (`config.data.threads` and `config.data.workers`). This is wall-clock time, so the machine
  should be idle.

The threads of one process take turns in Python, which was about a third of the work on two cores. Threads
alone will therefore hardly keep more than three cores busy. The speed of many processes must be measured on a
machine with many cores. The table extrapolates the number of cores for a demand from the measured rate of a
core.

The demand of a host is an assumption: 16,000 images/s for the eight chips of a v5e-8, 2,000 each, a quarter
of the rate that their arithmetic allows for ResNet-50.

On two cores it takes about two minutes, nearly all of it in the pipeline: `--seconds` for each of its rows,
and the start of its processes. Expected of a core of a cloud machine: 570 photographs/s with our decoder, 330
with RandAugment, 380 and 250 with Pillow.
"""

import functools
import io
import itertools
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import simplejpeg
from absl import flags as absl_flags
from absl import logging
from PIL import Image
from rich.table import Table

from evonorms_jax.data import DataSettings, open_stream, photographs
from evonorms_jax.data.photographs import decode_crop
from evonorms_jax.data.policies import RandAugment
from evonorms_jax.data.prepared import Records, open_prepared
from experiments import flags
from experiments.benchmarks import results
from experiments.benchmarks.prepared_set import write_set

HEIGHT, WIDTH, QUALITY = 375, 500, 87
OURS, PILLOW = "libjpeg-turbo, reduced", "Pillow, whole"
BATCH = 64
POLICIES = {"none": None, "randaugment": RandAugment()}

FLAGS = absl_flags.FLAGS


def define_flags() -> None:
    """Defines the flags of this main. A function, so that tests can import the file."""
    absl_flags.DEFINE_integer("pictures", 128, "Number of photographs.", lower_bound=1)
    absl_flags.DEFINE_integer("rounds", 3, "Number of readings in each way.", lower_bound=1)
    absl_flags.DEFINE_integer("size", 224, "Side of the images to train on.", lower_bound=1)
    absl_flags.DEFINE_float(
        "images_per_second", 16_000.0, "Assumed demand of a host in images/s.", lower_bound=1
    )
    absl_flags.DEFINE_list(
        "counts", None, "Numbers of threads and processes, by default 1, 2, 4 and so on up to all cores."
    )
    absl_flags.DEFINE_float("seconds", 8.0, "Seconds for each row of the pipeline.", lower_bound=0)
    flags.define_results()


def main(argv):
    """Measures, prints the tables, and writes the results."""
    del argv
    logging.set_verbosity(logging.WARNING)  # tfds logs every file that it writes
    needed = FLAGS.images_per_second
    measured = measure(
        FLAGS.pictures, FLAGS.rounds, FLAGS.size, needed, counts=_counts(FLAGS.counts), seconds=FLAGS.seconds
    )
    note = f"{needed:,.0f} images/s is an assumption about the host: --images_per_second"
    results.publish(FLAGS.workdir, "input_pipeline.json", measured, *tables(measured), note)


def _counts(values: Sequence[str] | None) -> list[int]:
    if values is None:
        cores = flags.cores()
        return sorted({cores, *(2**power for power in range(cores.bit_length()))})
    return sorted(set(flags.whole_numbers("counts", values)))


def photograph(rng: np.random.Generator) -> bytes:
    """A JPEG of noise whose amplitude falls with the frequency, as in photographs."""
    frequency = np.hypot(np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH))
    frequency[0, 0] = np.inf
    parts = rng.normal(size=(2, 4, *frequency.shape))
    planes = np.fft.irfft2((parts[0] + 1j * parts[1]) / frequency, s=(HEIGHT, WIDTH))
    planes /= planes.std((1, 2), keepdims=True)
    # Color varies less than brightness.
    levels = 118 + 55 * planes[0][..., None] + 20 * np.moveaxis(planes[1:], 0, -1)
    levels = np.ascontiguousarray(np.clip(levels, 0, 255).astype(np.uint8))
    return simplejpeg.encode_jpeg(levels, quality=QUALITY, colorsubsampling="420")


def decode_whole(encoded: bytes, choose: Callable[[int, int], photographs.Box], size: int) -> np.ndarray:
    """The function of `decode_crop`, written with Pillow."""
    with Image.open(io.BytesIO(encoded)) as picture:
        whole = picture.convert("RGB")
    top, left, height, width = choose(whole.height, whole.width)
    box = (left, top, left + width, top + height)
    return np.asarray(whole.resize((size, size), Image.Resampling.BILINEAR, box))


DECODERS = {OURS: decode_crop, PILLOW: decode_whole}


def measure(
    count: int, rounds: int, size: int, needed: float, *, counts: Sequence[int], seconds: float
) -> dict[str, Any]:
    """Makes photographs and reads them in each way on one core, then through the pipeline.

    Args:
      count: number of photographs.
      rounds: number of readings of each in each way.
      size: side of the images to train on.
      needed: assumed demand of a host in images/s.
      counts: numbers of threads and processes of the pipeline.
      seconds: least time for each row of the pipeline.

    Returns:
      A JSON object: `rows` for each decoder and policy with photographs per second and core, and `pipeline`
      for each policy and number of threads or processes with photographs per second. Both have the number of
      cores for the demand at that rate.
    """
    rng = np.random.default_rng(0)
    encoded = [photograph(rng) for _ in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        write_set(folder, "photographs", {"train": [(each, 0) for each in encoded]}, num_classes=1)
        rows = _measure_core(folder, count, rounds, size, needed)
        pipeline = _measure_pipeline(folder, counts, size, seconds, needed)
    return {
        "machine": results.machine(),
        "pictures": count,
        "rounds": rounds,
        "size": size,
        "kilobytes": sum(map(len, encoded)) / count / 1e3,
        "assumed_images_per_second": needed,
        "rows": rows,
        "pipeline": pipeline,
    }


def _measure_core(folder: str, count: int, rounds: int, size: int, needed: float) -> list[dict[str, Any]]:
    records = open_prepared("photographs", folder).records("train")
    ways = list(itertools.product(DECODERS, POLICIES))
    spent = dict.fromkeys(ways, 0.0)
    for way in ways:
        _read(records, 1, *way, size)  # opens files and fills caches
    for _ in range(rounds):
        for way in ways:
            spent[way] += _read(records, count, *way, size)
    return [
        {
            "decoder": decoder,
            "augment": augment,
            "per_core": count * rounds / seconds,
            "cores": needed * seconds / (count * rounds),
        }
        for (decoder, augment), seconds in spent.items()
    ]


def _measure_pipeline(
    folder: str, counts: Sequence[int], size: int, seconds: float, needed: float
) -> list[dict[str, Any]]:
    ways = itertools.product(POLICIES, ("threads", "processes"), counts)
    rates = {way: _pipeline(folder, *way, size, seconds) for way in ways}
    return [
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


def _read(records: Records, count: int, decoder: str, augment: str, size: int) -> float:
    """Processor seconds for the first `count` photographs."""
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
    """Photographs per second of the stream in wall-clock time, once all of its processes run."""
    threads, workers = (number, 0) if kind == "threads" else (1, number)
    settings = DataSettings(
        "tfds:photographs",
        data_dir=folder,
        crop=size,
        flip=True,
        augment=augment,
        validation_size=0,
        threads=threads,
        workers=workers,
    )
    batches = open_stream(settings).train_batches(BATCH)
    for _ in range(2 * number + 2):
        next(batches)  # starts every process and uses up the batches read meanwhile
    started, read = time.perf_counter(), 0
    while not read or time.perf_counter() - started < seconds:
        next(batches)
        read += BATCH
    rate = read / (time.perf_counter() - started)
    batches.close()
    return rate


def tables(measured: dict[str, Any]) -> list[Table]:
    """Photographs per second of a core and of the pipeline, and the cores for the demand of a host."""
    size, kilobytes = measured["size"], measured["kilobytes"]
    cores = f"cores for {measured['assumed_images_per_second']:,.0f}/s"
    title = f"A core: {WIDTH} x {HEIGHT} pixels, {kilobytes:.0f} kB, to {size} x {size}"
    core = Table("decoder", "augment", "pictures/s", cores, title=title)
    for row in measured["rows"]:
        core.add_row(row["decoder"], row["augment"], f"{row['per_core']:,.0f}", f"{row['cores']:,.0f}")
    title = "The pipeline, by the clock"
    pipeline = Table("augment", "with", "pictures/s", "x the first", cores, title=title)
    for row in measured["pipeline"]:
        speed = f"{row['per_second']:,.0f}", f"{row['scaling']:.2f}", f"{row['cores']:,.0f}"
        pipeline.add_row(row["augment"], f"{row['count']} {row['kind']}", *speed)
    return [core, pipeline]


if __name__ == "__main__":
    define_flags()
    flags.run(main, holds="workdir")
