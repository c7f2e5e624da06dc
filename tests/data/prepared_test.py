"""Sets in tfds's real on-disk format, written and read without TensorFlow and without network."""

import json
import re
import shutil
import socket

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from evonorms_jax import data
from evonorms_jax.data import pictures
from evonorms_jax.data.prepared import open_prepared
from experiments.benchmarks.prepared_set import write_set

SIDE = 8
FIRST_TEST = 100  # number of the first test image; those of train start at 0


def picture(number, side=SIDE, channels=3):
    """An image that shows its number: `[side, side, channels]`."""
    levels = np.arange(side * side * channels).reshape(side, side, channels)
    return (levels + number).astype(np.uint8)


def prepare(root, name="signs", *, version="1.0.0", config=None, sides=(SIDE,), **splits):
    """Writes a set of numbered images; `splits` gives the number of images of each."""
    splits = splits or {"train": 40, "test": 10}
    side, channels = sides[0] if len(sides) == 1 else None, 1 if name == "grey" else 3

    def example(split, number):
        shown = number + (FIRST_TEST if split == "test" else 0)
        image = picture(shown, sides[number % len(sides)], channels)
        return Image.fromarray(image[..., 0] if channels == 1 else image), shown % 3

    write_set(
        root,
        name,
        {split: [example(split, number) for number in range(count)] for split, count in splits.items()},
        num_classes=3,
        shape=(side, side, channels),
        version=version,
        config=config,
        label=tfds.features.Scalar(np.int64) if name == "unlabelled" else None,
    )
    return root


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    for name in ("cifar10", "signs", "grey", "unlabelled"):
        prepare(root, name)
    prepare(root, "no_test", train=40)
    prepare(root, "many_sides", sides=(SIDE, 16), train=40)
    prepare(root, "configured", config="small")
    prepare(root, "only_test", test=5)
    return root


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError(f"reached for the network: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)


def numbers(part):
    return set(part.images[:, 0, 0, 0].tolist())


@pytest.mark.parametrize("source", ["cifar10", "tfds:signs", "tfds:signs:1.0.0"])
def test_parts_hold_the_stored_images_with_their_labels(prepared, source):
    loaded = data.load(source, data_dir=str(prepared), with_test=True)
    assert loaded.num_classes == 3
    assert [len(part.labels) for part in loaded[2:5]] == [36, 4, 10]
    for part in loaded[2:5]:
        assert part.images.dtype == np.uint8 and part.labels.dtype == np.int32
        for image, label in zip(*part, strict=True):
            np.testing.assert_array_equal(image, picture(image[0, 0, 0]))
            assert label == image[0, 0, 0] % 3
    assert numbers(loaded.train) | numbers(loaded.validation) == set(range(40))
    assert numbers(loaded.test) == set(range(FIRST_TEST, FIRST_TEST + 10))


def test_sizes_and_seed_choose_among_the_training_images(prepared):
    def load(**settings):
        return data.load("tfds:signs", data_dir=str(prepared), **settings)

    first, again, other = load(train_size=6), load(train_size=6), load(train_size=6, seed=1)
    np.testing.assert_array_equal(first.train.images, again.train.images)
    assert numbers(first.train) != numbers(other.train)
    assert len(load(train_size=6, validation_size=30).validation.images) == 30
    with pytest.raises(ValueError, match=r"train_size=41 and validation_size=4: .* 40"):
        load(train_size=41)


def test_a_search_touches_no_test_split(prepared, tmp_path):
    shutil.copytree(prepared / "signs", tmp_path / "signs")
    for path in (tmp_path / "signs/1.0.0").glob("*-test.*"):
        path.unlink()
    assert data.load("tfds:signs", data_dir=str(tmp_path)).test is None
    with pytest.raises(data.DataNotFoundError, match=r"signs-test.array_record.* is missing"):
        data.load("tfds:signs", data_dir=str(tmp_path), with_test=True)


def test_a_search_decodes_no_image_of_a_test_part_cut_from_train(prepared, monkeypatch):
    seen = set()
    decode = pictures.decode

    def watch(*args):
        image = decode(*args)
        seen.add(int(image[0, 0, 0]))
        return image

    test = numbers(data.load("tfds:no_test", data_dir=str(prepared), with_test=True).test)
    monkeypatch.setattr(pictures, "decode", watch)
    assert data.load("tfds:no_test", data_dir=str(prepared), seed=5).test is None
    assert len(test) == 4 and len(seen) == 36 and not seen & test


def test_grey_images_keep_one_channel(prepared):
    grey = data.load("tfds:grey", data_dir=str(prepared))
    assert grey.train.images.shape == (36, SIDE, SIDE, 1) and grey.mean.shape == (1,)
    for image in grey.train.images:
        np.testing.assert_array_equal(image, picture(image[0, 0, 0], channels=1))


def test_pictures_of_several_sizes_need_one(prepared):
    with pytest.raises(ValueError, match="several sizes: give image_size"):
        data.load("tfds:many_sides", data_dir=str(prepared))
    resized = data.load("tfds:many_sides", data_dir=str(prepared), image_size=SIDE)
    assert resized.train.images.shape == (32, SIDE, SIDE, 3)
    unchanged = [np.array_equal(image, picture(image[0, 0, 0])) for image in resized.train.images]
    assert 10 < sum(unchanged) < 22  # half of them had that size already


def test_the_newest_version_that_can_be_read_wins(tmp_path):
    for number, version in enumerate(("1.9.0", "1.10.0", "2.0.0"), 1):
        prepare(tmp_path, version=version, train=20 * number, test=1)
    info = tmp_path / "signs/2.0.0/dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
    (tmp_path / "signs/3.0.0").mkdir()  # preparing it was interrupted
    loaded = data.load("tfds:signs", data_dir=str(tmp_path), validation_size=1)
    assert len(loaded.train.images) == 39
    loaded = data.load("tfds:signs:1.9.0", data_dir=str(tmp_path), validation_size=1)
    assert len(loaded.train.images) == 19
    with pytest.raises(data.DataNotFoundError, match=r"2.0.0 \(tfrecord\).* move it away first"):
        data.load("tfds:signs:2.0.0", data_dir=str(tmp_path))
    with pytest.raises(data.DataNotFoundError, match=r"3.0.0 \(incomplete\).* move it away first"):
        data.load("tfds:signs:3.0.0", data_dir=str(tmp_path))


def test_a_config_is_part_of_the_name(prepared):
    loaded = data.load("tfds:configured/small", data_dir=str(prepared))
    assert len(loaded.train.images) == 36
    with pytest.raises(data.DataNotFoundError, match="small: ask for tfds:configured/CONFIG"):
        data.load("tfds:configured", data_dir=str(prepared))


def test_the_folder_defaults_to_that_of_tfds(prepared, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    assert len(data.load("cifar10").train.images) == 36


def test_missing_data_say_what_to_run(tmp_path):
    with pytest.raises(data.DataNotFoundError) as caught:
        data.load("cifar10", data_dir=str(tmp_path / "nowhere"))
    message = str(caught.value)
    command = (
        "python -c \"import tensorflow_datasets as tfds; tfds.builder('cifar10', "
        f"data_dir='{tmp_path}/nowhere', file_format='array_record').download_and_prepare()\""
    )
    assert message.endswith(command) and f"in {tmp_path}/nowhere/cifar10" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifer10", "did you mean tfds:cifar10?"),
        ("signs/small/2", "malformed data set 'signs/small/2': it must be NAME"),
        ("", "malformed data set ''"),
        ("signs:9.0.0", r"there is 1.0.0 \(array_record\); to prepare"),
        ("unlabelled", "no image classification: .* label: Scalar"),
        ("only_test", "no split 'train', only test"),
    ],
)
def test_what_cannot_be_read_is_named(prepared, name, message):
    with pytest.raises((ValueError, data.DataNotFoundError), match=message):
        data.load(f"tfds:{name}", data_dir=str(prepared))


