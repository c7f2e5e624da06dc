"""Converts timm's trained EvoNorm networks to an .npz for Flax. Beyond the paper.

  python -m experiments.convert_timm --network=regnetz_c16_evos --weights=model.safetensors \\
      --output=regnetz_c16_evos.npz

The networks are resnetv2_50d_evos, regnetz_c16_evos and regnetz_d8_evos. `evonorms_jax.training.timm_weights`
reads the .npz. Every tensor is checked for its name, its shape and finite values.
"""

from evonorms_jax.runs.tensors import fingerprint
from evonorms_jax.training import timm_weights
from experiments import flags

NETWORK = flags.define_required("network", f"Name in timm: {', '.join(timm_weights.NETWORKS)}.")
WEIGHTS = flags.define_required("weights", "File with timm's weights: .safetensors.")
OUTPUT = flags.define_required("output", "File to write: .npz.")


def main(argv):
    """Prints the number of parameters and the CRC, by which results name the weights."""
    del argv
    tensors = timm_weights.convert(WEIGHTS.value, NETWORK.value)
    timm_weights.save(OUTPUT.value, NETWORK.value, tensors)
    count = sum(values.size for values in tensors.values())
    print(f"{OUTPUT.value}: {NETWORK.value}, {count:,} parameters with CRC {fingerprint(tensors)}")


if __name__ == "__main__":
    flags.run(main)
