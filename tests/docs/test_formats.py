"""docs/formats.md says what the code reads."""

from gram.server.cli.formats import document
from tests.docs.support import ROOT


def test_the_page_of_formats_is_what_the_code_says() -> None:
    assert (ROOT / "docs" / "formats.md").read_text() == document()
