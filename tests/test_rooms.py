"""Dependencies point one way: bench, dc_export, depthcrafter, dc_rt. Read from the sources: nothing is imported."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from install_helpers import ROOT

# From the top down: a package may import those behind it.
PACKAGES = {"bench": ROOT, "dc_export": ROOT / "export", "depthcrafter": ROOT, "dc_rt": ROOT / "runtime"}

# The reference and the runtime share the method, in the runtime's modules that know no engine, and how users are told.
WITHOUT_ENGINES = {
    "attention",
    "windows",
    "sampler",
    "schedule",
    "noise",
    "resize",
    "errors",
    "installation",
    "options",
    "on_demand",
    "torch_steps",
}
# The reference is a backend too, and takes the checkpoint that is bundled.
MEETS_ENGINES = {"depthcrafter.engine": {"dc_rt.engine"}, "depthcrafter.source": {"dc_rt.engine.discovery"}}


@dataclass
class Imports:
    """What the modules of a folder import, by module; of our own packages alone."""

    anywhere: dict[str, set[str]] = field(default_factory=dict)
    at_once: dict[str, set[str]] = field(default_factory=dict)


def read(folder: Path, package: str) -> Imports:
    """Read the imports of all modules of `folder/package`."""
    imports = Imports()
    paths = {module_name(path.relative_to(folder)): path for path in sorted((folder / package).rglob("*.py"))}
    for name, path in paths.items():
        is_package = path.name == "__init__.py"
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imports.anywhere[name] = set(imports_of(ast.walk(tree), name, is_package, paths))
        imports.at_once[name] = set(imports_of(run_at_once(tree.body), name, is_package, paths))
    return imports


def module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def run_at_once(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """What runs when the module is imported: no function's body, and nothing that is for type checkers."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from run_at_once(node.orelse)
            continue
        yield node
        for inner in ("body", "orelse", "finalbody"):
            yield from run_at_once(getattr(node, inner, []))
        for handler in getattr(node, "handlers", []):
            yield from run_at_once(handler.body)


def imports_of(nodes: Iterator[ast.AST], module: str, is_package: bool, known: Collection[str]) -> Iterator[str]:
    """Names that are imported: modules, and what may be one of a package's."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = module.split(".")[: len(module.split(".")) - node.level + is_package]
                base = ".".join([*above, *([base] if base else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
            # A package is under way when its modules are imported from it: that is no circle.
            yield from names if set(names) <= set(known) else [base, *names]
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func) and node.args:
            constants = (part.value for part in ast.walk(node.args[0]) if isinstance(part, ast.Constant))
            yield from (value for value in constants if isinstance(value, str))


def find_cycle(graph: Mapping[str, set[str]]) -> list[str]:
    """Modules that import one another in turn, the first one at both ends; none where there are no such."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        for other in sorted(graph[module] & graph.keys() - {module}):
            if cycle := visit(other, [*path, module]):
                return cycle
        done.add(module)
        return []

    return next((cycle for module in sorted(graph) if (cycle := visit(module, []))), [])


def upward(package: str, imports: Imports) -> list[str]:
    """Imports of packages that stand above."""
    above = list(PACKAGES)[: list(PACKAGES).index(package)]
    return sorted(
        f"{module} imports {name}"
        for module, names in imports.anywhere.items()
        for name in names
        if name.split(".")[0] in above
    )


@pytest.fixture(scope="module")
def ours() -> dict[str, Imports]:
    return {package: read(folder, package) for package, folder in PACKAGES.items()}


def test_every_room_is_read(ours: dict[str, Imports]) -> None:
    assert all(len(imports.anywhere) > 5 for imports in ours.values())
    assert "dc_rt.errors" in ours["depthcrafter"].anywhere["depthcrafter.checkpoint"]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_package_imports_one_above_it(ours: dict[str, Imports], package: str) -> None:
    """Within functions and for type checkers neither."""
    assert upward(package, ours[package]) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_modules_import_one_another_in_a_circle(ours: dict[str, Imports], package: str) -> None:
    assert find_cycle(ours[package].at_once) == []


def test_the_reference_uses_what_knows_no_engine(ours: dict[str, Imports]) -> None:
    modules = ours["dc_rt"].anywhere.keys()
    for module, names in ours["depthcrafter"].anywhere.items():
        used = {name for name in names & modules if name != "dc_rt"}
        allowed = {f"dc_rt.{name}" for name in WITHOUT_ENGINES} | MEETS_ENGINES.get(module, set())
        assert used <= allowed, f"{module} uses {sorted(used - allowed)}"


@pytest.mark.parametrize("name", sorted(WITHOUT_ENGINES))
def test_what_the_reference_uses_reaches_no_engine(ours: dict[str, Imports], name: str) -> None:
    graph = ours["dc_rt"].at_once
    reached, waiting = set(), [f"dc_rt.{name}"]
    while waiting:
        module = waiting.pop()
        if module not in reached:
            reached.add(module)
            waiting += graph[module] & graph.keys()
    assert [module for module in sorted(reached) if module.startswith(("dc_rt.engine", "dc_rt.pipeline"))] == []


UPWARD = {
    "at the top": ("import depthcrafter.unet", "depthcrafter.unet"),
    "in a function": ("def f():\n    from dc_export import build", "dc_export.build"),
    "for type checkers": ("if TYPE_CHECKING:\n    from bench.speed import worker", "bench.speed.worker"),
    "by name": ("import_module('dc_export.build')", "dc_export.build"),
}


@pytest.mark.parametrize(("text", "imported"), UPWARD.values(), ids=UPWARD)
def test_an_upward_import_is_found(tmp_path: Path, text: str, imported: str) -> None:
    (tmp_path / "dc_rt").mkdir()
    (tmp_path / "dc_rt" / "job.py").write_text(f"from dc_rt.errors import UserError\n{text}\n")
    assert f"dc_rt.job imports {imported}" in upward("dc_rt", read(tmp_path, "dc_rt"))


CIRCLES = {
    "of two": ({"a": "import dc_rt.b", "b": "from dc_rt.a import f"}, ["dc_rt.a", "dc_rt.b", "dc_rt.a"]),
    "by from": ({"a": "from dc_rt import b", "b": "from . import a"}, ["dc_rt.a", "dc_rt.b", "dc_rt.a"]),
    "with a package": (
        {"job/__init__": "from dc_rt.job.plan import f", "job/plan": "from dc_rt.job import g"},
        ["dc_rt.job", "dc_rt.job.plan", "dc_rt.job"],
    ),
    "in a class and a try": (
        {"a": "try:\n    import dc_rt.b\nexcept ImportError:\n    pass", "b": "class C:\n    import dc_rt.a"},
        ["dc_rt.a", "dc_rt.b", "dc_rt.a"],
    ),
    "not in a function": ({"a": "import dc_rt.b", "b": "def f():\n    import dc_rt.a"}, []),
    "not for type checkers": ({"a": "import dc_rt.b", "b": "if TYPE_CHECKING:\n    import dc_rt.a"}, []),
}


@pytest.mark.parametrize(("sources", "cycle"), CIRCLES.values(), ids=CIRCLES)
def test_a_circle_is_found(tmp_path: Path, sources: dict[str, str], cycle: list[str]) -> None:
    for name, text in sources.items():
        path = tmp_path / "dc_rt" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert find_cycle(read(tmp_path, "dc_rt").at_once) == cycle
