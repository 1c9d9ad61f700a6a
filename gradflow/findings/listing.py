"""Several findings together: a tuple that tells its story in a terminal and in a notebook."""

from __future__ import annotations

from collections.abc import Iterable

from gradflow.record import Finding

__all__ = ["Findings"]


class Findings(tuple[Finding, ...]):
    """What is wrong or worth seeing, in the order in which it was found.

    Args:
        found: The findings.
        about: What they are about, for the headline.

    Attributes:
        about: What they are about; not compared, two listings of the same findings are equal.

    Example:
        >>> found = Findings([Finding("note", "frozen", "2 of 4 parameters are frozen.")], about="Net")
        >>> found
        Net: no warning, 1 note
        Findings
          note: 2 of 4 parameters are frozen.
        >>> found.codes, len(found.warnings)
        (('frozen',), 0)
    """

    about: str

    def __new__(cls, found: Iterable[Finding] = (), *, about: str = "") -> Findings:
        """Take in the findings; a tuple is made here and cannot be changed later."""
        self = super().__new__(cls, found)
        self.about = about
        return self

    @property
    def warnings(self) -> Findings:
        """Those that put the numbers or the training in doubt."""
        return Findings((f for f in self if f.severity == "warning"), about=self.about)

    @property
    def notes(self) -> Findings:
        """Those that tell what the numbers show."""
        return Findings((f for f in self if f.severity != "warning"), about=self.about)

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes, each once, in order; ``docs/findings.md`` explains them."""
        return tuple(dict.fromkeys(f.code for f in self))

    def __getnewargs_ex__(self) -> tuple[tuple[tuple[Finding, ...]], dict[str, str]]:
        return (tuple(self),), {"about": self.about}

    def __repr__(self) -> str:
        from gradflow.render import text

        return text.findings(self)

    def _repr_html_(self) -> str:
        from gradflow.render import html

        return html.findings(self)
