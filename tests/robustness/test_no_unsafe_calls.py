"""What no module of ours may do: run a shell, unpickle, evaluate text, load YAML that builds objects."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for folder in ("bench", "moe_impl", "tools") for path in (ROOT / folder).rglob("*.py"))
BUILTINS = {"eval", "exec", "compile", "__import__"}
MODULES = {"pickle", "cPickle", "marshal", "shelve", "dill", "joblib", "yaml", "commands", "pty"}
CALLS = {
    "os.system", "os.popen", "os.spawnl", "os.spawnv", "subprocess.getoutput", "subprocess.getstatusoutput",
    "torch.load", "pandas.read_pickle", "pd.read_pickle", "tempfile.mktemp",
}  # fmt: skip
ASYNC_SHELL = "create_subprocess_shell"


def unsafe(tree: ast.AST) -> Iterator[str]:
    """``line: what`` for everything of the above."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (f"{node.lineno}: import {one.name}" for one in names if one.name.split(".")[0] in MODULES)
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in MODULES:
                yield f"{node.lineno}: from {module}"
            case ast.Call(func=func, keywords=keywords):
                name = ast.unparse(func)
                if name in BUILTINS | CALLS or name.endswith(ASYNC_SHELL):
                    yield f"{node.lineno}: {name}"
                if name == "YAML" and not any(
                    one.arg == "typ" and ast.unparse(one.value) in ("'safe'", "'rt'") for one in keywords
                ):
                    yield f"{node.lineno}: YAML without typ='safe'"
                for one in keywords:
                    if one.arg == "shell" and ast.unparse(one.value) != "False":
                        yield f"{node.lineno}: {name}(shell=...)"
                    if one.arg == "allow_pickle" and ast.unparse(one.value) != "False":
                        yield f"{node.lineno}: {name}(allow_pickle=...)"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_unsafe(path: Path) -> None:
    assert list(unsafe(ast.parse(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    "line",
    [
        "subprocess.run('ls', shell=True)", "os.system('ls')", "import pickle", "from yaml import load", "eval('1')",
        "exec(text)", "torch.load(path)", "np.load(path, allow_pickle=True)", "YAML(typ='unsafe')", "YAML()",
        "import os, pickle", "asyncio.create_subprocess_shell('ls')",
    ],
)  # fmt: skip
def test_it_would_be_seen(line: str) -> None:
    assert len(list(unsafe(ast.parse(line)))) == 1


def test_what_is_safe_is_not_seen() -> None:
    safe = "import subprocess\nsubprocess.run(['ls'], check=True)\nYAML(typ='safe', pure=True)\nre.compile('x')"
    assert list(unsafe(ast.parse(safe))) == []
