"""The forms of what a model is given."""

from dataclasses import dataclass

import numpy as np
import torch
from refusal import refused

from pxframe.running.inputs import (
    described,
    dtype_of,
    few,
    first,
    leaves,
    samples,
    shapes,
    signature,
    split,
    starting_tensors,
)

X, Y, N = torch.randn(5, 3, 4), torch.randn(5, 2, dtype=torch.float64), torch.arange(5)


def test_samples_are_cut_from_every_tensor_and_nothing_else():
    inputs = {"a": X, "b": {"c": (Y, [N])}, "d": 7}
    assert samples(inputs) == 5
    one = first(inputs)
    assert (one["a"].shape, one["b"]["c"][0].shape, one["b"]["c"][1][0].shape) == ((1, 3, 4), (1, 2), (1,))
    assert one["d"] == 7
    assert [samples(part) for part in split(inputs, 2)] == [2, 2, 1]
    assert torch.equal(torch.cat([part["b"]["c"][1][0] for part in split(inputs, 2)]), N)


def test_paths_start_at_numbers_with_a_fraction_if_there_are_any():
    assert [id(t) for t in starting_tensors((X, N, Y))] == [id(X), id(Y)]
    assert dtype_of((N, X)) is torch.float32
    assert dtype_of((X, Y)) is torch.float64
    assert starting_tensors({"words": N})[0] is N


def test_a_list_among_the_arguments_may_hold_a_sample_an_entry_so_checks_do_not_cut_it():
    images = [torch.randn(3, 8, 9), torch.randn(3, 7, 8)]
    inputs = (images, [{"boxes": torch.rand(3, 4)}, {"boxes": torch.rand(3, 4)}])
    assert few(inputs, 1) is inputs
    assert samples(few([X, Y], 2)) == 2  # these are two arguments
    refused(lambda: samples((X, N[:2])), "first dimension", "[5, 3, 4] and torch.float32, [2] and torch.int64")


def test_a_signature_tells_apart_what_gives_another_graph():
    same = [(X, N), (X + 1, N.clone())]
    other = [[X, N], (X[:1], N), (X.double(), N), (X, N, True), (X, N, 1), (X, N, 1.0), {"a": X, "b": N}, (X, (N,))]
    assert signature(same[0]) == signature(same[1])
    assert len({signature(inputs) for inputs in [*same, *other]}) == 1 + len(other)
    assert signature({"a": [X], "b": {1: N}}) == signature({"a": [X], "b": {1: N}})


@dataclass
class Sample:
    image: torch.Tensor
    scale: np.ndarray


def test_a_signature_tells_apart_arrays_by_all_of_their_entries():
    ones, other = np.ones(5000), np.ones(5000)
    other[2500] = 2
    arrays = [ones, other, ones.astype(np.float32), ones.reshape(50, 100)]
    for wrap in (lambda a: (X, a), lambda a: {"x": X, "more": [a]}, lambda a: (Sample(X, a),)):
        assert len({signature(wrap(a)) for a in arrays}) == len(arrays)
        assert signature(wrap(ones)) == signature(wrap(ones.copy()))


def test_descriptions():
    assert described(X) == "inputs of shape [5, 3, 4] and torch.float32"
    assert shapes({"a": X, "b": [N, "text"]}) == {"a": [3, 4], "b": [[], "text"]}
    assert shapes(X) == [3, 4]
    assert len(leaves((X, [Y, {"n": N}], None))) == 3
