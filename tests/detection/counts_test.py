"""Parameters and multiply-adds of the published detectors. Every network is traced and none is built."""

import functools

import jax
import jax.numpy as jnp
import pytest
from jax.interpreters import partial_eval
from support.multiply_adds import multiply_adds

from evonorms_jax.detection.detector import DetectorSettings, build_detector
from evonorms_jax.detection.spinenet import BLOCKS, SpineNet, unread
from evonorms_jax.errors import UserError
from evonorms_jax.layers import norm_act
from evonorms_jax.search_space.target import building_for

SPINENET = {"levels": (3, 7), "anchor_size": 3.0}
TORCHVISION = {"norm_in": (), "top": "pool", "box_convs": 0, "box_dense": 2}


@functools.cache
def traced(name, layer, outputs=91, **fields):
    """A detector and the shapes of its variables."""
    detector = build_detector(DetectorSettings(name, **fields), norm_act(layer), outputs, jnp.float32)
    return detector, jax.eval_shape(detector.init, jax.random.key(0))


def parameters(name, layer="bn_relu", outputs=91, **fields):
    """Parameters by part."""
    params = traced(name, layer, outputs, **fields)[1]["params"]
    return {part: sum(leaf.size for leaf in jax.tree.leaves(params[part])) for part in params}


def test_resnet50_with_a_pyramid_has_the_parameters_of_its_parts():
    assert parameters("resnet50_v1") == {
        "backbone": 23_508_032,
        "pyramid": 3_937_024,
        "proposal_head": 596_495,
        "box_head": 15_676_871,
        "mask_head": 2_648_667,
    }


def heavy(*values):
    """A case that the exhaustive suite runs."""
    return pytest.param(*values, marks=pytest.mark.exhaustive)


@pytest.mark.parametrize(
    ("name", "layer", "outputs", "fields", "expected"),
    [
        ("resnet50_v1", "evonorm_b0", 91, {}, 46_379_313),
        heavy("resnet50_v1", "bn_relu", 81, {}, 46_313_269),
        heavy("resnet50_v1", "evonorm_b0", 81, {}, 46_325_493),
        heavy("resnet50_v1", "gn_relu", 91, {}, 46_367_089),
        heavy("resnet50_v1", "bn_relu", 91, {"norm_in": ("backbone", "fpn")}, 46_367_089 - 18 * 512),
        ("resnet50_v1", "bn_relu", 91, {"levels": (3, 7)}, 46_301_297),
        ("resnet50_v2", "bn_relu", 91, {}, 46_359_409),
        heavy("resnet50_v2", "evonorm_b0", 91, {}, 46_386_737),
        ("resnet50_v1", "bn_relu", 91, TORCHVISION, 44_401_393),
        ("spinenet49", "bn_relu", 91, SPINENET, 40_753_521),
        ("spinenet96", "bn_relu", 91, SPINENET, 55_185_009),
        heavy("spinenet96", "evonorm_b0", 91, SPINENET, 55_207_729),
        heavy("spinenet96", "evonorm_b0", 91, SPINENET | {"merge_activation": "norm_act"}, 55_239_217),
    ],
)
def test_detectors_have_the_published_number_of_parameters(name, layer, outputs, fields, expected):
    assert sum(parameters(name, layer, outputs, **fields).values()) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [("spinenet49", 21_831_488), ("spinenet96", 36_262_976), heavy("spinenet143", 60_247_616)],
)
def test_spinenets_have_the_published_number_of_parameters(name, expected):
    assert parameters(name, **SPINENET)["backbone"] == expected


def test_heads_without_norm_have_the_published_number_of_parameters():
    found = parameters("resnet50_v1", **TORCHVISION)
    assert [found[f"{head}_head"] for head in ("proposal", "box", "mask")] == [593_935, 14_362_055, 2_646_107]


def cost(detector, variables, side):
    """Multiply-adds of inference by part, with 1,000 regions and 100 masks."""

    def of(method, *arguments):
        def passes(variables, *arguments):
            return detector.apply(variables, *arguments, method=method, train=False)

        with building_for("tpu"):  # which leaves convolutions whole
            return multiply_adds(passes, variables, *arguments)

    def shape(*sizes, dtype=jnp.float32):
        return jax.ShapeDtypeStruct(sizes, dtype)

    images = shape(1, side, side, 3)
    maps = jax.eval_shape(features_of(detector), variables, images)
    regions = shape(1, 1000, 7, 7, 256), shape(1, 1000, dtype=bool)
    masks = shape(1, 100, 14, 14, 256), shape(1, 100, dtype=bool), shape(1, 100, dtype=jnp.int32)
    return {
        "features": of("features", images),
        "proposals": of("proposals", maps),
        "boxes": of("boxes", *regions),
        "masks": of("masks", *masks),
    }


