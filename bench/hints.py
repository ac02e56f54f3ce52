"""How a message names what is allowed and what was probably meant."""

import difflib
from collections.abc import Iterable


def did_you_mean(found: str, allowed: Iterable[str]) -> str:
    """``", did you mean tokens?"``, or nothing where no allowed name is near, or the name itself is what was found."""
    names = {name.lower(): name for name in allowed}
    near = difflib.get_close_matches(found.lower(), names, n=1, cutoff=0.75)
    return f", did you mean {names[near[0]]}?" if near and names[near[0]] != found else ""


def not_allowed(found: str, allowed: Iterable[str]) -> str:
    """``found nvfp5, did you mean nvfp4? allowed: bf16, nvfp4``."""
    names = list(allowed)
    meant = did_you_mean(found, names)
    return f"found {found}{meant or ','} allowed: {', '.join(names)}"
