"""The words of errors: short, whatever the number of names."""

import pytest
from torch._utils import ExceptionWrapper

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


def test_of_what_torch_hands_on_from_another_process_the_words_are_kept():
    try:
        with within("here"):
            raise PxframeError("wrong: PxframeError: it is said twice")
    except PxframeError as error:
        wrapped = ExceptionWrapper(where="in DataLoader worker process 0")
        assert "Traceback" in wrapped.exc_msg
        told = str(error)
    with pytest.raises(PxframeError) as caught:
        wrapped.reraise()
    assert str(caught.value) == told == "here: wrong: PxframeError: it is said twice"
