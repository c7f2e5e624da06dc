"""ViT-S/16 and ViT-B/16 on ImageNet, 224x224, 90 epochs with AdamW. Beyond the paper.

    python -m experiments.train --config=experiments/configs/imagenet_vit.py:s16 --workdir=runs/vit_s16 \\
        --config.layer.spec=derf

The recipe of "Better plain ViT baselines for ImageNet-1k" (arXiv 2205.01580) as released for ViT-S/16: AdamW
with decays 0.9 and 0.999, 1e-3 for 1,024 images, 10,000 steps of warm-up, then a cosine to 0, gradients
clipped to the norm 1, RandAugment with 2 layers of magnitude 10, mixup 0.2. Its weight decay of 1e-4 on
kernels is 0.1 here, where the peak of the rate multiplies it. `:s16` and `:b16` are the networks with the
published numbers of parameters: a class token, learned positions, and no layer between the last norm and the
classifier. The publication has the mean token, fixed positions and a tanh layer there. Of these,
`--config.model.name=vit_s16_plain` has the first two.

The injected layer stands before attention, before MLPs and at the end, without its activation if it has one.
GELU stays inside the MLPs, unless `--config.model.mlp_norm_act` puts the whole layer there.
`:quick` after the file runs 16 steps of S/16 with 32 synthetic images, 32x32, as a test, `:b16-quick` those
of B/16.
Published top-1 of the released recipe, with LayerNorm: ViT-S/16 76.5 %.

Hardware: a slice of 32 TPU chips. We have not run it. ViT-S/16 has 4.6 G multiply-adds an image and ViT-B/16
17.6 G, which makes 3.2e18 and 1.2e19 FLOP in all. We estimate half an hour and 2 hours at a third of the peak
of a v5e-32 (6.3e15 FLOP/s).
"""

from ml_collections import ConfigDict, config_dict

from evonorms_jax.errors import UserError
from experiments.configs.imagenet_defaults import cap_statistics_batch, get_recipe

NETWORKS = ("s16", "b16")


def get_config(form: str = "s16") -> ConfigDict:
    """The recipe; `form` is a network, its quick form such as `b16-quick`, "full" or "quick"."""
    network, _, suffix = {"full": "s16", "quick": "s16-quick"}.get(form, form).partition("-")
    if network not in NETWORKS or suffix not in ("", "quick"):
        raise UserError(f"form must be {' or '.join(NETWORKS)}, with -quick or without, got {form!r}")
    config = get_recipe(f"vit_{network}", suffix or "full", batch_size=1024, epochs=90)
    cap_statistics_batch(config, 32)  # a device's share of a batch on 32 devices
    config.layer.spec = "lnc"
    config.mixup = 0.2
    config.model.mlp_norm_act = config_dict.placeholder(bool)
    config.optimizer.name = "adamw"
    config.optimizer.decayed = "kernels"
    config.optimizer.weight_decay = 0.1
    config.optimizer.clip_norm = 1.0
    config.optimizer.learning_rate = 1e-3
    config.optimizer.reference_batch = 1024
    if not suffix:
        config.optimizer.warmup_epochs = None
        config.optimizer.warmup_steps = 10_000
        config.data.augment = "randaugment"
        config.data.randaugment.magnitude = 10
    return config
