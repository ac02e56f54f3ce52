"""Does the wheel work where no checkout is? Build it, install it into a fresh environment, run the smoke sweep from /.

The fresh environment borrows the dependencies of .venv through a .pth file (an editable install is not visible that
way), so this costs seconds; `pip check` then says whether the wheel's own requirements are met.
"""

import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(*command: str | Path, cwd: Path | str = "/") -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run([str(part) for part in command], check=True, cwd=cwd, env=environment)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="wheel-test-") as folder:
        scratch = Path(folder)
        run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", scratch, cwd=ROOT)
        (wheel,) = scratch.glob("*.whl")
        venv.create(scratch / "venv", with_pip=True)
        python = scratch / "venv" / "bin" / "python"
        run(python, "-m", "pip", "install", "--quiet", "--no-deps", wheel)
        site = next((scratch / "venv" / "lib").glob("python*/site-packages"))
        (site / "dependencies.pth").write_text("".join(f"{path}\n" for path in borrowed()))
        said = subprocess.run([python, "-m", "pip", "check"], capture_output=True, text=True, cwd="/").stdout
        unmet = [line for line in said.splitlines() if line.startswith("moe-tbo-bench")]
        if unmet:
            sys.exit("\n".join(unmet))
        run(scratch / "venv" / "bin" / "bench", "sweep", "smoke", "--device", "cpu", "--out", scratch / "run")
        assert (scratch / "run" / "report.html").stat().st_size > 0
    print("wheel-test: the installed wheel swept and reported")


def borrowed() -> list[str]:
    """site-packages of .venv, and of a torch that .venv itself borrows."""
    own = Path(sysconfig.get_path("purelib"))
    link = own / "existing-torch.pth"
    return [str(own), *(link.read_text().split() if link.exists() else [])]


if __name__ == "__main__":
    main()
