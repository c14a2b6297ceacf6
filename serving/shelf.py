"""The shim's own copies of what it serves: taken from the store, checked, tried out in a child process, then loaded."""

import importlib.metadata
import shutil
from collections.abc import Callable, Collection
from pathlib import Path

import msgspec
from msgspec import Struct

from models import router, tariff
from models.releases.bundle import BundleError, Manifest
from models.releases.store import AbsentReleaseError, Store
from serving import probe
from serving.plan import StreamPlan
from serving.probe import ProbeFailedError
from serving.view import ForecastView, Model

ROUTER = "router"
FORECASTER = "forecaster"  # the ledger's name for the model, and its bundle's kind
FORECAST_FILE = "forecast.json"


class RejectedError(ValueError):
    """A release that is not served, and why."""


class Series(Struct, frozen=True, kw_only=True):
    """The forecast of one series: its hours, and the quantiles of each."""

    hours: tuple[str, ...]
    p10: tuple[float, ...]
    p50: tuple[float, ...]
    p90: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse columns of unequal length."""
        if len({len(self.hours), len(self.p10), len(self.p50), len(self.p90)}) != 1:
            raise ValueError("hours, p10, p50 and p90 must be equally many")


class Forecast(Struct, frozen=True, kw_only=True):
    """What a forecaster's bundle brings for the shim."""

    at: str
    series: dict[str, Series]


class Shelf:
    """Bundles on the shim's own disk, so that neither a lost store nor a damaged one takes away what is served.

    A digest is tried out once per version of LightGBM; its own file of the same name says that it was.
    """

    def __init__(self, root: Path, store: Store, *, try_out: Callable[[Path], None] = probe.try_out) -> None:
        """Keep copies under ``root`` of what ``store`` has; ``try_out`` raises `ProbeFailedError` for what cannot be served."""
        self._root = root
        self._store = store
        self._copies = Store(root / "bundles")
        self._try_out = try_out

    def router(self, digest: str, plan: StreamPlan) -> Model:
        """Return the router of ``digest``, fit for the stream of ``plan``.

        Raises
        ------
        RejectedError
            If it is absent, damaged, dies or errs on its golden rows, or was made for something else.
        """
        folder = self._copy(digest, kind=ROUTER)
        try:
            self._probe(digest, folder)
            loaded = router.load(folder)
            priced = tariff.load(folder, loaded.card)
        except (ProbeFailedError, router.ContractMismatchError, OSError) as error:
            raise RejectedError(f"{digest[:12]}: {error}") from None
        card = loaded.card
        if card.stream != plan.name:
            raise RejectedError(f"{digest[:12]}: contract mismatch: made for stream {card.stream!r}, not {plan.name!r}")
        if card.feature_set != plan.features.version:
            wanted = plan.features.version
            raise RejectedError(f"{digest[:12]}: contract mismatch: reads feature set {card.feature_set}, not {wanted}")
        return Model(digest, loaded, priced)

    def forecast(self, digest: str) -> ForecastView:
        """Return the forecast in the forecaster's bundle of ``digest``; raises as `router` does."""
        folder = self._copy(digest, kind=FORECASTER)
        try:
            forecast = msgspec.json.decode((folder / FORECAST_FILE).read_bytes(), type=Forecast)
        except (OSError, msgspec.MsgspecError) as error:
            raise RejectedError(f"{digest[:12]}: {FORECAST_FILE}: {error}") from None
        return ForecastView(digest=digest, at=forecast.at, series=forecast.series)

    def keep_only(self, digests: Collection[str]) -> None:
        """Remove all copies but those of ``digests``."""
        for digest in set(self._copies.digests()).difference(digests):
            self._remove(digest)

    def _copy(self, digest: str, *, kind: str) -> Path:
        """Return our own verified copy, made from the store's where there is none, or a damaged one."""
        try:
            manifest = self._copies.verify(digest)
        except (AbsentReleaseError, BundleError, OSError):
            manifest = self._fetch(digest)
        if manifest.kind != kind:
            raise RejectedError(f"{digest[:12]}: is a {manifest.kind}, not a {kind}")
        return self._copies.path(digest)

    def _fetch(self, digest: str) -> Manifest:
        try:
            self._remove(digest)
            self._copies.put(self._store.path(digest), digest=digest)
            return self._copies.verify(digest)
        except (AbsentReleaseError, BundleError, OSError) as error:
            raise RejectedError(f"{digest[:12]}: {error}") from None

    def _remove(self, digest: str) -> None:
        self._mark(digest).unlink(missing_ok=True)
        if digest in self._copies.digests():
            folder = self._copies.path(digest)
            folder.chmod(0o700)  # copies are read-only, and a read-only folder does not let go of its files
            shutil.rmtree(folder, ignore_errors=True)

    def _probe(self, digest: str, folder: Path) -> None:
        mark, version = self._mark(digest), importlib.metadata.version("lightgbm")
        try:
            if mark.read_text(encoding="utf-8") == version:
                return
        except (OSError, UnicodeDecodeError):
            pass
        self._try_out(folder)
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.write_text(version, encoding="utf-8")

    def _mark(self, digest: str) -> Path:
        return self._root / "probed" / digest
