"""From BatchNorm and ReLU to EvoNorm-B0: the changes in a model, and the trained weights that carry over.

    python -m experiments.examples.convert_batchnorm

EvoNorm-B0 is another function than BatchNorm and ReLU, so the converted network has to be trained further.
The program prints its accuracy at once and after a few steps, and the accuracy of as many steps from scratch.
On two idle CPU cores it needs about half a minute. Validation accuracy with the seeds 1 and 2 (two x86-64
cores, JAX 0.10.2, 2026-11-27): the trained network 96.0 and 97.0 %, converted 71.6 and 85.8 %, and after 20
steps 94.4 and 96.4 %. 20 steps from scratch reach 89.0 and 86.0 %. This is one small network on digits, and
tells little about others.
"""

import jax
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from evonorms_jax import EvoNormB0, norm_parameters
from evonorms_jax.errors import UserError
from experiments.examples import digits
from experiments.examples.linen_model import infer, train_step

WIDTHS = (32, 64, 64)


class Before(nn.Module):
    """With BatchNorm and ReLU."""

    @nn.compact
    def __call__(self, x, train):
        for features in WIDTHS:
            x = nn.Conv(features, (3, 3), strides=2, use_bias=False)(x)
            x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
            x = nn.relu(x)
        return nn.Dense(digits.NUM_CLASSES)(x.mean((1, 2)))


class After(nn.Module):
    """With EvoNorm-B0: two lines have become one. A BatchNorm without ReLU takes `nonlinearity=False`.

    B0 with v = 1 grows without bound below zero and levels off above. With v = -1 it does the opposite, like
    the ReLU that the next weights expect. With v = 1 the converted example falls to chance.
    """

    @nn.compact
    def __call__(self, x, train):
        for features in WIDTHS:
            x = nn.Conv(features, (3, 3), strides=2, use_bias=False)(x)
            x = EvoNormB0(use_running_average=not train, v_init=nn.initializers.constant(-1.0))(x)
        return nn.Dense(digits.NUM_CLASSES)(x.mean((1, 2)))


def carry_over(trained, fresh, *, old: str = "BatchNorm", new: str = "EvoNormB0"):
    """The variables of the new model with the weights of the old one.

    - Kernels, and the biases beside them, carry over.
    - So does the moving variance, since both layers track the variance of the same tensor.
    - gamma and beta stay fresh. They were applied before the ReLU and are now applied after the layer.
      Carrying them over made no measurable difference. The moving mean is dropped: B0 does not center x.
    - v stays fresh. EvoNorm-S0 resembles a ReLU at v = 1, and B1, B2, S1 and S2 have no v.

    Args:
      trained: variables of the trained model.
      fresh: variables of the new model from its `init`.
      old: part of the names of the trained norms. Names given by hand are the same in both models.
      new: part of the names of the new norms in its place.

    Raises:
      ValueError: if a weight of one model has no counterpart of its shape in the other.
    """
    source = flatten_dict(trained)
    lost, wanted = _weights(trained), _weights(fresh)
    carried = {}
    for path, start in flatten_dict(fresh).items():
        if path in wanted or path[0] == "batch_stats":
            origin = tuple(part.replace(new, old) for part in path)
            if origin not in source or source[origin].shape != start.shape:
                raise UserError(f"the trained model has no {'/'.join(origin)} of shape {start.shape}")
            carried[path] = source[origin]
            lost.discard(origin)
        else:
            carried[path] = start
    if lost:
        raise UserError(f"the new model has no {', '.join('/'.join(path) for path in sorted(lost))}")
    return unflatten_dict(carried)


def _weights(variables) -> set[tuple[str, ...]]:
    """The paths of all parameters that are not a norm's."""
    mask = flatten_dict({"params": norm_parameters(variables["params"])})
    return {path for path, is_weight in mask.items() if is_weight}


def main(steps: int = 300, tuning_steps: int = 20, seed: int = 0) -> dict[str, float]:
    """Trains, converts and fine-tunes. Returns the validation accuracies by stage."""
    train, validation = digits.load()

    def init(net, number):
        key = jax.random.key(number)
        return jax.jit(net.init, static_argnames="train")(key, train.images[:1], train=False)

    def fit(net, variables, steps, learning_rate, number):
        for batch in digits.batches(train, steps, seed=number):
            variables = train_step(net, variables, batch, learning_rate)
        return variables

    def accuracy(net, variables):
        return digits.accuracy(infer(net, variables, validation.images), validation.labels)

    before, after = Before(), After()
    trained = fit(before, init(before, seed), steps, 0.5, seed)
    fresh = init(after, seed + 1)
    converted = carry_over(trained, fresh)
    # A fifth of the rate preserves the weights that carried over.
    tuned = fit(after, converted, tuning_steps, 0.1, seed + 1)
    scratch = fit(after, fresh, tuning_steps, 0.5, seed + 1)
    result = {
        "BatchNorm and ReLU": accuracy(before, trained),
        "converted": accuracy(after, converted),
        "fine-tuned": accuracy(after, tuned),
        "from scratch": accuracy(after, scratch),
    }
    figures = ", ".join(f"{stage} {value:.1%}" for stage, value in result.items())
    print(f"validation accuracy: {figures}; {steps} steps before, {tuning_steps} after or from scratch")
    return result


if __name__ == "__main__":
    main()
