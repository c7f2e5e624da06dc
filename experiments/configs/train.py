"""One network with one layer on one data set: EvoNorm-B0 in the small ResNet on 4,000 real digits.

    python -m experiments.train --config=experiments/configs/train.py --workdir=runs/train
    python -m experiments.train --config=experiments/configs/train.py:quick --workdir=runs/quick

Overrides choose any other network, layer and data set. On two CPU cores the default takes about a minute and
reaches 96 % validation and 98 % test accuracy. The quick form takes a quarter of a minute and reaches 31 %.
"""

from ml_collections import ConfigDict, config_dict

from experiments.configs.search_defaults import check_form


def get_config(form: str = "full") -> ConfigDict:
    """The config; `form` is "full" or "quick"."""
    quick = check_form(form)
    config = ConfigDict()
    config.task = "classification"  # the kind of training, see evonorms_jax/tasks.py
    config.seed = 0  # seed of the initial parameters, the order of the images, crops, flips and dropout
    config.steps = 1000
    config.epochs = config_dict.placeholder(float)  # length in epochs, which overrides steps
    config.batch_size = 64  # images of a step on all devices together
    config.eval_batch_size = 256
    config.statistics_batch = config_dict.placeholder(int)  # images that share batch moments, or all
    config.accumulate = 1  # parts of a batch that are worked on one after the other, to save memory
    config.dtype = "float32"  # dtype of activations, or "bfloat16"; parameters and statistics stay float32
    config.label_smoothing = 0.0
    config.mixup = 0.0  # alpha of mixup; 0 turns it off
    config.average_decay = 0.0  # decay of the average of the parameters that is evaluated; 0 turns it off
    config.log_every = 20  # in steps, as the next two
    config.eval_every = 200  # each evaluation is followed by a checkpoint
    config.checkpoint_every = 200

    # The keywords of evonorms_jax.models.build_model: the name of an anchor or a full-size model, and fields.
    # None keeps the model's own value. Mobile networks have dropout and drop-connect, ResNets have neither.
    config.model = ConfigDict({"name": "resnet_small", "width": config_dict.placeholder(float)})
    config.model.dropout_rate = config_dict.placeholder(float)
    config.model.drop_connect_rate = config_dict.placeholder(float)

    # The keywords of evonorms_jax.norm_act: a name or a layer found by a search, such as
    # runs/mnist5k/top_layers.json#0, and fields of the layer.
    config.layer = ConfigDict({"spec": "evonorm_b0", "epsilon": 1e-5, "momentum": 0.9})
    config.layer.groups = 32
    config.layer.group_size = 8  # channels of a group, which overrides groups

    # The fields of evonorms_jax.data.DataSettings, which describes each. Sources are mnist5k, cifar10,
    # synthetic, synthetic:CLASSESxCHANNELS (ImageNet: 1000x3) and tfds:NAME. None keeps the set's own size.
    config.data = ConfigDict({"source": "mnist5k", "seed": 0})  # seed of the split into train and validation
    config.data.train_size = config_dict.placeholder(int)
    config.data.validation_size = config_dict.placeholder(int)
    config.data.image_size = config_dict.placeholder(int)
    config.data.data_dir = config_dict.placeholder(str)
    config.data.crop = 24  # side of the images to train on
    config.data.flip = False  # a mirrored digit is no digit
    # Whether pictures are read during the training, with random-resized crops, instead of being held in
    # memory: tfds:NAME, or synthetic:CLASSESx3 to measure the devices. Only a stream uses the keys below.
    config.data.stream = False
    config.data.threads = 16  # threads of each process that decode
    config.data.workers = 0  # processes that decode; 0 means the training's own, which keeps three cores busy
    config.data.augment = "none"  # or "randaugment" or "autoaugment"
    config.data.randaugment = ConfigDict({"layers": 2, "magnitude": 9})

    # The fields of OptimizerSettings in evonorms_jax/training/optimizer.py.
    config.optimizer = ConfigDict({"name": "sgd", "momentum": 0.9, "weight_decay": 1e-4})
    # Beside "sgd" there are "momentum", "rmsprop", "adamw" and "muon". In "adamw", momentum is b1.
    config.optimizer.decayed = "all_but_norms"  # parameters with weight decay, or "kernels"
    config.optimizer.clip_norm = config_dict.placeholder(float)  # largest norm of a gradient
    config.optimizer.learning_rate = 0.1
    config.optimizer.reference_batch = config_dict.placeholder(int)  # batch for which this rate is meant
    # Or "constant", "step" (x0.1 at 1/3, 2/3 and 8/9) or "exponential" (x0.97, 146 times).
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 100
    config.optimizer.warmup_epochs = config_dict.placeholder(float)  # overrides warmup_steps

    if quick:
        config.steps = 100
        config.eval_every = 50
        config.checkpoint_every = 50
        config.optimizer.warmup_steps = 10
    return config
