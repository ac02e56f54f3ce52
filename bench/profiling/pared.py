"""An Nsight Systems export without what it tells of the machine: nsys records the environment of its processes, those
of the profiled process's parents included, and no option of 2025.3 keeps it from that. Torch-free.
"""

import re
import sqlite3
from contextlib import closing
from pathlib import Path

from bench.errors import BenchError, Exit
from bench.timeline.nsys_tables import STRINGS

KEPT = re.compile(r"CUPTI_ACTIVITY_KIND_\w+|CUDA_GRAPH_\w+|NVTX_\w+|ENUM_\w+|TARGET_INFO_(GPU|CUDA_\w+)|StringIds")
"""Tables that stay whole: what the GPU and the host's CUDA calls did, ranges, what numbers mean, which GPU."""
NAMES = {"nameId", "textId", "jsonTextId", "demangledName", "shortName", "mangledName"}
"""Columns of those tables that number a text of STRINGS; all other texts go."""


def pare(export: Path) -> None:
    """Drop from a SQLite export all tables but KEPT and all texts that these do not name; nothing stays in free pages.

    Raises:
        BenchError: the export is no such file.
    """
    try:
        with closing(sqlite3.connect(export)) as db:
            named: set[int] = set()
            for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                if not KEPT.fullmatch(table):
                    db.execute(f'DROP TABLE "{table}"')
                    continue
                for column in {row[1] for row in db.execute(f'PRAGMA table_info("{table}")')} & NAMES:
                    named |= {number for (number,) in db.execute(f'SELECT DISTINCT "{column}" FROM "{table}"')}
            texts = {number for (number,) in db.execute(f"SELECT id FROM {STRINGS}")}
            db.executemany(f"DELETE FROM {STRINGS} WHERE id = ?", [(number,) for number in texts - named])
            db.commit()
            db.execute("VACUUM")
    except sqlite3.Error as error:
        raise BenchError(f"{export}: cannot be pared: {error}", code=Exit.INTERNAL) from error
