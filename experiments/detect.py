"""Trains Mask R-CNN with one normalization-activation layer and reports its average precision.

The embedded default are scenes of digits, which need no download. COCO is read from its own layout. Examples:

  python -m experiments.detect --config=experiments/configs/detect_digits.py:quick --workdir=runs/quick
  python -m experiments.detect --config=experiments/configs/detect_digits.py --workdir=runs/detect \\
      --config.layer.spec=evonorm_s0

The work directory gets scores.json and detections.json of the last evaluation, pictures of detections and
curves of precision by recall. The same command again resumes a training that was stopped.
`experiments.evaluate` reads its checkpoints, and draws detections on pictures of your own.

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
SHOWN = ("box_AP", "mask_AP", "box_AP50", "mask_AP50")


def main(argv):
    """Trains, and prints the average precision."""
    del argv
    mesh.join_hosts(*(holder.value for holder in HOSTS))
    logging.info("training in %s", WORKDIR.value)
    result = loop.train(CONFIG.value, WORKDIR.value, tasks.build_task)
    for part, found in (("validation", result.validation), ("test", result.test)):
        scores = [f"{name.replace('_', ' ')} {100 * found[name]:.1f}" for name in SHOWN if name in found]
        if scores:
            print(f"{part} {', '.join(scores)} after {result.steps} steps")
    print(f"scores, detections and pictures are in {WORKDIR.value}")


if __name__ == "__main__":
    flags.run(main, example="experiments/configs/detect_digits.py")
