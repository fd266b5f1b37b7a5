"""One error message, for every library, for pre-trained weights that are neither cached nor can be downloaded."""

from __future__ import annotations

import os

from pxframe.base.errors import PxframeError


def no_weights(
    what: str, error: Exception, *, hub: str = "", file: str = "", url: str = "", cache: str = ""
) -> PxframeError:
    """Make the error to raise when a download of weights failed. It names the file and where the user may put it.

    Args:
        what: the backbone and the weights it needs; the message begins with it.
        error: the exception that the library raised.
        hub: repository of the weights on the Hugging Face hub, if they are there.
        file: name of the file in this repository.
        url: address of the file, if it is not on the hub.
        cache: folder in which the library looks for a file that was downloaded from ``url``.
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
