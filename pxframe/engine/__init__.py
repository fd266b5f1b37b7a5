"""The path engine: one trace of the model, read as f, as g and as h.

``trace`` makes the aten graph; ``scaled`` are values that cannot overflow; ``reading`` says what a path network
takes for its weights and gates; ``factors`` tells what multiplies paths and carries none (attention weights);
``interpret`` runs f and any number of readings node by node with the rules of ``linear``, ``gates``, ``norms`` and
``shapes``; ``paths`` has the quantities of the PX paper.
"""
