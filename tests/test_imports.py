"""Imports point one way: most of the program loads without torch, the command line almost without anything."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TORCH_HALF = (
    "bench.choosing_experts", "bench.correctness", "bench.doctor.bandwidth", "bench.doctor.device", "bench.doctor.gpu",
    "bench.doctor.precision", "bench.environment", "bench.pass_context",
    "bench.oracle", "bench.pass_runner", "bench.profiling.target", "bench.targets",
    "bench.worker", "bench.measure.ceilings", "bench.measure.cuda_timer", "bench.measure.device_span",
    "bench.measure.group",
    "bench.measure.jitter", "bench.measure.l2", "bench.measure.protocol", "bench.measure.repeat",
    "bench.measure.retention", "bench.measure.spin", "bench.measure.stages", "bench.measure.timer",
    "moe_impl.annotate", "moe_impl.attention", "moe_impl.captured_run", "moe_impl.carve_out", "moe_impl.counts",
    "moe_impl.device_memory",
    "moe_impl.experts.", "moe_impl.fp8", "moe_impl.inputs", "moe_impl.kernels.", "moe_impl.layer", "moe_impl.nvfp4",
    "moe_impl.overlap.cuda_lanes", "moe_impl.overlap.driver", "moe_impl.overlap.threads", "moe_impl.reference",
    "moe_impl.routing", "moe_impl.rows", "moe_impl.shared", "moe_impl.skew", "moe_impl.state",
    "moe_impl.transport.", "moe_impl.variant_run", "moe_impl.weights",
)  # fmt: skip
"""Modules, and with a dot in the end the modules of a package. Everything else is torch-free."""
HEAVY = ("torch", "triton", "pandas", "pydantic", "rich", "ruamel", "matplotlib", "scipy", "numpy", "jinja2")


def modules(package: str) -> dict[str, Path]:
    """Dotted name -> file of every module of a package of ours."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def in_torch_half(module: str) -> bool:
    return any(module == name or (name.endswith(".") and module.startswith(name)) for name in TORCH_HALF)


def python(code: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-P", "-c", code], env=environment, capture_output=True, text=True)


def test_everything_but_the_torch_half_loads_without_torch() -> None:
    free = [name for package in ("bench", "moe_impl") for name in modules(package) if not in_torch_half(name)]
    assert {
        "bench.cli",
        "bench.deciding.compare",
        "bench.running.supervisor",
        "moe_impl.support",
        "moe_impl.overlap.makespan",
    } <= set(free)
    done = python(
        "import importlib, sys\n"
        "sys.modules['torch'] = sys.modules['triton'] = None  # importing either raises, naming the module that did\n"
        f"for name in {free!r}:\n"
        "    importlib.import_module(name)\n"
    )
    assert done.returncode == 0, done.stderr


def test_the_torch_half_lists_no_module_that_does_not_exist() -> None:
    names = [*modules("bench"), *modules("moe_impl")]
    stale = [
        entry
        for entry in TORCH_HALF
        if not any(n == entry or (entry[-1] == "." and n.startswith(entry)) for n in names)
    ]
    assert not stale


def test_the_command_line_loads_nothing_heavy() -> None:
    done = python(f"import sys, bench.cli; print([name for name in {HEAVY!r} if name in sys.modules])")
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("verb", ["sweep", "plan", "compare", "report", "export"])
def test_help_loads_neither_torch_nor_pandas(verb: str) -> None:
    done = python(
        "import sys\n"
        "from bench.cli import main\n"
        f"sys.argv = ['bench', {verb!r}, '--help']\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as leaving:\n"
        "    assert leaving.code == 0, leaving.code\n"
        "heavy = [name for name in ('torch', 'pandas', 'matplotlib', 'scipy') if name in sys.modules]\n"
        "assert not heavy, heavy\n"
    )
    assert done.returncode == 0, done.stderr
    assert f"bench {verb}" in done.stdout


def test_the_oracle_imports_no_kernel_and_nothing_it_judges() -> None:
    code = "import sys, moe_impl.reference; print(sorted(n for n in sys.modules if n.startswith('moe_impl.')))"
    done = python(code)
    expected = ["moe_impl.fp8", "moe_impl.nvfp4", "moe_impl.reference", "moe_impl.routing", "moe_impl.shapes"]
    assert done.stdout.strip() == str(expected), done.stderr
