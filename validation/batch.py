"""May this batch be trained on? The one door to Great Expectations: bad data and a broken validator are two verdicts."""

import hashlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec
from msgspec import Struct

from features.history import TrainingRows

if TYPE_CHECKING:
    import pandas as pd

BatchState = Literal["passed", "failed", "broke"]
COLUMNS = ("decision_id", "assigned", "propensity", "reward", "success", "latency_ms")
_UNTOLD = ("lost", "censored")  # outcomes that never told how it went


@dataclass(frozen=True, kw_only=True)
class Expectations:
    """What a batch of training rows must look like.

    Attributes
    ----------
    min_rows
        Fewer rows than this are not worth a model.
    destinations
        The destinations that may have been assigned.
    max_lost_share
        Of all closed decisions, the share whose outcome was lost or censored: beyond it those that remain mislead.
    max_unknown_success_share
        Of the rows, the share that may be silent on success (timeouts may be).
    min_success_rate, max_success_rate
        What the success rate must lie between.
    max_p99_latency_ms
        What 99 % of the latencies must lie below.
    """

    min_rows: int = 1
    destinations: tuple[str, ...] = ()
    max_lost_share: float = 0.2
    max_unknown_success_share: float = 0.2
    min_success_rate: float = 0.0
    max_success_rate: float = 1.0
    max_p99_latency_ms: float = 24 * 3_600_000.0


class Check(NamedTuple):
    """One expectation on the ``rows`` or on their one-row ``profile``: Great Expectations' type and arguments, and our words."""

    frame: Literal["rows", "profile"]
    kind: str
    arguments: dict[str, Any]
    rule: str


class BatchVerdict(Struct, frozen=True, kw_only=True):
    """What is said of a batch: ``failed`` names what is wrong with the data, ``broke`` what is wrong with the validator.

    ``suite_digest`` names the checks that were made, ``docs_path`` the first of their pages.
    """

    state: BatchState
    failures: tuple[str, ...] = ()
    suite_digest: str
    docs_path: Path | None = None


def judge(
    rows: TrainingRows,
    expectations: Expectations,
    *,
    docs_folder: Path | None = None,
    pinned_digest: str | None = None,
) -> BatchVerdict:
    """Check ``rows`` against ``expectations``.

    With ``docs_folder``, the pages that show every check and its result are built there, in place of the last ones. With
    ``pinned_digest``, a suite of any other digest is refused: whoever edits the checks must say so by pinning them anew.
    """
    checks = checks_of(expectations)
    digest = digest_of(checks)
    if pinned_digest not in (None, digest):
        edited = f"the checks have digest {digest}, pinned are those of {pinned_digest}"
        return BatchVerdict(state="broke", failures=(edited,), suite_digest=digest)
    if not rows.table.num_rows:
        left_out = ", ".join(f"{count} {reason}" for reason, count in sorted(rows.left_out.items())) or "nothing"
        return BatchVerdict(state="failed", failures=(f"there are no rows; left out: {left_out}",), suite_digest=digest)
    try:
        faults, failures, docs_path = _run(_frames(rows), checks, docs_folder)
    except Exception as error:  # noqa: BLE001 - however the validator breaks, that is no verdict on the data
        faults, failures, docs_path = [f"{type(error).__name__}: {error}"], [], None
    state: BatchState = "broke" if faults else "failed" if failures else "passed"
    return BatchVerdict(state=state, failures=(*faults, *failures), suite_digest=digest, docs_path=docs_path)


def checks_of(expectations: Expectations) -> tuple[Check, ...]:
    """Return the checks that ``expectations`` amount to."""
    e = expectations
    known = {"mostly": 1.0 - e.max_unknown_success_share}
    p99 = {"min_value": 0.0, "max_value": e.max_p99_latency_ms, "mostly": 0.99}
    success = {"min_value": e.min_success_rate, "max_value": e.max_success_rate}
    return (
        Check("rows", "expect_table_row_count_to_be_between", {"min_value": e.min_rows}, f"at least {e.min_rows} rows"),
        Check("rows", "expect_column_values_to_be_unique", {"column": "decision_id"}, "no decision twice"),
        Check("rows", "expect_column_values_to_not_be_null", {"column": "propensity"}, "a propensity on every row"),
        Check(
            "rows",
            "expect_column_values_to_be_between",
            {"column": "propensity", "min_value": 0.0, "max_value": 1.0, "strict_min": True},
            "propensities in (0, 1]",
        ),
        Check(
            "rows",
            "expect_column_values_to_be_in_set",
            {"column": "assigned", "value_set": list(e.destinations)},
            f"only the destinations {', '.join(e.destinations)}",
        ),
        Check("rows", "expect_column_values_to_not_be_null", {"column": "reward"}, "a reward on every row"),
        Check(
            "rows",
            "expect_column_values_to_not_be_null",
            {"column": "success", **known},
            f"success told on {known['mostly']:.0%} of the rows",
        ),
        Check(
            "rows",
            "expect_column_mean_to_be_between",
            {"column": "success", **success},
            f"a success rate from {e.min_success_rate:g} to {e.max_success_rate:g}",
        ),
        Check(
            "rows",
            "expect_column_values_to_be_between",
            {"column": "latency_ms", **p99},
            f"99 % of the latencies from 0 to {e.max_p99_latency_ms:g} ms",
        ),
        Check(
            "profile",
            "expect_column_values_to_be_between",
            {"column": "lost_share", "min_value": 0.0, "max_value": e.max_lost_share},
            f"at most {e.max_lost_share:.0%} of the closed decisions without an outcome",
        ),
    )


