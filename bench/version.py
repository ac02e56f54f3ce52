"""Which code this is: its version, in a checkout its commit, and everywhere a digest of its text. Torch-free."""

import hashlib
import importlib.metadata
import subprocess
from pathlib import Path

import bench

ROOT = Path(__file__).parents[1]
DISTRIBUTION = "moe-tbo-bench"
PACKAGES = ("bench", "moe_impl")
GIT_LIMIT_S = 10.0


def version() -> str:
    """The installed distribution's, or where none is installed the checkout's own."""
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return bench.__version__


def source(root: Path = ROOT) -> str:
    """16 hex digits of all Python code of both packages: the same for a checkout, a wheel and a copy without git."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            text = path.read_bytes()
            digest.update(f"{path.relative_to(root).as_posix()} {len(text)}\n".encode())
            digest.update(text)
    return digest.hexdigest()[:16]


def checkout(root: Path = ROOT) -> dict[str, str | bool] | None:
    """``commit``, and whether a tracked file was changed since (``dirty``); None where ``root`` is no git checkout."""
    if not (root / ".git").exists():  # an installed package may lie in somebody else's checkout
        return None
    commit = _git(root, "rev-parse", "HEAD")
    changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    return None if commit is None or changed is None else {"commit": commit, "dirty": bool(changed)}


def _git(root: Path, *arguments: str) -> str | None:
    """What git says, or None where there is no git or it refuses. Takes no lock: others work in the checkout."""
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(root), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=GIT_LIMIT_S,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
