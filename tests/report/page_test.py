"""The page of the report: its content for a search in any state, and its layout in a browser."""

import datetime
import html
import itertools
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
from evonorms_jax.evolution.archive import Archive
from evonorms_jax.evolution.history import OUTCOMES, History
from evonorms_jax.evolution.reranking import RerankedLayer
from evonorms_jax.report import sections, theme
from evonorms_jax.report.markup import DASH, duration
from evonorms_jax.report.page import render
from evonorms_jax.runs.workdir import claim_workdir
from evonorms_jax.search_space import Graph
from evonorms_jax.search_space.cost import layer_cost

NOW = datetime.datetime(2020, 4, 6, tzinfo=datetime.UTC)


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    return write_workdir(tmp_path_factory.mktemp("search") / "full", made_up_history(60))


@pytest.fixture(scope="module")
def page(full):
    return rendered(full)


@pytest.fixture
def workdir(full, tmp_path):
    """A copy to change."""
    return Path(shutil.copytree(full, tmp_path / "copy", ignore=shutil.ignore_patterns("checkpoints")))


def rendered(path: Path) -> str:
    return render(records.read_search(path), NOW)


def text_of(page: str) -> str:
    """The text that a reader sees, without markup."""
    body = re.sub(r"<style>.*?</style>", "", page, flags=re.S)
    text = html.unescape(re.sub(r"<[^>]+>", " ", body)).replace("\N{NO-BREAK SPACE}", " ")
    return re.sub(r"\s+", " ", text)


def test_the_page_reports_the_history(page):
    history = made_up_history(60)
    text = text_of(page)
    counts = Counter(record.evaluation.outcome for record in history)
    assert len(counts) > 4, "most outcomes occur"
    for name, outcome in OUTCOMES.items():
        share = f"{100 * counts[name] / 60:.1f} %"
        assert f"{outcome.title} {outcome.meaning} {counts[name]} {share}" in text
    assert "60 of 60 candidates examined · finished" in text
    assert f"{counts['accepted']} trained in full" in text
    seconds = sum(record.evaluation.seconds for record in history)
    assert f"{duration(seconds)} device time" in text
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


def test_the_layers_are_those_of_the_file_and_each_is_built_by_its_printed_call(full, page):
    search = records.read_search(full)
    top = records.top_layers(search.history, search.config["top_k"])
    layers = json.loads((full / "top_layers.json").read_text())["layers"]
    assert [(layer.index, layer.pareto) for layer in top] == [(row["index"], row["pareto"]) for row in layers]
    assert len(layers) > CONFIG["top_k"]  # members of the front beyond the best ones
    text = text_of(page)
    assert all(f'norm_act("top_layers.json#{number}")' in text for number in range(len(layers)))


def test_the_cost_of_the_layers_is_in_the_file_and_on_the_page(full, page):
    layers = json.loads((full / "top_layers.json").read_text())["layers"]
    for row in layers:
        assert row["cost"] == layer_cost(Graph.from_json(row["graph"])).to_json()
    text = text_of(page)
    assert "Accuracy and cost" in text
    front = records.cost_front(made_up_history(60))
    pairs = [(layer_cost(record.graph).passes, record.mean_score) for record in front]
    assert pairs == sorted(set(pairs)) and all(a[1] < b[1] for a, b in itertools.pairwise(pairs))
    others = [record for record in made_up_history(60).selectable() if record not in front]
    for record in others:
        passes = layer_cost(record.graph).passes
        assert any(cost <= passes and score >= record.mean_score for cost, score in pairs)
    for record in front:
        cost = layer_cost(record.graph)
        row = f"{cost.passes} {cost.inference} {cost.bytes()} {cost.state or DASH} {cost.parameters}"
        assert f"{row} {100 * record.mean_score:.1f} %" in text
    assert records.cost_front(History()) == []


