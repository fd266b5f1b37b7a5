"""The hooks of a runner.

``weights`` sets the weights that a run begins with and keeps pruned ones at zero, ``repeatable`` seeds every epoch and
keeps checkpoints plain, ``reports`` shows and records the progress, and ``sharing`` lets several processes train one
model.
"""
