"""A network without the channels that a ticket removed: smaller in fact, with the outputs of the masked one.

``groups`` finds the channels that Torch-Pruning's dependency graph ties together, and ``heads`` those of attention.
``constant`` finds which of them carry nothing, ``marks`` keeps those that will carry something once they are trained,
and ``fold`` adds what they carry to what is left. ``build`` does all of it, and proves that nothing changed with
``compare`` and ``choices``. ``files`` writes the network so that it loads without this library, ``onnx_file`` writes it
as ONNX, and ``quiet`` keeps torch's exporter silent.

Imports ``scoring``, ``ticket`` and the rooms below them.
"""
