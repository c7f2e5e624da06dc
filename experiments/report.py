"""Writes the report of a search again, at any time, also of a running or a copied work directory.

python -m experiments.report --workdir=runs/mnist5k
"""

from absl import app, flags

from evonorms_jax.report import WorkdirError, write_report

_WORKDIR = flags.DEFINE_string("workdir", None, "Work directory of the search.", required=True)


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument: {argv[1]}")
    try:
        path = write_report(_WORKDIR.value)
    except (WorkdirError, ModuleNotFoundError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    print(f"report: {path}")


if __name__ == "__main__":
    app.run(main)
