"""Streams: the order of pictures, the shares of hosts, and the replacement of damaged pictures."""

import importlib
import itertools
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.data_sets import RARE, encode, examples, numbers, photograph

from evonorms_jax import data
from evonorms_jax.data.prepared import open_prepared
from experiments.benchmarks.prepared_set import write_set

ROOT = Path(__file__).parents[2]
SIDE = 16
DAMAGED = 17  # of `photos`
TRAIN = 24


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    rare = dict(zip((1, 4, 6, 9, 11, 20), RARE, strict=True))
    # As ImageNet: several formats, and a split `test` without labels.
    photos = {
        "train": examples(TRAIN, rare | {DAMAGED: "truncated"}),
        "validation": examples(7, {5: "truncated"}),
        "test": examples(5, label=lambda number: -1),
    }
    write_set(root, "photos", photos, num_classes=3)
    tested = {"train": 18, "test": 6, "validation": 4}
    write_set(root, "tested", {split: examples(count) for split, count in tested.items()}, num_classes=3)
    write_set(root, "only_train", {"train": examples(20)}, num_classes=3)
    damaged = [(photograph(0, "truncated"), 0), (b"no picture", 1)]
    write_set(root, "damaged", {"train": damaged}, num_classes=3)
    write_set(root, "mislabelled", {"train": examples(4, label=lambda number: number - 1)}, num_classes=3)
    return root


@pytest.fixture
def open_set(prepared):
    def open_set(name="tested", **settings):
        fixed = {"crop": SIDE, "flip": True, "threads": 3, "data_dir": str(prepared)}
        place = {key: settings.pop(key) for key in ("order_seed", "share") if key in settings}
        return data.open_stream(data.DataSettings(f"tfds:{name}", **fixed | settings), **place)

    return open_set


def take(count, stream, batch_size=4, start=0):
    """So many batches as one, [count * batch_size, ...]."""
    batches = stream.train_batches(batch_size, start)
    taken = list(itertools.islice(batches, count))
    batches.close()
    return data.Batch(*(np.concatenate(values) for values in zip(*taken, strict=True)))


def evaluated(stream, part, batch_size=4):
    return [np.concatenate(values) for values in zip(*stream.eval_batches(part, batch_size), strict=True)]


def assert_equal(first, second):
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


# Parts


def test_a_stream_says_what_it_holds(open_set):
    stream = open_set("photos", image_size=20)
    assert (stream.name, stream.num_classes, stream.eval_size) == ("photos", 3, 20)
    np.testing.assert_allclose(stream.mean, [123.675, 116.28, 103.53], rtol=1e-6)
    np.testing.assert_allclose(stream.std, [58.395, 57.12, 57.375], rtol=1e-6)
    assert stream.mean.dtype == stream.std.dtype == np.float32
    batch = next(stream.train_batches(6))
    assert batch.images.shape == (6, SIDE, SIDE, 3) and batch.images.dtype == np.uint8
    assert batch.labels.shape == (6,) and batch.labels.dtype == np.int32
    images, labels, weights = next(stream.eval_batches("test", 3))
    assert images.shape == (3, 20, 20, 3) and images.dtype == np.uint8
    assert labels.dtype == np.int32 and weights.dtype == np.float32 and weights.shape == (3,)


@pytest.mark.parametrize(
    ("name", "settings", "sizes"),
    [
        ("photos", {}, (23, 1, 7)),  # the split `test` has no labels
        ("tested", {}, (17, 1, 6)),
        ("only_train", {}, (17, 1, 2)),
        ("only_train", {"validation_size": 0}, (18, 0, 2)),
        ("photos", {"validation_size": 0}, (24, 0, 7)),
        ("photos", {"train_size": 5, "validation_size": 6}, (5, 6, 7)),
    ],
)
def test_sizes_of_the_parts(open_set, name, settings, sizes):
    assert tuple(open_set(name, **settings).sizes.values()) == sizes


