"""A network without the channels that a ticket removed: really smaller, with the outputs of the masked network.

``groups`` finds the channels that Torch-Pruning's dependency graph ties together, and ``heads`` those of attention.
``constant`` finds the channels that always have one value, ``marks`` keeps those that will not after training, and
``fold`` adds that value to the next layer's bias. ``build`` does all of it, and checks with ``compare`` and ``choices``
that the outputs stay the same, in the float32 of ``wide``. ``files`` writes the network so that it loads without this
library, ``onnx_file`` writes it as ONNX, and ``quiet`` keeps torch's exporter silent.

Imports ``scoring``, ``ticket`` and the rooms below them.
"""
