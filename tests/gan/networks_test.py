"""Layouts of BigGAN and BigGAN-deep: exact numbers of parameters, attention, shortcuts, and their starts."""

import collections
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import evonorms_jax as en
from evonorms_jax.gan import blocks
from evonorms_jax.gan.layouts import parse
from evonorms_jax.gan.networks import Discriminator, Generator, make_networks


def networks(name, size, spec="bn_relu", classes=1000, channels=3, **fields):
    return make_networks(
        name, size=size, norm_act=en.norm_act(spec), num_classes=classes, channels=channels, **fields
    )


@functools.cache
def shapes_of(name, size, spec="bn_relu", **fields):
    """Shapes of the variables of generator and discriminator."""
    pair = networks(name, size, spec, **fields)
    z, labels = jnp.zeros((1, pair.generator.latent)), jnp.zeros(1, jnp.int32)
    generator = jax.eval_shape(
        lambda key: pair.generator.init(key, z, labels, train=False), jax.random.key(0)
    )
    x = jnp.zeros((1, size, size, pair.generator.channels))
    discriminator = jax.eval_shape(pair.discriminator.init, jax.random.key(0), x, labels)
    return generator, discriminator


def count(variables):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))


# With a last convolution of all channels, with one of three, and of the discriminator. Those of 128, of the
# 256 and 512 generators and of the deep 128 discriminator were published with other implementations.
COUNTS = {
    ("biggan", 28): (None, 183_297, 149_041),
    ("biggan", 32): (None, 9_487_619, 9_836_929),
    ("biggan", 64): (None, 70_239_108, 45_500_449),
    ("biggan", 128): (None, 70_433_988, 87_982_370),
    ("biggan", 256): (None, 82_097_604, 99_225_890),
    ("biggan", 512): (None, 82_468_068, 99_401_282),
    ("biggan_deep", 28): (None, 263_633, 18_529),
    ("biggan_deep", 32): (None, 7_561_987, 3_088_129),
    ("biggan_deep", 64): (49_872_001, 49_583_876, 20_869_633),
    ("biggan_deep", 128): (50_388_609, 50_244_484, 34_590_210),
    ("biggan_deep", 256): (55_880_833, 55_736_708, 38_247_426),
    ("biggan_deep", 512): (56_163_905, 56_019_780, 38_301_122),
}
# One v for each channel of each site of the generator.
WITH_V = {
    ("biggan", 32): 2_688,
    ("biggan", 64): 7_296,
    ("biggan", 128): 7_488,
    ("biggan", 256): 9_024,
    ("biggan_deep", 32): 5_888,
    ("biggan_deep", 64): 19_968,
    ("biggan_deep", 128): 20_736,
    ("biggan_deep", 256): 24_320,
}
DIGITS = {"classes": 10, "channels": 1, "embedding": 32}


def sizes(table, least=0):
    """Names and sizes of a table; to trace the networks of 256 and 512 takes seconds."""
    heavy = pytest.mark.exhaustive
    return [pytest.param(*key, marks=heavy) if key[1] >= 256 else key for key in table if key[1] >= least]


@pytest.mark.parametrize(("name", "size"), sizes(COUNTS))
def test_the_numbers_of_parameters_are_exact(name, size):
    wide, plain, expected = COUNTS[name, size]
    fields = DIGITS if size == 28 else {}
    generator, discriminator = shapes_of(name, size, **fields)
    assert (count(generator), count(discriminator)) == (plain, expected)
    if wide and size < 256:
        assert count(shapes_of(name, size, wide_output=True)[0]) == wide
    elif wide:  # the last convolution has three outputs or 128 of 128 inputs
        assert wide - plain == (9 * 128 + 1) * (128 - 3)


@pytest.mark.parametrize(("width", "expected"), [(24, (407_289, 40_753)), (32, (558_945, 71_617))])
def test_the_wider_networks_of_the_digits(width, expected):
    assert tuple(map(count, shapes_of("biggan_deep", 28, width=width, **DIGITS))) == expected


@pytest.mark.parametrize(("name", "size"), sizes(WITH_V))
def test_the_sites_have_as_many_channels_as_an_evonorm_adds_parameters(name, size):
    """Each channel of a site has one moving mean in a network of BatchNorm."""
    stats = flatten_dict(shapes_of(name, size)[0]["batch_stats"])
    assert sum(leaf.shape[0] for path, leaf in stats.items() if path[-1] == "mean") == WITH_V[name, size]


