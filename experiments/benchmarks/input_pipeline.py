"""How many pictures a second does a core read for training, and how many cores does a TPU host need?

  python -m experiments.benchmarks.input_pipeline
  python -m experiments.benchmarks.input_pipeline --size=300 --images_per_second=4000

Photographs as large as ImageNet's, 500 x 375 pixels and some 110 kB, are made up and written in the format
that training reads. From record to augmented image, one after the other, they go through our decoder, which
decodes a JPEG at a reduced scale where that suffices, and through Pillow, which decodes all of it, each with
and without RandAugment; the two take turns, round by round. Pictures a second are counted in the time of the
processor, so other work on the machine hardly matters. The whole pipeline, with threads and batches, is
measured by the clock.

What a host has to deliver is an assumption, not a measurement: 16,000 images/s for the eight chips of a
v5e-8, 2,000 each, a quarter of what their arithmetic allows for ResNet-50.

Expected of a core of a cloud machine, in a quarter of a minute: 570 pictures/s with ours and 330 with
RandAugment, 380 and 250 with Pillow. That threads on many cores get as much of each is not measured here.
"""

import functools
import io
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import simplejpeg
from absl import app, flags, logging
from PIL import Image
from rich.console import Console
from rich.table import Table

from evonorms_jax.data import crops, open_stream
from evonorms_jax.data.jpeg import decode_crop
from evonorms_jax.data.policies import RandAugment
from evonorms_jax.data.prepared import Records, open_prepared
from evonorms_jax.data.writing import write_set
from experiments.benchmarks.candidates import headline, machine, write_figures
from experiments.flags import cores

_PICTURES = flags.DEFINE_integer("pictures", 128, "Photographs made up.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 3, "How often each is read in each way.", lower_bound=1)
_SIZE = flags.DEFINE_integer("size", 224, "Side of the images to train on.", lower_bound=1)
_NEEDED = flags.DEFINE_float(
    "images_per_second", 16_000.0, "What a host has to deliver, an assumption.", lower_bound=1
)
_WORKDIR = flags.DEFINE_string("workdir", "runs/benchmarks", "Where input_pipeline.json is written.")

HEIGHT, WIDTH, QUALITY = 375, 500, 87
OURS, PILLOW = "libjpeg-turbo, reduced", "Pillow, whole"
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


def decode_whole(encoded: bytes, choose: Callable[[int, int], crops.Box], size: int) -> np.ndarray:
    """What `decode_crop` does, as one would write it with Pillow."""
    with Image.open(io.BytesIO(encoded)) as picture:
        whole = picture.convert("RGB")
    top, left, height, width = choose(whole.height, whole.width)
    box = (left, top, left + width, top + height)
    return np.asarray(whole.resize((size, size), Image.Resampling.BILINEAR, box))


DECODERS = {OURS: decode_crop, PILLOW: decode_whole}


def measure(count: int, rounds: int, size: int, needed: float) -> dict[str, Any]:
    """Makes `count` photographs and reads them `rounds` times in each way.

    Returns:
      A JSON object: a row for each decoder and policy with pictures a second and core, and one for each
      policy through the whole pipeline; cores that `needed` pictures a second take.
    """
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
        pipeline = [_pipeline(folder, augment, count, rounds, size) for augment in POLICIES]
    rows = [
        {
            "decoder": decoder,
            "augment": augment,
            "per_core": count * rounds / spent,
            "cores": needed * spent / (count * rounds),
        }
        for (decoder, augment), spent in seconds.items()
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


def _read(records: Records, count: int, decoder: str, augment: str, size: int) -> float:
    """Seconds of the processor for so many pictures."""
    rng = np.random.default_rng(1)
    choose = functools.partial(crops.random_resized, rng)
    decode, policy = DECODERS[decoder], POLICIES[augment]
    started = time.process_time()
    for index in range(count):
        image = decode(records[index].encoded, choose, size)
        if policy is not None:
            policy(rng, image)
    return time.process_time() - started


def _pipeline(folder: str, augment: str, count: int, rounds: int, size: int) -> dict[str, Any]:
    """The clock's pictures a second of the stream, after the first batch."""
    threads = cores()
    stream = open_stream(
        "tfds:photographs",
        data_dir=folder,
        image_size=size,
        augment=augment,
        validation_size=0,
        threads=threads,
    )
    batch_size = max(1, count // 4)
    batches = stream.train_batches(batch_size)
    next(batches)
    started = time.perf_counter()
    number = 4 * rounds
    for _ in range(number):
        next(batches)
    seconds = time.perf_counter() - started
    batches.close()
    return {"augment": augment, "threads": threads, "per_second": number * batch_size / seconds}


def rows_table(figures: dict[str, Any]) -> Table:
    """Pictures a second and core, and the cores that a host needs."""
    size, kilobytes = figures["size"], figures["kilobytes"]
    table = Table(title=f"{WIDTH} x {HEIGHT} pixels, {kilobytes:.0f} kB, to {size} x {size}")
    table.add_column("decoder", no_wrap=True)
    table.add_column("augment", no_wrap=True)
    table.add_column("pictures/s a core", justify="right")
    table.add_column(f"cores for {figures['assumed_images_per_second']:,.0f}/s", justify="right")
    for row in figures["rows"]:
        table.add_row(row["decoder"], row["augment"], f"{row['per_core']:,.0f}", f"{row['cores']:,.0f}")
    return table


def summary(figures: dict[str, Any]) -> list[str]:
    """The whole pipeline, and what the cores rest on."""
    lines = [
        f"whole pipeline, {row['augment']}: {row['per_second']:,.0f} pictures/s by the clock, "
        f"{row['threads']} threads"
        for row in figures["pipeline"]
    ]
    needed = figures["assumed_images_per_second"]
    return [*lines, f"{needed:,.0f} images/s is an assumption about the host: --images_per_second"]


def main(argv: Sequence[str]) -> None:
    """Measures, prints, and writes the figures."""
    if len(argv) > 1:
        sys.exit(f"unexpected argument {argv[1]!r}: flags start with --")
    logging.set_verbosity(logging.WARNING)  # tfds tells of every file it writes
    figures = measure(_PICTURES.value, _ROUNDS.value, _SIZE.value, _NEEDED.value)
    console = Console()
    console.print(headline(figures["machine"]), highlight=False)
    console.print(rows_table(figures))
    console.print("\n".join(summary(figures)), highlight=False, soft_wrap=True)
    print(f"written to {write_figures(_WORKDIR.value, 'input_pipeline.json', figures)}")


if __name__ == "__main__":
    app.run(main)