def test_the_re_ranking_orders_the_layers_and_is_compared_with_bn_relu(tmp_path):
    history = made_up_history(60)
    workdir = write_workdir(tmp_path / "run", history)
    best, second = records.top_layers(history, CONFIG["top_k"])[:2]
    trained = [
        ("", best.graph, best.index, 1, [0.5, 0.6]),
        ("", second.graph, second.index, 2, [0.8, 0.9]),
        ("bn_relu", best.graph, None, None, [0.7, 0.7]),
    ]
    layers = [RerankedLayer(*layer, dict.fromkeys(ANCHORS, scores)) for *layer, scores in trained]
    with Archive(workdir, CONFIG["top_k"]) as archive:
        archive.add_reranked(layers)
        archive.checkpoint(archive.restore())
    text = text_of(rendered(workdir))
    assert f"#0 · candidate {second.index}" in text and f"#1 · candidate {best.index}" in text
    assert "mean, fresh seeds 85.0 % 70.0 % +15.0" in text
    assert "85.0 % mean accuracy of the best, fresh seeds" in text
    assert "fresh seeds 85.0 ± 7.1 %, number 2 in the search" in text
    rows = json.loads((workdir / "top_layers.json").read_text())["layers"]
    assert [row["index"] for row in rows[:2]] == [second.index, best.index]
    assert rows[0]["rank"] == 2 and rows[0]["reranked"]["mean"] == pytest.approx(0.85)
    assert rows[0]["cluster"]["members"][0] == second.index and rows[0]["simplified"] == second.simplified


def test_the_page_is_self_contained_and_escapes_text(page):
    assert "tiny &lt;b&gt;search&lt;/b&gt;" in page
    assert "<b>search" not in page
    assert not re.search(r"<script|<link|<img|https?://|@import|src=", page)
    for target in re.findall(r'href="([^"]*)"', page):
        assert target.startswith("#f")
    names = re.findall(r'\sid="([^"]*)"', page)
    assert len(set(names)) == len(names)
    assert set(re.findall(r'(?:href="#|url\(#)([^")]*)', page)) <= set(names)


def test_pictures_have_the_colors_of_the_page(page):
    assert all(theme.COLORS[name] == (outcome.light, outcome.dark) for name, outcome in OUTCOMES.items())
    lights = [light for light, _ in theme.COLORS.values()]
    assert len(set(lights)) == len(lights)
    picture = re.sub(r"<style>.*?</style>", "", page, flags=re.S)
    assert "var(--accepted)" in picture and "var(--ink)" in picture
    assert set(re.findall(r"#[0-9a-f]{6}\b", picture)) <= {"#ffffff"}


def test_a_line_that_is_being_written_is_named(workdir):
    path = workdir / "history.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    text = text_of(rendered(workdir))
    assert "59 of 60 candidates examined · not finished" in text
    assert "The last line of the history was incomplete and is left out." in text
    assert "These are the best layers so far." in text


def test_a_running_search_without_layer_files(workdir):
    before = records.top_layers(records.read_search(workdir).history, CONFIG["top_k"])
    (workdir / "top_layers.json").unlink()
    (workdir / "baselines.json").unlink()
    text = text_of(rendered(workdir))
    assert "BN-ReLU" not in text and "points over" not in text
    use = re.findall(r'norm_act\(Graph\.parse\("(.*?)"\)\)', text)
    assert [Graph.parse(equation).canonical for equation in use] == [r.graph.canonical for r in before]


def test_a_file_behind_the_history_is_not_pointed_into(workdir):
    path = workdir / "top_layers.json"
    data = json.loads(path.read_text())
    earlier = [{**row, "index": row["index"] + 1000} for row in data["layers"]]
    path.write_text(json.dumps({**data, "layers": earlier}))
    search = records.read_search(workdir)
    top = records.top_layers(search.history, CONFIG["top_k"])
    assert top and "top_layers.json#" not in text_of(sections.top_layers(search, top))


def test_the_idle_share_is_shown_once_it_is_known(workdir):
    assert "device idle time" not in text_of(sections.tiles(records.read_search(workdir), []))
    (workdir / "devices.json").write_text('{"devices": 2, "idle_share": 0.184}')
    assert "18.4 % device idle time, last run" in text_of(sections.tiles(records.read_search(workdir), []))


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
def test_each_pair_of_anchors_has_a_panel(tmp_path, anchors, panels):
    names = ANCHORS[:anchors]
    history = History()
    for record in made_up_history(20):
        scores = {name: record.evaluation.scores[name] for name in names if record.evaluation.scores}
        history.append(record._replace(evaluation=record.evaluation._replace(scores=scores)))
    with claim_workdir(tmp_path, {**CONFIG, "anchors": names}):
        pass
    lines = [json.dumps(record.to_json()) + "\n" for record in history]
    (tmp_path / "history.jsonl").write_text("".join(lines))
    front = sections.pareto(records.read_search(tmp_path), [])
    assert front.count('aria-label="accuracies on') == panels
    assert ("With a single anchor" in front) == (anchors == 1)


