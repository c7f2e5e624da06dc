"""`--config=FILE` and `--config.KEY=VALUE` on a command line: reads and checks them, and lists the keys."""

import ast
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from evonorms_jax.errors import UserError
from evonorms_jax.runs.config_checks import flat, load_config, nearest

_ARGUMENT = re.compile(r"--?(?P<no>no)?config(\.(?P<key>[^=]*))?(=(?P<text>.*))?", re.DOTALL)
_TRUTH = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
#: Type of a key to the parser of its text and a name for people.
_KINDS: dict[type, tuple[Callable[[str], Any], str]] = {
    bool: (lambda text: _TRUTH[text.lower()], "true or false"),
    int: (int, "a whole number"),
    float: (float, "a number"),
    str: (str, "a text"),
}


def file_of(argv: Sequence[str]) -> str | None:
    """The value of `--config` in the arguments."""
    for place, argument in enumerate(argv):
        match = _ARGUMENT.fullmatch(argument)
        if match and match["key"] is None:
            return match["text"] if match["text"] is not None else "".join(argv[place + 1 : place + 2])
    return None


def parse(path: str, argv: Sequence[str]) -> tuple[ConfigDict, list[str]]:
    """The config of a file with the overrides of the arguments, locked, and the other arguments.

    Args:
      path: config file, `FILE` or `FILE:FORM`; it is executed once.
      argv: arguments of the command line.

    Raises:
      UserError: if there is no such file, key, or value of a key.
    """
    config, texts, rest = load_config(path).lock(), {}, []
    kinds = {key: _kind(config, key) for key in flat(config)}
    arguments = iter(argv)
    for argument in arguments:
        match = _ARGUMENT.fullmatch(argument)
        if match is None:
            rest.append(argument)
        elif match["key"] is None:
            if match["text"] is None:
                next(arguments, None)  # the file
        else:
            _check_key(match["key"], kinds)
            text = _text(match, kinds[match["key"]], arguments)
            texts.setdefault(match["key"], []).append(text)
    for key, values in texts.items():
        config.update_from_flattened_dict({key: _value(key, kinds[key], flat(config)[key], values)})
    return config, rest


def _kind(config: ConfigDict, key: str) -> type:
    group, _, leaf = key.rpartition(".")
    return (config[group] if group else config).get_type(leaf)


def _text(match: re.Match, kind: type, arguments: Iterator[str]) -> str:
    """The text of a value: after the sign, in the next argument, or left out for a truth value."""
    if match["text"] is not None:
        return match["text"]
    if kind is bool:
        return "false" if match["no"] else "true"
    return next(arguments, "")


def _value(key: str, kind: type, default: Any, texts: Sequence[str]) -> Any:
    if kind is tuple:
        return _tuple(key, type(default[0]) if default else None, texts)
    return _scalar(key, kind, texts[-1])


def _scalar(key: str, kind: type, text: str) -> Any:
    parser, name = _KINDS[kind]
    try:
        return parser(text)
    except (ValueError, KeyError):
        raise UserError(f"--config.{key} takes {name}, got {text!r}") from None


def _tuple(key: str, kind: type | None, texts: Sequence[str]) -> tuple:
    """`('a', 'b')` as one text, or a text for each member."""
    members = []
    for text in texts:
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        members += value if isinstance(value, (tuple, list)) else [text if kind is str else value]
    for member in members:
        if kind is not None and (not isinstance(member, kind) or isinstance(member, bool)):
            raise UserError(f"--config.{key} takes {kind.__name__}s, got {member!r}")
        if kind is str and "," in member:
            raise UserError(f"--config.{key}: repeat the flag for each of {member!r}")
    return tuple(members)


def _check_key(key: str, keys: Mapping[str, Any]) -> None:
    if key in keys:
        return
    group = key.rpartition(".")[0] + "."
    # Within a group that exists, its name says nothing about which of its keys is meant.
    inside = [each.removeprefix(group) for each in keys if each.startswith(group)]
    if inside:
        near = nearest(key.removeprefix(group), inside)
        raise UserError(f"config.{key}: {group[:-1]} has {', '.join(inside)}{near}")
    raise UserError(f"the config has no key {key!r}{nearest(key, keys) or '; --help lists them'}")


def describe_keys(path: str) -> list[str]:
    """Lines with the keys of a config file and their values."""
    defaults = flat(load_config(path))
    width = max(map(len, defaults))
    header = f"Keys of {path}, set by --config.KEY=VALUE, with its values:"
    return [header, *(f"  {key:<{width}}  {value!r}" for key, value in defaults.items())]
