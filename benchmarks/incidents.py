"""A real incident log as what might be learned from: UCI 498 (Amaral, Fantinato and Peres, 2018), one row per incident.

The source repeats closing code, resolver and both end instants on every event of a case: whoever takes a case's first
event for what was known then learns from the future. When each column really became known stands in `KNOWN_WITH`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.decision_log import DecisionLog
from features.definitions import FeatureDefinitions
from features.known_at import KnownAt
from features.vector import CategoryColumn
from validation.leakage import Screened

CASES, EVENTS = "incidents.parquet", "incident_events.parquet"
MS_PER_HOUR = 3_600_000.0

ARRIVAL_CATEGORIES = (
    *("opened_by", "caller_id", "contact_type", "location", "category", "subcategory", "symptom", "cmdb_ci"),
    "first_group",
)
ARRIVAL_NUMBERS = ("impact", "urgency", "priority")
PLANTED = ("resolved_at", "closed_at", "closed_code", "resolved_by")  # by the source itself, on every event
AFTERWARDS = (  # of the last record
    *("final_group", "final_assignee", "reassignment_count", "reopen_count", "mod_count", "n_events"),
    *("made_sla", "resolve_h", "close_h"),
)
_LATER_CATEGORIES = ("closed_code", "resolved_by", "final_group", "final_assignee")
_LATER_NUMBERS = tuple(name for name in AFTERWARDS if name not in _LATER_CATEGORIES)
KNOWN_WITH: Mapping[str, str] = {  # the instant with which a column became known; the rest at the first record
    **dict.fromkeys(("resolved_at", "resolved_by", "resolve_h"), "resolved_at"),
    **dict.fromkeys(("closed_at", "closed_code", "close_h", "made_sla"), "closed_at"),
    **dict.fromkeys(AFTERWARDS[:6], "last_record_at"),
}


@dataclass(frozen=True, kw_only=True)
class Incidents:
    """Both files joined, a row per incident in order of arrival; ``recorded_at`` is when its first event was written."""

    rows: pd.DataFrame

    def screened(self) -> Screened:
        """Return every column, of arrival and of the future, as one who does not ask when it became known would."""
        rows = self.rows
        numbers = {name: _floats(rows[name]) for name in (*ARRIVAL_NUMBERS, *_LATER_NUMBERS)}
        instants = {name: _seconds(rows[name]) for name in ("resolved_at", "closed_at")}
        return Screened(
            decision_id=rows["incident_id"].to_numpy(np.object_),
            decided_at=_instants(rows["recorded_at"]),
            numbers=numbers | instants,
            categories={name: _category(rows[name]) for name in (*ARRIVAL_CATEGORIES, *_LATER_CATEGORIES)},
            success=_floats(rows["made_sla"]),
            latency_ms=_floats(rows["resolve_h"]) * MS_PER_HOUR,
            cluster=np.arange(len(rows)),
        )

    def known_at(self) -> KnownAt:
        """Return when each column's value became known."""
        names = (*ARRIVAL_NUMBERS, *ARRIVAL_CATEGORIES, *PLANTED, *AFTERWARDS)
        return KnownAt(
            decision_id=self.rows["incident_id"].to_numpy(np.object_),
            decided_at=_instants(self.rows["recorded_at"]),
            columns={name: _instants(self.rows[KNOWN_WITH.get(name, "recorded_at")]) for name in names},
        )

    def decided(self, since: str, until: str) -> DecisionLog:
        """Return the incidents opened in [``since``, ``until``) as decisions for their first group, the only one known of."""
        rows = self.rows[(self.rows["opened_at"] >= since) & (self.rows["opened_at"] < until)]
        n_rows = len(rows)
        return DecisionLog(
            decision_id=rows["incident_id"].to_numpy(np.object_),
            decided_at=_instants(rows["opened_at"]),
            cluster=rows["opened_at"].to_numpy("datetime64[D]").astype(np.int64),
            offsets=np.arange(n_rows + 1),
            chosen=np.arange(n_rows),
            propensity=np.ones(n_rows),
            reward=_floats(rows["made_sla"]),
            success=_floats(rows["made_sla"]),
            latency_ms=_floats(rows["resolve_h"]) * MS_PER_HOUR,
            cost_usd=np.full(n_rows, np.nan),
            timed_out=np.zeros(n_rows, np.bool_),
            numbers=np.column_stack([_floats(rows[name]) for name in ARRIVAL_NUMBERS]),
            categories=[_category(rows[name]) for name in ARRIVAL_CATEGORIES],
            destination=_category(rows["first_group"]),
            policies={},
        )


def read(folder: Path) -> Incidents:
    """Read both files in ``folder``.

    Raises
    ------
    FileNotFoundError
        If one is not there.
    """
    cases, events = pd.read_parquet(folder / CASES), pd.read_parquet(folder / EVENTS)
    by_case = events.sort_values(["number", "sys_updated_at", "sys_mod_count"]).groupby("number")
    told = by_case.agg(
        recorded_at=("sys_updated_at", "first"),
        last_record_at=("sys_updated_at", "last"),
        resolved_by=("resolved_by", "first"),
    )
    joined = cases.merge(told, left_on="incident_id", right_index=True, validate="one_to_one")
    return Incidents(rows=joined.sort_values(["opened_at", "incident_id"]).reset_index(drop=True))


def arrival_features() -> FeatureDefinitions:
    """Return the definitions of the columns that are known at arrival."""
    return FeatureDefinitions(
        numbers={name: f"event.{name}" for name in ARRIVAL_NUMBERS},
        categories={name: f"event.{name}" for name in ARRIVAL_CATEGORIES},
    )


def _floats(column: "pd.Series[float]") -> NDArray[np.float64]:
    return np.asarray(column, np.float64)


def _instants(column: "pd.Series[pd.Timestamp]") -> NDArray[np.datetime64]:
    return np.asarray(column.to_numpy("datetime64[us]"))


def _seconds(column: "pd.Series[pd.Timestamp]") -> NDArray[np.float64]:
    known = column.notna().to_numpy()
    return np.where(known, _instants(column).astype(np.int64) / 1e6, np.nan)


def _category(column: "pd.Series[str]") -> CategoryColumn:
    codes, values = pd.factorize(column)
    return CategoryColumn(codes.astype(np.int64), tuple(map(str, values)))
