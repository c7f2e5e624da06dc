"""The keys of all tables of layers x networks x seeds, with the values that most of them share."""

from ml_collections import ConfigDict, config_dict


def get_table(task: str, metrics: tuple[str, ...]) -> ConfigDict:
    """The config of a table without its name, layers and networks.

    Args:
      task: kind of training, a key of `TRAINERS` in `evonorms_jax/study/full_training.py`.
      metrics: columns, of the metrics of the task. "nan_share" can be one more.
    """
    config = ConfigDict()
    config.task = task
    config.metrics = metrics
    config.name = ""
    config.layers = ()  # rows: names, or layers of a search such as runs/mnist5k/top_layers.json#0
    # Further rows: compare_methods.json of a comparison of methods, or its work directory. "" adds none.
    config.comparison = ""
    config.seeds = (0, 1, 2)
    config.batches = config_dict.placeholder(tuple)  # numbers of images that share batch statistics
    config.workers = config_dict.placeholder(int)  # batch_size is that many times such a number
    config.networks = ()  # columns: "NAME RECIPE KEY=VALUE ...", a recipe is a config file with its form
    config.overrides = ()  # of the recipes of all networks, KEY=VALUE each
    return config