def test_damaged_data_are_named(prepared, tmp_path):
    shutil.copytree(prepared / "signs", tmp_path / "signs")
    info = tmp_path / "signs/1.0.0/dataset_info.json"
    whole = json.loads(info.read_text())
    info.write_text(json.dumps(whole)[:-20])
    with pytest.raises(ValueError, match=r"dataset_info.json is damaged"):
        data.load("tfds:signs", data_dir=str(tmp_path))


# -- One rule for the parts, in memory and in a stream


@pytest.fixture(scope="module")
def unlabelled_test(tmp_path_factory):
    """Sets whose split `test` has -1 for every label, as ImageNet's and Places365's."""
    root = tmp_path_factory.mktemp("unlabelled")
    images = {
        split: [(Image.fromarray(picture(first + number)), (first + number) % 3) for number in range(count)]
        for split, first, count in (("train", 0, 40), ("validation", 60, 6))
    }
    test = [(Image.fromarray(picture(FIRST_TEST + number)), -1) for number in range(10)]
    write_set(root, "places", images | {"test": test}, num_classes=3, shape=(SIDE, SIDE, 3))
    only_train = {"train": images["train"], "test": test}
    write_set(root, "hidden", only_train, num_classes=3, shape=(SIDE, SIDE, 3))
    prepare(root)
    return str(root)


