"""The table of ``docs/exactness.md``, read from the marks of the tests that prove its rows."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "exactness.md"
BEGIN, END = "<!-- table: made by tests/proofs/exactness.py -->", "<!-- end of table -->"


def proofs():
    """Give (row, situation, verdict, test) of every test that is marked to prove a row."""
    found = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            for mark in getattr(node, "decorator_list", ()):
                if isinstance(mark, ast.Call) and getattr(mark.func, "attr", "") == "proves":
                    given = {k.arg: ast.literal_eval(k.value) for k in mark.keywords}
                    test = f"{path.relative_to(ROOT).as_posix()}::{node.name}"
                    found.append((given["row"], given["situation"], given["verdict"], test))
    return sorted(found)


def table():
    """Give the table as Markdown."""
    lines = ["| | situation | what gradflow does | proved by |", "|---|---|---|---|"]
    for row, situation, verdict, test in proofs():
        path, _, name = test.partition("::")
        lines.append(f"| {row} | {situation} | {verdict} | [`{name}`](../{path}) |")
    return "\n".join(lines)


def with_table(page):
    """Give the page with the table as the tests have it now."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
