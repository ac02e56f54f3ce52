"""``USE_TBO``: the switch FastDeploy's users know, honoured where a sweep file lists no variants."""

from collections.abc import Mapping
from dataclasses import replace

from bench.config.spec import SweepConfig, VariantSpec
from bench.errors import BenchError

NAME = "USE_TBO"

ON = VariantSpec((("engine", ("streams",)), ("split_factor", (2,)), ("receive", ("worst_case",))))
OFF = VariantSpec((("split_factor", (1,)),))
MEANINGS = {None: ON, "1": ON, "0": OFF}
"""Value (None: unset) -> the one variant it stands for; OFF is T1 alone, so there is nothing to compare."""


def with_variants(config: SweepConfig, environment: Mapping[str, str]) -> tuple[SweepConfig, str | None]:
    """The sweep with the variants that ``USE_TBO`` stands for, where its file lists none.

    Args:
        environment: the process's environment variables.

    Returns:
        The sweep, and a line for people if a set USE_TBO was ignored.

    Raises:
        BenchError: the file lists no variants and the value is neither 0 nor 1.
    """
    value = environment.get(NAME)
    if config.variants:
        return config, None if value is None else f"{NAME}={value} is ignored: the sweep file lists its variants"
    if value not in MEANINGS:
        raise BenchError(f"{NAME}: found {value!r}, allowed: 0, 1, or unset (which means 1)")
    return replace(config, variants=(MEANINGS[value],)), None
