"""The group `data` of a detection config."""

from typing import NamedTuple

from evonorms_jax.errors import UserError

DIGITS, COCO = "digits", "coco"
DAMAGED = ("skip", "refuse")


class CocoSettings(NamedTuple):
    """Which images a detector sees, and how. The fields are the keys of `config.data`.

    Attributes:
        source: "digits", scenes made of the embedded digits, or "coco", a folder in COCO's layout.
        data_dir: the folder in COCO's layout, by default `~/coco`, or the folder that keeps sets of digit
            scenes, by default `~/.cache/evonorms_jax/digit_scenes`.
        seed: seed of the digit scenes, at least 0.
        train_split: name of the folder of the training images. Its annotations are
            `annotations/instances_NAME.json`.
        validation_split: name of the split to validate on, "" for no validation part.
        test_split: name of the split to test on, "" for no test part.
        train_size: number of images of the training split in the order of their ids, by default all. It is
            the number of scenes to make of digits, by default 2,000.
        validation_size: likewise, by default 250 scenes.
        test_size: likewise, by default 250 scenes.
        canvas: side P of the square that images are resized to or cut from.
        slots: number M of objects that an image can have in training. Further ones are left out.
        scale: range of the longer side in training, in canvas sides.
        flip: whether half of the images are mirrored in training.
        raw_ids: whether the class of a category is its id. By default, it is its place in the order of ids.
        keep_empty: whether to train on images without an object.
        damaged: "skip" for a warning about a damaged picture, whose place the next one takes in training, or
            "refuse" for an error.
        threads: threads of each process that read and decode.
        workers: processes that read and decode for training. 0 means this process alone.
    """

    source: str
    data_dir: str | None = None
    seed: int = 0
    train_split: str = "train2017"
    validation_split: str = "val2017"
    test_split: str = ""
    train_size: int | None = None
    validation_size: int | None = None
    test_size: int | None = None
    canvas: int = 1024
    slots: int = 100
    scale: tuple[float, float] = (1.0, 1.0)
    flip: bool = False
    raw_ids: bool = False
    keep_empty: bool = False
    damaged: str = "skip"
    threads: int = 16
    workers: int = 0

    def splits(self) -> dict[str, tuple[str, int | None]]:
        """Name and size of the split of each part that has one."""
        found = {
            "train": (self.train_split, self.train_size),
            "validation": (self.validation_split, self.validation_size),
            "test": (self.test_split, self.test_size),
        }
        return {part: split for part, split in found.items() if split[0]}

    def check(self) -> None:
        """Raises `UserError` at the first field that is out of its range or unknown."""
        least = {"seed": 0, "canvas": 1, "slots": 1, "threads": 1, "workers": 0}
        least |= dict.fromkeys(("train_size", "validation_size", "test_size"), 1)
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                raise UserError(f"data.{name} must be at least {bound}, got {value}")
        for name, known in (("source", (DIGITS, COCO)), ("damaged", DAMAGED)):
            if getattr(self, name) not in known:
                raise UserError(f"data.{name} must be {' or '.join(known)}, got {getattr(self, name)!r}")
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1]:
            raise UserError(f"data.scale must be two numbers above 0 in ascending order, got {self.scale}")
        if not self.train_split:
            raise UserError("data.train_split must name a split, got ''")
