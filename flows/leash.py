"""Runs a command that ends with its parent, even if that is killed: ``python leash.py PARENT_PID COMMAND...``.

A script of its own, since the request must be made in the child, and code between fork and exec is not safe in a process
that has threads.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(arguments: list[str]) -> None:
    """Become the command, unless the parent is gone already."""
    parent_pid, *command = arguments
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:  # elsewhere than on Linux, only an orderly stop reaches the child
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == int(parent_pid):
        os.execv(command[0], command)  # noqa: S606 - there is no shell, and none is wanted


if __name__ == "__main__":
    main(sys.argv[1:])
