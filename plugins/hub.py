"""The error of pre-trained weights that are neither cached nor reachable, in the same words for every library."""

from __future__ import annotations

import os

from pxframe.base.errors import PxframeError


def no_weights(
    what: str, error: Exception, *, hub: str = "", file: str = "", url: str = "", cache: str = ""
) -> PxframeError:
    """The error to raise where the download of weights ended in ``error``: which file it is, and where it may be put.

    Args:
        what: the weights, with the backbone that asks for them.
        hub: their repository on the Hugging Face hub, if they lie there, and ``file`` their file in it.
        url: the address of the file otherwise, and ``cache`` the folder in which the library looks for it.
    """
    from huggingface_hub.constants import HF_HUB_CACHE

    cause = f"{type(error).__name__}: {error}".splitlines()[0]
    if hub:
        wanted, cache = f"{file} of {hub} on the Hugging Face hub", HF_HUB_CACHE
        folder = f"models--{hub.replace('/', '--')}"
        remedy = f"copy the folder {folder} there from the cache of a machine that has it"
    elif url:
        wanted, remedy = url, "put the file there"
    else:
        return PxframeError(f"{what}: the library knows none; give a local file as 'checkpoint' ({cause})")
    return PxframeError(
        f"{what}: {wanted} is neither cached in {os.path.expanduser(cache)} nor reachable; {remedy}, "
        f"or give a local file as 'checkpoint' ({cause})"
    )