def digest_of(checks: Iterable[Check]) -> str:
    """Return a name for exactly these checks."""
    return hashlib.sha256(msgspec.json.encode(tuple(checks), order="deterministic")).hexdigest()


def _frames(rows: TrainingRows) -> dict[str, "pd.DataFrame"]:
    import pandas as pd  # noqa: PLC0415 - as slow as what it is for

    frame = rows.table.select(list(COLUMNS)).to_pandas()
    frame["success"] = frame["success"].astype("float64")  # an object column where some are null
    n_untold = sum(rows.left_out.get(reason, 0) for reason in _UNTOLD)
    n_closed = rows.table.num_rows + n_untold + rows.left_out.get("not_explored", 0)
    return {"rows": frame, "profile": pd.DataFrame({"lost_share": [n_untold / n_closed]})}


def _run(
    frames: Mapping[str, "pd.DataFrame"], checks: Iterable[Check], docs_folder: Path | None
) -> tuple[list[str], list[str], Path | None]:
    """Return the faults of the validator, the failures of the data, and where the pages are."""
    gx = _great_expectations()
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = _no_progress_bars()
    faults, failures = [], []
    for name, frame in frames.items():
        own = [check for check in checks if check.frame == name]
        for check, result in zip(own, _validate(gx, context, name, frame, own), strict=True):
            if fault := _fault(result.exception_info):
                faults.append(f"{check.rule}: {fault}")
            elif not result.success:
                failures.append(f"expected {check.rule}, got {_found(check, result.result)}")
    return faults, failures, None if docs_folder is None else _build_docs(context, docs_folder)


def _great_expectations() -> ModuleType:
    """Import it on first use (it takes four seconds), without its telemetry."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it pulls in packages that import sre_constants
        import great_expectations as gx  # noqa: PLC0415 - see above
    return gx


def _no_progress_bars() -> Any:
    from great_expectations.data_context.types.base import ProgressBarsConfig  # noqa: PLC0415 - as `_great_expectations`

    return ProgressBarsConfig(globally=False)


def _validate(gx: ModuleType, context: Any, name: str, frame: "pd.DataFrame", checks: list[Check]) -> list[Any]:
    """Return the results in the order of ``checks``; what its own results come in is not promised."""
    from great_expectations.expectations.expectation_configuration import (  # noqa: PLC0415 - as `_great_expectations`
        ExpectationConfiguration,
    )

    suite = context.suites.add(
        gx.ExpectationSuite(
            name=name,
            expectations=[
                ExpectationConfiguration(type=c.kind, kwargs=c.arguments, meta={"place": place}).to_domain_obj()
                for place, c in enumerate(checks)
            ],
        )
    )
    asset = context.data_sources.add_pandas(name).add_dataframe_asset(name)
    definition = gx.ValidationDefinition(name=name, data=asset.add_batch_definition_whole_dataframe(name), suite=suite)
    validation = context.validation_definitions.add(definition)
    results = validation.run(batch_parameters={"dataframe": frame}, result_format="SUMMARY").results
    return sorted(results, key=lambda result: int(result.expectation_config.meta["place"]))


def _fault(exception_info: Any) -> str | None:
    """Return why an expectation could not be checked: its failing looks the same but for this."""
    if not isinstance(exception_info, dict):
        return None
    if exception_info.get("raised_exception"):
        return str(exception_info.get("exception_message"))
    nested = (_fault(inner) for inner in exception_info.values() if isinstance(inner, dict))
    return next(filter(None, nested), None)


def _found(check: Check, result: Mapping[str, Any]) -> str:
    if "unexpected_count" not in result:
        return str(result.get("observed_value"))
    examples = ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in _examples(result))
    if check.frame == "profile":
        return examples
    among = f"{result['unexpected_count']} of {result['element_count']} rows against it"
    return f"{among}, such as {examples}" if examples else among


def _examples(result: Mapping[str, Any]) -> list[Any]:
    examples: list[Any] = result.get("partial_unexpected_list", [])
    return examples[:3]


def _build_docs(context: Any, folder: Path) -> Path:
    """Build the pages beside ``folder``, then put them in its place, so that no page of an earlier batch stays."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as fresh:
        store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": fresh}
        site = {
            "class_name": "SiteBuilder",
            "store_backend": store,
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        }
        context.add_data_docs_site(site_name="batch", site_config=site)
        context.build_data_docs(site_names=["batch"])
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(fresh, folder)
    return folder / "index.html"