@pytest.mark.parametrize(
    ("name", "expected"), [("places", set(range(60, 66))), ("hidden", None), ("signs", set(range(100, 110)))]
)
def test_the_test_part_has_labels_and_is_the_same_in_memory_and_in_a_stream(unlabelled_test, name, expected):
    settings = data.DataSettings(f"tfds:{name}", validation_size=4, crop=SIDE, data_dir=unlabelled_test)
    loaded = data.load_images(settings, with_test=True)
    assert numbers(loaded.test) == expected or (expected is None and len(loaded.test.images) == 4)
    assert len(numbers(loaded.train) | numbers(loaded.validation)) == (36 if expected is None else 40)
    assert data.load_images(settings).test is None
    prepared = open_prepared(name, unlabelled_test)
    parts = prepared.parts(settings, validation_size=4, least_validation=0)
    stream = data.open_stream(settings)
    assert stream.sizes == {part: len(stored.indices) for part, stored in parts.items()}
    for part, held in zip(("train", "validation", "test"), loaded[2:5], strict=True):
        records = prepared.records(parts[part].split).__getitems__(parts[part].indices.tolist())
        shown = [int(pictures.decode(record.encoded, 3, None)[0, 0, 0]) for record in records]
        assert shown == held.images[:, 0, 0, 0].tolist()
        assert [record.label for record in records] == held.labels.tolist()


# -- Files that were not copied whole


DAMAGES = {
    "emptied": lambda whole: b"",
    "cut": lambda whole: whole[: len(whole) // 2],
    "cut at the end": lambda whole: whole[:-100],
    "zeroed": lambda whole: bytes(len(whole)),
    "zeroed at the start": lambda whole: bytes(1000) + whole[1000:],
}


@pytest.mark.parametrize(
    ("way", "damage"),
    [*((way, damage) for way in ("memory", "stream") for damage in DAMAGES), ("workers", "cut")],
)
def test_a_damaged_file_is_one_line_with_the_file_and_the_record(prepared, tmp_path, way, damage):
    shutil.copytree(prepared / "signs", tmp_path / "signs")
    (file,) = (tmp_path / "signs/1.0.0").glob("*-train.*")
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    settings = data.DataSettings(
        "tfds:signs", crop=SIDE, data_dir=str(tmp_path), workers=int(way == "workers")
    )
    with pytest.raises(ValueError) as caught:
        data.load_images(settings) if way == "memory" else next(data.open_stream(settings).train_batches(40))
    message = str(caught.value)
    pattern = rf"{re.escape(str(file))}: record \d+ of signs/1.0.0, train cannot be read, copy or prepare .*"
    assert re.fullmatch(pattern, message), message


def test_a_search_needs_no_sound_test_file_and_a_training_names_it(prepared, tmp_path):
    shutil.copytree(prepared / "signs", tmp_path / "signs")
    (file,) = (tmp_path / "signs/1.0.0").glob("*-test.*")
    file.write_bytes(b"")
    assert len(data.load("tfds:signs", data_dir=str(tmp_path)).train.images) == 36
    with pytest.raises(
        ValueError, match=rf"^{re.escape(str(file))}: record 0 of signs/1.0.0, test cannot be"
    ):
        data.load("tfds:signs", data_dir=str(tmp_path), with_test=True)


def test_the_file_of_a_record_is_found_among_several(prepared):
    records = open_prepared("signs", str(prepared)).records("train")
    records._files, records._ends = ["first", "second", "third"], [3, 3, 7]
    assert [records._damage(index, TypeError()).split(":")[0] for index in (0, 2, 3, 6)] == [
        *("first", "first", "third", "third")
    ]
