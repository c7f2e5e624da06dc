"""Converts the weights of the Inception network to an .npz, which needs neither torch nor a pickle to read.

  python -m experiments.convert_inception --inception=pt_inception.pth --output=inception.npz

Every tensor is checked for its name, its shape and finite values.
"""

from evonorms_jax.gan import inception_weights
from experiments import flags

INCEPTION = flags.define_required("inception", "File with the weights: .pth, .pickle or .npz.")
OUTPUT = flags.define_required("output", "File to write: .npz.")


def main(argv):
    """Prints the CRC, by which results name the weights."""
    del argv
    weights = inception_weights.load(INCEPTION.value)
    inception_weights.save(OUTPUT.value, weights)
    print(f"{OUTPUT.value}: weights with CRC {weights.crc}")


if __name__ == "__main__":
    flags.run(main)
