"""The comparison of search methods from the command line: the whole of it, again, interrupted, refused."""

import json
import signal
import time

import pytest
from support import mains

from evonorms_jax.study.comparison_table import markdown
from evonorms_jax.study.methods import SEARCHES


def arguments(workdir, *overrides, config="compare_mnist5k.py:quick"):
    return [f"--config={mains.CONFIGS}/{config}", f"--workdir={workdir}", "--cpu_devices=2", *overrides]


def run(workdir, *overrides, main="compare_methods", **options):
    return mains.run(main, *arguments(workdir, *overrides, **options))


BUDGET = ("--config.budget=24",)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("compare") / "run"
    done = run(workdir, *BUDGET)
    assert done.returncode == 0, done.stderr
    return workdir, done


def written(workdir):
    return json.loads((workdir / "compare_methods.json").read_text())


def history(workdir):
    lines = (workdir / "history.jsonl").read_text().splitlines() if workdir.exists() else []
    return [json.loads(line) for line in lines]


@pytest.mark.slow
def test_the_quick_form_compares_all_methods(finished):
    workdir, done = finished
    results = written(workdir)
    assert [row["name"] for row in results["methods"]] == [
        "random",
        "random_rejection",
        "random_search",
        "evolution",
    ]
    for method in SEARCHES:
        for seed in (0, 1):
            assert len(history(workdir / "searches" / f"{method}-{seed}")) == 24
    first, rejection, search, evolution = (row["runs"] for row in results["methods"])
    for seed in (0, 1):
        random_search = history(workdir / "searches" / f"random_search-{seed}")
        assert first[seed]["chosen"]["graph"] == random_search[0]["graph"]
        # Evolution begins with the same random candidates, and is scored the same way.
        evolved = history(workdir / "searches" / f"evolution-{seed}")
        assert [r["graph"] for r in evolved[:8]] == [r["graph"] for r in random_search[:8]]
        assert [r["scores"] for r in evolved[:8]] == [r["scores"] for r in random_search[:8]]
        assert rejection[seed]["best_so_far"] == search[seed]["best_so_far"][:1]
        assert evolution[seed]["examined"] == search[seed]["examined"] == 24
    for row in results["methods"] + results["known_layers"]:
        for part in ("searched", "held_out"):
            assert row[part] is None or 0 <= row[part]["mean"] <= 1
    assert results["known_layers"][0]["searched"]["mean"] > 0.5, "BN-ReLU learns stripes"
    assert "Random + rejection" in done.stdout and "written to" in done.stdout
    assert (workdir / "compare_methods.md").read_text() == markdown(results)
    for kind in ("svg", "png"):
        assert (workdir / f"compare_methods.{kind}").stat().st_size > 1000


@pytest.mark.slow
def test_the_same_command_again_trains_nothing_and_gives_the_same(finished):
    workdir, _ = finished
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    done = run(workdir, *BUDGET)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("done before") == 4 and "preparing" not in done.stderr
    after = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    assert after == before


@pytest.mark.slow
def test_random_with_rejection_is_what_a_search_of_method_random_ends_with(finished, tmp_path):
    workdir, _ = finished
    config = "search_mnist5k.py:quick"
    overrides = ("--config.method=random", "--config.seed=1", *BUDGET)
    done = run(tmp_path / "run", *overrides, main="search", config=config)
    assert done.returncode == 0, done.stderr
    alone, row = history(tmp_path / "run"), written(workdir)["methods"][1]["runs"][1]
    assert alone[-1]["outcome"] == "accepted" and row["examined"] == len(alone)
    assert row["chosen"]["graph"] == alone[-1]["graph"] and row["chosen"]["scores"] == alone[-1]["scores"]


@pytest.mark.slow
def test_interrupted_it_goes_on_to_the_same_numbers(finished, tmp_path):
    workdir = tmp_path / "run"
    overrides = (*BUDGET, "--config.seeds=(1,)")
    process = mains.start("compare_methods", *arguments(workdir, *overrides))
    place = workdir / "searches" / "random_search-1" / "history.jsonl"
    while process.poll() is None and not (place.exists() and place.stat().st_size):
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130, errors
    assert "the same command goes on" in errors and "Traceback" not in errors
    assert not (workdir / "compare_methods.json").exists()
    done = run(workdir, *overrides)
    assert done.returncode == 0, done.stderr
    for mine, other in zip(written(workdir)["methods"], written(finished[0])["methods"], strict=True):
        timed = ("device_minutes",)
        assert {k: v for k, v in mine["runs"][0].items() if k not in timed} == {
            k: v for k, v in other["runs"][1].items() if k not in timed
        }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("--config.budget=25",), "belongs to another config: budget is 24 there and 25 now"),
        ((*BUDGET, "--config.retraining.steps=61"), "retraining.steps is 60 there and 61 now"),
        ((*BUDGET, "--config.retraining.step=61"), "did you mean 'steps'"),
    ],
    ids=["budget", "steps", "misspelt"],
)
def test_wrong_input_is_one_clear_line(finished, overrides, message):
    done = run(finished[0], *overrides)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert message in line and "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_directory_of_a_single_search_is_refused(finished):
    done = run(finished[0] / "searches" / "evolution-0")
    assert done.returncode == 2 and "is the work directory of a single run" in done.stderr


@pytest.mark.slow
def test_without_matplotlib_it_says_so_before_it_searches(tmp_path):
    done = mains.run("compare_methods", *arguments(tmp_path / "run"), matplotlib=False)
    assert done.returncode == 1, done.stderr
    assert (
        done.stderr.splitlines()[-1] == "error: the figure needs matplotlib: pip install evonorms-jax[demo]"
    )
    assert not (tmp_path / "run").exists()
