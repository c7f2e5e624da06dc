"""The passes through a tiny detector: losses that padding cannot reach, detections of each image alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.tiny_detector import CLASSES, SIDE, random_batch, tiny_choices, tiny_detector

from evonorms_jax.detection.forward import MEAN, STD, best_boxes, detect, normalise, training_losses
from evonorms_jax.detection.heads import BoxHead
from evonorms_jax.detection.proposals import ProposalSettings, propose
from evonorms_jax.detection.regions import SamplingSettings, sample_regions
from evonorms_jax.layers import norm_act

NAMES = ["proposal_score_loss", "proposal_box_loss", "class_loss", "box_loss", "mask_loss"]
CHOICES = tiny_choices()


@functools.cache
def variables():
    return jax.jit(tiny_detector().init)(jax.random.key(0))


def losses_of(batch):
    return _losses_of(variables(), batch)


@jax.jit
def _losses_of(variables, batch):
    """Losses, gradient and new statistics."""

    def total(params):
        passes = functools.partial(training_losses, batch=batch, key=jax.random.key(1), choices=CHOICES)
        found, updated = tiny_detector().apply(
            {**variables, "params": params}, method=passes, mutable=["batch_stats"]
        )
        return sum(found.values()), (found, updated)

    gradient, (found, updated) = jax.grad(total, has_aux=True)(variables["params"])
    return found, gradient, updated


@functools.partial(jax.jit, static_argnames="settings")
def proposed(logits, codes, anchors, size, settings):
    return propose(logits, codes, anchors, size, settings, train=True)


def finite(tree):
    return all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(tree))


def test_losses_and_gradients_are_finite_with_any_number_of_objects():
    found, gradient, _ = losses_of(random_batch(0, (6, 3)))
    assert list(found) == NAMES
    assert all(float(value) > 0 for value in found.values())
    kernels = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(gradient) if "kernel" in str(path)]
    assert finite(gradient) and all(leaf.any() for leaf in kernels)
    for counts in ((0, 0), (0, 6)):
        found, gradient, updated = losses_of(random_batch(1, counts))
        assert finite((found, gradient, updated))
        if not any(counts):
            assert float(found["mask_loss"]) == float(found["box_loss"]) == 0
    flat = random_batch(2, (2, 2))
    flat.boxes[:, 0, 3] = flat.boxes[:, 0, 1]  # a box without width
    assert finite(losses_of(flat))


def test_the_content_of_empty_slots_changes_nothing():
    batch = random_batch(3, (2, 4))
    garbled = batch._replace(
        boxes=np.where(batch.valid[..., None], batch.boxes, [3, 3, 20, 20]).astype(np.float32),
        classes=np.where(batch.valid, batch.classes, 2).astype(np.int32),
        masks=np.where(batch.valid[..., None, None], batch.masks, 1).astype(np.uint8),
    )
    for one, other in zip(*(jax.tree.leaves(losses_of(each)) for each in (batch, garbled)), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("layer", ["bn_relu", "evonorm_b0", "evonorm_s0"])
def test_empty_regions_reach_neither_statistics_nor_other_regions(rng, layer):
    head = BoxHead(norm_act(layer, group_size=4), 3, convs=1, features=8, dense=1, dense_features=8)
    x = rng.normal(size=(2, 3, 4, 4, 8)).astype(np.float32)
    valid = np.array([[1, 1, 0], [1, 0, 0]], bool)
    made = jax.jit(functools.partial(head.init, train=False))(jax.random.key(0), x, valid)

    @jax.jit
    def run(x):
        return head.apply(made, x, valid, train=True, mutable=["batch_stats"])

    one, other = run(x), run(np.where(valid[..., None, None, None], x, 100 * x))
    for (logits, codes), _ in (one, other):
        np.testing.assert_allclose(logits[valid], one[0][0][valid], atol=1e-5)
        np.testing.assert_allclose(codes[valid], one[0][1][valid], atol=1e-5)
    for first, second in zip(jax.tree.leaves(one[1]), jax.tree.leaves(other[1]), strict=True):
        np.testing.assert_allclose(first, second, atol=1e-6)
    packed = head.apply(made, x[valid][None], np.ones((1, 3), bool), train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(packed[0][0][0], one[0][0][valid], atol=1e-5)
    if layer == "evonorm_s0":  # its statistics are of each region alone
        alone = head.apply(made, x[:1, :1], valid[:1, :1], train=True)
        np.testing.assert_allclose(one[0][0][0, 0], alone[0][0, 0], atol=1e-5)


def test_detections_do_not_depend_on_the_other_images():
    images = random_batch(4, (0, 0, 0)).images
    sizes = np.array([[SIDE, SIDE], [20, 32], [32, 24]], np.float32)
    # Untrained scores of all classes are about equal, and exceed the threshold.

    @jax.jit
    def run(variables, images, sizes):
        passes = functools.partial(detect, images=images, sizes=sizes, choices=CHOICES)
        return tiny_detector().apply(variables, method=passes)

    found = run(variables(), images, sizes)
    order = [2, 0, 1]
    again = run(variables(), images[order], sizes[order])
    for one, other in zip(found, again, strict=True):
        np.testing.assert_allclose(one[np.array(order)], other, atol=1e-5)
    assert found.valid.any() and found.masks.shape == (3, 8, 28, 28)
    limit = np.concatenate([sizes, sizes], 1)[:, None]
    assert (found.boxes >= 0).all() and (np.asarray(found.boxes) <= limit).all()
    assert (np.diff(found.scores) <= 0).all()
    assert set(np.asarray(found.classes)[np.asarray(found.valid)]) <= set(range(1, CLASSES + 1))
    assert not found.boxes[~found.valid].any() and not found.scores[~found.valid].any()


def test_images_are_normalised_and_the_filling_is_zero():
    images = np.broadcast_to(MEAN + STD, (1, 4, 6, 3))
    found = np.asarray(normalise(images, np.array([[2.0, 5.0]], np.float32)))
    np.testing.assert_allclose(found[0, :2, :5], 1, atol=1e-5)
    assert not found[0, 2:].any() and not found[0, :, 5:].any()


def test_proposals_are_the_best_boxes_of_all_levels():
    anchors = [np.array([[0, 0, 8, 8], [0, 1, 8, 9], [40, 40, 48, 48]], np.float32)]
    anchors.append(np.array([[0, 0, 16, 16]], np.float32))
    logits, codes = jnp.array([1.0, 2.0, 9.0, 0.5]), jnp.zeros((4, 4))
    settings = ProposalSettings(train_candidates=3, count=5, threshold=0.7)
    found = proposed(logits, codes, anchors, jnp.array([32.0, 12.0]), settings)
    # The third lies outside of the image, and the second suppresses the first.
    assert found.valid.tolist() == [True, True, False, False, False]
    assert found.boxes[:2].tolist() == [[0, 1, 8, 9], [0, 0, 16, 12]]
    np.testing.assert_allclose(found.scores, [*jax.nn.sigmoid(jnp.array([2, 0.5])), -1, -1, -1])


def test_regions_have_the_targets_of_their_objects():
    anchors = [np.array([[0, 0, 8, 8], [20, 20, 28, 28], [4, 0, 12, 8]], np.float32)]
    settings = ProposalSettings(count=4)
    proposals = proposed(jnp.array([2.0, 1, 0]), jnp.zeros((3, 4)), anchors, jnp.array([32.0, 32]), settings)
    boxes = jnp.array([[20.0, 20, 28, 27], [0.0, 0, 8, 8], [9, 9, 9, 9]])
    drawn = functools.partial(sample_regions, settings=SamplingSettings(regions=8, positive_regions=6))
    objects = boxes, jnp.array([2, 3, 1]), jnp.array([True, True, False])
    found = jax.jit(drawn)(jax.random.key(0), proposals, *objects)
    assert found.positive.tolist() == [True] * 4 + [False] * 4
    assert found.valid.tolist() == [True] * 5 + [False] * 3
    for box, label, number in zip(found.boxes[:4], found.classes[:4], found.objects[:4], strict=True):
        assert (int(label), int(number)) == ((2, 0) if float(box[0]) > 10 else (3, 1))
    assert found.boxes[4].tolist() == [4, 0, 12, 8] and not found.classes[4:].any()


def test_only_pairs_above_the_score_are_detections():
    scores = jnp.array([[0.1, 0.6, 0.3], [0.97, 0.02, 0.01], [0.5, 0.5, 0.0]])
    regions = jnp.array([[0.0, 0, 8, 8], [10, 10, 20, 20], [0, 0, 8, 8]])
    found = jax.jit(functools.partial(best_boxes, settings=CHOICES.detections))(
        *(scores, jnp.zeros((3, 3, 4)), regions, jnp.ones(3, bool), jnp.array([32.0, 32.0])),
    )
    boxes, values, classes, valid = found
    assert valid.tolist() == [True] * 2 + [False] * 6  # the third region repeats the class of the first
    assert classes[:2].tolist() == [1, 2] and boxes[0].tolist() == [0, 0, 8, 8]
    np.testing.assert_allclose(values[:2], [0.6, 0.3])
