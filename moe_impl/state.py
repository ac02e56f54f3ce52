"""UbatchState: a micro-batch's tensors. It dies with the micro-batch's last op; there is no global dict.

Who allocates matters across streams. All tensors are allocated on the compute lane, a communication stage's target by
the compute stage before it (route for dispatch, reduce for combine): the caching allocator may then hand out memory
whose last reader precedes that stage on the compute lane, and the stage's event orders the communication behind it. A
tensor that communication reads or writes is let go only after the compute lane has waited for that communication.
The exception is receive ``exact``: its dispatch learns the size on the communication lane, allocates there and records
the compute lane's use; memory of the compute lane may still be read by compute that it did not wait for.
"""

from dataclasses import dataclass

from torch import Tensor

from moe_impl.rows import Learned, Pairs, ReceivedRows, SentRows


@dataclass
class UbatchState:
    """One micro-batch on its way through the layers. Letters as in shapes; M' and P' are worst-case capacities."""

    tokens: slice
    """Which tokens of the rank's batch these are."""
    x_TH: Tensor
    """bf16 [T, H]: this layer's input, replaced in ``attention`` and in ``merge``."""
    capacity: int | None = None
    """M', rows for which worst-case buffers have room; None: all that R ranks of as many tokens may send."""
    learned: list[Learned] | None = None
    """By layer, what the host knows of the rows beforehand, where their transport needs it."""
    rows: SentRows | None = None
    payload_TB: Tensor | None = None
    """What dispatch sends: x itself, or uint8 [T, stored_row_bytes] that stage ``quantize`` made of it."""
    received_rows: ReceivedRows | None = None
    received_MB: Tensor | None = None
    """Dispatched rows, as ``payload_TB`` holds them; quantized here where bf16 travelled and the experts read less."""
    shared_TH: Tensor | None = None
    """bf16 [T, H]: output of the shared experts."""
    pairs: Pairs | None = None
    pair_offsets: Tensor | None = None
    """int32 [L + 1]: 0 and the experts' ends, for a backend that wants their begins beside them."""
    permuted_PH: Tensor | None = None
    """bf16 [P', H], or codes of a quantizing backend, whose scales are ``permuted_scale_P``."""
    permuted_scale_P: Tensor | None = None
    gate_up_PJ: Tensor | None = None
    """bf16 [P', 2I]: gemm1's output."""
    h_PI: Tensor | None = None
    """bf16 [P', I], or codes of a quantizing backend, whose scales are ``h_scale_P``."""
    h_scale_P: Tensor | None = None
    outputs_PH: Tensor | None = None
    """bf16 [P', H]: expert outputs."""
    partial_MH: Tensor | None = None
    """bf16 [M', H]: weighted partial sums, one a received row."""
    returned_MH: Tensor | None = None
    """bf16 [M', H]: partial sums after combine."""
    y_TH: Tensor | None = None
    """bf16 [T, H]: the layer's output (before it becomes the next x)."""
