"""What a shim says of itself: what it serves, what it was told to, and what is wrong with it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from serving.problems import Problem
from serving.shelf import CLASSIFIER, FORECASTER, ROUTER
from serving.shim import Shim
from serving.view import ReleaseView, StreamView, digest_of

Floats = NDArray[np.float64]


def current_model(view: ReleaseView, name: str) -> dict[str, Any]:
    """Return what is served of the model ``name``: generation, digests, modes.

    Raises
    ------
    Problem
        404 if no such model is released.
    """
    head = {"name": name, "generation": view.generation, "head": view.head}
    if name == ROUTER:
        return head | {"streams": {stream: _stream(of_stream) for stream, of_stream in sorted(view.streams.items())}}
    in_force = {stream: digest_of(of_stream.classifier) for stream, of_stream in sorted(view.streams.items())}
    if name == CLASSIFIER and any(in_force.values()):
        return head | {"streams": in_force}
    if name == FORECASTER and view.forecast is not None:
        return head | {"digest": view.forecast.digest, "made_at": view.forecast.at}
    raise Problem(404, f"no model {name!r} is released")


def forecast(view: ReleaseView, series: str) -> dict[str, Any]:
    """Return the released forecast of ``series``: its hours, and the quantiles of each.

    Raises
    ------
    Problem
        404 if nothing is released, or not this series.
    """
    released = view.forecast
    if released is None:
        raise Problem(404, "no forecast is released")
    if series not in released.series:
        raise Problem(404, f"the forecast has no series {series!r}")
    origin = {"series": series, "made_at": released.at, "generation": view.generation, "digest": released.digest}
    return {**origin, **msgspec.to_builtins(released.series[series])}


def engines(view: ReleaseView) -> dict[tuple[str, str], str]:
    """Return by stream and role what scores the model: its tables in C or numpy, or LightGBM."""
    return {(name, role): model.router.engine for name, of in view.streams.items() for role, model in of.models()}


def fast_streams(shim: Shim) -> dict[str, bool]:
    """Return of every stream whether its ordinary requests take the fast path."""
    shim.fast_path.follow(shim.releases.view)
    return {name: name in shim.fast_path.streams for name in shim.plan.streams}


def problems(shim: Shim) -> list[str]:
    """Return everything that is not as it should be, in words; none when all is well."""
    found = [f"release: {what}: {why}" for what, why in shim.releases.rejections().items()]
    if shim.mirror is not None and (failure := shim.mirror.failure):
        found.append(f"mirror: {failure}")
    if shim.recorder.failure:
        found.append(f"spool: {shim.recorder.failure}; {shim.recorder.n_refused} records refused so far")
    if shim.overrides.failure:
        found.append(f"overrides: {shim.overrides.failure}")
    if shim.debts.failure:
        found.append(f"debts: {shim.debts.failure}")
    if shim.live.failure:
        found.append(f"live state: not shared: {shim.live.failure}")
    found += _unpriced(shim)
    if shim.overrides.n_damaged_lines:
        found.append(f"overrides: {shim.overrides.n_damaged_lines} damaged lines in the journal; the others hold")
    return found


def status(shim: Shim, at: datetime) -> dict[str, Any]:
    """Return the whole state of the shim as of ``at``."""
    view = shim.releases.view
    streams = {
        name: view.streams.get(name) or StreamView(mode=plan.stream.mode) for name, plan in shim.plan.streams.items()
    }
    fast = fast_streams(shim)
    return {
        "at": at,
        "policy_revision": shim.plan.revision,
        "generation": view.generation,
        "head": view.head,
        "streams": {
            name: _stream(of_stream) | {"fast_path": fast[name]} | _owed(of_stream, shim.debts.of(name))
            for name, of_stream in streams.items()
        },
        "forecast": view.forecast.digest if view.forecast else None,
        "overrides": shim.overrides.in_force(at),
        "remembered_decisions": len(shim.memory),
        "problems": problems(shim),
    }


def _owed(view: StreamView, debts: Mapping[str, Floats]) -> dict[str, Any]:
    """Return, per role and limit, what was used beyond the limit so far; nothing for a stream without limits."""
    owed = {
        role: dict(zip((limit.name for limit in model.tariff.meter.limits), debts[model.digest].tolist(), strict=True))
        for role, model in view.models()
        if model.tariff and model.digest in debts
    }
    return {"owed": owed} if owed else {}


def _unpriced(shim: Shim) -> list[str]:
    """Say which configured limits are not in force: a router keeps to those it was approved with."""
    found = []
    for name, plan in shim.plan.streams.items():
        view = shim.releases.view.streams.get(name)
        for role, model in () if view is None else view.models():
            priced = model.tariff.meter.limits if model.tariff else ()
            other = [limit.name for limit in plan.stream.limits if limit not in priced]
            other += [limit.name for limit in priced if limit not in plan.stream.limits]
            if other:
                names = ", ".join(dict.fromkeys(other))
                found.append(f"limits: {role} of {name} was approved with other limits on {names}: retrain it")
    return found


def _stream(view: StreamView) -> dict[str, Any]:
    return {
        "mode": view.mode,
        "generation": view.generation,
        "champion": digest_of(view.champion),
        "challenger": digest_of(view.challenger),
        "challenger_share": view.challenger_share,
        "shadow": digest_of(view.shadow),
        "classifier": digest_of(view.classifier),
    }
