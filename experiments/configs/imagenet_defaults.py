"""The settings that all ImageNet recipes share. The keys are those of `train.py`; no layer was tuned for.

ImageNet is `tfds:imagenet2012`, prepared once as array_record. Its published validation split is the test
part. 10,000 images of the training split are held out as validation part, by which checkpoints are chosen.

A host with fast devices needs `--config.data.workers`, a process for each two or three of its cores, with as
many `--config.data.threads`. `experiments.benchmarks.input_pipeline` measures their speed.

`--config.data.source=synthetic:1000x3` runs any recipe on synthetic images of ImageNet's shape, with epochs
as long as ImageNet's, and so measures the devices without ImageNet. Add `--config.epochs=0.1` to shorten it.
"""

from ml_collections import ConfigDict

from experiments.configs import train
from experiments.configs.search_defaults import check_form

IMAGES = 1_281_167 - 10_000


def get_recipe(model: str, form: str, *, batch_size: int, epochs: int, image_size: int = 224) -> ConfigDict:
    """The recipe of a model before its optimizer is chosen.

    Args:
      model: name in evonorms_jax.models.
      form: "full" or "quick", a few steps on small synthetic images.
      batch_size: images of a step on all devices together.
      epochs: length of the full form.
      image_size: side of the images in training and evaluation.
    """
    quick = check_form(form)
    config = train.get_config()
    config.model.name = model
    config.epochs = float(epochs)
    config.batch_size = batch_size
    config.eval_batch_size = 1024
    config.dtype = "bfloat16"
    config.log_every = 100
    config.eval_every = config.checkpoint_every = 1250  # about an epoch of 1,024
    config.layer.spec = "bn_relu"
    config.layer.group_size = None  # 32 groups, whatever the width
    config.data.source = "tfds:imagenet2012"
    config.data.stream = True
    config.data.validation_size = 1_281_167 - IMAGES
    config.data.crop = image_size
    config.data.flip = True
    config.optimizer.reference_batch = 256
    config.optimizer.warmup_epochs = 5.0
    if quick:
        config.epochs = 4.0
        config.batch_size = config.eval_batch_size = 32
        config.log_every, config.eval_every, config.checkpoint_every = 4, 16, 16
        config.optimizer.warmup_epochs = 1.0
        config.data.update({"source": "synthetic", "stream": False, "image_size": 32, "crop": 32})
        config.data.update({"train_size": 128, "validation_size": 32})
    return config


def cap_statistics_batch(config: ConfigDict, size: int) -> None:
    """Makes `size` images share batch statistics, or the whole batch if it is smaller."""
    config.statistics_batch = min(size, config.batch_size)