def test_no_picture_of_the_training_split_is_in_two_parts(open_set):
    stream = open_set("only_train", validation_size=6)
    parts = [numbers(evaluated(stream, part, 2)[0]) for part in ("validation", "test")]
    parts.append(numbers(take(3, stream).images))  # an epoch
    assert sorted(np.concatenate(parts)) == list(range(20))
    other = open_set("only_train", validation_size=6, seed=1)
    np.testing.assert_array_equal(numbers(evaluated(other, "test", 2)[0]), parts[1])
    assert set(numbers(evaluated(other, "validation", 2)[0])) != set(parts[0])


# Order


def test_every_epoch_is_a_fresh_permutation_with_its_labels(open_set):
    stream = open_set(validation_size=0)
    batch = take(9, stream)  # two epochs of 18
    shown = numbers(batch.images)
    np.testing.assert_array_equal(batch.labels, shown % 3)
    epochs = shown.reshape(2, 18)
    np.testing.assert_array_equal(np.sort(epochs), [np.arange(18)] * 2)
    assert np.any(epochs[0] != epochs[1]) and np.any(epochs[0] != np.arange(18))


def test_nearby_seeds_share_no_epoch(open_set):
    first, second = (numbers(take(9, open_set(validation_size=0, order_seed=seed)).images) for seed in (0, 1))
    assert not set(map(tuple, first.reshape(2, 18))) & set(map(tuple, second.reshape(2, 18)))


@pytest.mark.parametrize("augment", ["none", "randaugment", "autoaugment"])
def test_threads_change_nothing_and_a_resumed_stream_goes_on_exactly(open_set, augment):
    one, many = (open_set("photos", augment=augment, threads=threads) for threads in (1, 7))
    whole = take(8, one)
    assert_equal(whole, take(8, many))
    for start in (1, 6):
        resumed = take(8 - start, open_set("photos", augment=augment), start=start)
        assert_equal((values[4 * start :] for values in whole), resumed)


