"""Whether a text can be a Docker Compose file, found out without building what it describes."""

from dataclasses import dataclass, field
from typing import Final

import yaml

_DEEPEST: Final = 100
_MOST_NODES: Final = 250_000
"""Above what 200 KiB can hold without aliases; an alias counts as everything that it stands for."""


class NotACompose(ValueError):
    """The text is no Docker Compose file; the message says why and never quotes it."""


@dataclass(slots=True)
class _Collection:
    """A mapping or sequence being read; its own node and children are counted in ``size``."""

    is_mapping: bool
    anchor: str | None
    size: int = 1
    children: int = 0
    key: str | None = None


@dataclass(slots=True)
class _Reader:
    """Follows the events of one document.

    Events come one at a time, so neither depth (the composer of libyaml's binding overruns the C stack) nor aliases
    (merge keys multiply) can hurt.
    """

    open: list[_Collection] = field(default_factory=list)
    anchors: dict[str, tuple[int, bool]] = field(default_factory=dict)
    is_mapping: bool = False
    has_services: bool = False

    def read(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.CollectionStartEvent):
            self._start(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            done = self.open.pop()
            self._node(done.size, done.anchor, is_mapping=done.is_mapping)
        elif isinstance(event, yaml.ScalarEvent):
            self._node(1, event.anchor, is_mapping=False, text=event.value)
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in self.anchors:
                raise NotACompose("it has an alias without an anchor before it, or one inside its own anchor")
            size, is_mapping = self.anchors[event.anchor]
            self._node(size, None, is_mapping=is_mapping)

    def _start(self, event: yaml.CollectionStartEvent) -> None:
        if len(self.open) == _DEEPEST:
            raise NotACompose(f"it is nested more than {_DEEPEST} levels deep")
        is_mapping = isinstance(event, yaml.MappingStartEvent)
        if not self.open:
            self.is_mapping = is_mapping
        self.open.append(_Collection(is_mapping, event.anchor))

    def _node(self, size: int, anchor: str | None, *, is_mapping: bool, text: str | None = None) -> None:
        if anchor is not None:
            self.anchors[anchor] = (size, is_mapping)
        if not self.open:
            return
        parent = self.open[-1]
        parent.size += size
        if parent.size > _MOST_NODES:
            raise NotACompose("its aliases expand to far more than it holds")
        if parent.is_mapping and parent.children % 2 == 0:
            parent.key = text
        elif parent.is_mapping and len(self.open) == 1:
            self._top_level(parent.key, is_mapping=is_mapping)
        parent.children += 1

    def _top_level(self, key: str | None, *, is_mapping: bool) -> None:
        if key == "services" and not is_mapping:
            raise NotACompose("`services` must be a mapping of service names to services")
        # A merge at the top may bring `services` along.
        self.has_services = self.has_services or key in ("services", "<<")


def check_compose(text: str) -> str:
    """The same text, if it is one YAML document that is a mapping with ``services``.

    Raises:
        NotACompose: it is not, or its aliases expand beyond reason.
    """
    reader = _Reader()
    documents = 0
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            documents += isinstance(event, yaml.DocumentStartEvent)
            reader.read(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise NotACompose(f"it is not YAML: {error.problem}{where}") from None
    except yaml.YAMLError:
        raise NotACompose("it is not YAML: it holds characters that YAML does not allow") from None
    if documents != 1 or not reader.is_mapping:
        raise NotACompose("it must be one YAML document that is a mapping")
    if not reader.has_services:
        raise NotACompose("it has no `services`")
    return text
