"""Equations of graphs: printed, typeset in LaTeX, and parsed back.

The text is Python's expression syntax over the leaves `x`, `v0`, `v1`, `0`, with `+ - * /` for add, neg, mul
and div and function calls for all other ops. Only the group index set, `std_whc/g(...)`, is not a Python
name. `1` means `exp(0)`. A long sub-expression that is used more than once is printed once, after `where`:
`a / (a + x) where a = ...`.
"""

import ast
import difflib
from collections import Counter
from collections.abc import Sequence

from evonorms_jax.errors import UserError
from evonorms_jax.search_space.primitives import LEAF_LATEX, LEAVES, OPS, ZERO

# A node is a pair (op, inputs) here. `graph.py` gives it a type.
Nodes = Sequence[tuple[str, Sequence[int]]]

_ADD, _MUL, _NEG, _STACKED, _ATOM = range(5)  # binding strength, weakest first
_NAME_LENGTH = 40  # shared sub-expressions up to this length are simply repeated
_ONE = ("exp", (ZERO,))
_BINARY = {ast.Add: "add", ast.Mult: "mul", ast.Div: "div"}


class EquationError(UserError):
    """A text is not an equation over the leaves and ops.

    Attributes:
      equation: the text.
      position: index of the character at which the error is.
    """

    def __init__(self, message: str, equation: str, position: int):
        super().__init__(message)
        self.equation, self.position = equation, position


def equation(nodes: Nodes) -> str:
    """The live part of the graph as text that `parse` reads back."""
    uses = _live_uses(nodes)
    printed = [(leaf, _ATOM) for leaf in LEAVES]
    bindings: list[str] = []
    for index, (op, inputs) in enumerate(nodes, start=len(LEAVES)):
        if not uses[index]:
            printed.append(("", _ATOM))
            continue
        result = _print_node(nodes, op, inputs, printed)
        if uses[index] > 1 and len(result[0]) > _NAME_LENGTH:
            name = _binding_name(len(bindings))
            bindings.append(f"{name} = {result[0]}")
            result = (name, _ATOM)
        printed.append(result)
    where = f" where {'; '.join(bindings)}" if bindings else ""
    return printed[-1][0] + where


def _binding_name(number: int) -> str:
    return "abcdefghijklmnopqrstuw"[number] if number < 22 else f"t{number}"


def _live_uses(nodes: Nodes) -> Counter:
    """How often live nodes use each node. The output counts as used once."""
    uses = Counter({len(LEAVES) + len(nodes) - 1: 1})
    for index in range(len(LEAVES) + len(nodes) - 1, len(LEAVES) - 1, -1):
        if uses[index]:
            uses.update(nodes[index - len(LEAVES)][1])
    return uses


def _print_node(nodes: Nodes, op: str, inputs: Sequence[int], printed: list) -> tuple[str, int]:
    def operand(index: int, strength: int) -> str:
        result, own = printed[index]
        return result if own >= strength else f"({result})"

    if (op, tuple(inputs)) == _ONE:
        return "1", _ATOM
    if op == "neg":
        return f"-{operand(inputs[0], _NEG)}", _NEG
    if op in ("mul", "div"):
        sign = "*" if op == "mul" else "/"
        return f"{operand(inputs[0], _MUL)} {sign} {operand(inputs[1], _NEG)}", _MUL
    if op == "add":
        left, right = inputs
        subtracted = _negated(nodes, right, printed)
        if subtracted is not None:
            return f"{operand(left, _ADD)} - {operand(subtracted, _MUL)}", _ADD
        return f"{operand(left, _ADD)} + {operand(right, _MUL)}", _ADD
    return f"{op}({', '.join(printed[i][0] for i in inputs)})", _ATOM


def _negated(nodes: Nodes, index: int, printed: list) -> int | None:
    """The input of `index` if that is a negation printed in place, so that `a + -b` reads `a - b`."""
    if index < len(LEAVES) or nodes[index - len(LEAVES)][0] != "neg":
        return None
    return nodes[index - len(LEAVES)][1][0] if printed[index][0].startswith("-") else None


def latex(nodes: Nodes) -> str:
    """The live part of the graph in LaTeX, without dollar signs and without abbreviations."""
    uses = _live_uses(nodes)
    sets = [(leaf, _ATOM) for leaf in LEAF_LATEX]
    for index, (op, inputs) in enumerate(nodes, start=len(LEAVES)):
        if not uses[index]:
            sets.append(("", _ATOM))
        elif (op, tuple(inputs)) == _ONE:
            sets.append(("1", _ATOM))
        else:
            sets.append(_typeset(op, [sets[i] for i in inputs]))
    return sets[-1][0]


# By op: how strongly each input must bind to need no parentheses, and how strongly the result binds.
_LATEX_BINDING = {
    "add": ((_ADD, _MUL), _ADD),
    "mul": ((_MUL, _STACKED), _MUL),
    "neg": ((_NEG,), _NEG),
    "div": ((_ADD, _ADD), _STACKED),
    "exp": ((_ADD,), _STACKED),
    "square": ((_ATOM,), _STACKED),
}


