"""The report: reading a work directory in any state, and the page, down to a real browser."""

import datetime
import html
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from evonorms_jax import report
from evonorms_jax.evolution.archive import Archive
from evonorms_jax.evolution.history import OUTCOMES, Evaluation, History, Proposal, Record
from evonorms_jax.report import palette, ranking, records
from evonorms_jax.report.page import render
from evonorms_jax.search_space import CATALOG, Graph, mutate, random_graph
from evonorms_jax.training.workdir import claim_workdir

ROOT = Path(__file__).parent.parent
ANCHORS = ("resnet_small", "mobilenet_small", "efficientnet_small")
NOW = datetime.datetime(2020, 4, 6, tzinfo=datetime.UTC)
CONFIG = {
    "name": "tiny <b>search</b>",
    "method": "evolution",
    "budget": 60,
    "anchors": ANCHORS,
    "top_k": 3,
    "rejection": {"stability_norm": 1e8},
}
FIGURES = {
    "unstable": {"anchor": ANCHORS[0], "norm": 3e9, "max_norm": 1e8, "step": 4},
    "low_quality": {"anchor": ANCHORS[0], "accuracy": 0.13, "threshold": 0.2, "step": 100},
    "diverged": {"anchor": ANCHORS[1], "loss": "not finite", "step": 33},
}


def made_up_evaluation(rng, graph, outcomes=("unstable", "low_quality", "diverged", "accepted")) -> Evaluation:
    if not graph.uses_input:
        return Evaluation("inert", {"reason": "x does not reach the output"}, seconds=0.01)
    outcome = outcomes[int(rng.integers(len(outcomes)))]
    scores = dict(zip(ANCHORS, rng.uniform(0.4, 0.9, 3).tolist(), strict=True))
    scores = scores if outcome == "accepted" else {}
    return Evaluation(outcome, FIGURES.get(outcome, {}), scores, steps=100, seconds=2.0, fingerprint=str(graph))


def made_up_history(number: int, **options) -> History:
    rng, history = np.random.default_rng(1), History()
    for index in range(number):
        graph = mutate(rng, CATALOG["evonorm_s0"]) if index % 2 else random_graph(rng)
        evaluation = made_up_evaluation(rng, graph, **options)
        if original := history.original(evaluation.fingerprint):
            scores = original.evaluation.scores
            evaluation = evaluation._replace(outcome="duplicate", scores=scores, duplicate_of=original.index)
        origin = "mutation" if index % 2 else "random"
        history.append(Record(index, Proposal(graph, origin), evaluation))
    return history


def write_workdir(path: Path, history: History, config=CONFIG) -> Path:
    """What a search with this history leaves, written by the search's own code."""
    workdir = claim_workdir(path, config)
    with Archive(workdir, config["top_k"]) as archive:
        archive.restore()
        for record in history:
            archive.append(record)
        archive.checkpoint(history)
        for name, score in {"bn_relu": 0.71, "evonorm_b0": 0.72, "evonorm_s0": 0.73}.items():
            graph = CATALOG.get(name, Graph.parse("max((x - mean_bwh(x)) / std_bwh(x), 0)"))
            archive.add_known_layer(name, graph, Evaluation("accepted", {}, dict.fromkeys(ANCHORS, score)))
        archive.add_known_layer(
            "gn_relu", CATALOG["evonorm_s1"], Evaluation("low_quality", FIGURES["low_quality"])
        )
    return path


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    return write_workdir(tmp_path_factory.mktemp("search") / "full", made_up_history(60))


@pytest.fixture
def workdir(full, tmp_path):
    """A copy to damage."""
    return Path(shutil.copytree(full, tmp_path / "copy", ignore=shutil.ignore_patterns("checkpoints")))


def rendered(path: Path) -> str:
    return render(records.read_search(path), NOW)


def text_of(page: str) -> str:
    """What a reader sees, without markup."""
    body = re.sub(r"<style>.*?</style>", "", page, flags=re.S)
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))).replace("\N{NO-BREAK SPACE}", " ")


def test_the_page_says_what_the_history_says(full):
    history = made_up_history(60)
    page = rendered(full)
    text = text_of(page)
    counts = Counter(record.evaluation.outcome for record in history)
    assert set(counts) == set(OUTCOMES) - {"batch_dependent"}
    for name, outcome in records.OUTCOMES.items():
        share = f"{100 * counts[name] / 60:.1f} %"
        assert f"{outcome.title} {outcome.meaning} {counts[name]} {share}" in text
    assert "60 of 60 candidates examined · finished" in text
    assert f"{counts['accepted']} trained fully" in text
    seconds = sum(record.evaluation.seconds for record in history)
    assert f"{seconds:,.0f} s" in text
    assert f"{3600 / seconds:.1f} candidates per minute" in text
    accepted = [r for r in history if r.evaluation.outcome == "accepted"]
    best = max(accepted, key=lambda r: sum(r.evaluation.scores.values()))
    mean = sum(best.evaluation.scores.values()) / 3
    assert f"{100 * mean:.1f} % best mean accuracy" in text
    assert f"mean {100 * mean:.1f} % 71.0 % {100 * mean - 71:+.1f}" in text.replace("\N{MINUS SIGN}", "-")
    assert f"#0 · candidate {best.index}" in text
    assert f"y = {best.graph}" in text
    for name in ("BN-ReLU", "GN-ReLU", "EvoNorm-B0", "EvoNorm-S0", "stability_norm 1e+08", "0.1.0"):
        assert name in text
    assert "rejected: low quality (anchor resnet_small, accuracy 0.13, threshold 0.2, step 100)" in text


