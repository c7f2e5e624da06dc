"""Examines any layers by the tests of a search: verdict, learning curves, cost, nearest known layer.

  python -m experiments.examine "x * sigmoid(v1 * x) / std_whc/g(x)" evonorm_b0 runs/mnist5k/top_layers.json#0
  python -m experiments.examine --json --replicas=5 "abs(x) / std_bwh(x)"
  python -m experiments.examine --json - < proposals.jsonl

A layer is an equation, a published layer by its name, or a layer file with a number. `-` reads JSON lines:
a text, or an object with an `equation` or a `graph`, as in a `history.jsonl`. Every line is answered by one
line at once, also a wrong one, so that another program can propose layers. `--config` is the config of any
search, the default search if it is not given. Put `--` before an equation that begins with a minus sign.
"""

import json
import sys

from absl import flags as absl_flags

from evonorms_jax.search_space.text import EquationError
from evonorms_jax.study import examination, examination_text
from evonorms_jax.study.lines import chunks
from experiments import flags

CONFIG = flags.define_config_alone()
CPU_DEVICES = flags.define_cpu_devices()
JSON = absl_flags.DEFINE_bool("json", False, "Print a JSON line for each layer.")
REPLICAS = absl_flags.DEFINE_integer("replicas", 3, "Number of seeds of the learning curves.", lower_bound=1)


def main(argv):
    """Reads all layers of the command line before the first training, and lines of the input as they come."""
    texts = argv[1:] or ["-"]
    try:
        layers = [examination.read_layer(text) for text in texts if text != "-"]
    except EquationError as error:
        print(error.equation, " " * error.position + "^", sep="\n", file=sys.stderr)
        raise
    flags.use_cpu_devices(CPU_DEVICES.value)
    examiner = examination.Examiner(CONFIG.value, REPLICAS.value)
    number = 0
    for rows in examination.answers(examiner, layers, chunks(sys.stdin) if "-" in texts else ()):
        for row in rows:
            print(json.dumps(row) if JSON.value else examination_text.block(number, row), flush=True)
            number += 1


if __name__ == "__main__":
    flags.run(main, example="experiments/configs/search_mnist5k.py", positional=True)
