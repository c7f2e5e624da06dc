"""Writes an image classification set as tensorflow_datasets would have prepared it, without TensorFlow."""

import contextlib
import io
import os
from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow_datasets as tfds


def write_set(
    data_dir: str | os.PathLike,
    name: str,
    splits: Mapping[str, Iterable[tuple[Any, int]]],
    *,
    num_classes: int,
    shape: tuple[int | None, int | None, int] = (None, None, 3),
    version: str = "1.0.0",
    config: str | None = None,
    label: tfds.features.FeatureConnector | None = None,
) -> None:
    """Writes `data_dir`/NAME[/CONFIG]/VERSION in the format array_record; one that is there is left alone.

    Within a split the records get an order of tfds's own, which looks random.

    Args:
        data_dir: folder of tfds.
        name: name of the set, in lower case with underscores.
        splits: images with their labels by name of the split. An image is an encoded PNG or JPEG, stored as
            it is, or a picture of Pillow, stored as PNG.
        num_classes: number of classes. Labels count from 0, and -1 is no label.
        shape: (H, W, C) of the images; None where it varies.
        version: MAJOR.MINOR.PATCH.
        config: name of the config, if the set has several.
        label: a feature in place of the class label.
    """

    class Pictures(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version(version)
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config)] if config else []

        def _info(self):
            features = {
                "id": tfds.features.Text(),
                "image": tfds.features.Image(shape=shape),
                "label": label or tfds.features.ClassLabel(num_classes=num_classes),
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(examples) for split, examples in splits.items()}

        def _generate_examples(self, examples):
            for number, (image, target) in enumerate(examples):
                image = io.BytesIO(image) if isinstance(image, bytes) else image
                yield number, {"id": f"{number}", "image": image, "label": target}

    Pictures.name = name
    tfds.disable_progress_bar()
    # tfds prints that it downloads, which here it does not.
    with contextlib.redirect_stdout(io.StringIO()):
        Pictures(data_dir=os.fspath(data_dir), file_format="array_record").download_and_prepare()
