"""Trains one network with one normalization-activation layer and reports its accuracy.

A network is an anchor of the search or a full-size model, a layer a name, such as evonorm_s0 or bn_relu, or
a file#number that a search wrote. Examples:

  python -m experiments.train --config=experiments/configs/train.py:quick --workdir=runs/quick
  python -m experiments.train --config=experiments/configs/train.py --workdir=runs/found \\
      --config.layer.spec=runs/mnist5k/top_layers.json#0 --config.model.name=mobilenet_small

The same command again resumes a training that was stopped. `experiments.evaluate` reads its checkpoints.

A batch is cut over all devices. Several hosts: the same command on each, with --coordinator_address,
--num_processes and --process_id, or with --distributed alone on a Cloud TPU, and a work directory that all of
them see.
"""

from absl import logging

from evonorms_jax import tasks
from evonorms_jax.training import loop, mesh
from experiments import flags

CONFIG, WORKDIR = flags.define_config()
HOSTS = flags.define_hosts()


def main(argv):
    """Trains, and prints the accuracy."""
    del argv
    mesh.join_hosts(*(holder.value for holder in HOSTS))
    logging.info("training in %s", WORKDIR.value)
    result = loop.train(CONFIG.value, WORKDIR.value, tasks.build_task)
    parts = {"validation": result.validation, "test": result.test}
    accuracy = (f"{part} accuracy {found['accuracy']:.4f}" for part, found in parts.items() if found)
    print(", ".join(accuracy), f"after {result.steps} steps; curves: tensorboard --logdir={WORKDIR.value}")


if __name__ == "__main__":
    flags.run(main, example="experiments/configs/train.py")
