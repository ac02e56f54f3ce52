"""The command line, with the fake worker in the real one's place: for tests that send signals to a whole sweep."""

import sys

from small_sweep import FAKE_WORKER

from bench import cli
from bench.running import worker_process

worker_process.worker_command = lambda *arguments: (*FAKE_WORKER, *arguments)

if __name__ == "__main__":
    sys.exit(cli.main())
