"""Time and memory of every layer beside Flax's BatchNorm and a ReLU, in one run.

    python -m experiments.benchmarks.layers
    python -m experiments.benchmarks.layers --shape=8,28,28,128 --dtype=bfloat16 --layers=evonorm_b0

One step is what a layer adds to a training step: the output, and from a given cotangent the gradients of x
and of the parameters. Layers take turns, round by round, so that whatever else the machine does hits all of
them; the median over the rounds is reported. Memory is what XLA sets aside for temporaries; inputs, output
and gradients are not in it.

Expected on two CPU cores at the default shape, in about half a minute: EvoNorm-B0 takes 1.7 to 2 times as
long as BatchNorm and ReLU, S0 1.4 to 1.7 times, S2 and FRN about as long.
"""

import difflib
import json
from collections.abc import Sequence

from absl import flags as absl_flags

from evonorms_jax.runs.files import absolute, write_whole
from experiments import flags
from experiments.benchmarks.layer_figures import NAMES, measure, table

_SHAPE = absl_flags.DEFINE_list("shape", "32,56,56,64", "Shape of x: batch, spatial axes, channels.")
_DTYPE = absl_flags.DEFINE_enum(
    "dtype", "float32", ["float32", "bfloat16", "float16"], "Dtype of x and output."
)
_ROUNDS = absl_flags.DEFINE_integer("rounds", 15, "Steps timed of each layer.", lower_bound=1)
_LAYERS = absl_flags.DEFINE_list(
    "layers", ",".join(NAMES), "Layers to measure; the reference is always there."
)
_JSON = absl_flags.DEFINE_string("json", "runs/benchmarks/layers_benchmark.json", "File of the figures.")


@absl_flags.validator("shape")
def _check_shape(shape: Sequence[str]) -> bool:
    if len(shape) < 3 or not all(size.isdecimal() and int(size) > 0 for size in shape):
        raise absl_flags.ValidationError(f"expected three or more sizes above 0, got {','.join(shape)}")
    return True


@absl_flags.validator("layers")
def _check_layers(names: Sequence[str]) -> bool:
    for name in names:
        if name not in NAMES:
            near = difflib.get_close_matches(name, NAMES, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(NAMES)}"
            raise absl_flags.ValidationError(f"unknown layer {name!r}; {hint}")
    return True


def main(argv: Sequence[str]) -> None:
    """Measures the layers, prints the table, and writes the figures."""
    del argv
    path = absolute(_JSON.value)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()  # shows before the measurement whether it can be written
    shape = [int(size) for size in _SHAPE.value]
    figures = measure(_LAYERS.value, shape, _DTYPE.value, _ROUNDS.value)
    print(table(figures))
    write_whole(path, json.dumps(figures, indent=1) + "\n")
    print(f"written to {path}")


if __name__ == "__main__":
    flags.run(main)
