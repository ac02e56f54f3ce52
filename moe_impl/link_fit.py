"""From measured transfers to a link's alpha and bandwidth. Torch-free."""

from collections.abc import Sequence
from dataclasses import dataclass

from moe_impl.options import Direction, LinkTime
from moe_impl.payload import PayloadDtype


@dataclass(frozen=True)
class Transfer:
    """One measured transfer."""

    direction: Direction
    dtype: PayloadDtype
    num_bytes: int
    seconds: float


def fit(transfers: Sequence[Transfer]) -> tuple[LinkTime, float]:
    """alpha and bandwidth of transfers of one direction and dtype, and the largest relative residual.

    Least squares of the *relative* error: minimise sum of ((alpha + bytes / bandwidth) / seconds - 1)^2. Absolute
    errors would let the largest transfers decide alone, and a split is about small ones. Alpha is not negative; where
    the free fit makes it so it is 0, and the bandwidth is fitted again.

    Raises:
        ValueError: fewer than two sizes that can be told apart, or times that do not grow with the size.
    """
    if len({transfer.num_bytes for transfer in transfers}) < 2:
        raise ValueError("needs at least 2 distinct sizes")
    # u alpha + v s = 1 for every transfer, with u = 1 / seconds, v = bytes / seconds and s the inverse bandwidth. Bytes
    # are scaled to the largest, or v^2 dwarfs u^2 and the determinant is noise.
    largest = max(transfer.num_bytes for transfer in transfers)
    points = [(1 / transfer.seconds, transfer.num_bytes / largest / transfer.seconds) for transfer in transfers]
    uu = sum(u * u for u, _ in points)
    uv = sum(u * v for u, v in points)
    vv = sum(v * v for _, v in points)
    u1, v1 = sum(u for u, _ in points), sum(v for _, v in points)
    determinant = uu * vv - uv * uv
    if determinant <= 0:  # of sizes that differ by less than a float can tell
        raise ValueError("needs sizes further apart")
    alpha_s, slope_s = (u1 * vv - v1 * uv) / determinant, (v1 * uu - u1 * uv) / determinant
    if alpha_s < 0:
        alpha_s, slope_s = 0.0, v1 / vv
    if slope_s <= 0:
        raise ValueError("seconds do not grow with bytes")
    first = transfers[0]
    time = LinkTime(first.direction, alpha_s, largest / slope_s, first.dtype)
    residual = max(abs(time.seconds(transfer.num_bytes) / transfer.seconds - 1) for transfer in transfers)
    return time, residual
