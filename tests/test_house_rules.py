"""The hard stops of CONTRIBUTING.md, read off the source with ``ast``."""

import ast
from pathlib import Path

import pytest

import gradflow
from gradflow.render import figures

PACKAGE = Path(gradflow.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
VAGUE = {"utils", "util", "helpers", "helper", "misc", "common", "stuff"}
MOST_LINES, MOST_BODY, MOST_PARAMETERS, MOST_NAMES = 400, 60, 6, 18
MANY_PARAMETERS = {"watch", *figures.__all__}  # their arguments are the wishes of whoever calls them

Function = ast.FunctionDef | ast.AsyncFunctionDef


def is_public(name):
    return not name.startswith("_")


def long_functions(tree):
    for node in ast.walk(tree):
        if isinstance(node, Function):
            lines = node.end_lineno - node.body[0].lineno + 1
            if lines > MOST_BODY:
                yield f"line {node.lineno}: {node.name} has {lines} lines"


def greedy_functions(tree):
    for node in ast.walk(tree):
        if isinstance(node, Function) and node.name not in MANY_PARAMETERS:
            args = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            wanted = [a.arg for a in args if a.arg not in ("self", "cls")]
            if len(wanted) > MOST_PARAMETERS:
                yield f"line {node.lineno}: {node.name} has {len(wanted)} parameters"


def undocumented(tree):
    if not ast.get_docstring(tree):
        yield "the module"
    yield from undocumented_inside(tree)


def undocumented_inside(node):
    for child in node.body:
        if isinstance(child, Function | ast.ClassDef) and is_public(child.name):
            overloaded = any(ast.unparse(d) == "overload" for d in child.decorator_list)
            if not ast.get_docstring(child) and not overloaded:
                yield f"line {child.lineno}: {child.name}"
            if isinstance(child, ast.ClassDef):
                yield from undocumented_inside(child)


def source(path):
    return path.read_text(encoding="utf-8")


@pytest.fixture(params=MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def module(request):
    return request.param


def test_a_module_has_at_most_400_lines(module):
    assert len(source(module).splitlines()) <= MOST_LINES


def test_a_function_has_at_most_60_lines(module):
    assert list(long_functions(ast.parse(source(module)))) == []


def test_a_function_has_at_most_6_parameters(module):
    assert list(greedy_functions(ast.parse(source(module)))) == []


def test_a_module_is_named_after_what_it_knows(module):
    assert not {*module.relative_to(PACKAGE).with_suffix("").parts} & VAGUE


def test_everything_public_has_a_docstring(module):
    assert list(undocumented(ast.parse(source(module)))) == []


def test_the_front_door_is_narrow_and_every_name_opens():
    assert len(gradflow.__all__) == len(set(gradflow.__all__)) <= MOST_NAMES
    for name in gradflow.__all__:
        assert getattr(gradflow, name) is not None, name
    assert set(gradflow.__all__) <= set(dir(gradflow))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = gradflow.nonsense


BAD = f'''
def greedy(a, b, c, d, *, e, f, g):
    """Ask for too much."""

class Nameless:
    def method(self, a, b, c, d, e, f):
        {"x = 1; " * 3}
{"        y = 2" + chr(10) * 61}
        return 1
'''


def test_these_rules_can_be_broken():
    tree = ast.parse(BAD)
    assert list(greedy_functions(tree)) == ["line 2: greedy has 7 parameters"]
    assert [found.split(": ")[1] for found in long_functions(tree)] == ["method has 64 lines"]
    assert list(undocumented(tree)) == ["the module", "line 5: Nameless", "line 6: method"]
