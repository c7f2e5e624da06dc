"""The settings that the COCO recipes share. The keys are those of `detect_digits.py`.

COCO is read from its own layout: `data.data_dir` holds `train2017/`, `val2017/` and
`annotations/instances_train2017.json` and `instances_val2017.json`. The validation part is val2017, on which
the published figures are. The quick forms train for a few steps on digit scenes, with narrow heads.

We have run none of these recipes in full.
"""

from ml_collections import ConfigDict, config_dict

from experiments.configs import detect_digits
from experiments.configs.search_defaults import check_form


def get_recipe(backbone: str, form: str) -> ConfigDict:
    """The recipe of a backbone before its schedule is chosen; `form` is "full" or "quick"."""
    quick = check_form(form)
    config = detect_digits.get_config()
    config.eval_batch_size = 64
    config.dtype = "bfloat16"
    config.log_every = 100
    config.eval_every = config.checkpoint_every = 7500
    config.model.update({"name": backbone, "levels": (2, 6), "features": 256, "anchor_size": 8.0})
    config.model.update({"box_convs": 4, "box_dense_features": 1024, "mask_convs": 4, "mask_features": 256})
    config.model.outputs = 91  # the largest category id and background
    config.model.remat = True
    config.layer.group_size = None  # 32 groups, whatever the width
    config.statistics_batch = 8  # images of a device in the published trainings
    config.data.update({"source": "coco", "test_split": "", "canvas": 1024, "slots": 100})
    config.data.update({"raw_ids": True, "flip": True, "threads": 16})
    config.proposals.update({"train_candidates": 2000, "test_candidates": 1000, "count": 1000})
    config.sampling.update({"anchors": 256, "positive_anchors": 128})
    config.sampling.update({"regions": 512, "positive_regions": 128})
    config.roi_align.method = "matmul"  # without a scatter, which is slow on a TPU
    config.roi_align.canonical_side = 224.0
    config.detections.update({"candidates": 2000, "count": 100})
    config.optimizer.update({"name": "momentum", "momentum": 0.9, "weight_decay": 4e-5})
    config.optimizer.schedule = "step"
    config.optimizer.clip_norm = config_dict.placeholder(float)
    if quick:
        _make_small(config)
    return config


def _make_small(config: ConfigDict) -> None:
    config.batch_size = config.eval_batch_size = config.statistics_batch = 2
    config.dtype = "float32"
    config.model.update({"features": 32, "box_convs": 1, "box_dense_features": 64})
    config.model.update({"mask_convs": 1, "mask_features": 32, "remat": False})
    config.data.update({"source": "digits", "flip": False, "canvas": 128, "slots": 8, "threads": 2})
    config.proposals.update({"train_candidates": 64, "test_candidates": 64, "count": 32})
    config.sampling.update({"anchors": 64, "positive_anchors": 32, "regions": 16, "positive_regions": 4})
    config.detections.update({"candidates": 100, "count": 10})