@pytest.mark.parametrize("spec", ["gn_relu", "ln_relu", "pn_relu", "evonorm_b0", "evonorm_s0", "frn_tlu"])
def test_each_layer_adds_its_own_vectors(spec):
    generator, discriminator = shapes_of("biggan", 32, spec)
    added = WITH_V["biggan", 32] if spec[-2:] in ("b0", "s0", "lu") and "relu" not in spec else 0
    assert count(generator) == COUNTS["biggan", 32][1] + added
    names = {path[-1] for path in flatten_dict(generator.get("batch_stats", {}))}
    assert names == ({"var"} if spec == "evonorm_b0" else set())
    assert set(discriminator) == {"params", "spectral"}


@pytest.mark.parametrize(("name", "size"), sizes(COUNTS, least=64))
def test_one_attention_in_each_network_and_none_in_a_discriminator_of_64(name, size):
    for kind, variables in zip(("generator", "discriminator"), shapes_of(name, size), strict=True):
        found = [path for path in variables["params"] if "attention" in path]
        assert len(found) == (0 if (kind, size) == ("discriminator", 64) else 1)


def test_all_weights_are_normalized_but_the_class_table_of_the_generator():
    """The spectral vectors belong to every kernel, and to the table of the discriminator."""
    for number, variables in enumerate(shapes_of("biggan_deep", 128)):
        owners = {path[:-1] for path in flatten_dict(variables["spectral"])}
        weights = {
            path[:-1] for path, leaf in flatten_dict(variables["params"]).items() if len(leaf.shape) > 1
        }
        assert owners == weights - ({("embed",)} if number == 0 else set())
    assert ("classes",) in owners and len(owners) == 10 * 4 + 4 + 4 + 3


@pytest.fixture(scope="module")
def tiny():
    """Small deep networks with variables, and latents, labels and images for them."""
    shared = {"deep": True, "width": 4, "num_classes": 3}
    make = functools.partial(Generator, en.norm_act("gn_relu"), bottom=2, channels=1, latent=8, embedding=4)
    pair = make(layout=parse("2 2u 1"), **shared), Discriminator(layout=parse("1 2d 2"), **shared)
    generator = np.random.default_rng(0)
    z, x = (generator.normal(size=shape).astype(np.float32) for shape in ((4, 8), (4, 4, 4, 1)))
    labels = np.array([0, 1, 2, 1], np.int32)
    init = jax.jit(lambda key: (pair[0].init(key, z, labels, train=False), pair[1].init(key, x, labels)))
    return pair, init(jax.random.key(0)), z, labels, x


def test_images_are_within_one_and_follow_latent_and_label(tiny):
    (generator, _), (variables, _), z, labels, _ = tiny
    generate = jax.jit(lambda z, labels: generator.apply(variables, z, labels, train=False))
    images = generate(z, labels)
    assert images.shape == (4, 4, 4, 1) and images.dtype == jnp.float32 and np.abs(images).max() < 1
    assert np.std(images) > 0.01
    for changed in (generate(z + 1, labels), generate(z, (labels + 1) % 3)):
        assert np.abs(changed - images).mean((1, 2, 3)).min() > 1e-3
    mixed = generate(z, jax.nn.one_hot(labels, 3))
    np.testing.assert_allclose(mixed, images, atol=1e-5)


def test_every_start_is_orthogonal_with_gains_and_biases_at_rest(tiny):
    _, (variables, _), *_ = tiny
    seen = collections.Counter()
    for path, leaf in flatten_dict(variables["params"]).items():
        if leaf.ndim < 2:
            np.testing.assert_array_equal(leaf, 1 if path[-1] == "scale" else 0)
            continue
        singular = np.linalg.svd(np.asarray(leaf).reshape(-1, leaf.shape[-1]))[1]
        np.testing.assert_allclose(singular, 1, rtol=1e-4)
        seen[path[-1]] += 1
    assert seen["embedding"] == 1 and seen["kernel"] == 2 * (4 + 8) + 2


def test_the_logit_is_linear_in_the_sum_of_features_and_knows_the_class(tiny):
    (_, discriminator), (_, variables), _, labels, x = tiny
    judge = jax.jit(lambda x, labels: discriminator.apply(variables, x, labels))
    assert np.abs(judge(x, labels) - judge(x, (labels + 1) % 3)).min() > 1e-6
    assert judge(x, labels).dtype == jnp.float32
    gradient = jax.grad(lambda x: jnp.sum(judge(x, labels)))(-np.abs(x) - 0.1)
    assert (np.abs(gradient).mean((1, 2, 3)) > 0).all()


