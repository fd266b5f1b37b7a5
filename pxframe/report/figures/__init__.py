"""Figures for the page and for papers.

``curves`` draws results against sparsity and what is left of each layer, ``measured`` what other commands measured.
``drawing`` has the style of all of them, and ``embedded`` fits one into the page. ``pictures`` shows predictions beside
the truth.
"""
