"""A sweep with the fake worker and without its report, which is slow to draw: for tests of what is stored."""

import sys

import sweep_with_fake_worker  # puts the fake worker in the real one's place

from bench.commands import sweep

sweep._report = lambda run, failed, as_json: None

if __name__ == "__main__":
    sys.exit(sweep_with_fake_worker.cli.main())
