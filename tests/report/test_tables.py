"""CSV and LaTeX, read back."""

import csv
import io
import re

import report_jobs as jobs

from pxframe.report.data.compare import answers
from pxframe.report.tables import csv_text, escaped, latex_text

NASTY = r"a_b 50% & #1 $x$ {y} \z ~ ^ <i> |"
_BACK = {
    **{rf"\{c}": c for c in "&%$#_{}"},
    **{r"\textbackslash{}": "\\", r"\textasciitilde{}": "~", r"\textasciicircum{}": "^"},
    **{r"\textless{}": "<", r"\textgreater{}": ">", r"\textbar{}": "|"},
}


def unescaped(text):
    """What LaTeX prints for a text without commands of its own."""
    pattern = "|".join(sorted(map(re.escape, _BACK), key=len, reverse=True))
    rest = re.sub(pattern, "", text)
    assert not set(rest) & set("&%$#_{}\\~^<>|"), rest
    return re.sub(pattern, lambda found: _BACK[found[0]], text)


def body(text):
    """The cells of each line between the rules."""
    lines = text.split("\\midrule\n")[1].split("\\bottomrule")[0].splitlines()
    return [[cell.strip() for cell in re.split(r"(?<!\\)&", line.removesuffix(r" \\"))] for line in lines]


def test_every_run_is_in_the_csv_with_its_numbers_in_full():
    rows = [
        *(jobs.row(100 / 3 + seed, "px", seed=seed, zero_shot={"mask": 10.5}) for seed in (0, 1)),
        jobs.row(None, 'odd, "name"\nin two lines', collapsed="no path", metrics={}, diverged=None),
    ]
    read = list(csv.DictReader(io.StringIO(csv_text(rows))))
    assert len(read) == 3
    for line, row in zip(read, rows, strict=True):
        assert (line["method"], line["variant"], int(line["seed"])) == (row["method"], row["variant"], row["seed"])
        assert (float(line["value"]) if line["value"] else None) == row["value"]
        assert float(line["sparsity"]) == row["sparsity"]
    assert [line["zero_shot.mask"] for line in read] == ["10.5", "10.5", ""]
    assert float(read[0]["metrics.accuracy"]) == rows[0]["metrics"]["accuracy"]
    assert read[2]["collapsed"] == "no path"


def test_latex_has_means_deviations_and_the_best_in_bold():
    rows = jobs.several()
    text = latex_text(rows, answers(rows))
    assert re.search(r"digits: accuracy \(\\%\) \$\\uparrow\$", text)
    assert r"method & 80\,\% & 90\,\% \\" in text
    cells = {line[0]: line[1:] for line in body(text)}
    assert cells["px"] == [r"$91.33 \pm 1.53$", r"$\mathbf{81.00} \pm 1.00$"]
    assert cells["magnitude"] == [r"$\mathbf{92.33} \pm 0.58$", r"$70.83 \pm 0.76$"]
    assert cells["dense (no weight pruned)"] == [r"\multicolumn{2}{c}{$96.00 \pm 1.00$}"]


def test_latex_takes_names_for_text():
    assert unescaped(escaped(NASTY)) == NASTY
    rows = [jobs.row(1.0, NASTY, task=NASTY, metric=NASTY, unit=NASTY)]
    text = latex_text(rows, answers(rows))
    ((name, value),) = body(text)
    assert unescaped(name) == NASTY
    assert value == r"$\mathbf{1.00}$"
    head = next(line for line in text.splitlines() if "sparsity" in line and not line.startswith("%"))
    assert head.count(escaped(NASTY)) == 3


def test_latex_says_what_collapsed_or_diverged_or_is_not_there():
    rows = [
        jobs.row(None, "px", collapsed="no path"),
        jobs.row(5.0, "snip", diverged=1),
        jobs.row(float("nan"), "imp", diverged=1),
        jobs.row(7.0, "random", 0.8, higher_is_better=False),
    ]
    cells = {line[0]: line[1:] for line in body(latex_text(rows, answers(rows)))}
    assert cells["px"] == ["--", "collapsed"]
    assert cells["snip"] == ["--", "$5.00$ (1 diverged)"]
    assert cells["imp"] == ["--", "diverged (1 diverged)"]
    assert cells["random"][1] == "--"
