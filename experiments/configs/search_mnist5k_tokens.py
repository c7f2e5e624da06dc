"""A search for layers of token models on 5,000 embedded digits, from random graphs alone. Beyond the paper.

    python -m experiments.search --config=experiments/configs/search_mnist5k_tokens.py --workdir=runs/tokens

The candidate stands at the norms of a ViT and of an MLP-Mixer, and no activation follows it there. AdamW
trains them on digits of 24x24 pixels, cut into 16 patches. A graph has up to six nodes of the paper's
pointwise ops, `erf`, the moments over the channels of a token, and those over batch and tokens. In graphs of
ten nodes with all moments, random normalizers are several times as rare. The ViT of eight blocks hardly
learns with pointwise functions, the Mixer does. `experiments/benchmarks/calibration.py` prints the ladder,
and

    python -m experiments.benchmarks.search_seeds --config=experiments/configs/search_mnist5k_tokens.py \\
        --workdir=runs/token_seeds --seeds=0,1 --against=lnc,rms,dyt,derf --held_out=vit_digits

compares the layers found with LayerNorm, RMSNorm, DyT and Derf. `:quick` ends in about a minute.
"""

from ml_collections import ConfigDict

from evonorms_jax.search_space import OP_NAMES, OPS
from experiments.configs import search_mnist5k
from experiments.configs.search_defaults import check_form


def get_config(form: str = "full") -> ConfigDict:
    """The config; `form` is "full" or "quick"."""
    config = search_mnist5k.get_config(form)
    config.name = "search for token layers on 5,000 digits"
    paper = (name for name in OP_NAMES if OPS[name].index_set in (None, "bwh"))
    config.search_space.ops = (*paper, "erf", "mean_c", "rms_c", "std_c")
    config.search_space.num_nodes = 6
    config.baselines = ("lnc", "rms", "dyt", "derf")
    config.data.image_size = config.data.crop = 24
    config.anchors = ("mixer_narrow", "vit_narrow")
    config.proxy.optimizer = "adamw"
    config.proxy.learning_rate = 0.003
    config.proxy.weight_decay = 0.05
    config.proxy.init_scale = 1.0  # the token networks' own initialization
    if not check_form(form):
        config.budget, config.device_steps = 8_000, None
        config.proxy.steps = 220
        config.proxy.batch_size = 32
        config.rejection.hurdle_steps = 50
        config.rejection.stability_anchor = "vit_narrow"  # the Mixer bears layers without a norm
        # After 100 steps normalizers have 34 % and more there, most pointwise functions less than 30 %.
        config.rejection.quality_threshold = 3.0
        config.evolution.initial_population = 10
        config.evolution.mutation = "node"
        config.evolution.mutations = 2
        config.evolution.round_size = 128
    return config
