"""How a generation is refused: by the name of the rule that it breaks."""

from typing import Literal, NoReturn

from models.releases.entry import Entry

Rule = Literal["shape", "generation", "previous", "instant", "share", "mode", "revoked", "champion", "action", "gap"]


class RuleBrokenError(ValueError):
    """An entry that may not follow: names the rule, the generation and what breaks it."""

    def __init__(self, rule: Rule, generation: int, detail: str) -> None:
        super().__init__(f"generation {generation} breaks the rule {rule!r}: {detail}")
        self.rule = rule
        self.generation = generation


def refuse(rule: Rule, entry: Entry, detail: str) -> NoReturn:
    """Raise that ``entry`` breaks ``rule``."""
    raise RuleBrokenError(rule, entry.generation, detail)
