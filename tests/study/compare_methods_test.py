"""The comparison of search methods from the command line: interrupted, resumed, again, refused."""

import json
import signal
import time

import pytest
from support import mains

from evonorms_jax.study import comparison
from evonorms_jax.study.methods import SEARCHES
from experiments.configs import compare_mnist5k

pytestmark = pytest.mark.slow
BUDGET = 24


def arguments(workdir, *overrides):
    config = f"--config={mains.CONFIGS}/compare_mnist5k.py:quick"
    return [config, f"--workdir={workdir}", "--cpu_devices=2", f"--config.budget={BUDGET}", *overrides]


def run(workdir, *overrides):
    done = mains.run("compare_methods", *arguments(workdir, *overrides))
    assert done.returncode == 0, done.stderr
    return done


def written(workdir):
    return json.loads((workdir / "compare_methods.json").read_text())


def history(workdir):
    lines = (workdir / "history.jsonl").read_text().splitlines() if workdir.exists() else []
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Interrupted in its first search, and resumed."""
    workdir = tmp_path_factory.mktemp("compare") / "run"
    process = mains.start("compare_methods", *arguments(workdir))
    place = workdir / "searches" / "random_search-0" / "history.jsonl"
    while process.poll() is None and not (place.exists() and place.stat().st_size):
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130, errors
    assert "the same command resumes" in errors and "Traceback" not in errors
    assert not (workdir / "compare_methods.json").exists()
    return workdir, run(workdir)


def test_the_quick_form_compares_all_methods(finished):
    workdir, done = finished
    results = written(workdir)
    names = [row["name"] for row in results["methods"]]
    assert names == ["random", "random_rejection", "random_search", "evolution"]
    for method in SEARCHES:
        for seed in (0, 1):
            assert len(history(workdir / "searches" / f"{method}-{seed}")) == BUDGET
    first, rejection, search, evolution = (row["runs"] for row in results["methods"])
    for seed in (0, 1):
        random_search = history(workdir / "searches" / f"random_search-{seed}")
        assert first[seed]["chosen"]["graph"] == random_search[0]["graph"]
        # Evolution begins with the same random candidates, and they are scored the same way.
        evolved = history(workdir / "searches" / f"evolution-{seed}")
        assert [r["graph"] for r in evolved[:8]] == [r["graph"] for r in random_search[:8]]
        assert [r["scores"] for r in evolved[:8]] == [r["scores"] for r in random_search[:8]]
        assert rejection[seed]["best_so_far"] == search[seed]["best_so_far"][:1]
        assert evolution[seed]["examined"] == search[seed]["examined"] == BUDGET
    for row in results["methods"] + results["known_layers"]:
        for part in ("searched", "held_out"):
            assert row[part] is None or 0 <= row[part]["mean"] <= 1
    assert results["known_layers"][0]["searched"]["mean"] > 0.5, "BN-ReLU learns stripes"
    assert "Random + rejection" in done.stdout and "written to" in done.stdout
    assert (workdir / "compare_methods.md").read_text() == comparison.make_table(results).markdown()
    for kind in ("svg", "png"):
        assert (workdir / f"compare_methods.{kind}").stat().st_size > 1000


def test_the_same_command_again_trains_no_layer_and_gives_the_same_files(finished):
    workdir, _ = finished
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    done = run(workdir)
    assert done.stderr.count("done before") == 4 and "preparing" not in done.stderr
    after = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    assert after == before


@pytest.mark.exhaustive
def test_a_comparison_that_was_interrupted_has_the_numbers_of_one_that_was_not(finished, tmp_path):
    run(tmp_path / "run", "--config.seeds=(0,)")
    for mine, other in zip(
        written(tmp_path / "run")["methods"], written(finished[0])["methods"], strict=True
    ):
        (one,), another = mine["runs"], other["runs"][0]
        assert one | {"device_minutes": 0} == another | {"device_minutes": 0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": 25}, "belongs to another config: budget is 24 there and 25 now"),
        ({"retraining.steps": 61}, "retraining.steps is 60 there and 61 now"),
    ],
    ids=["budget", "steps"],
)
def test_a_comparison_with_other_settings_is_refused(finished, change, message):
    config = compare_mnist5k.get_config("quick")
    config.update_from_flattened_dict({"budget": BUDGET} | change)
    with pytest.raises(ValueError, match=message):
        comparison.run(config, finished[0])


def test_the_directory_of_a_single_search_is_refused(finished):
    with pytest.raises(ValueError, match="is the work directory of a single run"):
        comparison.run(compare_mnist5k.get_config("quick"), finished[0] / "searches" / "evolution-0")


def test_without_matplotlib_it_says_so_before_it_searches(tmp_path):
    done = mains.run("compare_methods", *arguments(tmp_path / "run"), matplotlib=False)
    assert done.returncode == 1, done.stderr
    message = "error: the figure needs matplotlib: pip install evonorms-jax[demo]"
    assert done.stderr.splitlines()[-1] == message
    assert not (tmp_path / "run").exists()
