"""The words of errors: short, whatever the number of names."""

import pytest

from pxframe.base.errors import PxframeError, near, some, within


def test_near_names_what_is_close():
    assert near("magnitud", ["px", "magnitude"]) == "; did you mean 'magnitude'?"


def test_near_shows_the_first_few_of_many_names():
    known = [f"name{i:02d}" for i in range(37)]
    text = near("zzz", known)
    assert text == f"; known: {', '.join(known[:8])} and 29 more"
    assert near("zzz", []) == "; known: none"
    assert near("zzz", ["b", "a"]) == "; known: a, b"


def test_near_takes_names_of_any_type():
    assert near("zzz", [3, "a", None]) == "; known: 3, None, a"


def test_some_counts_the_rest():
    assert some("abcdef") == "a, b, c, d and 2 more"
    assert some("abcd") == "a, b, c, d"
    assert some([]) == ""


def test_within_says_where():
    with pytest.raises(PxframeError, match=r"^here: wrong$"), within("here"):
        raise PxframeError("wrong")
