"""A layer as two pure functions, in a network that is a plain function of arrays, without Flax modules.

    python -m experiments.examples.plain_function

`compile_graph` accepts a published layer of `CATALOG`, or your own equation, such as
`Graph.parse("x * sigmoid(v1 * x) / std_wh(x)")`. On two CPU cores the example needs about ten seconds, most
of them to compile, and reaches 90 % or more.
"""

import jax
import jax.numpy as jnp

from evonorms_jax import CATALOG, compile_graph
from experiments.examples import digits

LEARNING_RATE = 0.5
WIDTHS = (1, 32, 64, 64)
LAYER = compile_graph(CATALOG["evonorm_b0"])


def init(key):
    """(parameters, moving statistics), each with one entry for every block."""
    start = jax.nn.initializers.lecun_normal()
    *keys, last = jax.random.split(key, len(WIDTHS))
    blocks, stats = [], []
    for key, inputs, outputs in zip(keys, WIDTHS[:-1], WIDTHS[1:], strict=True):
        kernel = start(key, (3, 3, inputs, outputs))
        layer_params, layer_stats = LAYER.init(outputs)
        affine = {"scale": jnp.ones(outputs), "bias": jnp.zeros(outputs)}
        blocks.append({"kernel": kernel, "layer": layer_params, "affine": affine})
        stats.append(layer_stats)
    return {"blocks": blocks, "classifier": start(last, (WIDTHS[-1], digits.NUM_CLASSES))}, stats


def forward(params, stats, x, *, train):
    """(logits `[B, 10]`, moving statistics) of images `[B, H, W, 1]`."""
    layout = ("NHWC", "HWIO", "NHWC")
    new_stats = []
    for block, old in zip(params["blocks"], stats, strict=True):
        x = jax.lax.conv_general_dilated(x, block["kernel"], (2, 2), "SAME", dimension_numbers=layout)
        # The affine is not part of the graph. Inside the layer it needs no further pass over x.
        x, new = LAYER.apply(block["layer"], old, x, train=train, **block["affine"])
        new_stats.append(new)
    return x.mean((1, 2)) @ params["classifier"], new_stats


@jax.jit
def train_step(params, stats, batch):
    """(parameters, moving statistics) after one step of gradient descent."""

    def loss(params):
        logits, new_stats = forward(params, stats, batch.images, train=True)
        return digits.cross_entropy(logits, batch.labels), new_stats

    gradients, stats = jax.grad(loss, has_aux=True)(params)
    return jax.tree.map(lambda param, gradient: param - LEARNING_RATE * gradient, params, gradients), stats


def main(steps: int = 200) -> float:
    """Trains and returns the validation accuracy."""
    train, validation = digits.load()
    params, stats = jax.jit(init)(jax.random.key(0))
    for batch in digits.batches(train, steps):
        params, stats = train_step(params, stats, batch)
    logits, _ = jax.jit(forward, static_argnames="train")(params, stats, validation.images, train=False)
    result = digits.accuracy(logits, validation.labels)
    print(f"plain function, EvoNorm-B0: validation accuracy {result:.1%} after {steps} steps")
    return result


if __name__ == "__main__":
    main()
