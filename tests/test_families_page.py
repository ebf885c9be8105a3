"""docs/families.md says what the checks say."""

import pytest

from tests.families_page import PAGE, page
from tests.tiny_vlms import SKIPPED


def test_the_page_on_families_is_what_the_checks_say():
    if SKIPPED:
        pytest.skip(f"the page needs every processor; missing: {'; '.join(SKIPPED.values())}")
    assert PAGE.read_text(encoding="utf-8") == page(), (
        f"{PAGE.name} is out of date: run python -m tests.families_page"
    )