def test_a_large_history_gives_a_small_page(tmp_path):
    first = made_up_history(2, outcomes=("accepted",))[1]
    with claim_workdir(tmp_path, CONFIG):
        pass
    with open(tmp_path / "history.jsonl", "w") as file:
        for index in range(2500):
            scores = dict.fromkeys(ANCHORS, 0.5 + index / 10000)
            record = first._replace(index=index, evaluation=first.evaluation._replace(scores=scores))
            file.write(json.dumps(record.to_json()) + "\n")
    page = rendered(tmp_path)
    assert "data:image/png;base64" in page
    assert len(page) < 500_000


def test_without_matplotlib_the_error_names_the_package_to_install(monkeypatch, full):
    for name in [name for name in sys.modules if name.startswith("evonorms_jax.report.")]:
        monkeypatch.delitem(sys.modules, name)
        monkeypatch.delattr(report, name.rpartition(".")[2])
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"the report needs matplotlib: pip install 'evonorms-jax\[demo\]"
    ):
        report.write_report(full)


#: Writes measurements of the page, as the browser lays it out, into the title of the page around it.
MEASURE = """<script>addEventListener("load", () => {
  const inside = (text) => {
    const [inner, outer] = [text.getBoundingClientRect(), text.closest("svg").getBoundingClientRect()];
    return inner.top >= outer.top - 1 && inner.bottom <= outer.bottom + 1 && inner.right <= outer.right + 1;
  };
  const all = (selector) => [...document.querySelectorAll(selector)];
  parent.document.title = JSON.stringify({
    width: innerWidth,
    wanted: document.documentElement.scrollWidth,
    pictures: all("svg").filter((svg) => svg.getBoundingClientRect().height > 20).length,
    cut: all("svg text").filter((text) => !inside(text)).map((text) => text.textContent),
    background: getComputedStyle(document.body).backgroundColor,
    label: getComputedStyle(document.querySelector("svg text")).fill,
  });
});</script>"""


def browse(page, width, folder, *flags):
    """The measurements of a page in a frame of this width in a browser without a screen, and its log."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no chromium or google-chrome is installed")
    # A frame can be narrower than the least width of a browser window.
    page = html.escape(page.replace("</head>", MEASURE + "</head>"))
    style = "<style>:root { color-scheme: light dark }</style>"
    frame = f'<iframe width="{width}" height="1000" frameborder="0" srcdoc="{page}"></iframe>'
    path = folder / "page.html"
    path.write_text(f"<!doctype html><title></title>{style}{frame}", encoding="utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += [f"--user-data-dir={folder}/profile", "--enable-logging=stderr", "--dump-dom", *flags]
    command += [f"file://{path}"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    title = html.unescape(re.search("<title>(.*?)</title>", shown.stdout)[1])
    return json.loads(title), shown.stderr


def rgb(color):
    return f"rgb({', '.join(str(int(color[i : i + 2], 16)) for i in (1, 3, 5))})"


@pytest.mark.parametrize("screen", ["light", "dark"])
def test_a_browser_shows_the_page_on_narrow_and_wide_screens(page, tmp_path, screen):
    width, scheme = (380, 1) if screen == "light" else (1300, 0)
    shown, log = browse(page, width, tmp_path, f"--blink-settings=preferredColorScheme={scheme}")
    assert shown["wanted"] <= shown["width"] == width, "the page itself never scrolls sideways"
    assert shown["pictures"] == page.count("<svg") >= 10
    assert shown["cut"] == []
    assert shown["background"] == rgb(theme.COLORS["page"][screen == "dark"])
    assert shown["label"] in {rgb(theme.COLORS[name][screen == "dark"]) for name in ("ink", "muted")}
    assert "CONSOLE" not in log
