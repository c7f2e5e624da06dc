"""Records of a history, on disk and back, and the archive after every kind of accident."""

import json
from pathlib import Path

import numpy as np
import pytest
from etils import epath
from etils.epath import backend
from fsspec.implementations.memory import MemoryFileSystem

from evonorms_jax.evolution import archive as archive_module
from evonorms_jax.evolution.archive import Archive
from evonorms_jax.evolution.history import Evaluation, History, Proposal, Record
from evonorms_jax.evolution.records import top_layers
from evonorms_jax.layers import norm_act
from evonorms_jax.runs.workdir import claim_workdir
from evonorms_jax.search_space import CATALOG

GRAPHS = list(CATALOG.values())


def record(index, mean=None, fingerprint=""):
    scores = {} if mean is None else {"a": mean - 0.1, "b": mean + 0.1}
    outcome = "low_quality" if mean is None else "accepted"
    proposal = Proposal(GRAPHS[index % len(GRAPHS)], "mutation", (0,))
    return Record(index, proposal, Evaluation(outcome, {"step": 3}, scores, 100, 1.5, None, fingerprint))


@pytest.fixture
def workdir(tmp_path):
    with claim_workdir(tmp_path / "run", {"seed": 0}) as path:
        yield path


def fill(workdir, records, checkpoint_at=()):
    with Archive(workdir, top_k=2) as archive:
        history = archive.restore()
        for each in records:
            history.append(each)
            archive.append([each])
            if len(history) in checkpoint_at:
                archive.checkpoint(history)


def restored(workdir):
    with Archive(workdir, top_k=2) as archive:
        return list(archive.restore())


RECORDS = [record(0, 0.4), record(1), record(2, 0.9), record(3, 0.6), record(4)]


def test_a_record_survives_json():
    for each in RECORDS:
        assert Record.from_json(json.loads(json.dumps(each.to_json()))) == each
    with pytest.raises(ValueError, match="not a record of a history"):
        Record.from_json({"index": 0})


def test_a_line_of_an_older_version_is_read():
    line = RECORDS[1].to_json()
    line["figure"] = line.pop("evidence")
    del line["replicas"]
    assert Record.from_json(line) == RECORDS[1]


def test_a_duplicate_is_neither_selectable_nor_ranked():
    """It has the scores of its original, which would otherwise be a parent and be listed twice."""
    first, other, third = record(0, 0.4), record(1, 0.9), record(2, 0.6)
    duplicate = other._replace(index=3, evaluation=other.evaluation._replace(duplicate_of=1))
    history = History([first, other, third, duplicate])
    assert [r.index for r in history.selectable()] == [0, 1, 2]
    assert [r.index for r in history.selectable(before=2)] == [0, 1]
    np.testing.assert_allclose(history.scores(before=2), [[0.3, 0.5], [0.8, 1.0]])
    np.testing.assert_allclose(history.scores(), [[0.3, 0.5], [0.8, 1.0], [0.5, 0.7]])
    assert history.num_selectable() == 3 and history.num_selectable(before=2) == 2
    assert [r.index for r in history.ranked()] == [1, 2, 0]
    assert [layer.index for layer in top_layers(history, 5)] == [1, 2, 0]


def test_records_are_appended_in_order_only():
    with pytest.raises(ValueError, match="the next record has index 0, got 1"):
        History([record(1)])


def test_the_original_of_a_function_is_its_first_record():
    history = History([record(0, 0.4, "f"), record(1, 0.5, "g"), record(2, 0.6, "f")])
    assert history.original("f").index == 0
    assert history.original("h") is None


def test_nothing_is_lost_without_a_checkpoint(workdir):
    fill(workdir, RECORDS)
    assert restored(workdir) == RECORDS


class NoCheckpoints:
    """The checkpoints of a search in a bucket that is killed before it saves one."""

    def __init__(self, _):
        pass

    def restore(self):
        return None

    def close(self):
        pass


def test_nothing_is_lost_in_a_bucket_either(monkeypatch):
    bucket = MemoryFileSystem(skip_instance_cache=True)
    monkeypatch.setattr(backend._FileSystemSpecBackend, "_get_filesystem", lambda *_: bucket)
    monkeypatch.setattr(archive_module, "Checkpoints", NoCheckpoints)
    workdir = epath.Path("gs://bucket/run")
    fill(workdir, RECORDS[:3])
    assert restored(workdir) == RECORDS[:3]
    fill(workdir, RECORDS[3:])
    assert restored(workdir) == RECORDS


