"""Trains a generator of images, BigGAN or BigGAN-deep, with any layer, and scores it.

  python -m experiments.generate --config=experiments/configs/gan_digits.py --workdir=runs/gan
  python -m experiments.generate --config=experiments/configs/gan_digits.py --workdir=runs/gan_s0 \\
      --config.layer.spec=evonorm_s0

At the end the work directory has scores.json, samples.npz and samples.png, of the checkpoint with the least
distance. The digits are scored by a classifier that the first run trains and that all later ones share. For
FID and Inception score, --inception names the weights of the Inception network. The same command again
resumes a training that was stopped. `experiments.sample` draws more samples, and `experiments.evaluate`
scores another checkpoint.

A batch is cut over all devices. Several hosts: as `experiments.train`.
"""

from absl import logging

from evonorms_jax import tasks
from evonorms_jax.gan import results, scoring
from evonorms_jax.training import mesh
from experiments import flags

CONFIG, WORKDIR = flags.define_config()
HOSTS = flags.define_hosts()
INCEPTION = flags.define_inception()


def main(argv):
    """Trains, and prints the scores."""
    del argv
    mesh.join_hosts(*(holder.value for holder in HOSTS))
    config = CONFIG.value
    config.update_from_flattened_dict(scoring.inception_changes(INCEPTION.value))
    logging.info("training in %s", WORKDIR.value)
    scores = results.train(config, WORKDIR.value, tasks.build_task)
    if scores:
        print(", ".join(scoring.lines(scores)), f"at step {scores['step']}")
        print(f"samples: {WORKDIR.value}/{results.SHEET}")
    print(f"curves: tensorboard --logdir={WORKDIR.value}")


if __name__ == "__main__":
    flags.run(main, example="experiments/configs/gan_digits.py")