@pytest.mark.parametrize("block", [blocks.DiscriminatorBlock, blocks.DeepDiscriminatorBlock])
def test_a_block_of_one_shape_is_a_residual(block, rng):
    """With its last kernel 0 the output is the input; the kernel's singular value is 0 then, too."""
    x = rng.normal(size=(2, 4, 4, 8)).astype(np.float32)
    module = block(8, down=False)
    variables = module.init(jax.random.key(0), x)
    last = max(name for name in variables["params"] if name.startswith("conv"))
    params = {**variables["params"], last: jax.tree.map(jnp.zeros_like, variables["params"][last])}
    assert "shortcut" not in params
    np.testing.assert_array_equal(module.apply({**variables, "params": params}, x), x)


@pytest.mark.parametrize("first", [True, False])
def test_the_first_block_sees_negative_pixels(first, rng):
    x = -np.abs(rng.normal(size=(2, 4, 4, 3))).astype(np.float32)
    module = blocks.DiscriminatorBlock(8, down=True, first=first)
    variables = module.init(jax.random.key(0), x)
    zero = {"shortcut": jax.tree.map(jnp.zeros_like, variables["params"]["shortcut"])}
    variables = {**variables, "params": {**variables["params"], **zero}}
    gradient = jax.grad(lambda x: jnp.sum(module.apply(variables, x)))(x)
    assert gradient.any() == first


@pytest.mark.parametrize(("block", "features"), [(blocks.GeneratorBlock, 8), (blocks.DeepGeneratorBlock, 4)])
def test_a_generator_block_doubles_the_sides_around_its_shortcut(block, features, rng):
    """With its last kernel 0 only the shortcut is left: nearest neighbors of the first channels, if deep."""
    x, condition = (
        rng.normal(size=(2, 3, 3, 8)).astype(np.float32),
        rng.normal(size=(2, 5)).astype(np.float32),
    )
    module = block(en.norm_act("gn_relu"), features, up=True)
    variables = module.init(jax.random.key(0), x, condition, train=False)
    last = "conv_4" if block is blocks.DeepGeneratorBlock else "conv_2"
    params = {**variables["params"], last: jax.tree.map(jnp.zeros_like, variables["params"][last])}
    y = module.apply({**variables, "params": params}, x, condition, train=False)
    expected = x.repeat(2, 1).repeat(2, 2)
    if block is blocks.DeepGeneratorBlock:
        expected = expected[..., :features]
    else:
        kernel = np.asarray(params["shortcut"]["kernel"])[0, 0]
        expected = expected @ (kernel / np.linalg.svd(kernel)[1][0])
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def test_attention_equals_its_formula(rng):
    x = rng.normal(size=(2, 4, 6, 8)).astype(np.float32)
    module = blocks.Attention()
    variables = module.init(jax.random.key(0), x)
    np.testing.assert_array_equal(module.apply(variables, x), x)  # gamma is 0
    params = jax.tree.map(lambda leaf: leaf + 0.0, variables["params"]) | {"gamma": jnp.float32(0.7)}
    y = module.apply({**variables, "params": params}, x)
    w = {name: np.asarray(params[name]["kernel"], np.float64)[0, 0] for name in ("theta", "phi", "g", "o")}

    def pooled(values):
        return values.reshape(2, 2, 2, 3, 2, -1).max((2, 4)).reshape(2, 6, -1)

    products = (x @ w["theta"]).reshape(2, 24, -1) @ pooled(x @ w["phi"]).swapaxes(1, 2)
    weights = np.exp(products - products.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    expected = x + 0.7 * (weights @ pooled(x @ w["g"]) @ w["o"]).reshape(x.shape)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("arguments", "message"), [
    (("stylegan", 128), "unknown networks 'stylegan'; there are biggan, biggan_deep"),
    (("biggan", 100), "the blocks of biggan make images of side .*32, 64, 128, 256, 512, not 100"),
    (("biggan", 128, "bn_relu", 10, 3, 96, 100), "latent must be a multiple of 6, .*, got 100"),
    (("biggan_deep", 28, "bn_relu", 10, 1, 2, 32), r"width must be larger for biggan_deep at 28, got 2"),
])  # fmt: skip
def test_networks_that_cannot_be_made_are_refused(arguments, message):
    name, size, *rest = arguments
    fields = dict(zip(("spec", "classes", "channels", "width", "latent"), rest, strict=False))
    with pytest.raises(ValueError, match=message):
        networks(name, size, **fields)
