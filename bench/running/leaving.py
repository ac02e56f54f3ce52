"""A worker's end when its supervisor has ended: nobody else would free the device. Torch-free."""

import os
import select
import threading

from bench.running.messages import EXIT_AFTER_FAILURE


def leave_with_supervisor(events_fd: int) -> None:
    """End this process once nobody can read its events any more, whatever the main thread is waiting for.

    The supervisor has the pipe's only other end, and a SIGKILL closes it too. This costs a sleeping thread, to which
    torch gives way while it waits for a device.

    Args:
        events_fd: the writing end of a pipe.
    """

    def wait() -> None:
        end = select.poll()
        end.register(events_fd, 0)  # an error on it, which is a pipe without a reader, is told unasked
        end.poll()
        os._exit(EXIT_AFTER_FAILURE)

    threading.Thread(target=wait, name="supervisor", daemon=True).start()
