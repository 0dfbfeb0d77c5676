"""The lifeline: a worker does not outlive its application.

The application holds one end of a pipe, the worker the other, and nothing is ever written to it.
When the application ends, however it ends, the kernel closes its end. On Linux the worker has asked
the kernel beforehand to send SIGKILL to the worker's whole process group then. Nothing in the worker
has to run for it: it works while C code holds the interpreter's lock, and takes the worker's own
children along.

What does not work: a thread in the worker cannot act while C code holds the lock, and
`PR_SET_PDEATHSIG` is bound to the *thread* that started the worker, so it kills healthy workers when
a pool of threads retires one. Where the kernel has no such signal (macOS), the thread is what there
is: best effort.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys

__all__ = ["hold"]


def hold(fd: int) -> None:
    """Tie this process group to the other end of `fd`. If that is closed already, end now."""
    if sys.platform == "linux":
        fcntl.fcntl(fd, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
        poller = select.poll()  # the other end may have been closed before we asked
        poller.register(fd, 0)
        if poller.poll(0):
            _end()
    else:
        import threading

        threading.Thread(target=_watch, args=(fd,), name="remuda-lifeline", daemon=True).start()


def _watch(fd: int) -> None:
    while os.read(fd, 1):
        pass
    _end()


def _end() -> None:
    os.killpg(os.getpgrp(), signal.SIGKILL)
