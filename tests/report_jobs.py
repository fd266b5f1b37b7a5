"""Work folders made by hand, as a job would leave them, for the tests of the report."""

import json

import torch

from pxframe.ticket.ticket import Ticket

TOTAL = 1000


def row(value, method="px", sparsity=0.9, seed=0, task="digits", **more):
    """One row of results; the variant is named as a job names it."""
    kept = round(TOTAL * (1 - sparsity))
    return {
        "task": task,
        "variant": f"{method}-{100 * sparsity:.2f}" if sparsity else method,
        "method": method,
        "seed": seed,
        "metric": "accuracy",
        "unit": "%",
        "higher_is_better": True,
        "value": value,
        "metrics": {"accuracy": value},
        "seconds": 2.0 + seed,
        "epochs": 3,
        "sparsity": sparsity,
        "prunable_left": kept,
        "prunable_total": TOTAL,
        "diverged": None,
        "collapsed": None,
        **more,
    }


def several(task="digits"):
    """Three seeds of two methods at two levels, and a dense network: px leads at 90 %, magnitude by less at 80 %."""
    values = {
        ("dense", 0.0): (95, 96, 97),
        ("px", 0.8): (90, 93, 91),
        ("magnitude", 0.8): (92, 92, 93),
        ("px", 0.9): (80, 81, 82),
        ("magnitude", 0.9): (70, 71.5, 71),
    }
    return [row(v, m, s, seed, task) for (m, s), found in values.items() for seed, v in enumerate(found)]


def write(root, rows, job=True, **more):
    """``results.json`` of these rows and ``job.json``; ``more`` goes into the latter. Gives the folder."""
    root.mkdir(exist_ok=True)
    about = {"config": "configs/mine.py", "device": "cpu", "seeds": sorted({r["seed"] for r in rows})}
    (root / "results.json").write_text(json.dumps({"rows": rows, "versions": {"torch": "2.11.0"}, **about}))
    tasks = list(dict.fromkeys(r["task"] for r in rows))
    settings = {
        "file": "configs/mine.py",
        "seeds": about["seeds"],
        "tasks": {task: {"type": "classification"} for task in tasks},
        "chosen": tasks,
        "variants": list(dict.fromkeys(r["variant"] for r in rows)),
        "device": "cpu",
        "threads": 2,
        **more,
    }
    if job:
        (root / "job.json").write_text(json.dumps(settings))
    return root


def ticket(root, variant, seed=0, meta=None, **kept):
    """A ticket of layers ``[4, 5]``; ``kept`` says how many rows of each are kept, whole."""
    masks = {}
    for name, rows in kept.items():
        masks[f"{name}.weight"] = torch.zeros(4, 5, dtype=torch.bool)
        masks[f"{name}.weight"][:rows] = True
    folder = root / f"seed-{seed}" / "tickets"
    folder.mkdir(parents=True, exist_ok=True)
    Ticket(masks, meta or {}).save(folder / f"{variant}.safetensors")


def measured(root, rows, layers=20):
    """``spectrum.json``, ``width.json`` and ``timing.json`` of the tickets that the rows are of."""
    tickets = list({(r["variant"], r["seed"]): r for r in rows if r["value"] is not None}.values())
    about = [{key: row[key] for key in ("variant", "method", "seed", "sparsity")} for row in tickets]
    spectra = [
        {
            **{**one, "eigenvalues": [10.0 ** (5 - n / 50 - one["sparsity"]) for n in range(250)], "largest": 1e5},
            **{"distance": one["sparsity"], "relative_trace": 1 - one["sparsity"]},
        }
        for one in about
    ]
    counts = [{"name": f"layer{n}.weight", "units": 16, "kept": 16 - n % 9, "connected": 7} for n in range(layers)]
    shares = {"kept": 0.8, "connected": 0.5, "narrowest": 7 / 16, "depth": layers, "layers_in_all": layers}
    times = [{**row, "rounds": 1 + n % 3, "prune_seconds": 1.5 + n % 3} for n, row in enumerate(rows)]
    found = {"spectrum": spectra, "width": [{**one, "layers": counts, **shares} for one in about], "timing": times}
    for what, some in found.items():
        (root / f"{what}.json").write_text(json.dumps({"rows": some, "images": 100}))
