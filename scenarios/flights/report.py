"""What the demo says in the end: a table for people, an object for programs."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from scenarios.flights import tally
from scenarios.flights.tally import Choice
from scenarios.flights.world import World

LABELS = {
    "static": "static table",
    "earliest": "earliest scheduled arrival",
    "champion": "champion (greedy)",
    "as_served": "as served",
    "oracle": "oracle",
}


def policies(world: World, choices: Mapping[str, Choice]) -> dict[str, Any]:
    """Return every policy's figures and the champion's paired difference to the strong human rule."""
    tallies = tally.tally(world, dict(choices))
    return {
        "n_events": world.n_events,
        "policies": {
            name: {"mean_minutes": t.mean_minutes, "failure_rate": t.failure_rate, "gap_closed": t.gap_closed}
            for name, t in tallies.items()
        },
        "champion_minus_earliest": tally.difference(world, choices["champion"], choices["earliest"]),
        "champion_minus_static": tally.difference(world, choices["champion"], choices["static"]),
        "as_served_minus_static": tally.difference(world, choices["as_served"], choices["static"]),
    }


def show(report: Mapping[str, Any], console: Console) -> None:
    """Print the report: policies, differences, the way to promotion, the forecast."""
    table = Table(title=f"{report['n_events']:,} parcels, September to December", title_justify="left")
    for column in ("policy", "mean minutes", "failure rate", "of the gap closed"):
        table.add_column(column, justify="left" if column == "policy" else "right")
    for name, figures in report["policies"].items():
        gap = f"{figures['gap_closed']:.0%}"
        table.add_row(LABELS[name], f"{figures['mean_minutes']:.2f}", f"{figures['failure_rate']:.2%}", gap)
    console.print(table)
    for name, rule in (("champion_minus_earliest", "earliest arrival"), ("champion_minus_static", "static table")):
        minutes, failures = report[name]["mean_minutes"], report[name]["failure_rate"]
        console.print(
            f"champion - {rule}: {_interval(minutes, '{:+.2f}')} minutes, "
            f"{_interval([100 * f for f in failures], '{:+.2f}')} points of failure (95 %, clustered by day)"
        )
    promotion, forecast = report["promotion"], report["forecast"]
    console.print(
        f"promotion: {promotion['verdict']} after {promotion['decisions']:,} decisions, generation {promotion['generation']}; "
        f"lost records: {report['lost_records']}"
    )
    planted = report["planted"]
    console.print(
        f"a router that forgot the promised times, planted: {planted['verdict']} after {planted['decisions']:,} decisions "
        f"({planted['reason']})"
    )
    console.print(
        f"forecast: WAPE {forecast['wape']:.3f}, same hour last week {forecast['wape_last_week']:.3f}; "
        f"P10 to P90 held {forecast['p10_p90_coverage']:.1%}"
    )
    console.print("seconds: " + ", ".join(f"{step} {seconds:.0f}" for step, seconds in report["seconds"].items()))


def _interval(figures: Any, form: str) -> str:
    value, low, high = (form.format(figure) for figure in figures)
    return f"{value} [{low}, {high}]"
