"""The turnout.toml of the flights world: the part a person would write, and the tables taken from the timetable."""

import json
from pathlib import Path

from scenarios.flights.world import World

STREAM = "parcels"
EVENT_TYPE = "flights.parcel.ready"

_TEMPLATE = Path(__file__).with_name("turnout.toml")


def text(world: World, *, ladder_decisions: int) -> str:
    """Return the configuration: the template, its destinations and static routes.

    ``ladder_decisions`` is how many decisions a rung of the canary ladder lasts at the least; a smaller world needs a
    shorter ladder.
    """
    destinations = sorted({name for route in world.static_routes.values() for name in route})
    tables = [_TEMPLATE.read_text(encoding="utf-8").replace("@LADDER_DECISIONS@", str(ladder_decisions))]
    tables[0] = tables[0].replace('"@DESTINATIONS@"', ", ".join(json.dumps(name) for name in destinations))
    tables.append("[streams.parcels.static.routes]")
    tables += [f"{airport} = {json.dumps(list(route))}" for airport, route in sorted(world.static_routes.items())]
    for name in destinations:
        carrier, _, origin = name.partition("-")
        tables.append(f'[destinations.{name}]\nattributes = {{ carrier = "{carrier}", origin = "{origin}" }}')
    return "\n".join(tables) + "\n"
