"""All implementations of a convolution agree with Flax's own, and with each other's derivatives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from evonorms_jax.models import convolution
from evonorms_jax.models.convolution import IMPLEMENTATIONS, Conv, convolve, max_pool
from evonorms_jax.models.stages import run_stage
from evonorms_jax.search_space.target import building_for, looping
from evonorms_jax.training.steps import mean_over_parts

BATCH, HEIGHT, WIDTH = 2, 7, 8  # odd and even, so that SAME pads both evenly and unevenly
# (channels in, channels out, groups): full, grouped, depthwise, depthwise with a multiplier.
KINDS = ((3, 5, 1), (4, 6, 2), (4, 4, 4), (4, 8, 4))


def normal(rng, *shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)


def assert_trees_close(actual, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), actual, expected)


@pytest.mark.parametrize(
    ("size", "stride"), [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2), (3, 3), (5, 1), (7, 2)]
)
def test_values_and_gradients_are_those_of_flax(rng, size, stride):
    inputs = [normal(rng, BATCH, HEIGHT, WIDTH, kind[0]) for kind in KINDS]
    kernels = [normal(rng, size, size, i // g, o) / size for i, o, g in KINDS]

    def flax_conv(x, kernel, groups):
        shape = (size, size)
        conv = nn.Conv(kernel.shape[-1], shape, stride, feature_group_count=groups, use_bias=False)
        return conv.apply({"params": {"kernel": kernel}}, x)

    def with_gradients(conv):
        def total(inputs, kernels):
            outputs = [conv(x, w, g) for x, w, (_, _, g) in zip(inputs, kernels, KINDS, strict=True)]
            return sum(jnp.sum(jnp.sin(y)) for y in outputs), outputs

        return jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))(inputs, kernels)

    (_, expected), gradients = with_gradients(flax_conv)
    matmul = functools.partial(convolve, stride=stride, implementation="matmul")
    (_, actual), actual_gradients = with_gradients(lambda x, w, g: matmul(x, w, groups=g))
    assert_trees_close(actual, expected)
    assert_trees_close(actual_gradients, gradients)
    by_lax = [
        convolve(x, w, stride=stride, groups=g, implementation="lax")
        for x, w, (_, _, g) in zip(inputs, kernels, KINDS, strict=True)
    ]
    assert_trees_close(by_lax, expected)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_symmetric_padding_has_its_first_window_on_the_first_position(rng, groups):
    """As in PyTorch: each stride-th output of the stride 1. SAME begins later where a side is even."""
    x, kernel = normal(rng, BATCH, HEIGHT, WIDTH, 4), normal(rng, 3, 3, 4 // groups, 4)
    for name in IMPLEMENTATIONS:
        options = {"groups": groups, "implementation": name}
        every = convolve(x, kernel, **options)
        symmetric = convolve(x, kernel, stride=2, symmetric=True, **options)
        assert_trees_close(symmetric, every[:, ::2, ::2])
        same = convolve(x, kernel, stride=2, **options)
        assert_trees_close(same, every[:, ::2, 1::2])
        pooled = max_pool(x, 3, stride=2, implementation=name, symmetric=True)
        np.testing.assert_array_equal(pooled, max_pool(x, 3, implementation=name)[:, ::2, ::2])


def test_a_kernel_that_is_not_square(rng):
    x, kernel = normal(rng, 2, 6, 5, 4), normal(rng, 1, 4, 4, 3)
    by_lax, by_matmul = (convolve(x, kernel, stride=2, implementation=i) for i in IMPLEMENTATIONS)
    assert_trees_close(by_matmul, by_lax)


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("stride", [1, 2])
def test_second_derivatives_agree_forward_and_reverse(rng, stride, groups):
    x, kernel = normal(rng, 2, 5, 6, 4), normal(rng, 3, 3, 4 // groups, 4) / 3
    tangent = normal(rng, *kernel.shape)

    def second(implementation):
        def loss(kernel):
            y = convolve(x, kernel, stride=stride, groups=groups, implementation=implementation)
            return jnp.sum(jnp.tanh(y))

        def gradient_norm(kernel):
            return jnp.sum(jnp.square(jax.grad(loss)(kernel)))

        forward_over_reverse = jax.jvp(jax.grad(loss), (kernel,), (tangent,))[1]
        return forward_over_reverse, jax.grad(gradient_norm)(kernel)

    by_lax, by_matmul = (jax.jit(second, static_argnums=0)(name) for name in IMPLEMENTATIONS)
    assert_trees_close(by_matmul, by_lax)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_vmapped_equals_looped(rng, groups):
    x, kernel = normal(rng, 3, 2, 5, 6, 4), normal(rng, 3, 3, 3, 4 // groups, 4)

    @jax.jit
    def conv(x, kernel):
        return convolve(x, kernel, stride=2, groups=groups, implementation="matmul")

    looped = jnp.stack([conv(*pair) for pair in zip(x, kernel, strict=True)])
    assert_trees_close(jax.vmap(conv)(x, kernel), looped)


@pytest.mark.parametrize(("size", "stride"), [(3, 2), (2, 1), (3, 1)])
def test_max_pool_is_that_of_flax(rng, size, stride):
    x = normal(rng, 2, 7, 8, 3)

    def with_gradient(pool):
        return jax.value_and_grad(lambda x: (jnp.sum(jnp.sin(pool(x))), pool(x)), has_aux=True)(x)

    window, strides = (size, size), (stride, stride)
    (_, expected), gradient = with_gradient(lambda x: nn.max_pool(x, window, strides, "SAME"))
    for name in IMPLEMENTATIONS:
        pool = functools.partial(max_pool, size=size, stride=stride, implementation=name)
        (_, actual), actual_gradient = with_gradient(pool)
        np.testing.assert_array_equal(actual, expected)
        assert_trees_close(actual_gradient, gradient)


def test_max_pool_divides_the_gradient_between_equal_maxima():
    pool = functools.partial(max_pool, size=3, stride=2, implementation="matmul")
    gradient = jax.grad(lambda x: jnp.sum(pool(x)))(jnp.zeros((1, 7, 8, 1)))
    assert jnp.sum(gradient) == 4 * 4  # one for each window, whatever its share of padding


@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.parametrize("groups", [1, 8])
def test_the_module_has_the_parameters_of_flax(rng, groups, use_bias):
    x = normal(rng, 2, 6, 5, 8)
    flax_conv = nn.Conv(8, (3, 3), 2, feature_group_count=groups, use_bias=use_bias)
    variables = flax_conv.init(jax.random.key(0), x)
    variables = jax.tree.map(lambda p: p + 0.5, variables)  # a bias of 0 would hide that it is added
    for name in IMPLEMENTATIONS:
        conv = Conv(8, 3, 2, feature_group_count=groups, use_bias=use_bias, implementation=name)
        own = jax.eval_shape(conv.init, jax.random.key(0), x)
        assert jax.tree.map(jnp.shape, own) == jax.tree.map(jnp.shape, variables)
        assert_trees_close(conv.apply(variables, x), flax_conv.apply(variables, x))


def test_dtype_is_that_of_the_computation_and_not_of_the_parameters(rng):
    x = normal(rng, 2, 6, 5, 4)
    y, variables = Conv(3, 3, dtype=jnp.bfloat16).init_with_output(jax.random.key(0), x)
    assert y.dtype == jnp.bfloat16
    assert variables["params"]["kernel"].dtype == jnp.float32


@pytest.mark.parametrize(("groups", "fan_out"), [(1, 9 * 256), (2, 9 * 128), (256, 9)])
def test_the_kernel_starts_with_variance_two_over_fan_out(groups, fan_out):
    kernel = convolution.fan_out_normal(groups)(jax.random.key(0), (3, 3, 256 // groups, 256))
    np.testing.assert_allclose(jnp.var(kernel) * fan_out, 2.0, rtol=0.1)


@pytest.mark.parametrize(("backend", "uses_lax"), [("cpu", False), ("gpu", True), ("tpu", True)])
@pytest.mark.parametrize("groups", [1, 4])
def test_the_backend_chooses_the_implementation(monkeypatch, groups, backend, uses_lax):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    x, kernel = jnp.ones((1, 4, 4, 4)), jnp.ones((3, 3, 4 // groups, 4))
    program = str(jax.make_jaxpr(lambda x, w: convolve(x, w, groups=groups))(x, kernel))
    assert ("conv_general_dilated" in program) == uses_lax


def uses_lax(function, *arguments):
    return "conv_general_dilated" in str(jax.make_jaxpr(function)(*arguments))


@pytest.mark.parametrize(
    ("size", "inputs", "groups", "outside"),
    [
        (3, 4, 1, True),
        (2, 2, 1, True),
        (1, 4, 1, False),
        (3, 1, 1, False),
        (3, 4, 2, False),
        (3, 4, 4, False),
    ],
)
def test_a_cpu_has_another_form_of_large_kernels_outside_of_loops(size, inputs, groups, outside):
    x, kernel = jnp.ones((1, 4, 4, inputs)), jnp.ones((size, size, inputs // groups, 4))

    def apply(x, w):
        return convolve(x, w, groups=groups)

    with building_for("cpu"):
        assert not uses_lax(apply, x, kernel)
        with looping(False):
            assert uses_lax(apply, x, kernel) == outside
            assert not uses_lax(lambda x: max_pool(x, 2), x)
            with looping(True):
                assert not uses_lax(apply, x, kernel)


def test_the_loops_of_a_network_and_of_a_step_say_so():
    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            return Conv(4, 3)(x)

    class Stage(nn.Module):
        scan: bool

        @nn.compact
        def __call__(self, x):
            # The first block stands before the loop, so it is the identity here.
            blocks = [lambda x, *, train: x, Block(name="second"), Block(name="third")]
            return run_stage(blocks, x, train=True, scan=self.scan)

    x = jnp.ones((1, 4, 4, 4))
    kernel = jnp.ones((3, 3, 4, 4))
    with building_for("cpu"), looping(False):
        for scan in (False, True):
            variables = Stage(scan).init(jax.random.key(0), x)
            assert uses_lax(Stage(scan).apply, variables, x) == (not scan)
        for parts in (1, 2):
            stacked = jnp.ones((parts, *x.shape))
            assert uses_lax(lambda xs: mean_over_parts(lambda x: convolve(x, kernel), xs), stacked) == (
                parts == 1
            )


@pytest.mark.parametrize(
    ("shape", "kernel", "options", "message"),
    [
        ((4, 4, 3), (3, 3, 3, 2), {}, r"\[B, H, W, C\], got shape \(4, 4, 3\)"),
        ((1, 4, 4, 3), (3, 3, 2, 2), {}, "takes 2 channels, x has 3"),
        ((1, 4, 4, 3), (3, 3, 1, 4), {"groups": 2}, "2 groups must divide the 3 channels in"),
        ((1, 4, 4, 3), (3, 3, 3, 2), {"implementation": "matmull"}, "did you mean 'matmul'"),
    ],
)
def test_bad_input_is_refused(shape, kernel, options, message):
    with pytest.raises(ValueError, match=message):
        convolve(jnp.ones(shape), jnp.ones(kernel), **options)
