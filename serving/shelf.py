"""The shim's own copies of what it serves: taken from the store, checked, tried out in a child process, then loaded."""

import importlib.metadata
import shutil
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from weakref import WeakValueDictionary

import msgspec
from msgspec import Struct

from features import content as contents
from models import content, router, tariff
from models.card import ContractMismatchError
from models.releases.bundle import BundleError, Manifest
from models.releases.store import AbsentReleaseError, Store
from serving import probe
from serving.plan import StreamPlan
from serving.probe import ProbeFailedError
from serving.view import Classifier, ForecastView, Model

ROUTER = "router"
CLASSIFIER = content.KIND  # a bundle's kind, and what routers pin
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

    A digest is tried out once per version of the library that it needs; its own file of the same name says that it was.
    """

    def __init__(self, root: Path, store: Store, *, try_out: Callable[[Path], None] = probe.try_out) -> None:
        """Keep copies under ``root`` of what ``store`` has; ``try_out`` raises `ProbeFailedError` for what cannot be served."""
        self._root = root
        self._store = store
        self._copies = Store(root / "bundles")
        self._try_out = try_out
        self._classifiers: WeakValueDictionary[str, Classifier] = WeakValueDictionary()

    def router(self, digest: str, plan: StreamPlan) -> Model:
        """Return the router of ``digest`` with the classifier that it pins, fit for the stream of ``plan``.

        Raises
        ------
        RejectedError
            If it is absent, damaged, dies or errs on its golden rows, or was made for something else.
        """
        folder, pins = self._copy(digest, kind=ROUTER)
        try:
            self._probe(digest, folder, kind=ROUTER)
            loaded = router.load(folder)
            priced = tariff.load(folder, loaded.card)
        except (ProbeFailedError, ContractMismatchError, OSError) as error:
            raise RejectedError(f"{digest[:12]}: {error}") from None
        card = loaded.card
        if card.stream != plan.name:
            raise RejectedError(f"{digest[:12]}: contract mismatch: made for stream {card.stream!r}, not {plan.name!r}")
        if card.feature_set != plan.features.version:
            wanted = plan.features.version
            raise RejectedError(f"{digest[:12]}: contract mismatch: reads feature set {card.feature_set}, not {wanted}")
        pinned = pins.get(CLASSIFIER)
        classifier = None if pinned is None else self.classifier(pinned, plan)
        return Model(digest, loaded, tariff=priced, classifier=classifier)

    def classifier(self, digest: str, plan: StreamPlan) -> Classifier:
        """Return the classifier of ``digest``, which has every class that the stream's features read; raises as `router` does."""
        held = self._classifiers.get(digest) or self._load_classifier(digest)
        if reasons := contents.strangers(plan.features.content_names, held.reader.classes, held.reader.n_components):
            raise RejectedError(f"{digest[:12]}: contract mismatch: {'; '.join(reasons)}")
        return held

    def forecast(self, digest: str) -> ForecastView:
        """Return the forecast in the forecaster's bundle of ``digest``; raises as `router` does."""
        folder, _ = self._copy(digest, kind=FORECASTER)
        try:
            forecast = msgspec.json.decode((folder / FORECAST_FILE).read_bytes(), type=Forecast)
        except (OSError, msgspec.MsgspecError) as error:
            raise RejectedError(f"{digest[:12]}: {FORECAST_FILE}: {error}") from None
        return ForecastView(digest=digest, at=forecast.at, series=forecast.series)

    def keep_only(self, digests: Collection[str]) -> None:
        """Remove all copies but those of ``digests``, and of what they pin."""
        kept = set(digests)
        for digest in digests:
            with suppress(AbsentReleaseError, BundleError, OSError):
                kept.update(self._copies.manifest(digest).pins.values())
        for digest in set(self._copies.digests()) - kept:
            self._remove(digest)

    def _load_classifier(self, digest: str) -> Classifier:
        folder, _ = self._copy(digest, kind=CLASSIFIER)
        try:
            self._probe(digest, folder, kind=CLASSIFIER)
            loaded = Classifier(digest, content.load(folder))
        except (ProbeFailedError, ContractMismatchError, OSError) as error:
            raise RejectedError(f"{digest[:12]}: {error}") from None
        self._classifiers[digest] = loaded
        return loaded

    def _copy(self, digest: str, *, kind: str) -> tuple[Path, dict[str, str]]:
        """Return our own verified copy, made from the store's where there is none, or a damaged one; and what it pins."""
        try:
            manifest = self._copies.verify(digest)
        except (AbsentReleaseError, BundleError, OSError):
            manifest = self._fetch(digest)
        if manifest.kind != kind:
            raise RejectedError(f"{digest[:12]}: is a {manifest.kind}, not a {kind}")
        return self._copies.path(digest), manifest.pins

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

    def _probe(self, digest: str, folder: Path, *, kind: str) -> None:
        mark, version = self._mark(digest), importlib.metadata.version("lightgbm" if kind == ROUTER else "numpy")
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
