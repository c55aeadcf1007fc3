"""Markdown tables, for the documents and the terminal."""


def table(header: list[str], rows: list[list[str]]) -> str:
    """Make a Markdown table whose columns are also aligned as plain text."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * (width - 1) + ":" for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )
