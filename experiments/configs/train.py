"""One network with one layer on one data set: EvoNorm-B0 in the small ResNet on 4,000 real digits.

    python -m experiments.train --config=experiments/configs/train.py --workdir=runs/train
    python -m experiments.train --config=experiments/configs/train.py:quick --workdir=runs/quick

Any other network, layer and data set by overrides. On two CPU cores the default takes about a minute and
reaches 96 % validation and 98 % test accuracy; the quick form takes a quarter of one and stops at 31 %.
"""

from ml_collections import ConfigDict, config_dict

from experiments.configs.search_defaults import check_form


def get_config(form: str = "full") -> ConfigDict:
    """The config; `form` is "full" or "quick", which ends in about a minute on two CPU cores."""
    quick = check_form(form)
    config = ConfigDict()
    config.seed = 0  # of the initial parameters, the order of the images, crops, flips and dropout
    config.steps = 1000
    config.epochs = config_dict.placeholder(float)  # goes before steps
    config.batch_size = 64  # over all devices
    config.eval_batch_size = 256
    config.statistics_batch = config_dict.placeholder(int)  # images that share batch moments; None is all
    config.accumulate = 1  # parts that a batch is worked on in, to save memory: sums in another order
    config.dtype = "float32"  # or "bfloat16", of activations; parameters and statistics stay float32
    config.label_smoothing = 0.0
    config.mixup = 0.0  # alpha; 0 is none
    config.average_decay = 0.0  # of a moving average of the parameters to evaluate with; 0 is none
    config.log_every = 20  # steps; so are the next two
    config.eval_every = 200  # and a checkpoint with what it gave
    config.checkpoint_every = 200

    # A name of evonorms_jax.models: an anchor or a full-size model.
    # What is None is as the model has it; drop-connect is of the mobile networks, dropout of EfficientNet.
    config.model = ConfigDict({"name": "resnet_small", "width": config_dict.placeholder(float)})
    config.model.dropout_rate = config_dict.placeholder(float)
    config.model.drop_connect_rate = config_dict.placeholder(float)

    # A name, or a layer found by a search: runs/mnist5k/top_layers.json#0.
    config.layer = ConfigDict({"spec": "evonorm_b0", "epsilon": 1e-5, "momentum": 0.9})
    config.layer.groups = 32
    config.layer.group_size = 8  # channels; goes before groups

    # mnist5k, cifar10, synthetic, synthetic:CLASSESxCHANNELS (1000x3 is as ImageNet) or tfds:NAME; sizes that
    # are None are those of the data set.
    config.data = ConfigDict({"source": "mnist5k", "seed": 0})  # the seed parts train and validation
    config.data.train_size = config_dict.placeholder(int)
    config.data.validation_size = config_dict.placeholder(int)
    config.data.image_size = config_dict.placeholder(int)
    config.data.data_dir = config_dict.placeholder(str)
    config.data.crop = 24  # side of the square; the side of the images takes them whole
    config.data.flip = False  # a mirrored digit is none
    # Reads pictures as they are needed, with random-resized crops: tfds:NAME, or synthetic:CLASSESx3 to see
    # what the devices can take. Otherwise all are held in memory and the rest here has no meaning.
    config.data.stream = False
    config.data.threads = 16  # that decode, of each process
    config.data.workers = 0  # processes that decode; 0 is the training's own, good for three cores or so
    config.data.augment = "none"  # or "randaugment" or "autoaugment"
    config.data.randaugment = ConfigDict({"layers": 2, "magnitude": 9})

    config.optimizer = ConfigDict({"name": "sgd", "momentum": 0.9, "weight_decay": 1e-4})  # or "rmsprop"
    config.optimizer.learning_rate = 0.1
    config.optimizer.reference_batch = config_dict.placeholder(int)  # that the rate is for; it scales with B
    # Or "constant"; "step": x0.1 at 1/3, 2/3 and 8/9; "exponential": x0.97, 146 times.
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 100
    config.optimizer.warmup_epochs = config_dict.placeholder(float)  # goes before warmup_steps

    if quick:
        config.steps = 100
        config.eval_every = 50
        config.checkpoint_every = 50
        config.optimizer.warmup_steps = 10
    return config