def test_the_layers_are_those_of_the_file_and_the_line_to_use_one_is_right(full):
    search = records.read_search(full)
    top = ranking.top_layers(search)
    layers = json.loads((full / "top_layers.json").read_text())["layers"]
    assert [(layer.index, layer.pareto) for layer in top] == [(row["index"], row["pareto"]) for row in layers]
    assert len(layers) > CONFIG["top_k"]  # members of the front beyond the best three
    text = text_of(rendered(full))
    assert all(f'norm_act("top_layers.json#{number}")' in text for number in range(len(layers)))


def test_the_page_needs_nothing_else_and_escapes_text(full):
    page = rendered(full)
    assert "tiny &lt;b&gt;search&lt;/b&gt;" in page
    assert "<b>search" not in page
    assert not re.search(r"<script|<link|<img|https?://|@import|src=", page)
    for target in re.findall(r'href="([^"]*)"', page):
        assert target.startswith("#f")
    names = re.findall(r'\sid="([^"]*)"', page)
    assert len(set(names)) == len(names)
    assert set(re.findall(r'(?:href="#|url\(#)([^")]*)', page)) <= set(names)


def test_colours_follow_the_page(full):
    assert set(records.OUTCOMES) == set(OUTCOMES) <= set(palette.COLORS)
    lights = [light for light, _ in palette.COLORS.values()]
    assert len(set(lights)) == len(lights)
    picture = re.sub(r"<style>.*?</style>", "", rendered(full), flags=re.S)
    assert "var(--accepted)" in picture and "var(--ink)" in picture
    assert set(re.findall(r"#[0-9a-f]{6}\b", picture)) <= {"#ffffff"}


@pytest.mark.parametrize("kept", [0.02, 0.5, 0.98])
def test_a_torn_last_line_is_left_out(workdir, kept):
    path = workdir / "history.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    without = records.read_search(workdir)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][: int(kept * len(lines[-1]))])
    torn = records.read_search(workdir)
    assert len(torn.history) == 59 and not torn.finished
    assert (torn.torn, without.torn) == (True, False)
    assert list(torn.history) == list(without.history)
    assert "last line of the history was incomplete" in render(torn, NOW)


def test_a_running_search_without_layer_files(workdir):
    before = ranking.top_layers(records.read_search(workdir))
    (workdir / "top_layers.json").unlink()
    (workdir / "baselines.json").unlink()
    text = text_of(rendered(workdir))
    assert "BN-ReLU, trained" not in text
    use = re.findall(r'norm_act\(Graph\.parse\("(.*?)"\)\)', text)
    assert [Graph.parse(equation).canonical for equation in use] == [r.graph.canonical for r in before]


def test_a_file_behind_the_history_is_not_pointed_into(workdir):
    path = workdir / "top_layers.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "layers": data["layers"][1:]}))
    assert "top_layers.json#" not in text_of(rendered(workdir))


@pytest.mark.parametrize("number", [0, 12])
def test_nothing_accepted_yet(tmp_path, number):
    history = made_up_history(number, outcomes=("unstable", "low_quality"))
    text = text_of(rendered(write_workdir(tmp_path / "run", history)))
    assert f"{number} of 60 candidates examined · not finished" in text
    assert "No candidate has been accepted yet." in text
    assert ("No candidate has been examined yet." in text) == (number == 0)


def test_a_directory_with_settings_only(tmp_path):
    claim_workdir(tmp_path / "run", CONFIG)
    assert "No candidate has been examined yet." in text_of(rendered(tmp_path / "run"))


@pytest.mark.parametrize(("anchors", "panels"), [(1, 0), (2, 1), (3, 3)])
def test_a_panel_a_pair_of_anchors(tmp_path, anchors, panels):
    names = ANCHORS[:anchors]
    history = History()
    for record in made_up_history(20):
        scores = {name: record.evaluation.scores[name] for name in names if record.evaluation.scores}
        history.append(record._replace(evaluation=record.evaluation._replace(scores=scores)))
    claim_workdir(tmp_path, {**CONFIG, "anchors": names})
    lines = [json.dumps(record.to_json()) + "\n" for record in history]
    (tmp_path / "history.jsonl").write_text("".join(lines))
    page = rendered(tmp_path)
    assert page.count('aria-label="accuracies on') == panels
    assert ("With a single anchor" in page) == (anchors == 1)


