"""What must fit together before it is released: a router and the classifier it pins, a classifier and the streams it serves."""

from pathlib import Path

from features import content as contents
from flows.wiring import Wiring
from models import content, content_card
from models.card import ContractMismatchError
from models.releases import bundle
from models.releases.bundle import BundleError
from validation.trust import Approval

ROUTER = "router"


def pins(wired: Wiring, stream: str) -> dict[str, str]:
    """Return what a router of ``stream`` that is fitted now pins: the released classifier, if its features read one."""
    digest = wired.classifier(stream)
    return {} if digest is None else {content.KIND: digest}


def misfits(wired: Wiring, approval: Approval, folder: Path) -> tuple[str, ...]:
    """Return why the bundle in ``folder`` does not fit what it is to be released beside; nothing if it does."""
    try:
        manifest = bundle.verify(folder, approval.digest)
    except BundleError:
        return ()  # that its bytes are not those approved is said already
    kind, _, name = approval.kind.partition(".")
    if manifest.kind != kind:
        return (f"it is a {manifest.kind}, approved was a {kind or 'nothing'}",)
    if kind == ROUTER and manifest.pins != (wanted := pins(wired, approval.stream)):
        found, released = (held.get(content.KIND, "no classifier") for held in (manifest.pins, wanted))
        return (f"it was fitted on the answers of {found}, released for the stream is {released}",)
    if kind == content.KIND:
        try:
            return unserved(wired, name, content_card.read_card(folder))
        except ContractMismatchError as error:
            return (str(error),)
    return ()


def unserved(wired: Wiring, name: str, card: content_card.Card) -> tuple[str, ...]:
    """Return what the features of the streams that ``name`` reads for ask of it, and a classifier of ``card`` does not give."""
    return tuple(
        f"streams.{stream}: {reason}"
        for stream, configured in wired.configuration.streams.items()
        if configured.content == name
        for reason in contents.strangers(configured.features.content_names, card.classes, card.n_components or 0)
    )
