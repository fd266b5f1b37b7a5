"""What came out of a job, for people: a web page, a table for papers, a file for spreadsheets, and figures.

``found`` reads the work folder, ``tickets`` the tickets in it, ``measured`` and ``benches`` what was measured of them.
``compare`` says which method is best at each sparsity, and how sure that is. ``figures``, ``cost`` and
``measured_figures`` draw with ``drawing``, ``embedded`` fits a drawing into the page, ``tables`` writes CSV and LaTeX,
and ``pictures`` shows predictions beside the truth. ``sections`` and ``evidence`` say what each part of the page holds,
and ``write`` puts all of it together; the page's template, style sheet and script are in ``page/``.

Imports ``job`` (what its files hold), ``evidence`` (what its numbers mean), ``plugin``, ``ticket`` and ``base``. It
trains nothing and changes no result.
"""
