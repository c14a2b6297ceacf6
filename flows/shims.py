"""Every configured shim asked at once, since an operator's word must reach all of them within a second."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from flows.calling import Reply, UnreachableError, call
from flows.settings import Settings

_TIMEOUT_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one shim answered; ``failure`` says why it did not do what it was asked, and is empty when it did."""

    url: str
    failure: str = ""
    document: Any = None

    @property
    def ok(self) -> bool:
        """Whether the shim did what it was asked."""
        return not self.failure


def ask_all(settings: Settings, method: str, path: str, *, body: object = None) -> list[Answer]:
    """Return the answer of every shim of ``settings``, in their order; none raises."""

    def ask(url: str) -> Answer:
        try:
            reply = call(
                method, f"{url.rstrip('/')}{path}", body=body, token=settings.token, timeout_seconds=_TIMEOUT_SECONDS
            )
        except (UnreachableError, ValueError) as error:
            return Answer(url=url, failure=str(error))
        return Answer(url=url, failure="" if reply.ok else _reason(reply), document=reply.document)

    with ThreadPoolExecutor(max_workers=max(1, len(settings.shim_urls))) as pool:
        return list(pool.map(ask, settings.shim_urls))


def _reason(reply: Reply) -> str:
    detail = reply.document.get("detail") if isinstance(reply.document, dict) else None
    return f"it refused with {reply.status}: {detail or reply.document}"
