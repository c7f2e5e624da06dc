"""Searches for normalization-activation layers on a proxy task. The main job.

It examines candidate layers round by round, rejects the hopeless ones early, trains the rest on small
networks, and breeds new candidates from the best. All devices of the machine take part: the GPUs, the TPU
cores, or a device for each CPU core. Examples:

  python -m experiments.search --config=experiments/configs/search_mnist5k.py --workdir=runs/mnist5k
  python -m experiments.search --config=experiments/configs/search_mnist5k.py:quick --workdir=runs/quick
  python -m experiments.search --config=experiments/configs/search_cifar10_b.py --workdir=runs/b \\
      --config.evolution.population_size=500 --config.proxy.steps=1000

Several hosts: the same command on each, with --coordinator_address, --num_processes and --process_id, or with
--distributed alone on a Cloud TPU (launch/tpu_search.sh does that).

The same command again resumes a search that was stopped. At the end it writes a report and top_layers.json,
from which norm_act("top_layers.json#0") builds a layer for any model. Ctrl-C saves and stops.
"""

from absl import flags as absl_flags
from absl import logging

from evonorms_jax.evolution.session import check_search, run_search
from evonorms_jax.packages import require_matplotlib
from evonorms_jax.report import write_report
from evonorms_jax.runs.rendezvous import connect
from experiments import flags

CONFIG, WORKDIR = flags.define_config()
CPU_DEVICES = flags.define_cpu_devices()
HOSTS = flags.define_hosts()
CHECK = absl_flags.DEFINE_bool(
    "check", False, "Checks flags and config, and ends before it touches data, devices or the work directory."
)


def main(argv):
    """Searches on this host. Process 0 writes the report when the search stops, done or not."""
    del argv
    if CHECK.value:
        return check_search(CONFIG.value)
    require_matplotlib("the report")
    flags.use_cpu_devices(CPU_DEVICES.value)
    *place, automatic = (holder.value for holder in HOSTS)
    with connect(*place, automatic=automatic) as hosts:
        logging.info("searching in %s", WORKDIR.value)
        done = run_search(CONFIG.value, WORKDIR.value, hosts)
        if hosts.leader:
            print(f"report: {write_report(WORKDIR.value)}")
    if not done:
        raise KeyboardInterrupt("stopped, all examined candidates are saved; the same command goes on")


if __name__ == "__main__":
    flags.run(main, example="experiments/configs/search_mnist5k.py")
