"""Where in a TOML text a field is set: msgspec knows the path of what it refuses, people want the line."""

import re

_AT_PATH = re.compile(r"^(?P<message>.*?) - at `\$\.?(?P<path>.*?)`$", re.DOTALL)
_LEADING_FIELD = re.compile(r"^(?P<path>[\w.\[\]-]+): (?P<message>.*)$", re.DOTALL)
_NAMED_FIELD = re.compile(r"unknown field `(?P<field>[^`]+)`")


def explain(error: str) -> tuple[str, str]:
    """Split msgspec's message into what is wrong and the dotted path of the field."""
    message, path = error, ""
    if located := _AT_PATH.match(error):
        message, path = located["message"], located["path"]
    if (leading := _LEADING_FIELD.match(message)) and "." in leading["path"]:
        message, path = leading["message"], ".".join(filter(None, [path, leading["path"]]))
    if unknown := _NAMED_FIELD.search(message):
        path = ".".join(filter(None, [path, unknown["field"]]))
    return message, path


def line_of(text: str, path: str) -> int | None:
    """Return the line that sets ``path`` or, where no line does, the nearest table above it."""
    wanted = [part for part in re.split(r"[.\[\]]+", path) if part and not part.isdigit()]
    best: tuple[int, int] | None = None  # (depth matched, line)
    table: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if header := re.match(r"^\[+([^\[\]]+)\]+", stripped):
            table = [part.strip().strip("\"'") for part in header[1].split(".")]
            here = table
        elif assignment := re.match(r"^([\w\"'.-]+)\s*=", stripped):
            here = [*table, *(part.strip("\"'") for part in assignment[1].split("."))]
        else:
            continue
        if here == wanted[: len(here)] and (best is None or len(here) > best[0]):
            best = (len(here), number)
    return best[1] if best else None
