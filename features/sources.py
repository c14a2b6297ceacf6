"""What each feature column reads: needed to tell what cannot know an outcome from what might."""

from collections.abc import Collection

from features.definitions import FeatureDefinitions
from features.expressions import names_in

Source = tuple[str, str]  # (space, name), as in event.amount

_INNOCENT = frozenset({"destination", "time"})  # configured attributes, and the clock at the decision


def column_sources(definitions: FeatureDefinitions) -> dict[str, set[Source]]:
    """Return, per column, every (space, name) that it reads."""
    categories = {column: text.partition(".") for column, text in definitions.categories.items()}
    return {
        **{column: names_in(text) for column, text in definitions.numbers.items()},
        **{column: {(space, name)} for column, (space, _, name) in categories.items()},
    }


def innocent_columns(definitions: FeatureDefinitions) -> set[str]:
    """Return the columns that read nothing but the configuration and the clock: whatever they tell, they knew it before."""
    return {column for column, read in column_sources(definitions).items() if {space for space, _ in read} <= _INNOCENT}


def clock_columns(definitions: FeatureDefinitions) -> set[str]:
    """Return the columns that read the clock alone: two windows of time differ in them by what they are."""
    return {column for column, read in column_sources(definitions).items() if {space for space, _ in read} == {"time"}}


def columns_reading(definitions: FeatureDefinitions, names: Collection[str]) -> dict[str, str]:
    """Return the columns that read one of ``names`` (``event.x``), and which; derived ones are no less theirs."""
    found = {}
    for column, read in column_sources(definitions).items():
        if hits := sorted({f"{space}.{name}" for space, name in read} & set(names)):
            found[column] = hits[0]
    return found
