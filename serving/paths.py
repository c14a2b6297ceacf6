"""Finds what a path leads to: plain ones at a look, those with something of the caller's in them by their pattern."""

from collections.abc import Mapping
from typing import Generic, TypeVar
from urllib.parse import unquote

Bound = TypeVar("Bound")


class Paths(Generic[Bound]):
    """What answers which method of which path. ``patterns`` are the parts of paths, ``*`` where anything may stand."""

    def __init__(self, routes: Mapping[tuple[str, ...], Mapping[str, Bound]]) -> None:
        """Take what answers, by pattern and method; whatever answers GET answers HEAD as well."""
        self._routes = {
            pattern: {**methods, "HEAD": methods["GET"]} if "GET" in methods else dict(methods)
            for pattern, methods in routes.items()
        }
        self._plain = {"/" + "/".join(parts): methods for parts, methods in self._routes.items() if "*" not in parts}

    @property
    def patterns(self) -> frozenset[tuple[str, ...]]:
        """All patterns."""
        return frozenset(self._routes)

    def find(self, path: str) -> tuple[Mapping[str, Bound], str]:
        """Return what answers a path, by method, and what stands at its ``*``; nothing where there is no such path."""
        found = self._plain.get(path)
        return (found, "") if found is not None else self._match(path)

    def _match(self, path: str) -> tuple[Mapping[str, Bound], str]:
        parts = tuple(path.split("/"))[1:]
        if "%" in path:
            parts = tuple(map(unquote, parts))
        for pattern in (parts, (*parts[:-1], "*"), (*parts[:-2], "*", *parts[-1:])):
            if (methods := self._routes.get(pattern)) is not None:
                return methods, next((part for part, name in zip(parts, pattern, strict=True) if name == "*"), "")
        return {}, ""
