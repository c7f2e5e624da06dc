"""Digits from a small BigGAN with any layer in its generator, trained on 4,000 real digits.

    python -m experiments.generate --config=experiments/configs/gan_digits.py --workdir=runs/gan
    python -m experiments.generate --config=experiments/configs/gan_digits.py:quick --workdir=runs/quick_gan

The recipe is ours: that of the publication (arXiv 1809.11096) is for 2,048 images of 1,000 classes a step,
and its average of the generator would forget the start too slowly for a training of minutes. Rates, decay,
shifts and widths are chosen for digits on two CPU cores. The blocks are those of the plain BigGAN. With the
deep ones (`--config.networks.name=biggan_deep`), whose discriminator has 18,529 parameters, the images of a
class were all alike after 1,000 steps (variance within classes 0.1 of that of real digits), and half of the
classes could not be read. With the plain ones every class can be read from step 500 on.

It takes three minutes on two x86-64 cores, with the training of the classifier for the scores.
docs/results.md has the scores and a sheet of the digits.
"""

from ml_collections import ConfigDict, config_dict

from experiments.configs.search_defaults import check_form


def get_config(form: str = "full") -> ConfigDict:
    """The config; `form` is "full" or "quick"."""
    quick = check_form(form)
    config = ConfigDict()
    config.task = "gan"  # the kind of training, see evonorms_jax/tasks.py
    config.seed = 0  # seed of the initial parameters, the order of the images, latents, labels and shifts
    config.steps = 1500  # of the generator
    config.batch_size = 32  # images of a step of either network on all devices together
    config.eval_batch_size = 256
    config.dtype = "float32"  # dtype of activations, or "bfloat16"; all else stays float32
    config.log_every = 20  # in steps, as the next two
    config.eval_every = 500  # each evaluation is followed by a checkpoint
    config.checkpoint_every = 250

    # The fields of AdversarialSettings in evonorms_jax/gan/adversarial.py.
    config.discriminator_steps = 1  # for one of the generator, each on a batch of its own
    config.statistics_batch = config_dict.placeholder(int)  # images that share batch moments, or all
    config.accumulate = 1  # parts of a batch that are worked on one after the other, to save memory
    config.orthogonal = 0.0  # factor of the orthogonal regularization; 0 turns it off
    config.shift = 2  # most pixels by which real and generated images are moved; 0 turns it off
    config.average_decay = 0.99  # of the moving average of the generator, which all images are drawn from
    config.average_start = 100  # steps until which the average is a copy

    # The keywords of evonorms_jax.gan.networks.make_networks: "biggan" or "biggan_deep", and fields. None
    # keeps the value of the layout for the side data.crop.
    config.networks = ConfigDict({"name": "biggan", "embedding": 32, "wide_output": False})
    # As large as a latent. At a scale of 1, as in the publication, a deep generator made the same images for
    # all classes after 750 steps of 64.
    config.networks.embedding_scale = 32**0.5
    config.networks.width = 16
    config.networks.latent = config_dict.placeholder(int)

    # The layer of the generator: the keywords of evonorms_jax.norm_act, as in train.py.
    config.layer = ConfigDict({"spec": "bn_relu", "epsilon": 1e-5, "momentum": 0.9})
    config.layer.groups = 32
    config.layer.group_size = 4  # channels of a group, which overrides groups; the narrowest site has 32

    # The fields of evonorms_jax.data.DataSettings, as in train.py. The images must be as large as the crop.
    config.data = ConfigDict({"source": "mnist5k", "seed": 0})
    config.data.train_size = config_dict.placeholder(int)
    config.data.validation_size = config_dict.placeholder(int)
    config.data.image_size = config_dict.placeholder(int)
    config.data.data_dir = config_dict.placeholder(str)
    config.data.crop = 28
    config.data.flip = False
    config.data.stream = False
    config.data.threads = 16
    config.data.workers = 0
    config.data.augment = "none"
    config.data.randaugment = ConfigDict({"layers": 2, "magnitude": 9})

    # The fields of AdamSettings in evonorms_jax/gan/adversarial.py.
    config.adam = ConfigDict({"generator_rate": 5e-4, "discriminator_rate": 5e-4})
    config.adam.b1 = 0.0
    config.adam.b2 = 0.99
    config.adam.epsilon = 1e-6

    # The fields of SamplingSettings in evonorms_jax/gan/sampling.py.
    config.sampling = ConfigDict({"truncation": config_dict.placeholder(float), "method": "threshold"})
    config.sampling.batch_size = 100
    config.sampling.statistics_batches = 16

    # The fields of ScoreSettings in evonorms_jax/gan/scoring.py. The network "none" leaves the scores out.
    config.scores = ConfigDict({"network": "classifier"})
    config.scores.recipe = "experiments/configs/digit_classifier.py"
    config.scores.cache = "~/.cache/evonorms_jax/scores"
    config.scores.weights = ""
    config.scores.resize = "tf1"
    config.scores.reference = ""
    config.scores.part = "test"
    config.scores.samples = 5000
    config.scores.quick_samples = 1000
    config.scores.batch_size = 64
    config.scores.seed = 0

    if quick:
        config.steps = config.eval_every = config.checkpoint_every = 30
        config.log_every = 5
        config.networks.width = 8
        config.scores.samples = config.scores.quick_samples = 200
        config.scores.recipe += ":quick"
    return config
