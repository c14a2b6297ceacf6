"""The home folder: where the pipeline and the shims meet. One layout, since what one writes the other reads."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Home:
    """The folder ``home`` and the places in it that both sides know; ``config_path`` is the turnout.toml of both."""

    home: Path
    config_path: Path

    @property
    def spool_path(self) -> Path:
        """Where the shims append decisions and outcomes, and ingest reads them."""
        return self.home / "spool"

    @property
    def ledger_path(self) -> Path:
        """The append-only generations, written by the pipeline and followed by the shims."""
        return self.home / "ledger"

    @property
    def store_path(self) -> Path:
        """The content-addressed release store, written by the pipeline and read by the shims."""
        return self.home / "store"
