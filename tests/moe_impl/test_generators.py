"""Every purpose draws from generators of its own: no two may meet, however many layers and ranks there are."""

from itertools import combinations

from moe_impl import attention, skew, weights

LAYERS, RANKS = range(10_000), range(1, 10_000)
PURPOSES = {
    "inputs": range(0, 4),
    "routed experts": [weights.ROUTED + layer for layer in LAYERS],
    "shared experts": [weights.SHARED + layer for layer in LAYERS],
    "routed experts' scales": [weights.ROUTED_SCALES + layer for layer in LAYERS],
    "shared experts' scales": [weights.SHARED_SCALES + layer for layer in LAYERS],
    "attention": [attention.ATTENTION + layer for layer in LAYERS],
    "ranks": [stream for rank in RANKS for stream in skew.own_generators(rank)],
}


def test_no_two_purposes_share_a_generator() -> None:
    for (one, mine), (other, theirs) in combinations(PURPOSES.items(), 2):
        assert not set(mine) & set(theirs), (one, other)
    assert all(max(streams) < weights.SEED_STRIDE for streams in PURPOSES.values()), "or the next seed's begin"
