"""Read untrusted YAML: plain values only, of limited size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import yaml

_LONGEST = 500_000  # characters; front matters and recipes are far shorter, and reading so many takes seconds
_MOST_VALUES = 100_000
_LONGEST_NUMBER = 1000  # digits; Python refuses to print much longer ones


def read_yaml(text: str) -> Any:
    """The values of a YAML document.

    Raises:
        ValueError: it is not YAML, or too large; the message says why, in one line.
    """
    import yaml

    if len(text) > _LONGEST:
        raise ValueError(f"{len(text):,} characters of YAML, at most {_LONGEST:,} are read")
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            # A few nested aliases can expand to more values than fit in memory.
            if _size(node, {}) > _MOST_VALUES:
                raise ValueError(f"more than {_MOST_VALUES:,} values, its aliases written out")
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(" ".join(str(error).split())) from None
    except (ArithmeticError, AttributeError, LookupError, TypeError):  # PyYAML's own code on `!!bool many`
        raise ValueError("a value is not what its tag says") from None


def _size(node: yaml.Node, known: dict[int, int | None]) -> int:
    """Count the values in `node`, aliases expanded.

    Raises:
        ValueError: an alias contains itself, or a number is too long.
    """
    import yaml

    if id(node) in known:
        size = known[id(node)]
        if size is None:
            raise ValueError("an alias contains itself")
        return size
    known[id(node)] = None  # until its parts are counted
    parts: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        parts = node.value
    elif isinstance(node, yaml.ScalarNode):
        if node.tag.endswith(":int") and len(node.value) > _LONGEST_NUMBER:
            raise ValueError(f"a number of {len(node.value):,} digits")
    elif isinstance(node, yaml.MappingNode):
        parts = [part for pair in node.value for part in pair]
    size = known[id(node)] = 1 + sum(_size(part, known) for part in parts)
    return size
