"""What a stream's classifiers say of an event: the one in force, for the log, and those that routers pin, for their scores."""

from dataclasses import dataclass
from typing import Self

from features.content import Content
from features.records import Event
from serving.view import Classifier


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A model that failed on an event. ``raised`` tells an exception of its own from a prediction that is no number."""

    digest: str
    reason: str
    raised: bool


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What one classifier said of an event. ``digest`` is None, and so is ``content``, where none is there or it failed."""

    digest: str | None = None
    content: Content | None = None
    fault: Fault | None = None

    @classmethod
    def of(cls, event: Event, classifier: Classifier | None) -> Self:
        """Ask ``classifier``; a classifier may fail in any way, the event must not."""
        if classifier is None:
            return cls()
        try:
            return cls(digest=classifier.digest, content=classifier.reader.read(event))
        except Exception as error:  # noqa: BLE001 - see above
            reason = f"classifier raised {type(error).__name__}: {error}"
            return cls(fault=Fault(digest=classifier.digest, reason=reason, raised=True))
