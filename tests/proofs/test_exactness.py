"""The page on exactness says what the tests prove, and nothing else."""

from tests.proofs import exactness


def test_the_table_is_what_the_tests_are_marked_with():
    page = exactness.PAGE.read_text(encoding="utf-8")
    assert page == exactness.with_table(page), "run: python -m tests.proofs.exactness"


def test_every_pitfall_has_a_row_and_none_has_two():
    rows = [row for row, *_ in exactness.proofs()]
    assert len(rows) == len(set(rows))
    assert set(rows) >= set(range(1, 41))
