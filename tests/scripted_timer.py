"""A timer whose calls say how long they took."""

from collections.abc import Callable


class ScriptedTimer:
    """Each call says how long it took."""

    name = "scripted"

    def time_s(self, call: Callable[[], object]) -> float:
        taken_s = call()
        assert isinstance(taken_s, float)
        return taken_s

    device_time_s = time_s
