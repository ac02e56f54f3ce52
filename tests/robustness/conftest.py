"""How hard the property tests and the soak try: a little in CI, long under ``make soak`` (BENCH_SOAK=1)."""

import effort
from hypothesis import HealthCheck, settings

settings.register_profile(
    "robustness",
    max_examples=effort.EXAMPLES,
    deadline=None,
    derandomize=not effort.SOAK,  # CI asks the same questions every time; a soak asks new ones
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("robustness")
