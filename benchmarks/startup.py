"""How long `pxframe list`, and the first prune of a process, take against `python -c "import torch"`.

The commands alternate; ratios are of medians::

    python benchmarks/startup.py [--pairs 10]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

PRUNE = """
import torch, pxframe
model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(288, 10))
pxframe.prune(model, [(torch.randn(4, 3, 8, 8), None)], "px", sparsity=0.5, rounds=1)
"""
COMMANDS = {
    "pxframe list": [sys.executable, "-c", "from pxframe_tools.cli import main; main(['list'])"],
    "first prune": [sys.executable, "-c", PRUNE],
    "import torch": [sys.executable, "-c", "import torch"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=10)
    pairs = parser.parse_args().pairs
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for turn in range(pairs + 1):
        for name, command in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            if turn:  # the first fills the file cache
                seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    for name, median in medians.items():
        print(f"{name:<14}{median:6.2f} s, {median / medians['import torch']:.2f} of import torch")


if __name__ == "__main__":
    main()
