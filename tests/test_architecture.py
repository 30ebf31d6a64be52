"""The floors of the building: imports go down only, and what each part may know of the world."""

from __future__ import annotations

import ast
import functools
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FLOORS = (
    ("storage.statuses", "storage.spent"),
    (
        "storage.owed",
        "storage.records",
        "storage.errors",
        "storage.keys",
        "storage.packing",
        "storage.patience",
        "storage.observer",
    ),
    ("storage.cluster", "storage.topics", "storage.formats"),
    ("storage.connection", "storage.scripts", "storage.embedded_binary", "storage.embedded_process"),
    ("storage.terms",),
    (
        *("storage.responses", "storage.room", "storage.jobs", "storage.feed", "storage.deliveries"),
        *("storage.rates", "storage.usage", "storage.overview", "storage.processes"),
        *("storage.notify", "storage.embedded", "storage.inspection"),
    ),
    ("storage.open",),
    ("storage",),
    ("server",),
    ("server.errors", "server.protocol"),
    ("server.keyhash",),
    ("server.config.sections",),
    ("server.config.ours", "server.config.store_url"),
    ("server.config.credentials", "server.config.includes", "server.config.unused"),
    ("server.config.config",),
    ("server.config", "server.metrics", "server.tracing", "server.logs", "server.system"),
    ("server.sealing",),
    ("server.upstream", "server.hub", "server.keyring", "server.admission", "server.rates", "server.usage"),
    ("server.eventlog", "server.feed", "server.chain"),
    ("server.responses", "server.jobs"),
    ("server.outbox",),
    ("server.check", "server.check_fallbacks"),
    ("server.reload",),
    ("server.api",),
    ("server.process.assembly", "server.process.supervise", "server.simulator"),
    ("server.process.app",),
    ("server.process.serve",),
    ("server.process",),
    ("server.cli",),
    ("server.__main__",),
)
"""From the ground up. A module stands on the floor of the longest name that fits it."""

MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for package in ("server", "storage")
    for path in (ROOT / package).rglob("*.py")
)


def floor_of(module: str) -> tuple[int, str]:
    fitting = [
        (len(name), number, name)
        for number, floor in enumerate(FLOORS)
        for name in floor
        if module == name or (module.startswith(f"{name}.") and name not in ("storage", "server"))
    ]
    assert fitting, f"{module} stands on no floor"
    _, number, name = max(fitting)
    return number, name


def path_of(module: str) -> Path:
    base = ROOT.joinpath(*module.split("."))
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


@functools.cache
def nodes_of(module: str) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(path_of(module).read_text())))


def imports_of(module: str) -> Iterator[str]:
    """Every module that this one imports, also inside functions."""
    for node in nodes_of(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            yield node.module or ""


def imports_go_down_only(module: str) -> None:
    here, mine = floor_of(module)
    for imported in imports_of(module):
        if imported.split(".")[0] not in ("server", "storage"):
            continue
        there, theirs = floor_of(imported)
        assert there < here or mine == theirs or there == here, f"{module} imports {imported}, which is above it"


def what_a_module_may_know(module: str) -> None:
    imported = set(imports_of(module))
    tops = {name.split(".")[0] for name in imported}
    package = module.split(".", maxsplit=1)[0]
    assert "redis" not in tops or package == "storage", f"{module}: only storage speaks to Redis"
    assert "server" not in tops or package == "server", f"{module}: storage knows nothing of the server"
    if package == "server":
        inside = {name for name in imported if name.startswith("storage.")}
        assert not inside, f"{module}: the server uses the package storage, not its modules"
    if package == "storage" or module.startswith("server.protocol"):
        assert "aiohttp" not in tops, f"{module}: no HTTP here"
    if module.startswith("server.protocol"):
        assert not tops & {"asyncio", "redis", "time", "random", "storage"}, f"{module}: pure"
    if _uses_web(module):
        assert module.startswith(("server.api", "server.process.app", "server.simulator")), (
            f"{module}: only api and app serve HTTP"
        )


def _uses_web(module: str) -> bool:
    return any(
        isinstance(node, ast.ImportFrom)
        and (node.module == "aiohttp.web" or (node.module == "aiohttp" and any(a.name == "web" for a in node.names)))
        for node in nodes_of(module)
    )


def imports_stand_at_the_top_and_there_is_no_global(module: str) -> None:
    for node in nodes_of(module):
        assert not isinstance(node, ast.Global), f"{module}: line {node.lineno}"
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inside = [n for n in ast.walk(node) if isinstance(n, ast.Import | ast.ImportFrom)]
            assert not inside, f"{module}: import inside {node.name}"


def names_and_sizes(module: str) -> None:
    assert not module.endswith((".utils", ".common", ".helpers")), module
    text = path_of(module).read_text()
    assert text.count("\n") <= 400, f"{module}: is it still one thing?"
    for node in nodes_of(module):
        if isinstance(node, ast.ClassDef):
            assert not node.name.endswith(("Manager", "Handler", "Helper", "Util")), f"{module}: {node.name}"


@pytest.mark.parametrize(
    "rule",
    [imports_go_down_only, what_a_module_may_know, imports_stand_at_the_top_and_there_is_no_global, names_and_sizes],
)
def test_every_module_keeps_the_rule(rule: Callable[[str], None]) -> None:
    for module in MODULES:
        rule(module)


@functools.cache
def needed_by(module: str) -> set[str]:
    """What is loaded at the latest while this module is: the packages that it lies in, and all that it imports."""
    named = {module.rpartition(".")[0], *imports_of(module)}
    for node in nodes_of(module):
        if isinstance(node, ast.ImportFrom):  # of a package, which may give one of its modules
            named |= {f"{node.module}.{alias.name}" for alias in node.names}
    return named & set(MODULES) - {module}


def needs_itself(module: str) -> bool:
    seen, left = set[str](), [module]
    while left:
        new = needed_by(left.pop()) - seen
        seen |= new
        left += new
    return module in seen


def test_every_module_can_be_imported_first() -> None:
    """No cycle hides behind an order of imports. Only what lies in a cycle depends on an order at all."""
    script = """if True:
        import importlib, sys
        for name in sys.argv[1:]:
            for module in list(sys.modules):
                if module.split(".")[0] in ("server", "storage"):
                    del sys.modules[module]
            importlib.import_module(name)
    """
    modules = [module for module in MODULES if needs_itself(module)]
    assert "storage.keys" in modules, "its package imports it, and is loaded before it"
    subprocess.run([sys.executable, "-c", script, *modules], check=True, cwd=ROOT, timeout=60)


def test_the_top_level_of_the_repository_is_what_was_agreed() -> None:
    agreed = {"server", "storage", "tests", "deploy", "pyproject.toml", "README.md", "Makefile", "LICENSE"}
    agreed |= {"CHANGELOG.md", "requirements.lock"}
    if shutil.which("git") is None:
        pytest.skip("there is no git here")
    listing = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT, check=False)
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    found = {line.split("/")[0] for line in listing.stdout.splitlines()}
    assert {name for name in found if not name.startswith(".")} <= agreed