@pytest.mark.parametrize("hosts", [2, 4])
def test_the_shares_of_the_hosts_are_the_global_batches(open_set, hosts):
    whole = take(7, open_set("photos"))
    shares = [take(7, open_set("photos", share=data.Share(host, hosts))) for host in range(hosts)]
    for values, *parts in zip(whole, *shares, strict=True):
        own = [part.reshape(7, 4 // hosts, *part.shape[1:]) for part in parts]
        np.testing.assert_array_equal(values, np.concatenate(own, 1).reshape(values.shape))


def test_a_batch_may_be_larger_than_the_set(open_set):
    shown = numbers(take(1, open_set(train_size=5), batch_size=15).images)
    assert np.unique(shown, return_counts=True)[1].tolist() == [3] * 5


def test_augmentation_is_drawn_afresh_and_changes_no_order(open_set):
    plain, augmented = (take(9, open_set(augment=augment)) for augment in ("none", "randaugment"))
    np.testing.assert_array_equal(plain.labels, augmented.labels)
    assert np.mean(np.any(plain.images != augmented.images, axis=(1, 2, 3))) > 0.5
    nothing = open_set(augment="randaugment", randaugment={"layers": 0})
    assert_equal(plain, take(9, nothing))


def test_half_of_the_images_are_mirrored_and_parts_are_random(open_set, tmp_path):
    ramp = np.tile(np.linspace(0, 255, 64, dtype=np.uint8)[None, :, None], (64, 1, 3))  # dark on the left
    write_set(tmp_path, "ramp", {"train": [(encode(ramp), 0)]}, num_classes=3)

    def images(flip):
        stream = open_set("ramp", flip=flip, validation_size=0, data_dir=str(tmp_path))
        return take(1, stream, 200).images.astype(int)

    mirrored = images(True)[:, 0, 0, 0] > images(True)[:, 0, -1, 0]
    assert abs(mirrored.mean() - 0.5) < 0.15
    plain = images(False)
    assert np.all(plain[:, 0, 0, 0] < plain[:, 0, -1, 0])
    assert len(np.unique(plain[:, 0, 0, 0])) > 50


# Evaluation


@pytest.mark.parametrize("hosts", [1, 2])
def test_evaluation_counts_every_picture_once(open_set, hosts):
    streams = [open_set(share=data.Share(host, hosts), threads=2) for host in range(hosts)]
    parts = [evaluated(stream, "test") for stream in streams]
    own = 4 // hosts
    images, labels, weights = (
        np.concatenate([each.reshape(2, own, *each.shape[1:]) for each in values], 1)
        for values in zip(*parts, strict=True)
    )
    shown = numbers(images.reshape(-1, *images.shape[2:]))
    assert sorted(shown[:6]) == [0, 1, 2, 3, 4, 5] and list(shown[6:]) == list(shown[:2])
    np.testing.assert_array_equal(labels.reshape(-1), shown % 3)
    np.testing.assert_array_equal(weights.reshape(-1), [1] * 6 + [0] * 2)


def test_evaluation_can_be_repeated_while_training_goes_on(open_set):
    stream = open_set()
    training = stream.train_batches(4)
    first = next(training)
    assert_equal(evaluated(stream, "test"), evaluated(stream, "test"))
    second = next(training)
    training.close()
    whole = take(2, stream)
    np.testing.assert_array_equal(np.concatenate([first.images, second.images]), whole.images)


# Damage


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def numbers_of_records(root, kinds):
    """The number of the photograph in each record of `photos`: tfds stores them in an order of its own."""
    known = {photograph(number, kind): number for number in range(TRAIN) for kind in kinds}
    records = open_prepared("photos", str(root)).records("train")
    return np.array([known[records[index].encoded] for index in range(TRAIN)])


def test_the_next_picture_takes_the_place_of_a_damaged_one(open_set, prepared, tmp_path, caplog):
    write_set(tmp_path, "photos", {"train": examples(TRAIN), "validation": examples(1)}, num_classes=3)
    sound = take(12, open_set("photos", validation_size=0, data_dir=str(tmp_path)))
    records = np.argsort(numbers_of_records(tmp_path, ["colour"]))[numbers(sound.images)]
    stored = numbers_of_records(prepared, ["colour", "truncated", *RARE])
    expected = stored[records]
    assert list(expected).count(DAMAGED) == 2  # once an epoch
    expected = np.where(expected == DAMAGED, np.roll(expected, -1), expected)
    with caplog.at_level(logging.WARNING, "absl"):
        batch = take(12, open_set("photos", validation_size=0))
    np.testing.assert_array_equal(numbers(batch.images), expected)
    np.testing.assert_array_equal(batch.labels, expected % 3)
    (warning,) = warnings_of(caplog)
    record = list(stored).index(DAMAGED)
    assert warning.startswith(f"photos/1.0.0, train, record {record} is damaged, the next one replaces ")


def test_a_damaged_picture_is_not_counted(open_set, caplog):
    with caplog.at_level(logging.WARNING, "absl"):
        images, labels, weights = evaluated(open_set("photos"), "test")
    shown = numbers(images)
    assert weights.sum() == 6 and sorted(shown[weights > 0]) == [0, 1, 2, 3, 4, 6]
    np.testing.assert_array_equal(labels, shown % 3)
    (warning,) = warnings_of(caplog)
    assert "photos/1.0.0, validation, record" in warning and "is damaged, not counted: " in warning


def test_where_all_is_damaged_it_says_so(open_set):
    stream = open_set("damaged", validation_size=0)
    with pytest.raises(ValueError, match=r"^damaged/1.0.0, train: all pictures are damaged, the last is rec"):
        next(stream.train_batches(1))


def test_a_label_out_of_range_is_named(open_set):
    with pytest.raises(ValueError, match=r"mislabelled/1.0.0, train, record \d: label -1 is not in 0 to 2"):
        take(1, open_set("mislabelled", validation_size=0))


# Settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop": 0}, "data.crop must be at least 1, got 0"),
        ({"crop": None}, "needs data.crop and a seed from 0, got None and 0"),
        ({"image_size": -1}, "data.image_size must be at least 1, got -1"),
        ({"threads": 0}, "data.threads must be at least 1, got 0"),
        ({"workers": -1}, "data.workers must be at least 0, got -1"),
        ({"share": data.Share(2, 2)}, "host must be from 0 to 1, .* got 2"),
        ({"augment": "randaugmnt"}, "unknown augment 'randaugmnt', did you mean 'randaugment'?"),
        ({"augment": "?"}, r"unknown augment '\?'; there are none, randaugment, autoaugment"),
        ({"seed": -1}, "data.seed must be at least 0, got -1"),
        ({"order_seed": -1}, "a seed from 0, got 16 and -1"),
        ({"randaugment": {"layers": -1}}, "randaugment.layers .* at least 0, got -1 and 9"),
        ({"randaugment": {"magnitude": -0.5}}, "randaugment.magnitude must .* got 2 and -0.5"),
        ({"randaugment": {"magnitude": float("nan")}}, "got 2 and nan"),
        ({"train_size": 19}, "train_size=19 and validation_size=1: .* at most 18"),
        ({"validation_size": -1}, "validation_size=-1: they must be at least 1 and 0"),
        ({"name": "tsted"}, "no array_record data of tfds:tsted"),
        ({"name": "a/b/c"}, "malformed data set 'a/b/c'"),
    ],
)
def test_bad_settings_are_named(open_set, settings, message):
    with pytest.raises((ValueError, data.DataNotFoundError), match=message):
        open_set(**settings)


