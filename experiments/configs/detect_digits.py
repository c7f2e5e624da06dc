"""Instance segmentation of digits: a small Mask R-CNN on scenes made of the embedded real digits.

    python -m experiments.detect --config=experiments/configs/detect_digits.py --workdir=runs/detect
    python -m experiments.detect --config=experiments/configs/detect_digits.py:quick --workdir=runs/quick

Overrides choose any layer, such as `--config.layer.spec=evonorm_s0`, and the parts that have it. The first
training makes 2,000 scenes for training and 250 each for validation and test, and keeps them. With BN-ReLU
box AP is 0.55 and mask AP 0.40, after 14 minutes on two x86-64 cores (docs/results.md). It shows that all
parts work, and whether a layer bears few images for its statistics. It does not rank layers as COCO does.
"""

from ml_collections import ConfigDict, config_dict

from experiments.configs.search_defaults import check_form


def get_config(form: str = "full") -> ConfigDict:
    """The config; `form` is "full" or "quick"."""
    quick = check_form(form)
    config = ConfigDict()
    config.task = "detection"
    config.seed = 0  # seed of the initial parameters, the order of the images and the samples of a step
    config.steps = 3500
    config.epochs = config_dict.placeholder(float)  # length in epochs, which overrides steps
    config.batch_size = 8  # images of a step on all devices together
    config.eval_batch_size = 10
    config.statistics_batch = config_dict.placeholder(int)  # images that share batch moments, or all
    config.accumulate = 1  # parts of a batch that are worked on one after the other, to save memory
    config.dtype = "float32"  # dtype of activations, or "bfloat16"; parameters and statistics stay float32
    config.log_every = 20  # in steps, as the next two
    config.eval_every = 700  # each evaluation is followed by a checkpoint
    config.checkpoint_every = 700

    # The fields of DetectorSettings in evonorms_jax/detection/detector.py, which describes each.
    config.model = ConfigDict({"name": "resnet_digits", "levels": (2, 4), "features": 48, "top": "conv"})
    config.model.anchor_size = 6.0  # digits are 24 to 144 pixels high
    config.model.update({"box_convs": 0, "box_dense": 1, "box_dense_features": 256})
    config.model.update({"mask_convs": 2, "mask_features": 32})
    config.model.norm_in = ("backbone", "fpn", "rpn", "box", "mask")
    config.model.merge_activation = "relu"  # of a SpineNet
    config.model.outputs = config_dict.placeholder(int)  # classes with background, by default the data's
    config.model.remat = False

    # The keywords of evonorms_jax.norm_act, as in train.py.
    config.layer = ConfigDict({"spec": "bn_relu", "epsilon": 1e-5, "momentum": 0.9})
    config.layer.groups = 32
    config.layer.group_size = 8  # channels of a group, which overrides groups

    # The fields of CocoSettings in evonorms_jax/detection/settings.py, which describes each.
    config.data = ConfigDict({"source": "digits", "data_dir": config_dict.placeholder(str), "seed": 0})
    config.data.train_split, config.data.validation_split = "train2017", "val2017"
    config.data.test_split = "test2017"
    config.data.train_size = config_dict.placeholder(int)
    config.data.validation_size = config_dict.placeholder(int)
    config.data.test_size = config_dict.placeholder(int)
    # Scenes have up to 160 pixels. Enlarged ones give better masks, and hardly cost more.
    config.data.update({"canvas": 192, "slots": 8, "scale": (1.0, 1.0)})
    config.data.flip = False  # a mirrored digit is no digit
    config.data.raw_ids = False
    config.data.keep_empty = False
    config.data.damaged = "skip"
    config.data.update({"threads": 2, "workers": 0})

    # The fields of ProposalSettings, SamplingSettings, RoiAlign and DetectionSettings in
    # evonorms_jax/detection: proposals.py, regions.py, roi_align.py and forward.py.
    config.proposals = ConfigDict({"train_candidates": 256, "test_candidates": 256, "count": 128})
    config.proposals.threshold = 0.7
    config.sampling = ConfigDict({"anchors": 64, "positive_anchors": 32})
    config.sampling.update({"regions": 32, "positive_regions": 8})
    config.roi_align = ConfigDict({"method": "matmul", "sampling_ratio": 2, "aligned": True})
    config.roi_align.update({"canonical_side": 168.0, "chunk": 64})
    config.detections = ConfigDict({"least_score": 0.05, "candidates": 500, "threshold": 0.5, "count": 20})

    # The fields of OptimizerSettings in evonorms_jax/training/optimizer.py.
    config.optimizer = ConfigDict({"name": "adamw", "momentum": 0.9, "weight_decay": 0.05})
    config.optimizer.decayed = "kernels"
    config.optimizer.learning_rate = 0.003
    config.optimizer.reference_batch = config_dict.placeholder(int)
    config.optimizer.schedule = "cosine"
    config.optimizer.drops = (1 / 3, 2 / 3)  # of the schedule "step", as shares of the length
    config.optimizer.warmup_steps = 100
    config.optimizer.warmup_epochs = config_dict.placeholder(float)
    config.optimizer.clip_norm = 10.0  # None turns clipping off

    if quick:
        shorten(config)
    return config


def shorten(config: ConfigDict) -> None:
    """Makes a config of digit scenes end on a CPU after a few steps."""
    config.steps = 20
    config.log_every = 5
    config.eval_every = config.checkpoint_every = 10
    config.optimizer.warmup_steps = 5
    config.data.update({"train_size": 40, "validation_size": 10, "test_size": 10})
