"""What ``make soak`` asks for, through BENCH_SOAK=1, and what CI does without it."""

import os

SOAK = os.environ.get("BENCH_SOAK") == "1"
EXAMPLES = 2_000 if SOAK else 200
"""Of every property."""
KILLS = 100 if SOAK else 10
ITERATIONS = 10_000 if SOAK else 300
"""Of every engine on a CPU."""
GPU_ITERATIONS = 20_000 if SOAK else 600
"""Of every engine on a GPU."""
