"""Known layers as graphs.

Each graph is filled up with dead nodes to the ten intermediate nodes of the search space, so that it can seed
a search. Source of `CATALOG`: arXiv 2004.02967, Tables 2 and 6, and the released layer code.

B1 adds 1 to x. The search space has no constant leaf 1, because v1 is trainable. `exp(0)` of the constant
leaf 0 is exactly 1, and equations print it as `1`.
"""

from evonorms_jax.search_space.graph import Graph

#: EvoNorm-B0, B1, B2 (with batch statistics) and S0, S1, S2 (of single samples) by name.
CATALOG: dict[str, Graph] = {
    "evonorm_b0": Graph.parse("x / max(std_bwh(x), v1 * x + std_wh(x))"),
    "evonorm_b1": Graph.parse("x / max(std_bwh(x), (x + 1) * rms_wh(x))"),
    "evonorm_b2": Graph.parse("x / max(std_bwh(x), rms_wh(x) - x)"),
    "evonorm_s0": Graph.parse("x * sigmoid(v1 * x) / std_whc/g(x)"),
    "evonorm_s1": Graph.parse("x * sigmoid(x) / std_whc/g(x)"),
    "evonorm_s2": Graph.parse("x * sigmoid(x) / rms_whc/g(x)"),
}

_BATCH_NORM = "v1 * ((x - mean_bwh(x)) / std_bwh(x)) + v0"
_GROUP_NORM = "v1 * ((x - mean_whc/g(x)) / std_whc/g(x)) + v0"

#: The usual layers as graphs, trained like candidates. v1 and v0 are their gamma and beta, which come before
#: the activation. `norm_act` makes layers of the same names from Flax's own norms.
BASELINES: dict[str, Graph] = {
    "bn_relu": Graph.parse(f"max({_BATCH_NORM}, 0)"),
    "bn_silu": Graph.parse(f"a * sigmoid(a) where a = {_BATCH_NORM}"),
    "gn_relu": Graph.parse(f"max({_GROUP_NORM}, 0)"),
    "gn_silu": Graph.parse(f"a * sigmoid(a) where a = {_GROUP_NORM}"),
}

_RMS_NORM = "v1 * (x / rms_c(x))"
_CHANNEL_NORM = "v1 * ((x - mean_c(x)) / std_c(x)) + v0"

#: Layers of token models and activations without a norm, all beyond the paper. Most use ops that a search
#: draws only if `config.search_space.ops` names them. v1 is alpha of DyT and Derf, a number for each channel
#: that starts at 1, where the publications have one for all that starts at 0.5. Elsewhere v1 and v0 are gamma
#: and beta before the activation. GELU after a norm has too many nodes for the search space.
TOKEN_LAYERS: dict[str, Graph] = {
    "dyt": Graph.parse("tanh(v1 * x)"),
    "derf": Graph.parse("erf(v1 * x + v0)"),
    "rms": Graph.parse("x / rms_c(x)"),
    "rms_relu": Graph.parse(f"max({_RMS_NORM}, 0)"),
    "rms_silu": Graph.parse(f"a * sigmoid(a) where a = {_RMS_NORM}"),
    "lnc": Graph.parse("(x - mean_c(x)) / std_c(x)"),
    "lnc_relu": Graph.parse(f"max({_CHANNEL_NORM}, 0)"),
    "lnc_silu": Graph.parse(f"a * sigmoid(a) where a = {_CHANNEL_NORM}"),
    "relu": Graph.parse("max(v1 * x + v0, 0)"),
    "silu": Graph.parse("a * sigmoid(a) where a = v1 * x + v0"),
    "gelu": Graph.parse("a * (1 + erf(a / sqrt(1 + 1))) / (1 + 1) where a = v1 * x + v0"),
}

#: All of them by name.
KNOWN: dict[str, Graph] = BASELINES | CATALOG | TOKEN_LAYERS
