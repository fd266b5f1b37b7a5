"""A network without the channels that a ticket removed: smaller in fact, with the outputs of the masked one.

``groups``: channels that Torch-Pruning's dependency graph ties together; ``constant``: which of them carry nothing;
``fold``: what they add goes into what is left; ``heads``: attention heads; ``build``: all of it, and the proof that
nothing changed, by ``compare`` and ``choices``; ``files``: what is written, and read again without this library;
``onnx_file``: the same for ONNX.
"""
