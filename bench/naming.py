"""How people name a case of a sweep: the shortest ``--filter`` text that tells it from the others. Torch-free."""

from collections.abc import Sequence

from bench.cases import Case
from bench.filters import CASE_KEYS

ALWAYS = "tokens"


def case_names(cases: Sequence[Case]) -> dict[str, str]:
    """case_id -> ``tokens=1024,precision=bf16``: the token count, and every field in which ``cases`` differ."""
    told = {key: read for key, read in CASE_KEYS.items() if key == ALWAYS or len({read(case) for case in cases}) > 1}
    return {case.case_id: ",".join(f"{key}={read(case)}" for key, read in told.items()) for case in cases}
