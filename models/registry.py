"""The one door to MLflow: candidates go in with their evidence, approvals come out with the bytes they are bound to."""

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import TYPE_CHECKING

from models import mlmodel, registered
from models.mlmodel import Interface
from models.registered import BUNDLE_FOLDER, EVIDENCE_FOLDER, Downloaded, Version

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

_EXPERIMENT = "turnout"
_PAGE_SIZE = 1_000
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",  # seconds; MLflow's own are 120, with 7 retries that double
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


class Registry:
    """MLflow at ``tracking_uri``: ``sqlite:///FILE`` (artifacts beside the file) or the address of a server.

    Nothing is opened, and MLflow is not imported, before the first call. Every method raises `RegistryUnavailableError`
    when MLflow does not answer, `RegistryForbiddenError` when it refuses the caller, `UnknownVersionError` for what is
    not there, and `RegistryError` for all else that it refuses.
    """

    def __init__(self, tracking_uri: str, *, experiment: str = _EXPERIMENT) -> None:
        """Take the address; ``experiment`` is where the runs are filed."""
        self._tracking_uri = tracking_uri
        self._experiment = experiment

    def log_candidate(
        self,
        model_name: str,
        folder: Path,
        evidence_folder: Path,
        *,
        metrics: Mapping[str, float],
        params: Mapping[str, str],
        tags: Mapping[str, str],
        description: str,
        interface: Interface | None = None,
    ) -> int:
        """Log a sealed bundle and its evidence as one run, register that as a version, and return its number.

        The run holds ``bundle/``, ``evidence/`` and, for MLflow's pages, ``MLmodel`` with the signature of ``interface``
        and its input example. The version carries all of ``tags`` from its first moment. Logging the same digest with
        the same evidence again returns the version that is there.

        Raises
        ------
        ValueError
            If ``model_name`` needs quoting, or a folder is empty.
        OSError
            If a folder cannot be read.
        """
        if (known := self._find_logged(model_name, tags)) is not None:
            return known
        with self._asking(f"register a version of {model_name}"):
            self._ensure_model(model_name)
            with self._run(model_name, tags, description) as run:
                self._log_figures(run, metrics, params)
                self._log_artifacts(run, folder, evidence_folder, interface)
            pages = sorted(page.name for page in evidence_folder.glob("*.html"))
            links = registered.evidence_links(run.info.experiment_id, run.info.run_id, pages)
            found = self._client.create_model_version(
                model_name,
                source=run.info.artifact_uri,
                run_id=run.info.run_id,
                tags=dict(tags),
                description=registered.describe(description, links),
                await_creation_for=0,
            )
        return int(found.version)

    def versions(self, model_name: str, *, after: int = 0) -> list[Version]:
        """Return the versions of a model numbered above ``after``, oldest first; of an unknown model, none.

        MLflow gives the number of a deleted newest version to the next one: a number alone identifies nothing for good.
        """
        registered.check_name(model_name)
        found: list[Version] = []
        token: str | None = None
        with self._asking(f"list the versions of {model_name}"):
            while token != "":
                page = self._client.search_model_versions(
                    f"name = '{model_name}'", max_results=_PAGE_SIZE, page_token=token
                )
                found += map(_version, page)
                token = page.token or ""
        return sorted((v for v in found if v.number > after), key=lambda version: version.number)

    def version(self, model_name: str, number: int) -> Version:
        """Return one version."""
        with self._asking(f"show version {number} of {model_name}"):
            return _version(self._client.get_model_version(model_name, str(number)))

    def approve(self, candidate: Version, *, target: str, actor: str, reason: str) -> Version:
        """Do what the page's *Promote model* does: make a version of ``target`` from ``candidate``, saying who and why.

        Tags and description are there from its first moment: nobody ever sees the approval without its approver. The
        actor is recorded as unverified; a server that knows its users writes over that. Approving again, as the same
        actor, what was not refused since returns the approval that is there.

        Raises
        ------
        ValueError
            If ``actor`` or ``reason`` is empty, or ``target`` needs quoting.
        """
        said = registered.approval_tags(actor, reason)
        for known in self.versions(target):
            same_actor = known.tags.get(registered.APPROVER_TAG) == said[registered.APPROVER_TAG]
            if known.candidate == (candidate.name, candidate.number) and same_actor and not known.refused:
                return known
        with self._asking(f"approve version {candidate.number} of {candidate.name} as {target}"):
            self._ensure_model(target)
            approved = self._client.create_model_version(
                target,
                source=f"models:/{candidate.name}/{candidate.number}",
                run_id=candidate.run_id,
                tags={**candidate.tags, **said},
                description=candidate.description,
                await_creation_for=0,
            )
        return _version(approved)

    def reject(self, candidate: Version, *, actor: str, reason: str) -> None:
        """Say on ``candidate`` who rejected it and why: a hint to people, no lock. Raises ``ValueError`` as `approve`."""
        self.annotate(candidate, registered.rejection_tags(actor, reason))

    def annotate(self, version: Version, tags: Mapping[str, str]) -> None:
        """Set ``tags`` on a version, over what they said before."""
        with self._asking(f"tag version {version.number} of {version.name}"):
            for name, value in tags.items():
                self._client.set_model_version_tag(version.name, str(version.number), name, value)

    def refuse(self, version: Version, reasons: Sequence[str], *, at: datetime) -> None:
        """Say on an approved ``version`` that it was not released, when and why: in its tag, and first in its description."""
        self.annotate(version, {registered.REFUSED_TAG: registered.clip("; ".join(reasons))})
        told = registered.describe_refusal(reasons, at, version.description)
        with self._asking(f"describe version {version.number} of {version.name}"):
            self._client.update_model_version(version.name, str(version.number), told)

    def attach(self, version: Version, path: Path, folder: str) -> None:
        """Put a file into ``folder`` of the artifacts of the run that made ``version``, over what it held before."""
        with self._asking(f"attach {path.name} to version {version.number} of {version.name}"):
            self._client.log_artifact(version.run_id, str(path), folder)

    def set_alias(self, version: Version, alias: str) -> None:
        """Let ``alias`` name ``version``: a mirror for people, whoever wrote last."""
        with self._asking(f"set the alias {alias} of {version.name}"):
            self._client.set_registered_model_alias(version.name, alias, str(version.number))

    def aliases(self, model_name: str) -> dict[str, int]:
        """Return which version of a model each alias names; of an unknown model, none."""
        found: Mapping[str, str] = {}
        with self._asking(f"list the aliases of {model_name}"), _unless_code("RESOURCE_DOES_NOT_EXIST"):
            found = self._client.get_registered_model(model_name).aliases
        return {alias: int(number) for alias, number in found.items()}

    def drop_alias(self, model_name: str, alias: str) -> None:
        """Let ``alias`` name no version of a model, whoever set it; of an unknown model there is none."""
        with self._asking(f"drop the alias {alias} of {model_name}"), _unless_code("RESOURCE_DOES_NOT_EXIST"):
            self._client.delete_registered_model_alias(model_name, alias)

    def download(self, version: Version, folder: Path) -> Downloaded:
        """Copy bundle and evidence of a version into ``folder``, in place of what an earlier download left there."""
        wanted = Downloaded(bundle=folder / BUNDLE_FOLDER, evidence=folder / EVIDENCE_FOLDER)
        folder.mkdir(parents=True, exist_ok=True)
        with self._asking(f"download version {version.number} of {version.name}"):
            uri = self._client.get_model_version_download_uri(version.name, str(version.number)).rstrip("/")
            for path in (wanted.bundle, wanted.evidence):
                shutil.rmtree(path, ignore_errors=True)
                _mlflow().artifacts.download_artifacts(
                    artifact_uri=f"{uri}/{path.name}", dst_path=str(folder), tracking_uri=self._tracking_uri
                )
        return wanted

    def reap(self, *, started_before: datetime) -> list[str]:
        """Mark as killed the runs that were left running, started before an instant; return their ids."""
        earlier = f"attributes.start_time < {int(started_before.timestamp() * 1_000)}"
        with self._asking("reap the runs of dead flows"):
            runs = self._client.search_runs([self._experiment_id], f"attributes.status = 'RUNNING' and {earlier}")
            for run in runs:
                self._client.set_terminated(run.info.run_id, "KILLED")
        return [run.info.run_id for run in runs]

    @cached_property
    def _client(self) -> "MlflowClient":
        if self._home is not None:
            self._home.mkdir(parents=True, exist_ok=True)
        client: MlflowClient = _mlflow().MlflowClient(self._tracking_uri, registry_uri=self._tracking_uri)
        return client

    @property
    def _home(self) -> Path | None:
        """The folder of the database, where there is one on this disk."""
        path = self._tracking_uri.removeprefix("sqlite:///")
        return None if path == self._tracking_uri else Path(path).absolute().parent

    @cached_property
    def _experiment_id(self) -> str:
        location = (self._home / "artifacts").as_uri() if self._home else None
        while (found := self._client.get_experiment_by_name(self._experiment)) is None:
            with _unless_there():
                self._client.create_experiment(self._experiment, artifact_location=location)
        return str(found.experiment_id)

    def _ensure_model(self, model_name: str) -> None:
        registered.check_name(model_name)
        with _unless_there():
            self._client.create_registered_model(model_name)

    def _find_logged(self, model_name: str, tags: Mapping[str, str]) -> int | None:
        """Return the number of the version that says the same of its bytes and its evidence."""
        identity = [tags.get(name) for name in (registered.DIGEST_TAG, registered.EVIDENCE_TAG)]
        for version in self.versions(model_name) if all(identity) else []:
            if [version.tags.get(name) for name in (registered.DIGEST_TAG, registered.EVIDENCE_TAG)] == identity:
                return version.number
        return None

    @contextlib.contextmanager
    def _run(self, model_name: str, tags: Mapping[str, str], note: str) -> Iterator["Run"]:
        """Open a run; it ends as finished, or as failed."""
        about = {"mlflow.user": tags.get(registered.AUTHOR_TAG, ""), "mlflow.note.content": note, **tags}
        name = f"{model_name} {tags.get(registered.DIGEST_TAG, '')[:12]}".strip()
        run = self._client.create_run(self._experiment_id, tags=about, run_name=name)
        try:
            yield run
        except BaseException:
            self._client.set_terminated(run.info.run_id, "FAILED")
            raise
        self._client.set_terminated(run.info.run_id, "FINISHED")

    def _log_figures(self, run: "Run", metrics: Mapping[str, float], params: Mapping[str, str]) -> None:
        entities = _mlflow().entities
        self._client.log_batch(
            run.info.run_id,
            metrics=[entities.Metric(name, value, run.info.start_time, 0) for name, value in metrics.items()],
            params=[entities.Param(name, value) for name, value in params.items()],
        )

    def _log_artifacts(self, run: "Run", folder: Path, evidence_folder: Path, interface: Interface | None) -> None:
        for source, name in ((folder, BUNDLE_FOLDER), (evidence_folder, EVIDENCE_FOLDER)):
            if not any(source.iterdir()):  # MLflow would log the nothing that is there
                raise ValueError(f"{source} is empty: there is no {name} to log")
            self._client.log_artifacts(run.info.run_id, str(source), name)
        with TemporaryDirectory() as scratch:
            mlmodel.write(Path(scratch), run_id=run.info.run_id, bundle=BUNDLE_FOLDER, interface=interface)
            self._client.log_artifacts(run.info.run_id, scratch)

    @contextlib.contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        """Turn what MLflow raises into the errors of `models.registered`."""
        try:
            yield
        except _mlflow().exceptions.MlflowException as error:
            message = f"MLflow at {self._tracking_uri} would not {what}: {error.message}"
            raise registered.error_of(error.error_code)(message) from error


def _mlflow() -> ModuleType:
    """Import MLflow, which takes 2.6 s, with its deadlines set; the environment is the only place where it looks."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow  # noqa: PLC0415 - see above
    import mlflow.artifacts  # noqa: PLC0415

    return mlflow


@contextlib.contextmanager
def _unless_there() -> Iterator[None]:
    """Let pass that another made the same thing first."""
    with _unless_code("RESOURCE_ALREADY_EXISTS"):
        yield


@contextlib.contextmanager
def _unless_code(code: str) -> Iterator[None]:
    """Let pass the one error of MLflow that this ``code`` names."""
    try:
        yield
    except _mlflow().exceptions.MlflowException as error:
        if error.error_code != code:
            raise


def _version(found: "ModelVersion") -> Version:
    return Version(
        name=found.name,
        number=int(found.version),
        tags=dict(found.tags),
        source=found.source or "",
        run_id=found.run_id or "",
        description=found.description or "",
        created_at=datetime.fromtimestamp(found.creation_timestamp / 1_000, UTC),
    )
