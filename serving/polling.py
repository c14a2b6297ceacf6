"""Busy polling: for a moment after an answer the sockets are looked at again and again instead of waited for, where that pays.

A thread that sleeps is woken in tens of microseconds, in a virtual machine in fifty and more: longer than a decision takes.
Whoever asks one question after the other waits for that each time. Misleads nothing but the processor's load: a core that
polls looks busy. Source: the adaptive ``halt_poll_ns`` of Linux' KVM, which a poll that meets nothing shortens.
"""

import asyncio
import time

_WEIGHT = 1 / 8  # of the last poll in the share of those that met a request
_ENOUGH = 0.5  # of the polls; fewer, and sleeping is the better bargain
_TRIED_EVERY = 64  # turns, while polling does not pay


class BusyPolling:
    """Keeps a loop from sleeping for ``seconds`` after each turn that answered, as long as half of such polls meet a request.

    While fewer do, one turn in 64 is followed by a poll, to find out whether it pays by now. 0 seconds is never.
    """

    def __init__(self, seconds: float, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Poll nothing yet; ``loop`` is the running one."""
        self._seconds = seconds
        self._loop = loop or asyncio.get_running_loop()
        self._until: float | None = None  # None while the loop may sleep
        self._share = 1.0  # of polls that met a request
        self._n_slept = 0  # turns since the last poll

    def begin(self) -> None:
        """Hear that a turn has answered what there was."""
        if not self._seconds:
            return
        if self._until is not None:
            self._share += (1.0 - self._share) * _WEIGHT
        elif self._share < _ENOUGH and self._n_slept < _TRIED_EVERY - 1:
            self._n_slept += 1
            return
        else:
            self._loop.call_soon(self._look)
        self._n_slept = 0
        self._until = time.perf_counter() + self._seconds

    def _look(self) -> None:
        if time.perf_counter() < (self._until or 0.0):
            self._loop.call_soon(self._look)
            return
        self._until = None
        self._share -= self._share * _WEIGHT