def features_of(detector):
    return functools.partial(detector.apply, method="features", train=False)


def enlarged_later(detector, side):
    """Further multiply-adds of a SpineNet that enlarges before the last convolution, as published."""
    widths, specs = {2: 64, 3: 128}, dict(enumerate(BLOCKS, 2))
    stem = specs[2]._replace(level=2)
    total = 0
    for spec in BLOCKS:
        for number in spec.parents:
            parent = specs.get(number, stem)
            target = widths.get(spec.level, 256) * (4 if spec.bottleneck else 1)
            inner = int(detector.backbone.alpha * widths.get(parent.level, 256))
            places = (side >> spec.level) ** 2 - (side >> parent.level) ** 2
            total += inner * target * max(0, places)
    return total


def test_resnet50_with_a_pyramid_has_the_published_cost():
    found = cost(*traced("resnet50_v1", "bn_relu"), 1024)
    assert sum(found.values()) == pytest.approx(378.9e9, rel=0.01)
    assert found["features"] == pytest.approx(85.4e9 + 59.5e9, rel=0.01)
    assert found["proposals"] == pytest.approx(51.8e9, rel=0.01)
    assert found["boxes"] == pytest.approx(128.9e9, rel=0.01)
    assert found["masks"] == pytest.approx(53.2e9, rel=0.01)


@pytest.mark.parametrize(
    ("name", "side", "expected"),
    [("spinenet49", 640, 215.4), heavy("spinenet96", 1024, 314.1)],
)
def test_spinenets_have_the_published_cost(name, side, expected):
    detector, variables = traced(name, "bn_relu", **SPINENET)
    found = sum(cost(detector, variables, side).values()) + enlarged_later(detector, side)
    assert found == pytest.approx(expected * 1e9, rel=0.01)


def test_the_endpoints_of_a_spinenet_are_levels_3_to_7_and_block_11_joins_block_14():
    detector, variables = traced("spinenet49", "bn_relu", **SPINENET)
    images = jax.ShapeDtypeStruct((1, 256, 384, 3), jnp.float32)
    maps = jax.eval_shape(features_of(detector), variables, images)
    assert {level: x.shape for level, x in maps.items()} == {
        level: (1, 256 >> level, 384 >> level, 256) for level in range(3, 8)
    }
    # Block 11 has the size and width of block 14 alone among the outputs; blocks 12 and 13 precede it.
    assert 11 in unread(14) and 11 in unread(12)
    specs = dict(enumerate(BLOCKS, 2))
    assert [n for n in (12, 13, 14, 15, 16) if 11 in unread(n) and specs[n][:2] == specs[11][:2]] == [14]


def test_every_variable_of_a_spinenet_reaches_its_endpoints():
    detector, variables = traced("spinenet49", "bn_relu", **SPINENET)

    def total(variables):
        maps = features_of(detector)(variables, jnp.zeros((1, 128, 128, 3)))
        return sum(jnp.sum(x) for x in maps.values())

    backbone = {collection: {"backbone": variables[collection]["backbone"]} for collection in variables}
    traced_once = jax.make_jaxpr(total)(backbone)
    _, used = partial_eval.dce_jaxpr(traced_once.jaxpr, [True])
    assert len(used) == len(jax.tree.leaves(backbone)) and all(used)


def test_sides_that_are_no_multiples_of_128_are_refused():
    spinenet = SpineNet(norm_act("bn_relu"))
    with pytest.raises(UserError, match="multiples of 128, got 192 x 256"):
        jax.eval_shape(lambda: spinenet.init(jax.random.key(0), jnp.zeros((1, 192, 256, 3)), train=False))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (DetectorSettings("resnet51_v1"), "unknown backbone 'resnet51_v1'; did you mean 'resnet50_v1'"),
        (
            DetectorSettings("resnet50_v1", norm_in=("rpm",)),
            "unknown part 'rpm' in norm_in; did you mean 'rpn'",
        ),
        (DetectorSettings("resnet50_v1", outputs=11), "model.outputs must be at least 81"),
        (DetectorSettings("spinenet49"), r"a SpineNet has levels \(3, 7\), got model.levels=\(2, 6\)"),
        (DetectorSettings("resnet50_v1", merge_activation="norm_act"), "resnet50_v1 has no merges"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        build_detector(settings, norm_act("bn_relu"), 81, jnp.float32)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"top": "max"}, "unknown top of the pyramid 'max'"),
        ({"levels": (1, 6)}, "levels must begin at a level from 2 to 5"),
    ],
)
def test_pyramids_that_do_not_fit_are_refused(fields, message):
    detector = build_detector(DetectorSettings("resnet50_v1", **fields), norm_act("bn_relu"), 81, jnp.float32)
    with pytest.raises(UserError, match=message):
        jax.eval_shape(detector.init, jax.random.key(0))
