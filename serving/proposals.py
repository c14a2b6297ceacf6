"""What every policy would do with a case: the static routes, and each model's scores turned into a distribution.

A model that cannot score an event (it raises, says NaN, or reads another feature set) is replaced, *as that policy*, by
the static distribution before anything is drawn. So the logged distribution of the arm is the one really drawn from, its
share of the mixture stays what it was, and the propensity is true.
"""

from collections.abc import Mapping
from math import isfinite
from typing import Self

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from features.vector import Vectors
from models import policy, tariff
from models.policy import Distribution
from models.router import Scores
from serving.case import Case
from serving.reading import Fault, Reading
from serving.view import Model, ModelRole, StreamView

Floats = NDArray[np.float64]
Predictions = dict[str, tuple[float, ...]]  # by head, one number per candidate
DECIDING_MODES = ("canary", "on")  # in the others the static routes decide


class UnfitModelError(ValueError):
    """A model that reads another feature set, or predicts what is no number."""


class Proposals(Struct, kw_only=True):
    """The distribution of every policy, by its name.

    ``uses`` holds, per role whose model has prices, what each candidate would use: float64[n_resources, n_candidates].
    ``faults`` says per role why the static distribution stands in for a model's, ``unread`` per classifier that failed
    why the features had to do without the event's content.
    """

    distributions: dict[str, Distribution]
    predictions: dict[str, Predictions] = {}
    uses: dict[str, Floats] = {}
    faults: dict[str, Fault] = {}
    unread: dict[str, Fault] = {}

    @classmethod
    def only(cls, case: Case, static: Distribution) -> Self:
        """Return the policies of a case that the static routes alone decide."""
        proposals = cls(distributions={"static": static})
        proposals.note(case.reading)
        return proposals

    def note(self, reading: Reading) -> None:
        """Note the fault of a classifier, if it had one."""
        if reading.fault is not None:
            self.unread[reading.fault.digest] = reading.fault

    def stand_in(self, role: ModelRole, fault: Fault, *, deciding: bool) -> None:
        """Note a model's fault; where that model decides, it decides as the static routes do."""
        self.faults[role] = fault
        if deciding:
            self.distributions[role] = self.distributions["static"]


def of_models(case: Case, view: StreamView, debts: Mapping[str, Floats]) -> Proposals:
    """Return what the static routes, exploring, and every model of ``view`` would do; a stream that is off asks no model.

    ``debts``: what each model used beyond its limits so far, by its digest; its prices are paced by it.
    """
    static = policy.floor(case.static(), case.eligible, case.plan.stream.exploration.static_epsilon)
    proposals = Proposals.only(case, static)
    if view.mode != "off":
        _score(case, view, debts, proposals)
    return proposals


def _score(case: Case, view: StreamView, debts: Mapping[str, Floats], proposals: Proposals) -> None:
    for role, model in view.models():
        deciding = role != "shadow" and view.mode in DECIDING_MODES
        try:
            vectors, reading = case.seen_by(model.classifier)
            proposals.note(reading)
            scores = _ask(case, model, vectors)
            predictions = _told(case, scores)
            use = _use(case, model, vectors, scores)
            distribution = _spread(case, model, predictions, use, debts.get(model.digest))
        except (UnfitModelError, policy.PolicyError) as error:
            fault = Fault(digest=model.digest, reason=f"{role}: {error}", raised=False)
            proposals.stand_in(role, fault, deciding=deciding)
        except Exception as error:  # noqa: BLE001 - a model may fail in any way; the event must not
            fault = Fault(digest=model.digest, reason=f"{role} raised {type(error).__name__}: {error}", raised=True)
            proposals.stand_in(role, fault, deciding=deciding)
        else:
            proposals.distributions[role] = distribution
            if use is not None:
                proposals.uses[role] = use
            proposals.predictions[role] = predictions


def _ask(case: Case, model: Model, vectors: Vectors) -> Scores:
    wanted = case.plan.features.version
    if model.router.feature_set != wanted:
        raise UnfitModelError(f"reads feature set {model.router.feature_set}, the stream has {wanted}")
    return model.router.score(vectors.numbers, vectors.categories)


def _told(case: Case, scores: Scores) -> Predictions:
    """Return the value and the heads of every candidate, as they are logged."""
    n_candidates = len(case.candidates)
    predictions: Predictions = {}
    for name, predicted in (("value", scores.value), *scores.heads.items()):
        told = predicted.tolist()
        if predicted.shape != (n_candidates,) or not all(map(isfinite, told)):
            raise UnfitModelError(f"{name} must be one finite number per candidate, got {told}")
        predictions[name] = tuple(told)
    return predictions


def _use(case: Case, model: Model, vectors: Vectors, scores: Scores) -> Floats | None:
    """Return what each candidate would use, float64[n_resources, n_candidates], None for a model without prices."""
    if model.tariff is None:
        return None
    destinations = [candidate.destination for candidate in case.candidates]
    return model.tariff.meter.event(destinations, vectors.numbers, {"value": scores.value, **scores.heads})


def _spread(
    case: Case, model: Model, predictions: Predictions, use: Floats | None, debt: Floats | None
) -> Distribution:
    """Return the model's distribution; where it has prices, its net values join the predictions."""
    stream, values = case.plan.stream, predictions["value"]
    value_range = stream.objective.high - stream.objective.low
    if model.tariff is None or use is None:
        return policy.explore(values, case.eligible, stream.exploration, value_range)
    prices = model.tariff.paced(debt)
    distribution, predictions["net_value"] = tariff.distribution(
        values, use, case.eligible, prices, stream.exploration, value_range
    )
    return distribution
