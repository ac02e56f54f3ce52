"""Leave whole SMs free: which of a launch's programs compute, and how these share out its tiles.

A smaller grid frees no SM where several programs fit on one: the hardware spreads them over all. So a program finds out
where it runs (%smid). The first SMs on which programs of a launch turn up compute, as many as are allowed, and
programs on any other SM end at once. No SM is chosen beforehand: on those that communication holds no program turns up,
so they count among the free ones, wherever they are. Programs that compute take tile after tile (an atomic ticket)
until none is left, so the tiles' results do not depend on who computes them, and an SM is not lost when its program
ends at once. Such a launch gives no SM back before its end: communication that holds more SMs than are left free waits.

%smid cannot be interpreted: the interpreter takes the program's number for it. CI checks the PTX.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import smid

WORDS = 1024
"""More than any GPU's %smid, which PTX does not promise to be dense."""
FULL_SM_WARPS = 16
"""Warps that an SM holds at most where a thread has over 128 registers, as a GEMM's have."""

UNSEEN: tl.constexpr = tl.constexpr(0)
BEING_COUNTED: tl.constexpr = tl.constexpr(1)
COMPUTES: tl.constexpr = tl.constexpr(2)
FREE: tl.constexpr = tl.constexpr(3)


@triton.jit
def this_sm(INTERPRETED: tl.constexpr):
    if INTERPRETED:
        return tl.program_id(0)
    else:
        return smid()


@triton.jit
def computes_here(sms, allowed, INTERPRETED: tl.constexpr):
    """Whether this program's SM is one of the ``allowed`` that compute; ``sms`` is what :func:`new_sms` made."""
    here = sms + 2 + this_sm(INTERPRETED)
    state = tl.atomic_cas(here, UNSEEN, BEING_COUNTED)
    if state == UNSEEN:
        state = tl.where(tl.atomic_add(sms + 1, 1) < allowed, COMPUTES, FREE)
        tl.atomic_xchg(here, state)
    while state == BEING_COUNTED:  # by a program that runs
        state = tl.atomic_add(here, 0)
    return state == COMPUTES


@triton.jit
def next_tile(sms):
    return tl.atomic_add(sms, 1)


def new_sms(device: torch.device) -> Tensor:
    """int32 [2 + WORDS] for one launch: tiles taken, SMs that programs turned up on, and each SM's state."""
    return torch.zeros(2 + WORDS, dtype=torch.int32, device=device)


def programs(sms: int, num_warps: int) -> int:
    """Enough to fill the SMs that compute, after some ended at once on those left free."""
    return sms * max(2, FULL_SM_WARPS // num_warps)
