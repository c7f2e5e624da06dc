"""The group `data` of a config: one record with all that a reader of images needs to know."""

import difflib
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from evonorms_jax.data.policies import AutoAugment, Policy, RandAugment
from evonorms_jax.errors import UserError

#: Policies by the name that `augment` has; each function gets `randaugment`.
AUGMENT: dict[str, Callable[[Mapping[str, float]], Policy | None]] = {
    "none": lambda randaugment: None,
    "randaugment": lambda randaugment: RandAugment(**randaugment),
    "autoaugment": lambda randaugment: AutoAugment(),
}


class DataSettings(NamedTuple):
    """Which images are read, and how. The fields are the keys of `config.data`.

    A search has the keys down to `flip`. The fields below it matter to a stream alone.

    Attributes:
        source: `mnist5k`, `cifar10`, `synthetic`, `synthetic:CLASSESxCHANNELS` for other than four classes
            and one channel, or `tfds:NAME[/CONFIG][:VERSION]` for any image classification set that
            tensorflow_datasets has prepared as array_record. `tfds:NAME` and `synthetic:CLASSESx3` can be
            streamed.
        seed: seed of the split into train and validation, at least 0. The test part is the same for all.
        train_size: images to train on, by default all that the other parts leave.
        validation_size: images to validate on, by default a tenth of all images in memory (128 of
            `synthetic`) and a hundredth of `train` in a stream. A stream accepts 0.
        image_size: side to which images are resized after a central square crop, by default the stored size.
            In a stream it is the side in evaluation, by default `crop`.
        data_dir: folder of tfds, by default $TFDS_DATA_DIR, or else `~/tensorflow_datasets`.
        crop: side P of the images to train on.
        flip: whether half of the images are mirrored in training.
        stream: whether pictures are read during the training instead of being held in memory.
        augment: "none", "randaugment" or "autoaugment", for training.
        randaugment: keywords of `RandAugment`.
        threads: threads of each process that read and decode.
        workers: processes that read and decode for training; 0 means this process alone, which evaluation
            always uses. A third of the work on a picture is Python, at which the threads of a process take
            turns, so one process keeps about three cores busy. A process takes seconds to start, and a main
            needs `if __name__ == "__main__"`.
    """

    source: str
    seed: int = 0
    train_size: int | None = None
    validation_size: int | None = None
    image_size: int | None = None
    data_dir: str | None = None
    crop: int | None = None
    flip: bool = False
    stream: bool = False
    augment: str = "none"
    randaugment: Mapping[str, float] = RandAugment()._asdict()
    threads: int = 16
    workers: int = 0

    def check(self) -> None:
        """Raises `ValueError` at the first field that is out of its range or unknown."""
        least = {"seed": 0, "image_size": 1, "crop": 1, "threads": 1, "workers": 0}
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                raise UserError(f"data.{name} must be at least {bound}, got {value}")
        if self.augment not in AUGMENT:
            near = difflib.get_close_matches(self.augment, AUGMENT, n=1)
            hint = f", did you mean {near[0]!r}?" if near else ";"
            raise UserError(f"unknown augment {self.augment!r}{hint} there are {', '.join(AUGMENT)}")
        layers, magnitude = RandAugment(**self.randaugment)
        if layers < 0 or not 0 <= magnitude < math.inf:
            names = "data.randaugment.layers and data.randaugment.magnitude"
            raise UserError(f"{names} must be at least 0, got {layers} and {magnitude}")

    def policy(self) -> Policy | None:
        """The augmentation policy, None for `augment="none"`."""
        return AUGMENT[self.augment](self.randaugment)
