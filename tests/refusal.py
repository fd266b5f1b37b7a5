"""What every refusal must be: one line that says the right things."""

import pytest

from pxframe.base.errors import PxframeError


def refused(call, *parts):
    with pytest.raises(PxframeError) as error:
        call()
    text = str(error.value)
    assert "\n" not in text
    assert all(part in text for part in parts), text
