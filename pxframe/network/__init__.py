"""The network that a scorer sees: a function of its weights, which changes nothing of the model.

``net`` is that network. ``traces`` keeps its graphs, ``ties`` says which channels go together, and ``trained`` trains a
copy. ``written`` notices a scorer that writes into it, and ``requirements`` collects conditions that are checked at the
end of a round.

Imports ``passes``, ``engine``, ``running`` and ``base``.
"""