def test_the_method_random_ends_with_its_first_layer(tmp_path):
    history = made_up_history(1, outcomes=("accepted",))
    assert [record.evaluation.outcome for record in history] == ["inert"]
    config = {**CONFIG, "method": "random"}
    path = write_workdir(tmp_path / "run", history, config)
    assert not records.read_search(path).finished
    history = made_up_history(2, outcomes=("accepted",))
    path = write_workdir(tmp_path / "done", history, config)
    assert records.read_search(path).finished


def test_a_large_history_gives_a_small_page(tmp_path):
    first = made_up_history(2, outcomes=("accepted",))[1]
    claim_workdir(tmp_path, CONFIG)
    with open(tmp_path / "history.jsonl", "w") as file:
        for index in range(2500):
            scores = dict.fromkeys(ANCHORS, 0.5 + index / 10000)
            record = first._replace(index=index, evaluation=first.evaluation._replace(scores=scores))
            file.write(json.dumps(record.to_json()) + "\n")
    page = rendered(tmp_path)
    assert "data:image/png;base64" in page
    assert len(page) < 500_000


def damage_line(number, change):
    def damage(workdir):
        path = workdir / "history.jsonl"
        lines = path.read_text().splitlines()
        lines[number - 1] = change(lines[number - 1])
        path.write_text("\n".join(lines) + "\n")

    return damage


def change_row(**changes):
    return lambda line: json.dumps({**json.loads(line), **changes})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "no such work directory"),
        (lambda path: (path / "config.json").unlink(), "is not the work directory of a search: it has no config"),
        (lambda path: (path / "config.json").write_text("{"), "config.json is damaged: it is not JSON"),
        (lambda path: (path / "config.json").write_text("[]"), "config.json is damaged: "),
        (
            lambda path: (path / "config.json").write_text('{"version": "1", "config": {"name": "x"}}'),
            "is not the config of a search: it has no method, budget, top_k, anchors",
        ),
        (lambda path: (path / "baselines.json").write_bytes(b"\xff"), "baselines.json is damaged: it is not JSON"),
        (lambda path: (path / "top_layers.json").write_text("{}"), "top_layers.json is damaged: .*'layers'"),
        (damage_line(7, lambda line: line[:40]), "history.jsonl is damaged: line 7 is not JSON"),
        (damage_line(9, lambda line: "[1, 2]"), "history.jsonl, line 9 is damaged"),
        (damage_line(9, change_row(graph={"schema": 1, "nodes": [["add", [0]]]})), "line 9 is damaged: .*2 input"),
        (damage_line(60, change_row(outcome="lost")), "line 60 is damaged: unknown outcome 'lost'; known: inert"),
        (damage_line(5, change_row(index=44)), "line 5 is damaged: .*got 44"),
        (damage_line(5, change_row(outcome="accepted", scores={"a": 1})), "line 5 is damaged: scores of a, expected"),
    ],
)
def test_damage_is_one_clear_line(workdir, damage, message):
    damage(workdir)
    with pytest.raises(report.WorkdirError, match=message) as raised:
        report.write_report(workdir)
    assert "\n" not in str(raised.value)


def test_without_matplotlib_it_says_what_to_install(monkeypatch, full):
    for name in [name for name in sys.modules if name.startswith("evonorms_jax.report.")]:
        monkeypatch.delitem(sys.modules, name)
        monkeypatch.delattr(report, name.rpartition(".")[2])
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install evonorms-jax\[demo\]"):
        report.write_report(full)


def run_main(workdir):
    command = [sys.executable, "-m", "experiments.report", f"--workdir={workdir}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_command(workdir):
    good = run_main(workdir)
    assert (good.returncode, good.stdout) == (0, f"report: {workdir / 'report' / 'index.html'}\n")
    damage_line(7, lambda line: line[:40])(workdir)
    bad = run_main(workdir)
    assert bad.returncode != 0
    assert bad.stderr == f"error: {workdir / 'history.jsonl'} is damaged: line 7 is not JSON\n"


def test_a_browser_shows_the_page(full, tmp_path):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no chromium or google-chrome is installed")
    path = report.write_report(full)
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += [f"--user-data-dir={tmp_path}", "--enable-logging=stderr", "--dump-dom", f"file://{path}"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    title = re.search("<title>(.*?)</title>", shown.stdout)[1]
    assert html.unescape(title) == "tiny <b>search</b>: search for normalization-activation layers"
    assert shown.stdout.count("<svg") == path.read_text().count("<svg") > 10
    assert "CONSOLE" not in shown.stderr
