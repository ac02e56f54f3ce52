"""``bench doctor``: what this machine can measure, how well, and what is missing for more."""
