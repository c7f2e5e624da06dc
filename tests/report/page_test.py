"""The page of the report: what it says of a search in any state, and that a browser shows it."""

import datetime
import html
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from support.report_workdirs import ANCHORS, CONFIG, made_up_history, write_workdir

from evonorms_jax import report
from evonorms_jax.evolution import records
from evonorms_jax.evolution.history import OUTCOMES, History
from evonorms_jax.report import theme
from evonorms_jax.report.page import render
from evonorms_jax.runs.workdir import claim_workdir
from evonorms_jax.search_space import Graph

NOW = datetime.datetime(2020, 4, 6, tzinfo=datetime.UTC)


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    return write_workdir(tmp_path_factory.mktemp("search") / "full", made_up_history(60))


@pytest.fixture
def workdir(full, tmp_path):
    """A copy to change."""
    return Path(shutil.copytree(full, tmp_path / "copy", ignore=shutil.ignore_patterns("checkpoints")))


def rendered(path: Path) -> str:
    return render(records.read_search(path), NOW)


def text_of(page: str) -> str:
    """What a reader sees, without markup."""
    body = re.sub(r"<style>.*?</style>", "", page, flags=re.S)
    text = html.unescape(re.sub(r"<[^>]+>", " ", body)).replace("\N{NO-BREAK SPACE}", " ")
    return re.sub(r"\s+", " ", text)


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
    assert f"{3600 / seconds:.1f} candidates per device minute" in text
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
    top = records.top_layers(search)
    layers = json.loads((full / "top_layers.json").read_text())["layers"]
    assert [(layer.index, layer.pareto) for layer in top] == [(row["index"], row["pareto"]) for row in layers]
    assert len(layers) > CONFIG["top_k"]  # members of the front beyond the best ones
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
    assert set(records.OUTCOMES) == set(OUTCOMES) <= set(theme.COLORS)
    lights = [light for light, _ in theme.COLORS.values()]
    assert len(set(lights)) == len(lights)
    picture = re.sub(r"<style>.*?</style>", "", rendered(full), flags=re.S)
    assert "var(--accepted)" in picture and "var(--ink)" in picture
    assert set(re.findall(r"#[0-9a-f]{6}\b", picture)) <= {"#ffffff"}


def test_a_line_that_is_being_written_is_named(workdir):
    path = workdir / "history.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    text = text_of(rendered(workdir))
    assert "59 of 60 candidates examined · not finished" in text
    assert "The last line of the history was incomplete and is left out." in text
    assert "these are the best layers so far" in text


def test_a_running_search_without_layer_files(workdir):
    before = records.top_layers(records.read_search(workdir))
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


def test_the_idle_share_is_shown_once_it_is_known(workdir):
    assert "the devices waited" not in text_of(rendered(workdir))
    (workdir / "devices.json").write_text('{"devices": 2, "idle_share": 0.184}')
    assert "18.4 % of that the devices waited, in the last run" in text_of(rendered(workdir))


@pytest.mark.parametrize("number", [0, 12])
def test_nothing_accepted_yet(tmp_path, number):
    history = made_up_history(number, outcomes=("unstable", "low_quality"))
    text = text_of(rendered(write_workdir(tmp_path / "run", history)))
    assert f"{number} of 60 candidates examined · not finished" in text
    assert "No candidate has been accepted yet." in text
    assert ("No candidate has been examined yet." in text) == (number == 0)


def test_a_directory_with_settings_only(tmp_path):
    with claim_workdir(tmp_path / "run", CONFIG):
        pass
    assert "No candidate has been examined yet." in text_of(rendered(tmp_path / "run"))


@pytest.mark.parametrize(("anchors", "panels"), [(1, 0), (2, 1), (3, 3)])
def test_a_panel_a_pair_of_anchors(tmp_path, anchors, panels):
    names = ANCHORS[:anchors]
    history = History()
    for record in made_up_history(20):
        scores = {name: record.evaluation.scores[name] for name in names if record.evaluation.scores}
        history.append(record._replace(evaluation=record.evaluation._replace(scores=scores)))
    with claim_workdir(tmp_path, {**CONFIG, "anchors": names}):
        lines = [json.dumps(record.to_json()) + "\n" for record in history]
        (tmp_path / "history.jsonl").write_text("".join(lines))
    page = rendered(tmp_path)
    assert page.count('aria-label="accuracies on') == panels
    assert ("With a single anchor" in page) == (anchors == 1)


def test_a_large_history_gives_a_small_page(tmp_path):
    first = made_up_history(2, outcomes=("accepted",))[1]
    with claim_workdir(tmp_path, CONFIG), open(tmp_path / "history.jsonl", "w") as file:
        for index in range(2500):
            scores = dict.fromkeys(ANCHORS, 0.5 + index / 10000)
            record = first._replace(index=index, evaluation=first.evaluation._replace(scores=scores))
            file.write(json.dumps(record.to_json()) + "\n")
    page = rendered(tmp_path)
    assert "data:image/png;base64" in page
    assert len(page) < 500_000


def test_without_matplotlib_it_says_what_to_install(monkeypatch, full):
    for name in [name for name in sys.modules if name.startswith("evonorms_jax.report.")]:
        monkeypatch.delitem(sys.modules, name)
        monkeypatch.delattr(report, name.rpartition(".")[2])
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install evonorms-jax\[demo\]"):
        report.write_report(full)


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
    assert html.unescape(title) == "tiny <b>search</b> · normalization-activation layers"
    assert shown.stdout.count("<svg") == path.read_text().count("<svg") >= 10
    assert "CONSOLE" not in shown.stderr
