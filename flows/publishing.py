"""What a flow says in the end: its report as a Prefect artifact, for people, and as its result, for programs."""

from typing import Any

from prefect.artifacts import create_markdown_artifact


def publish(name: str, report: dict[str, Any]) -> dict[str, Any]:
    """Show ``report`` as an artifact of the run under way and return it."""
    create_markdown_artifact(
        key=f"{name}-report", markdown=as_markdown(report), description=f"{name}: {report['state']}"
    )
    return report


def as_markdown(report: dict[str, Any]) -> str:
    """Return ``report`` as a table; what came from outside is kept from being markup."""
    rows = (f"| {_cell(name)} | {_cell(value)} |" for name, value in report.items())
    return "\n".join(["| | |", "|---|---|", *rows])


def _cell(value: Any) -> str:
    text = "; ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "&#124;").replace("\n", " ")
