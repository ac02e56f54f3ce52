"""Link presets: alpha and bandwidth with their source, never times. Torch-free."""

from moe_impl.options import Link, LinkTime

ASSUMED_ALPHA_S = 15e-6
"""No alpha is published for DeepEP's normal mode; 15 us is what fits TensorRT-LLM's one-sided all-to-all on GB200
(tech blog 18, BF16 EP8: 15 us dispatch, 16 us combine). Every preset that uses it says "alpha assumed"."""


def paced(
    name: str,
    *,
    dispatch_bytes_per_s: float,
    combine_bytes_per_s: float,
    alpha_s: float,
    comm_sms: int,
    source: str,
    gpu: str | None = None,
) -> Link:
    """A paced link with one alpha for both directions. Bandwidth counts every (token, rank) row, own rank included."""
    return Link(
        transport="paced",
        comm_sms=comm_sms,
        times=(
            LinkTime("dispatch", alpha_s, dispatch_bytes_per_s),
            LinkTime("combine", alpha_s, combine_bytes_per_s),
        ),
        name=name,
        source=source,
        gpu=gpu,
    )


LOCAL = Link(transport="local", name="local", source="a copy on this GPU; models no network")

PACED_PRESETS: dict[str, Link] = {
    "h800-nvlink-ep8": paced(
        "h800-nvlink-ep8",
        dispatch_bytes_per_s=153e9,
        combine_bytes_per_s=158e9,
        alpha_s=ASSUMED_ALPHA_S,
        comm_sms=20,
        source="DeepEP V1 docs/legacy.md, normal mode, EP8: 153/158 GB/s NVLink, 20 SMs; alpha assumed",
        gpu="H800",
    ),
    "hopper-nvlink-ep8": paced(
        "hopper-nvlink-ep8",
        dispatch_bytes_per_s=344e9,
        combine_bytes_per_s=333e9,
        alpha_s=ASSUMED_ALPHA_S,
        comm_sms=24,
        source="DeepEP issue #138, H20 (full NVLink), normal mode, EP8, 24 SMs: 344 (BF16) / 333 GB/s; alpha assumed",
        gpu="H20",
    ),
}
"""Named links for the sweep file's ``link: {paced: NAME}``."""
