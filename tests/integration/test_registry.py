"""The registry against a real MLflow on sqlite."""

import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient

from models.mlmodel import Interface
from models.registered import RegistryUnavailableError, UnknownVersionError, Version
from models.registry import Registry

CANDIDATE, TARGET = "router-candidate", "router"
TAGS = {"turnout.digest": "d" * 64, "turnout.evidence": "e" * 64, "turnout.author": "ann", "turnout.stream": "orders"}


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a database that is migrated already: a fresh one costs seconds."""
    home = tmp_path_factory.mktemp("mlflow-template")
    assert Registry(f"sqlite:///{home}/mlflow.db").versions(CANDIDATE) == []
    return home / "mlflow.db"


@pytest.fixture
def uri(migrated: Path, tmp_path: Path) -> str:
    (tmp_path / "mlflow").mkdir()
    return f"sqlite:///{shutil.copy(migrated, tmp_path / 'mlflow' / 'mlflow.db')}"


@pytest.fixture
def registry(uri: str) -> Registry:
    return Registry(uri)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    bundle, evidence = tmp_path / "sealed", tmp_path / "proof"
    for folder, files in ((bundle, {"card.json": "{}", "trees.txt": "tree"}), (evidence, {"report.html": "<h1>"})):
        folder.mkdir()
        for name, text in files.items():
            (folder / name).write_text(text)
    return bundle, evidence


@pytest.fixture
def log(registry: Registry, folders: tuple[Path, Path]) -> Callable[..., int]:
    def log_candidate(tags: Mapping[str, str] = TAGS, description: str = "It passed.", **choices: Any) -> int:
        return registry.log_candidate(
            CANDIDATE,
            *folders,
            metrics={"lift": 0.5},
            params={"seed": "7"},
            tags=tags,
            description=description,
            **choices,
        )

    return log_candidate


def test_a_candidate_is_found_with_all_that_was_said_of_it(registry: Registry, log: Callable[..., int]) -> None:
    found = registry.version(CANDIDATE, log())

    assert (found.name, found.number, found.candidate) == (CANDIDATE, 1, None)
    assert dict(found.tags) == TAGS
    assert found.description.startswith("It passed.")
    assert datetime.now(UTC) - found.created_at < timedelta(minutes=1)


def test_its_run_holds_figures_and_artifacts_and_is_finished(
    uri: str, registry: Registry, log: Callable[..., int]
) -> None:
    found = registry.version(CANDIDATE, log())

    client = MlflowClient(uri)
    run = client.get_run(found.run_id)
    assert (run.info.status, run.data.metrics, run.data.params) == ("FINISHED", {"lift": 0.5}, {"seed": "7"})
    assert run.data.tags["mlflow.user"] == "ann"
    assert {artifact.path for artifact in client.list_artifacts(found.run_id)} == {"bundle", "evidence", "MLmodel"}


def test_the_description_leads_straight_to_the_evidence(registry: Registry, log: Callable[..., int]) -> None:
    found = registry.version(CANDIDATE, log())

    assert f"/runs/{found.run_id}/artifacts/evidence/report.html)" in found.description


def test_a_description_too_long_for_mlflow_keeps_its_links_and_says_that_it_was_cut(
    registry: Registry, log: Callable[..., int]
) -> None:
    found = registry.version(CANDIDATE, log(description="x" * 9_000))

    assert len(found.description) == 5_000
    assert "cut here" in found.description
    assert found.description.endswith("report.html)")


def test_mlflow_itself_reads_signature_and_example(uri: str, log: Callable[..., int]) -> None:
    interface = Interface(
        inputs={"depth": "number", "region": "category"},
        outputs={"value": "number"},
        example={"depth": 3.5, "region": None},
    )
    number = log(interface=interface)

    mlflow.set_tracking_uri(uri)
    model = mlflow.models.Model.load(f"models:/{CANDIDATE}/{number}")
    example: Any = model.load_input_example(f"models:/{CANDIDATE}/{number}")

    assert model.signature is not None
    assert model.signature.inputs.input_types_dict().keys() == {"depth", "region"}
    assert [str(spec.type) for spec in model.signature.inputs] == ["DataType.double", "DataType.string"]
    assert example.to_dict("records") == [{"depth": 3.5, "region": None}]


def test_an_example_of_other_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="depht"):
        Interface(inputs={"depth": "number"}, outputs={}, example={"depht": 1.0})


def test_logging_the_same_bytes_and_evidence_again_changes_nothing(registry: Registry, log: Callable[..., int]) -> None:
    assert log() == log() == 1
    assert log(tags={**TAGS, "turnout.evidence": "f" * 64}) == 2
    assert [version.number for version in registry.versions(CANDIDATE)] == [1, 2]


def test_a_run_that_breaks_off_is_marked_failed_and_registers_nothing(
    uri: str, registry: Registry, folders: tuple[Path, Path]
) -> None:
    with pytest.raises(OSError, match="absent"):
        registry.log_candidate(
            CANDIDATE, folders[0] / "absent", folders[1], metrics={}, params={}, tags=TAGS, description=""
        )

    assert registry.versions(CANDIDATE) == []
    assert [run.info.status for run in _runs(uri)] == ["FAILED"]


def test_an_approval_is_a_version_of_its_own_that_names_its_approver(
    registry: Registry, log: Callable[..., int]
) -> None:
    candidate = registry.version(CANDIDATE, log())

    approved = registry.approve(candidate, target=TARGET, actor="bob", reason="read the report")

    assert (approved.name, approved.number, approved.candidate) == (TARGET, 1, (CANDIDATE, 1))
    assert approved.tags == {
        **TAGS,
        "turnout.approver": "unverified:bob",
        "turnout.approval_reason": "read the report",
    }
    assert approved.description == candidate.description
    assert registry.version(CANDIDATE, 1).tags == TAGS


def test_approving_twice_is_one_approval_until_it_was_refused(registry: Registry, log: Callable[..., int]) -> None:
    candidate = registry.version(CANDIDATE, log())

    def approve(actor: str) -> Version:
        return registry.approve(candidate, target=TARGET, actor=actor, reason="again")

    first = approve("bob")
    assert approve("bob").number == first.number
    assert approve("eve").number == 2
    registry.annotate(first, {"turnout.refused": "stale"})
    assert approve("bob").number == 3


def test_what_the_page_promotes_is_read_like_an_approval(uri: str, registry: Registry, log: Callable[..., int]) -> None:
    """The page copies as MLflow's client does: a pointer, with the candidate's tags."""
    log()
    MlflowClient(uri).copy_model_version(f"models:/{CANDIDATE}/1", TARGET)

    (copied,) = registry.versions(TARGET)

    assert (copied.candidate, copied.tags) == ((CANDIDATE, 1), TAGS)


@pytest.mark.parametrize(("actor", "reason"), [("", "why"), ("bob", " ")])
def test_an_approval_without_a_name_or_a_reason_is_refused(
    registry: Registry, log: Callable[..., int], actor: str, reason: str
) -> None:
    with pytest.raises(ValueError, match="actor and a reason"):
        registry.approve(registry.version(CANDIDATE, log()), target=TARGET, actor=actor, reason=reason)


def test_a_rejection_stands_on_the_candidate(registry: Registry, log: Callable[..., int]) -> None:
    registry.reject(registry.version(CANDIDATE, log()), actor="bob", reason="too few nights")

    tags = registry.version(CANDIDATE, 1).tags
    assert (tags["turnout.rejected_by"], tags["turnout.rejection_reason"]) == ("unverified:bob", "too few nights")


def test_an_approval_brings_exactly_the_candidates_bytes(
    registry: Registry, log: Callable[..., int], folders: tuple[Path, Path], tmp_path: Path
) -> None:
    candidate = registry.version(CANDIDATE, log())
    approved = registry.approve(candidate, target=TARGET, actor="bob", reason="fine")
    left_behind = tmp_path / "here" / "bundle" / "half.txt"
    left_behind.parent.mkdir(parents=True)
    left_behind.write_text("of an earlier download")

    downloaded = registry.download(approved, tmp_path / "here")

    assert _contents(downloaded.bundle) == _contents(folders[0])
    assert _contents(downloaded.evidence) == _contents(folders[1])


def test_only_versions_after_the_last_one_seen_are_listed_oldest_first(
    registry: Registry, log: Callable[..., int]
) -> None:
    for digest in "abc":
        log(tags={**TAGS, "turnout.digest": digest})

    assert [version.number for version in registry.versions(CANDIDATE, after=1)] == [2, 3]


def test_an_alias_names_the_version_it_was_last_given_to(uri: str, registry: Registry, log: Callable[..., int]) -> None:
    registry.set_alias(registry.version(CANDIDATE, log()), "challenger")

    named = MlflowClient(uri).get_model_version_by_alias(CANDIDATE, "challenger")
    assert int(named.version) == 1


def test_only_runs_that_were_left_running_are_reaped(uri: str, registry: Registry, log: Callable[..., int]) -> None:
    log()
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("turnout")
    assert experiment is not None
    dead = client.create_run(experiment.experiment_id, start_time=1_000).info.run_id
    alive = client.create_run(experiment.experiment_id).info.run_id

    assert registry.reap(started_before=datetime(2000, 1, 1, tzinfo=UTC)) == [dead]

    status = {run.info.run_id: run.info.status for run in _runs(uri)}
    assert (status[dead], status[alive]) == ("KILLED", "RUNNING")
    assert sorted(status.values()) == ["FINISHED", "KILLED", "RUNNING"]


def test_what_is_not_there_is_told_apart_from_what_does_not_answer(registry: Registry) -> None:
    with pytest.raises(UnknownVersionError, match="version 3 of router"):
        registry.version(TARGET, 3)
    with pytest.raises(RegistryUnavailableError, match=r"127\.0\.0\.1:9 would not show version 3 of router"):
        Registry("http://127.0.0.1:9").version(TARGET, 3)


@pytest.mark.parametrize("name", ["it's", "a/b", "", "../x"])
def test_a_model_name_that_needs_quoting_is_refused(registry: Registry, name: str) -> None:
    with pytest.raises(ValueError, match="a model name must match"):
        registry.versions(name)


def _runs(uri: str) -> list[Any]:
    client = MlflowClient(uri)
    return list(client.search_runs([experiment.experiment_id for experiment in client.search_experiments()]))


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