def test_bad_requests_are_named(open_set):
    stream = open_set(validation_size=0, share=data.Share(0, 3))
    with pytest.raises(ValueError, match="multiple of the number of hosts, 3, got 4"):
        stream.train_batches(4)
    with pytest.raises(ValueError, match="multiple of the number of hosts, 3, got 0"):
        stream.eval_batches("test", 0)
    with pytest.raises(ValueError, match="start must be at least 0, got -1"):
        stream.train_batches(3, -1)
    with pytest.raises(ValueError, match="the validation part of tested is empty: give validation_size"):
        stream.eval_batches("validation", 3)
    with pytest.raises(ValueError, match="tested has no part 'val', only train, validation, test"):
        stream.eval_batches("val", 3)
    with pytest.raises(
        ValueError, match="streamed from tfds:NAME or synthetic:CLASSESx3 only, got 'mnist5k'"
    ):
        data.open_stream(data.DataSettings("mnist5k", crop=8))


@pytest.mark.parametrize("package", ["grain", "cv2", "simplejpeg"])
def test_a_missing_package_says_what_to_install(open_set, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)  # makes its import fail
    message = rf"^streaming pictures needs {package}: pip install 'evonorms-jax\[imagenet\]'$"
    with pytest.raises(ModuleNotFoundError, match=message):
        open_set()


def test_parts_of_photographs_need_no_package_of_the_extra(monkeypatch, rng):
    for package in ("cv2", "simplejpeg"):
        monkeypatch.setitem(sys.modules, package, None)
    name = "evonorms_jax.data.photographs"
    monkeypatch.setattr(data, "photographs", importlib.import_module(name))  # is put back with its entry
    monkeypatch.delitem(sys.modules, name)
    photographs = importlib.import_module(name)
    assert photographs.random_resized(rng, 8, 9).height >= 1


def test_those_who_do_not_stream_load_none_of_its_packages():
    # Not cv2: tfds imports it where it is installed.
    script = "import evonorms_jax.data, sys; print({'grain', 'simplejpeg'} & set(sys.modules))"
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"
