"""How commands find their surroundings, and how they tell what they did."""

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from flows import components, settings, stack
from flows.settings import Settings


class UsageError(ValueError):
    """A command that lacks what it needs: names it."""


def attach() -> Settings:
    """Let this process work with the stack of its home, or without any server where none is up; return the settings.

    To be called before Prefect or MLflow is imported: they read the environment then. What the user set stays.
    """
    chosen = settings.read()
    running = stack.state(chosen.home)
    environment = components.lone_environment(chosen) if running is None else running["environment"]
    for name, value in environment.items():
        os.environ.setdefault(name, value)
    return settings.read()


def report(told: Mapping[str, Any], *, as_json: bool = False) -> int:
    """Print a flow's report; return 1 if it was refused, else 0."""
    if as_json:
        sys.stdout.write(json.dumps(told, indent=2, default=str) + "\n")
    else:
        for name, value in told.items():
            sys.stdout.write(f"{name}: {_plain(value)}\n")
    return 1 if told.get("state") == "refused" else 0


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under their columns."""
    shown = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        shown.add_row(*(_plain(cell) for cell in row))
    Console(highlight=False, markup=False).print(shown)


def _plain(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_plain(inner)}" for name, inner in value.items()) or "-"
    if isinstance(value, list | tuple):
        return "; ".join(map(_plain, value)) or "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
