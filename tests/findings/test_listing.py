"""A listing of findings: a tuple that tells its story."""

import copy
import pickle

from gradflow.findings import Findings
from gradflow.record import Finding

NOTE = Finding("note", "frozen", "2 of 4 parameters are frozen.", where="<b>")
WARNING = Finding("warning", "copies", "left and right are copies.", "Share one.")


def test_it_is_a_tuple_of_its_findings():
    found = Findings([NOTE, WARNING], about="Net")
    assert found == (NOTE, WARNING)
    assert found.warnings == (WARNING,)
    assert found.notes == (NOTE,)
    assert found.codes == ("frozen", "copies")


def test_copies_and_pickles_keep_what_it_is_about():
    found = Findings([NOTE], about="Net")
    for other in (copy.copy(found), copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        assert other == found
        assert other.about == "Net"


def test_text_and_html_tell_the_same():
    found = Findings([WARNING, NOTE], about="Net")
    assert repr(found).splitlines() == [
        "Net: 1 warning, 1 note",
        "Findings",
        "  warning: left and right are copies. Share one.",
        "  note: 2 of 4 parameters are frozen. (<b>)",
    ]
    page = found._repr_html_()
    assert "Net: 1 warning, 1 note" in page
    assert '<li class="gf-warning">warning: left and right are copies. Share one.</li>' in page
    assert '<li class="gf-note">note: 2 of 4 parameters are frozen. (&lt;b&gt;)</li>' in page


def test_nothing_found_is_said():
    assert repr(Findings(about="Net")) == "Net: nothing out of the ordinary"
    assert repr(Findings()) == "Nothing out of the ordinary"
    assert "Findings</strong>" not in Findings()._repr_html_()
