"""``link: {table: times.csv}``: a user's own measurements, fitted when the sweep file is read.

What stays of them are alpha and bandwidth per direction and payload dtype: a case's id depends on values, not on paths.
"""

import csv
import math
from collections import defaultdict
from pathlib import Path
from typing import get_args

from bench import units
from bench.config.nodes import Node, Problems, read_text
from bench.config.readers import Key, choice, mapping, whole_number
from bench.errors import BenchError
from bench.hints import not_allowed
from moe_impl.link_fit import Transfer, fit
from moe_impl.options import Copies, Direction, Link, LinkTime
from moe_impl.payload import PayloadDtype

HEADER = ("direction", "dtype", "bytes", "seconds")
DEFAULT_COMM_SMS = 20
"""What DeepEP takes for its normal mode unless told otherwise."""


def _file_name(node: Node, path: str, problems: Problems) -> str | None:
    if isinstance(node.value, str) and node.value and node.value.isprintable():
        return node.value
    problems.add(node, path, f"found {node.shown}, expected the name of a CSV file ({','.join(HEADER)})")
    return None


_KEYS = {"file": Key(_file_name, required=True), "comm_sms": Key(whole_number(1)), "copies": Key(choice(Copies))}


def read_table(node: Node, path: str, problems: Problems) -> Link | None:
    """A CSV file's name, or ``{file, comm_sms, copies}``; relative to the sweep file."""
    if isinstance(node.value, dict):
        given = mapping(node, path, problems, _KEYS)
    else:
        name = _file_name(node, path, problems)
        given = None if name is None else {"file": name}
    if given is None:
        return None
    table = Path(problems.source).parent / given["file"]
    try:
        text = read_text(table, "link table (CSV)", ".csv")
    except BenchError as error:
        problems.add(node, path, str(error))
        return None
    transfers = _transfers(text, table, problems)
    fitted = None if transfers is None else _fitted(transfers, table, problems)
    if transfers is None or fitted is None:
        return None
    times, residual = fitted
    comm_sms, copies = given.get("comm_sms", DEFAULT_COMM_SMS), given.get("copies", "rank")
    stem = "".join("_" if letter in " ,=" else letter for letter in table.stem)
    said = (
        f"link fitted to {table.name} ({len(transfers)} transfers), largest residual {units.format_percent(residual)}"
    )
    return Link(
        "paced",
        comm_sms,
        times,
        copies,
        name=f"{stem}-{comm_sms}sm" + ("" if copies == "rank" else f"-{copies}"),
        source=said,
        note=said,
    )


def _transfers(text: str, table: Path, problems: Problems) -> dict[int, Transfer] | None:
    """Line -> transfer; None where a line is none, each noted."""
    found: dict[int, Transfer] = {}
    reader = csv.reader(text.splitlines(), strict=True)
    seen_header, complete = False, True
    try:
        for values in reader:
            cells = [value.strip() for value in values]
            if not any(cells):
                continue
            where = f"{table}:{reader.line_num}"
            if not seen_header:
                seen_header = True
                if tuple(cells) != HEADER:
                    problems.add_elsewhere(f"{where}: found {','.join(cells)}, expected the header {','.join(HEADER)}")
                    return None
                continue
            transfer = _transfer(cells)
            if isinstance(transfer, str):
                problems.add_elsewhere(f"{where}: {transfer}")
                complete = False
            else:
                found[reader.line_num] = transfer
    except csv.Error as error:
        problems.add_elsewhere(f"{table}:{reader.line_num}: no valid CSV: {error}")
        return None
    if not seen_header:
        problems.add_elsewhere(f"{table}:1: is empty, expected the header {','.join(HEADER)}")
        return None
    return found if complete else None


def _transfer(cells: list[str]) -> Transfer | str:
    """A row's transfer, or what is wrong with it."""
    if len(cells) != len(HEADER):
        return f"found {len(cells)} values, expected {','.join(HEADER)}"
    direction, dtype, num_bytes, seconds = cells
    for name, value, hint in (("direction", direction, Direction), ("dtype", dtype, PayloadDtype)):
        if value not in get_args(hint):
            return f"{name}: {not_allowed(value or 'nothing', get_args(hint))}"
    if not (num_bytes.isascii() and num_bytes.isdigit() and 0 < len(num_bytes) < 19 and int(num_bytes)):
        return f"bytes: found {num_bytes or 'nothing'}, expected a whole number >= 1"
    try:
        taken_s = float(seconds)
    except ValueError:
        taken_s = math.nan
    if not units.TIME.least <= taken_s <= units.TIME.most:
        return f"seconds: found {seconds or 'nothing'}, expected a number above 0, such as 120e-6"
    return Transfer(direction, dtype, int(num_bytes), taken_s)  # type: ignore[arg-type]  # checked above


def _fitted(
    transfers: dict[int, Transfer], table: Path, problems: Problems
) -> tuple[tuple[LinkTime, ...], float] | None:
    """A time per (direction, dtype) that the table has, and the largest relative residual of all."""
    groups: defaultdict[tuple[Direction, PayloadDtype], dict[int, Transfer]] = defaultdict(dict)
    for line, transfer in transfers.items():
        groups[transfer.direction, transfer.dtype][line] = transfer
    times, worst, complete = [], 0.0, True
    for direction in get_args(Direction):
        if not any(key[0] == direction for key in groups):
            problems.add_elsewhere(f"{table}:1: has no {direction} transfers")
            complete = False
        for dtype in get_args(PayloadDtype):
            group = groups.get((direction, dtype))
            if group is None:
                continue
            try:
                time, residual = fit(list(group.values()))
                if not units.RATE.least <= time.bandwidth_bytes_per_s <= units.RATE.most:
                    raise ValueError(f"no link has the {time.bandwidth_bytes_per_s:g} B/s that they fit")
            except ValueError as error:
                problems.add_elsewhere(f"{table}:{min(group)}: {direction} of {dtype} rows: {error}")
                complete = False
                continue
            times.append(time)
            worst = max(worst, residual)
    return (tuple(times), worst) if complete else None
