"""The work directory: one config for ever, and no other directory by mistake."""

import json
import logging

import pytest
from etils.epath import backend

import evonorms_jax
from evonorms_jax.runs.files import absolute, write_whole
from evonorms_jax.runs.workdir import CONFIG, check_config, claim_workdir, read_config

SETTINGS = {"seed": 0, "anchors": ("a", "b"), "proxy": {"steps": 5, "rates": {}}, "width": None}


def claim(*arguments, **options):
    with claim_workdir(*arguments, **options) as workdir:
        return workdir


def test_a_claim_writes_config_and_version(tmp_path):
    workdir = claim(tmp_path / "runs" / "first", SETTINGS)
    assert str(workdir) == str(tmp_path / "runs" / "first")
    content = json.loads((workdir / CONFIG).read_text())
    assert content == {"version": evonorms_jax.__version__, "config": {**SETTINGS, "anchors": ["a", "b"]}}
    assert [path.name for path in workdir.iterdir()] == [CONFIG]


def test_the_same_config_is_let_in_again(tmp_path):
    claim(tmp_path, SETTINGS)
    (tmp_path / "checkpoints").mkdir()
    before = (tmp_path / CONFIG).read_text()
    assert str(claim(tmp_path, SETTINGS)) == str(tmp_path)
    assert (tmp_path / CONFIG).read_text() == before


def test_another_config_is_refused_by_key(tmp_path):
    claim(tmp_path, SETTINGS)
    other = {"seed": 1, "anchors": ("a",), "proxy": {"steps": 6, "rates": {}}, "new": True}
    with pytest.raises(ValueError, match="belongs to another config") as caught:
        claim(tmp_path, other)
    assert str(caught.value).split(": ", 1)[1].split("; ") == [
        "anchors is ['a', 'b'] there and ['a'] now",
        "new is '(none)' there and True now",
        "proxy.steps is 5 there and 6 now",
        "seed is 0 there and 1 now",
        "width is None there and '(none)' now",
    ]


def test_some_keys_may_differ(tmp_path):
    claim(tmp_path, SETTINGS)
    other = {**SETTINGS, "seed": 1, "proxy": {"steps": 6, "rates": {}}}
    claim(tmp_path, other, may_differ=("seed", "proxy.steps"))
    with pytest.raises(ValueError, match=r": seed is 0 there and 1 now$"):
        claim(tmp_path, other, may_differ=("proxy.steps",))


def test_a_foreign_directory_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match=r"is not empty .* 'thesis.tex'"):
        claim(tmp_path, SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_claim_that_was_killed_can_be_made_again(tmp_path):
    (tmp_path / "config.json.draft").write_text('{"ver')
    claim(tmp_path, SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == [CONFIG]


@pytest.mark.parametrize("content", ["", '{"version"', "[]", '{"config": {}}', '{"config": 3}'])
def test_a_damaged_config_is_an_error(tmp_path, content):
    (tmp_path / CONFIG).write_text(content)
    with pytest.raises(ValueError, match=r"config.json is damaged"):
        claim(tmp_path, SETTINGS)


def test_a_file_in_the_way_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ValueError, match="cannot be made: a file is in the way"):
            claim(path, SETTINGS)


def test_a_bucket_that_cannot_be_opened_says_what_to_install(monkeypatch):
    def absent(*_):
        raise ImportError("Please install gcsfs")

    monkeypatch.setattr(backend._FileSystemSpecBackend, "_get_filesystem", absent)
    for use in (read_config, lambda path: claim(path, SETTINGS)):
        with pytest.raises(ImportError, match=r"^gs://b/run .*: Please .* 'evonorms-jax\[gcs\]'") as caught:
            use("gs://b/run")
        assert caught.traceback[-1].path.name == "workdir.py"


def test_a_directory_that_cannot_be_written_is_an_error(tmp_path, monkeypatch):
    # Not by permissions: they do not bind root, as which tests may run.
    def refuse(*_):
        raise PermissionError(13, "Permission denied", str(tmp_path / CONFIG))

    monkeypatch.setattr("evonorms_jax.runs.workdir.write_whole", refuse)
    with pytest.raises(PermissionError, match=rf"Permission denied: .*{CONFIG}"):
        claim(tmp_path, SETTINGS)
    assert not list(tmp_path.iterdir())


def test_a_config_can_be_checked_while_another_process_works(tmp_path):
    with claim_workdir(tmp_path, SETTINGS):
        check_config(tmp_path, SETTINGS)
        with pytest.raises(ValueError, match="seed is 0 there and 1 now"):
            check_config(tmp_path, SETTINGS | {"seed": 1})


def test_another_version_is_only_a_warning(tmp_path, caplog):
    claim(tmp_path, SETTINGS)
    content = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps({**content, "version": "0.0.1"}))
    with caplog.at_level(logging.WARNING, "absl"):
        claim(tmp_path, SETTINGS)
    assert "begun with version 0.0.1" in caplog.text


def test_paths_become_absolute_and_buckets_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(absolute("runs/a")) == str(tmp_path / "runs" / "a")
    assert str(absolute("gs://bucket/runs/a")) == "gs://bucket/runs/a"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert str(absolute("~/runs/a")) == str(tmp_path / "home" / "runs" / "a")


def test_a_file_is_replaced_whole(tmp_path, monkeypatch):
    path = absolute(tmp_path / "result.json")
    write_whole(path, "before")

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(path), "replace", die)
        with pytest.raises(KeyboardInterrupt):
            write_whole(path, "after")
    assert path.read_text() == "before"
    write_whole(path, "after")
    assert path.read_text() == "after"
