"""Make .venv for this checkout without ever replacing a torch that is there.

An existing torch (NGC's, a cluster's) is linked into .venv through a .pth file, and its version and path are asserted
unchanged afterwards; `--system-site-packages` would miss one that lives in another virtual environment. Where there is
none, torch comes from constraints.txt, and a triton beside it only if that torch is a CPU build, which brings none.
Runs under the interpreter that the environment is for; standard library only.
"""

import importlib.metadata
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LINK = "existing-torch.pth"
EXTRAS = ".[dev,gpu]"
"""gpu is NVML's Python bindings, which record clocks where there is a GPU, and need none."""

LOOK = "import importlib.metadata as m, torch; print(m.version('torch'), torch.__file__, torch.version.cuda)"


def existing_torch() -> tuple[str, Path] | None:
    """(version, its site-packages) of the torch that this interpreter sees, or None."""
    try:
        found = importlib.metadata.distribution("torch")
    except importlib.metadata.PackageNotFoundError:
        return None
    return found.version, Path(str(found.locate_file(""))).resolve()


def pip(*arguments: str) -> None:
    subprocess.run([PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments], check=True)


def seen_by_venv() -> tuple[str, str, str]:
    """(version, file, cuda version or None) of torch in the new environment."""
    answer = subprocess.run([PYTHON, "-c", LOOK], check=True, capture_output=True, text=True, cwd="/").stdout.split()
    return answer[0], answer[1], answer[2]


def main() -> None:
    if sys.prefix != sys.base_prefix and Path(sys.prefix).resolve() == VENV:
        sys.exit("setup: run me with the interpreter outside .venv (make setup PYTHON=python3)")
    torch = existing_torch()
    if not PYTHON.exists():
        venv.create(VENV, with_pip=True)
    site = Path(
        subprocess.run(
            [PYTHON, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            check=True, capture_output=True, text=True,
        ).stdout.strip()
    )  # fmt: skip
    if torch is not None:
        version, where = torch
        # Linked last: pip takes what it sees through the link for installed, and would leave its commands out.
        (site / LINK).unlink(missing_ok=True)
        pip("-e", EXTRAS)
        (site / LINK).write_text(f"{where}\n")
        now, file, _ = seen_by_venv()
        if now != version or where not in Path(file).resolve().parents:
            sys.exit(f"setup: torch {version} in {where} is no longer what .venv sees: {now} in {file}")
        print(f"setup: uses the torch {version} in {where}")
        return
    pip("-c", str(ROOT / "constraints.txt"), "-e", EXTRAS, "torch")
    version, _, cuda = seen_by_venv()
    if cuda == "None":
        pip("-r", str(ROOT / "constraints-cpu-triton.txt"))
    print(f"setup: installed torch {version} ({'CPU' if cuda == 'None' else 'CUDA ' + cuda} build)")


if __name__ == "__main__":
    main()
