"""The defences that ``make mutations`` takes away stand where it looks for them, and so do its tests."""

import pytest

from tests.mutations import MUTATIONS, ROOT


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.defence.replace(" ", "-"))
def test_a_mutation_finds_its_defence_and_its_test(mutation):
    assert (ROOT / "gradflow" / mutation.file).read_text(encoding="utf-8").count(mutation.old) == 1
    path, _, name = mutation.test.partition("::")
    assert f"def {name}(" in (ROOT / "tests" / path).read_text(encoding="utf-8")
