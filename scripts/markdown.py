"""Pieces of Markdown."""

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; a bar inside a cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def fenced(language: str, text: str) -> str:
    """A code block."""
    return f"```{language}\n{text}\n```"


def code(text: str) -> str:
    """Inline code."""
    return f"`{text}`"
