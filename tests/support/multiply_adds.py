"""Multiply-adds of a function, counted in its trace: those of convolutions and matrix products."""

import math

import jax


def multiply_adds(function, *arguments):
    """The number, for arguments that may be shapes. Products with padding count, as in published figures."""
    return _count(jax.make_jaxpr(function)(*arguments).jaxpr)


def _count(jaxpr):
    return sum(_of_equation(equation) + sum(map(_count, _inner(equation))) for equation in jaxpr.eqns)


def _of_equation(equation):
    name, outputs = equation.primitive.name, equation.outvars[0].aval
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        out = equation.params["dimension_numbers"].rhs_spec[0]
        return outputs.size * math.prod(kernel) // kernel[out]
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return outputs.size * math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
    return 0


def _inner(equation):
    for value in equation.params.values():
        for each in value if isinstance(value, tuple | list) else (value,):
            if hasattr(each, "eqns"):
                yield each
            elif hasattr(getattr(each, "jaxpr", None), "eqns"):
                yield each.jaxpr
