"""Link presets: alpha and bandwidth with their source, never times. Torch-free."""

from moe_impl.options import Copies, Link, LinkTime

ASSUMED_ALPHA_S = 15e-6
"""No alpha is published for DeepEP's normal mode; 15 us is what fits TensorRT-LLM's one-sided all-to-all on GB200
(tech blog 18, BF16 EP8: 15 us dispatch, 16 us combine). Every preset that uses it says "alpha assumed"."""


def paced(
    name: str,
    *,
    bytes_per_s: tuple[float, float],
    comm_sms: int,
    source: str,
    gpu: str,
    alpha_s: tuple[float, float] = (ASSUMED_ALPHA_S, ASSUMED_ALPHA_S),
    copies: Copies = "rank",
) -> Link:
    """A paced link; pairs are (dispatch, combine). Bandwidth counts the copies sent to the own rank or node too."""
    return Link(
        transport="paced",
        comm_sms=comm_sms,
        times=(LinkTime("dispatch", alpha_s[0], bytes_per_s[0]), LinkTime("combine", alpha_s[1], bytes_per_s[1])),
        copies=copies,
        name=name,
        source=source,
        gpu=gpu,
    )


LOCAL = Link(transport="local", name="local", source="a copy on this GPU; models no network")
HOST_LINK = Link(
    transport="host_link",
    name="host_link",
    source="this machine's pinned host memory and the GPU's copy engines, both ways at once; measured, no model",
)
COLLECTIVE = Link(
    transport="collective",
    name="collective",
    source="torch.distributed all-to-all between processes, one a rank (NCCL, gloo on CPUs); measured, no model",
)

_PACED = (
    paced(
        "h800-nvlink-ep8",
        bytes_per_s=(153e9, 158e9),
        comm_sms=20,
        source="DeepEP V1 docs/legacy.md, normal mode, EP8: 153/158 GB/s NVLink, 20 SMs; alpha assumed",
        gpu="H800",
    ),
    paced(
        "hopper-nvlink-ep8",
        bytes_per_s=(344e9, 333e9),
        comm_sms=24,
        source="DeepEP issue #138, H20 (full NVLink), normal mode, EP8, 24 SMs: 344 (BF16) / 333 GB/s; alpha assumed",
        gpu="H20",
    ),
    paced(
        "b200-nvlink-ep8-v1",
        bytes_per_s=(494e9, 420e9),
        comm_sms=24,
        source="DeepEP docs/README_Hybrid-EP.md, DeepEP V1 on B200, EP8, 24 SMs: 494 (BF16) / 420 GB/s; alpha assumed",
        gpu="B200",
    ),
    paced(
        "b200-nvlink-ep8-v2",
        bytes_per_s=(643e9, 675e9),
        comm_sms=24,
        source="DeepEP V2 README, SM100 NVLink EP8, 24 SMs: 643 (FP8 dispatch) / 675 GB/s; alpha assumed",
        gpu="B200",
    ),
    # The tables' own small-batch floor of 18 and 31 us is not modelled: it matters below some 64 tokens.
    paced(
        "gb200-nvlink-one-sided-ep8",
        bytes_per_s=(789e9, 761e9),
        alpha_s=(15e-6, 16e-6),
        comm_sms=64,
        source="TensorRT-LLM tech blog 18, one-sided all-to-all on GB200, EP8, BF16: alpha 15/16 us and 789/761 GB/s "
        "fitted to its table (within 15 %); comm SMs assumed (DeepEP V2 takes 64 for 726/740 GB/s on B200)",
        gpu="GB200",
    ),
    # DeepEP's tests/test_internode.py counts a token once for each node that has one of its experts.
    paced(
        "hopper-cx7-ep16",
        bytes_per_s=(43e9, 43e9),
        comm_sms=20,
        copies="node",
        source="DeepEP V1 docs/legacy.md, normal mode, H800 with CX7 400 Gb/s, EP16: 43/43 GB/s RDMA, 20 SMs; "
        "alpha assumed",
        gpu="H800",
    ),
    paced(
        "hopper-cx7-ep32",
        bytes_per_s=(58e9, 57e9),
        comm_sms=20,
        copies="node",
        source="DeepEP V1 docs/legacy.md, normal mode, H800 with CX7 400 Gb/s, EP32: 58/57 GB/s RDMA, 20 SMs; "
        "alpha assumed",
        gpu="H800",
    ),
)
PACED_PRESETS: dict[str, Link] = {link.name: link for link in _PACED}
"""Named links for the sweep file's ``link: {paced: NAME}``."""