def _typeset(op: str, inputs: list[tuple[str, int]]) -> tuple[str, int]:
    needs, own = _LATEX_BINDING.get(op, ((_ADD, _ADD), _ATOM))
    parts = [
        part if strength >= need else rf"\left({part}\right)"
        for (part, strength), need in zip(inputs, needs, strict=False)
    ]
    return OPS[op].latex.format(*parts).replace("+ -", "- "), own


def parse(equation: str) -> list[tuple[str, tuple[int, ...]]]:
    """Nodes of an equation, with equal sub-expressions as one node. The last node is the output.

    Raises `EquationError`, a `ValueError`, if the text is not an equation over the leaves and ops.
    """
    main, where, rest = equation.partition(" where ")
    parser = _Parser(equation)
    start = len(main) + len(where)
    for binding in rest.split(";") if where else ():
        place, start = start + len(binding) - len(binding.lstrip()), start + len(binding) + 1
        name, equals, value = binding.partition("=")
        if not binding.strip():
            continue
        if not equals:
            found = binding.strip()
            raise parser.error(
                f"in {equation!r}: expected 'name = expression' after where, got {found!r}", place
            )
        if name.strip() in parser.names:
            raise parser.error(f"in {equation!r}: {name.strip()!r} after where has a meaning already", place)
        parser.names[name.strip()] = parser.read(value, start - len(value) - 1)
    output = parser.read(main, 0)
    if output < len(LEAVES):  # a bare leaf: the output must be an intermediate node
        output = parser.node("add", (output, ZERO))
    if output != len(LEAVES) + len(parser.nodes) - 1:
        place = len(main) + 1
        raise parser.error(f"in {equation!r}: a name after where is not used by the equation", place)
    return parser.nodes


class _Parser:
    """Turns Python's syntax tree of an expression into distinct nodes."""

    def __init__(self, source: str):
        self.source = source
        self.names = {name: index for index, name in enumerate(LEAVES) if name != "0"}
        self.nodes: list[tuple[str, tuple[int, ...]]] = []
        self._known: dict[tuple[str, tuple[int, ...]], int] = {}
        self._text, self._start = "", 0  # the expression as Python reads it, and its place in the source

    def read(self, expression: str, start: int) -> int:
        """The node of an expression that starts at a place of the source."""
        self._start = start + len(expression) - len(expression.lstrip())
        self._text = expression.replace("/g(", "__g(").strip()
        try:
            tree = ast.parse(self._text, mode="eval")
        except SyntaxError as error:
            raise self.error(
                f"not an equation: {self.source!r}", self._place((error.offset or len(self._text) + 1) - 1)
            ) from None
        except (ValueError, RecursionError):
            raise self.error(f"not an equation: {self.source!r}", self._start) from None
        return self._visit(tree.body)

    def node(self, op: str, inputs: tuple[int, ...]) -> int:
        if (op, inputs) not in self._known:
            self.nodes.append((op, inputs))
            self._known[op, inputs] = len(LEAVES) + len(self.nodes) - 1
        return self._known[op, inputs]

    def error(self, message: str, position: int) -> EquationError:
        return EquationError(message, self.source, min(position, len(self.source)))

    def _place(self, column: int) -> int:
        """The place in the source of a character of the text that Python reads."""
        return self._start + column - self._text[:column].count("__g(")

    def _at(self, tree: ast.expr) -> int:
        line = self._text.encode()[: tree.col_offset]  # Python counts bytes
        return self._place(len(line.decode()))

    def _visit(self, tree: ast.expr) -> int:
        match tree:
            case ast.Name(id=name):
                return self._lookup(tree, name, self.names, "name")
            case ast.Constant(value=int(value)) if value == 0 and value is not False:
                return ZERO
            case ast.Constant(value=int(value)) if value == 1 and value is not True:
                return self.node(*_ONE)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self.node("neg", (self._visit(operand),))
            case ast.BinOp(left=left, op=ast.Sub(), right=right):
                first = self._visit(left)
                return self.node("add", (first, self.node("neg", (self._visit(right),))))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                return self.node(_BINARY[type(op)], (self._visit(left), self._visit(right)))
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
                return self._call(tree, name, args)
        raise self.error(f"in {self.source!r}: cannot read {ast.unparse(tree)!r}", self._at(tree))

    def _call(self, tree: ast.expr, name: str, args: list[ast.expr]) -> int:
        op = self._lookup(tree, name.replace("__g", "/g"), {op: op for op in OPS}, "op")
        if len(args) != OPS[op].arity:
            message = f"in {self.source!r}: {op} takes {OPS[op].arity} input(s), got {len(args)}"
            raise self.error(message, self._at(tree))
        return self.node(op, tuple(self._visit(arg) for arg in args))

    def _lookup(self, tree: ast.expr, name: str, known: dict, what: str):
        if name in known:
            return known[name]
        near = difflib.get_close_matches(name, list(known), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        raise self.error(f"in {self.source!r}: unknown {what} {name!r}; {hint}", self._at(tree))
