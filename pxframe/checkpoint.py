"""The old place of :func:`pxframe.load_checkpoint`, which plug-ins import it from."""

from pxframe.plugin.checkpoint import load_checkpoint, read_checkpoint

__all__ = ["load_checkpoint", "read_checkpoint"]