def test_a_long_log_in_a_bucket_is_written_when_a_part_is_new(monkeypatch):
    """So that the cost of a search grows in proportion to its length."""
    bucket = MemoryFileSystem(skip_instance_cache=True)
    monkeypatch.setattr(backend._FileSystemSpecBackend, "_get_filesystem", lambda *_: bucket)
    monkeypatch.setattr(archive_module, "Checkpoints", NoCheckpoints)
    workdir = epath.Path("gs://bucket/long")
    written = []
    save = Archive._save_text
    monkeypatch.setattr(Archive, "_save_text", lambda self: (written.append(self._length), save(self)))
    records = [record(index) for index in range(400)]
    with pytest.raises(KeyboardInterrupt), Archive(workdir, top_k=2) as archive:
        archive.restore()
        for each in records:
            archive.append([each])
        raise KeyboardInterrupt
    assert 64 < len(written) < 250 and sum(written) < 66 * written[-1]
    assert restored(workdir) == records, "an exit saves the rest"


def test_checkpoint_and_log_together_give_the_history(workdir):
    fill(workdir, RECORDS, checkpoint_at=(3,))
    assert restored(workdir) == RECORDS
    (workdir / "history.jsonl").unlink()
    assert restored(workdir) == RECORDS[:3]


def test_lines_after_a_damaged_one_are_examined_anew(workdir, caplog):
    fill(workdir, RECORDS)
    log = workdir / "history.jsonl"
    lines = log.read_text().splitlines()
    log.write_text("\n".join([*lines[:2], lines[2][:50], *lines[3:]]) + "\n")
    with caplog.at_level("WARNING", "absl"):
        assert restored(workdir) == RECORDS[:2]
    assert f"{log} is damaged: line 3 is not JSON; the search resumes from that line" in caplog.text
    fill(workdir, RECORDS[2:])
    assert restored(workdir) == RECORDS


@pytest.mark.parametrize("cut", [1, 40])
def test_a_torn_last_line_costs_that_candidate_alone(workdir, cut):
    fill(workdir, RECORDS)
    log = workdir / "history.jsonl"
    log.write_text(log.read_text()[:-cut])
    # A line that lacks only its end of line is whole.
    expected = RECORDS if cut == 1 else RECORDS[:4]
    assert restored(workdir) == expected
    fill(workdir, RECORDS[len(expected) :])
    assert restored(workdir) == RECORDS


def test_a_damaged_checkpoint_is_passed_over(workdir):
    fill(workdir, RECORDS, checkpoint_at=(2, 4))
    for path in Path(workdir / "checkpoints" / "4").glob("**/*"):
        if path.is_file():
            path.write_bytes(b"")
    assert restored(workdir) == RECORDS


def test_the_top_layers_are_the_best_and_the_front_and_make_layers(workdir):
    weak_on_one = Record(5, Proposal(GRAPHS[5], "random"), Evaluation("accepted", {}, {"a": 0.95, "b": 0.0}))
    fill(workdir, [*RECORDS, weak_on_one], checkpoint_at=(6,))
    layers = json.loads((workdir / "top_layers.json").read_text())["layers"]
    assert [(row["index"], row["rank"], row["pareto"]) for row in layers] == [
        (2, 1, True),
        (3, 2, False),
        (5, 3, True),
    ]
    make = norm_act(f"{workdir}/top_layers.json#0")
    assert make().graph == RECORDS[2].graph
    assert layers[0]["equation"] == str(RECORDS[2].graph)


def test_baselines_are_kept_by_name(workdir):
    with Archive(workdir, top_k=2) as archive:
        assert archive.baselines() == {}
        archive.add_baseline("evonorm_b0", GRAPHS[0], RECORDS[0].evaluation)
        archive.add_baseline("evonorm_s0", GRAPHS[3], RECORDS[1].evaluation)
        assert list(archive.baselines()) == ["evonorm_b0", "evonorm_s0"]
        assert archive.baselines()["evonorm_b0"]["scores"] == RECORDS[0].evaluation.scores
    (workdir / "baselines.json").write_text("{")
    with Archive(workdir, top_k=2) as archive:
        assert archive.baselines() == {}
