"""What a shim serves at one moment: per stream the models in force, swapped as a whole and never changed in place."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, Self

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from features.content import Content
from features.records import Event, Mode
from models.router import Scores
from models.tariff import Tariff

ModelRole = Literal["champion", "challenger", "shadow"]


class Scorer(Protocol):
    """What the shim asks of a router; ``models.router.Router`` is one."""

    @property
    def feature_set(self) -> str:
        """The version of the feature set that it reads."""

    @property
    def engine(self) -> str:
        """What scores: ``c``, ``numpy`` or ``booster``."""

    def score(self, numbers: NDArray[np.float64], categories: Sequence[Sequence[str | None]]) -> Scores:
        """Score the candidates of one event."""


class Reader(Protocol):
    """What the shim asks of a classifier; ``models.content.Classifier`` is one."""

    @property
    def classes(self) -> tuple[str, ...]:
        """What it tells apart."""

    @property
    def n_components(self) -> int:
        """How many components of a text it gives beside its class."""

    @property
    def attributes(self) -> tuple[str, ...]:
        """Which of an event's attributes it reads beside the text."""

    def read(self, event: Event) -> Content | None:
        """Return what the event's text says, None where it has none."""


@dataclass(frozen=True)
class Classifier:
    """A loaded classifier and the digest of its bytes."""

    digest: str
    reader: Reader


@dataclass(frozen=True)
class Model:
    """A loaded router and the digest of its bytes.

    ``tariff`` are the prices that were sealed with it, None where nothing is limited; ``classifier`` is the one that it
    pins, whose answers it was trained on.
    """

    digest: str
    router: Scorer
    classifier: Classifier | None = None
    tariff: Tariff | None = None

    def rests_on(self, digests: Collection[str]) -> bool:
        """Tell whether the router or its classifier is among ``digests``."""
        return self.digest in digests or (self.classifier is not None and self.classifier.digest in digests)


@dataclass(frozen=True, kw_only=True)
class StreamView:
    """The release of one stream. ``challenger`` is the canary; ``previous`` the champion that stood before this one.

    ``classifier`` is the one in force: its answers stand in the logged vectors, whichever ones the routers pin.
    """

    mode: Mode
    generation: int = 0
    champion: Model | None = None
    challenger: Model | None = None
    challenger_share: float = 0.0
    shadow: Model | None = None
    previous: Model | None = None
    classifier: Classifier | None = None

    def models(self) -> Iterator[tuple[ModelRole, Model]]:
        """Yield every model that is to score, with its role."""
        if self.champion is not None:
            yield "champion", self.champion
        if self.challenger is not None:
            yield "challenger", self.challenger
        if self.shadow is not None:
            yield "shadow", self.shadow

    def without(self, digests: Collection[str]) -> Self:
        """Return the view without these models and what rests on them.

        The previous champion steps in for the champion, or the static routes.
        """

        def keep(model: Model | None) -> Model | None:
            return None if model is None or model.rests_on(digests) else model

        previous, classifier = keep(self.previous), self.classifier
        return replace(
            self,
            classifier=None if classifier is None or classifier.digest in digests else classifier,
            champion=keep(self.champion) or (previous if self.champion else None),
            challenger=keep(self.challenger),
            shadow=keep(self.shadow),
            previous=previous,
        )


@dataclass(frozen=True, kw_only=True)
class ForecastView:
    """The released forecast: the instant it was made, and per series its hours and quantiles."""

    digest: str
    at: str
    series: Mapping[str, Struct]


@dataclass(frozen=True, kw_only=True)
class ReleaseView:
    """All that is served: the ledger's generation and hash it was read from, the streams, the forecast."""

    generation: int = 0
    head: str = ""
    streams: Mapping[str, StreamView] = field(default_factory=dict)
    forecast: ForecastView | None = None

    def without(self, digests: Collection[str]) -> Self:
        """Return the view without these models."""
        forecast = None if self.forecast is None or self.forecast.digest in digests else self.forecast
        streams = {name: stream.without(digests) for name, stream in self.streams.items()}
        return replace(self, streams=streams, forecast=forecast)


def digest_of(model: Model | Classifier | None) -> str | None:
    """Return the digest of a model that may not be there."""
    return model.digest if model else None
