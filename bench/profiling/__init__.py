"""``bench profile``: run one case under a profiler, keep the raw report, and say what it shows."""
