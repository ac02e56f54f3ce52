"""YAML text to a tree of nodes that know where they stand. Knows YAML 1.2, not what a sweep file means."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode
from ruamel.yaml.nodes import Node as YamlNode

from bench.errors import BenchError
from bench.hints import did_you_mean

MAX_FILE_BYTES = 1_000_000
_CORE = "tag:yaml.org,2002:"
_PLAIN_TAGS = {f"{_CORE}{name}" for name in ("str", "int", "float", "bool", "null", "timestamp", "merge")}

Value: TypeAlias = "str | int | float | bool | list[Node] | dict[str, Node] | None"


@dataclass(frozen=True, eq=False)
class Node:
    """A value and where it was written: its key's place in a mapping, its own in a list. Both count from 1."""

    value: Value
    line: int
    column: int
    shown: str
    """The value for messages: a scalar as written, else ``a list`` or ``a mapping``."""


class Problems:
    """Everything wrong with one file, so that a user sees it all at once."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._found: dict[tuple[int, int, str], None] = {}
        self._closed: set[tuple[int, int]] = set()
        self._elsewhere: dict[str, None] = {}

    def __bool__(self) -> bool:
        return bool(self._found or self._elsewhere)

    def add(self, node: Node, path: str, text: str, *, closes: bool = False) -> None:
        """Note that the value at ``path`` (dotted keys, empty for the whole file) is wrong.

        ``closes``: it has no meaning to go on with, so later complaints about the same place are left out.
        """
        place = (node.line, node.column)
        if place in self._closed:
            return
        if closes:
            self._closed.add(place)
        self._found[node.line, node.column, f"{path}: {text}" if path else text] = None

    def add_elsewhere(self, text: str) -> None:
        """Note what is wrong with a file that this one names; the text says which file, and where in it."""
        self._elsewhere[text] = None

    def raise_all(self) -> None:
        """Raises BenchError with one line per problem, in file order; nothing if there is none."""
        if self:
            here = (f"{self.source}:{line}:{column}: {text}" for line, column, text in sorted(self._found))
            raise BenchError(*here, *self._elsewhere)


def read_text(path: Path, kind: str = "sweep file (YAML)", suffix: str = ".yaml") -> str:
    """The file's text; ``kind`` and ``suffix`` are for messages.

    Raises:
        BenchError: it is missing, a directory, unreadable, over MAX_FILE_BYTES or not UTF-8.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        beside = [str(other) for other in sorted(path.parent.glob(f"*{suffix}"))]
        raise BenchError(f"{path}: no such file{did_you_mean(str(path), beside)}") from None
    except IsADirectoryError:
        raise BenchError(f"{path}: is a directory, expected a {kind}") from None
    except OSError as error:
        raise BenchError(f"{path}: cannot be read: {error.strerror}") from error
    if len(raw) > MAX_FILE_BYTES:
        raise BenchError(f"{path}: larger than {MAX_FILE_BYTES:,} bytes, which no {kind.split(' (')[0]} is")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BenchError(f"{path}: is not UTF-8 text (byte {error.start})") from None


def parse(text: str, problems: Problems) -> Node:
    """The document's root. Notes duplicate keys, keys that are no text, tags and anchors that contain themselves.

    Raises:
        BenchError: no YAML, or nothing in it: there is no tree to go on with.
    """
    yaml = YAML(typ="safe", pure=True)
    source = problems.source
    try:
        root = yaml.compose(text)
    except MarkedYAMLError as error:
        where = "" if error.problem_mark is None else f":{error.problem_mark.line + 1}:{error.problem_mark.column + 1}"
        raise BenchError(f"{source}{where}: no valid YAML: {error.problem}") from None
    except YAMLError as error:  # the reader's: a control character, with no mark
        raise BenchError(f"{source}: no valid YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise BenchError(f"{source}: nested too deeply") from None
    if root is None:
        raise BenchError(f"{source}: is empty, expected a sweep file (schema, case, variants)")
    return _Tree(yaml, problems).node(root, root)


class _Tree:
    def __init__(self, yaml: YAML, problems: Problems) -> None:
        self.yaml = yaml
        self.problems = problems
        self.open: set[int] = set()
        self.values: dict[int, Value] = {}  # an anchor used a thousand times is converted once

    def node(self, yaml_node: YamlNode, place: YamlNode) -> Node:
        line, column = place.start_mark.line + 1, place.start_mark.column + 1
        node = Node(None, line, column, _shown(yaml_node))
        if id(yaml_node) in self.open:
            self.problems.add(node, "", "an anchor that contains itself", closes=True)
            return node
        if id(yaml_node) not in self.values:
            self.open.add(id(yaml_node))
            self.values[id(yaml_node)] = self._value(yaml_node, node)
            self.open.remove(id(yaml_node))
        return Node(self.values[id(yaml_node)], line, column, node.shown)

    def _value(self, yaml_node: YamlNode, node: Node) -> Value:
        if isinstance(yaml_node, ScalarNode):
            return self._scalar(yaml_node, node)
        if yaml_node.tag not in (f"{_CORE}map", f"{_CORE}seq"):
            self.problems.add(node, "", f"tags are not allowed, found {_short(yaml_node)}", closes=True)
        if isinstance(yaml_node, SequenceNode):
            return [self.node(item, item) for item in yaml_node.value]
        entries: dict[str, Node] = {}
        for key, item in yaml_node.value:
            entry = self.node(item, key)
            if not isinstance(key, ScalarNode) or key.tag not in (f"{_CORE}str", f"{_CORE}merge"):
                self.problems.add(entry, "", f"a key must be text, found {_shown(key)}")
            elif key.value in entries:
                first = entries[key.value].line
                self.problems.add(entry, "", f"duplicate key {key.value}, first given on line {first}")
            else:
                entries[key.value] = entry
        return entries

    def _scalar(self, scalar: ScalarNode, node: Node) -> Value:
        quoted = scalar.style in ("'", '"', "|", ">")
        if scalar.tag not in _PLAIN_TAGS or (quoted and scalar.tag != f"{_CORE}str"):
            self.problems.add(node, "", f"tags are not allowed, found {_short(scalar)}", closes=True)
            return str(scalar.value)
        if scalar.tag in (f"{_CORE}timestamp", f"{_CORE}merge"):
            return str(scalar.value)
        try:
            built: str | int | float | bool | None = self.yaml.constructor.construct_object(scalar)
        except ValueError:  # an integer of more digits than Python converts
            return str(scalar.value)
        return built


def _short(node: YamlNode) -> str:
    """A tag as it is written: ``!!int`` for YAML's own."""
    return str(node.tag).replace(_CORE, "!!")


def _shown(node: YamlNode) -> str:
    """A scalar as the user wrote it, quotes included where they matter, cut where it is long."""
    if not isinstance(node, ScalarNode):
        return "a mapping" if isinstance(node, MappingNode) else "a list"
    text = str(node.value)
    short = text if len(text) <= 60 else f"{text[:57]}..."
    if node.style is not None or not short.isprintable():
        return repr(short)
    return short or "nothing"
