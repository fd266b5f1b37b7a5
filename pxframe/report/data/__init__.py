"""What the work folder of a job holds, and what follows from it.

``found`` reads the results, ``tickets`` the tickets, ``measured`` and ``benches`` what was measured of them.
``compare`` says which method is best at each sparsity, and how sure that is.
"""
