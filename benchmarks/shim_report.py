"""What a run of ``benchmarks.shim`` came to, for people."""

from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.shim_world import BATCH, OPEN_RATE


def show(told: dict[str, Any]) -> None:
    """Print what `benchmarks.shim` found: a table of servers, and a line for each of the rest."""
    echo_us, echo_rps, shim = told["echo_p50_us"], told["echo_rps"], told["shim"]
    console = Console()
    table = Table(
        "server", "p50 us", "x echo", "requests/s", "of the echo's", title="One core, one event, 8 candidates"
    )
    rows = [
        ("C echo", {"p50_us": echo_us, "rps": echo_rps}),
        ("shim, HTTP alone", told["bare_http"]),
        ("shim", shim),
        ("shim, never polling", told["asleep"]),
        ("shim, a canary live", told["canary"]),
        *told["peers"].items(),
    ]
    for name, figures in rows:
        table.add_row(
            name,
            f"{figures['p50_us']:.0f}",
            f"{figures['p50_us'] / echo_us:.2f}",
            f"{figures['rps']:,.0f}",
            f"{figures['rps'] / echo_rps:.2f}",
        )
    console.print(table)
    console.print(f"absent: {', '.join(told['absent'])}", markup=False)
    console.print(
        f"shim: p99 at {OPEN_RATE:,}/s {shim['p99_us']:.0f} us (echo {told['echo_p99_us']:.0f}), "
        f"{shim['batch_rps']:,.0f} events/s in batches of {BATCH}, {told['inproc_us']} us in process, "
        f"{shim['rss_mb']} MB ({shim['rss_after_mb']} MB after all else), first answer after {shim['cold_start_s']} s",
        markup=False,
    )
    over_nats = told["nats"]
    console.print(
        f"engine {told['engine_x_booster']} x LightGBM at 8 candidates, {told['engine_x_booster_32']} x at 32; "
        f"over NATS {over_nats['p50_us']} us, bare {over_nats['bare_p50_us']} us",
        markup=False,
    )
    for what in ("swaps", "kill9", "overload", "overload_whole_path", "slow_heads", "huge_body", "soak"):
        if what in told:
            console.print(f"{what}: {told[what]}", markup=False)
