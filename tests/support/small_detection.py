"""A config of a detector for digit scenes that trains within seconds."""

from experiments.configs import detect_digits


def small(digits, **overrides):
    """The digit config for a few steps of a narrow network on a small canvas.

    Args:
      digits: `CocoSettings` of a few scenes.
      **overrides: values by dotted key.
    """
    config = detect_digits.get_config("quick")
    sizes = {name: getattr(digits, name) for name in ("train_size", "validation_size", "test_size")}
    config.data.update(sizes | {"data_dir": digits.data_dir, "canvas": 64})
    config.model.update({"features": 8, "box_dense_features": 8, "mask_convs": 0, "mask_features": 8})
    config.proposals.update({"train_candidates": 16, "test_candidates": 16, "count": 12})
    config.sampling.update({"anchors": 16, "positive_anchors": 8, "regions": 8, "positive_regions": 2})
    config.detections.update({"candidates": 20, "count": 5})
    settings = {"steps": 4, "batch_size": 2, "eval_batch_size": 8, "log_every": 1, "eval_every": 4}
    settings["optimizer.warmup_steps"] = 2
    config.update_from_flattened_dict(settings | {"checkpoint_every": 2} | overrides)
    return config
