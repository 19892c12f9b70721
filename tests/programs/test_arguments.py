"""What programs are called with: nests of arguments, split into examples."""

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from pyro_vae.programs.arguments import Arguments, Shared


class Sequences(NamedTuple):
    values: Tensor
    lengths: Tensor


def returned(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
    return args, kwargs


def nested() -> Arguments:
    """Five examples, in every kind of nest, and much that is none."""
    return Arguments(
        torch.arange(5.0),
        [torch.arange(10).reshape(5, 2), ("text", None, 3)],
        {"a": (torch.arange(5) + 10, torch.zeros(3)), "b": 2.5},
        Sequences(torch.arange(15).reshape(5, 3), torch.arange(5)),
        torch.tensor(7.0),
        table=Shared(torch.arange(5)),
        flag=True,
    )


def test_data_are_arguments() -> None:
    x = torch.zeros(3)
    assert Arguments.of(x).args == (x,) and Arguments.of(x).kwargs == {}
    assert Arguments.of((x, 2)).args == (x, 2)
    assert Arguments.of([x, 2]).args == ([x, 2],)
    assert Arguments.of({"x": x}).args == ({"x": x},) and Arguments.of({"x": x}).kwargs == {}
    given = Arguments(x, y=1)
    assert Arguments.of(given) is given
    assert Arguments.of(()).args == () and len(Arguments.of(())) == 0
    # A named tuple is a tuple: one argument for each field.
    assert Arguments.of(Sequences(x, x)).args == (x, x)


def test_programs_get_what_was_given() -> None:
    """Marks are removed, containers keep their types, and nothing is copied."""
    arguments = nested()
    args, kwargs = arguments.call(returned)
    assert args[0] is arguments.args[0] and kwargs["table"] is arguments.kwargs["table"].value
    assert type(args[1]) is list and type(args[1][1]) is tuple and args[1][1] == ("text", None, 3)
    assert type(args[3]) is Sequences and args[3].lengths is arguments.args[3].lengths
    assert args[2]["b"] == 2.5 and kwargs["flag"] is True
    inside = Arguments(torch.zeros(3), [Shared(4), {"a": Shared(None)}]).call(returned)[0]
    assert inside[1] == [4, {"a": None}]


def test_the_number_of_examples() -> None:
    """It is that of the first tensor with dimensions, in order, outside of `Shared`."""
    assert len(nested()) == 5
    assert len(Arguments()) == len(Arguments(1, None, "x", torch.tensor(3.0))) == 0
    assert len(Arguments(torch.tensor(3.0), torch.zeros(4, 2), torch.zeros(9))) == 4
    assert len(Arguments(Shared(torch.zeros(7)), y=torch.zeros(2))) == 2
    assert len(Arguments(torch.zeros(0, 3), torch.zeros(4))) == 0


@pytest.mark.parametrize("rows", [slice(1, 3), torch.tensor([1, 2])])
def test_examples_are_taken(rows: slice | Tensor) -> None:
    taken = nested().take(rows)
    assert len(taken) == 2
    args, kwargs = taken.call(returned)
    assert args[0].tolist() == [1, 2]
    assert args[1][0].tolist() == [[2, 3], [4, 5]]
    assert args[2]["a"][0].tolist() == [11, 12] and args[2]["a"][1].shape == (3,)
    assert type(args[3]) is Sequences and args[3].values.shape == (2, 3)
    assert args[3].lengths.tolist() == [1, 2]
    assert args[4].item() == 7 and kwargs["table"].shape == (5,) and kwargs["flag"] is True
    # The mark stays: the table is never split, whatever its size.
    again = Arguments(torch.zeros(5), Shared(torch.zeros(5))).take(slice(2)).take(slice(1))
    assert [len(item) for item in again.call(returned)[0]] == [1, 5]


def test_batches_are_all_examples_in_order() -> None:
    arguments = nested()
    for size in (1, 2, 3, 4, 5, 6):
        batches = list(arguments.split(size))
        assert [len(batch) for batch in batches] == [min(size, 5 - i) for i in range(0, 5, size)]
        both = [batch.call(returned)[0] for batch in batches]
        assert torch.cat([args[0] for args in both]).equal(arguments.args[0])
        assert torch.cat([args[3].values for args in both]).equal(arguments.args[3].values)
        assert all(args[2]["a"][1].shape == (3,) for args in both)
    assert list(arguments.split(5)) == [arguments]
    empty = Arguments(scale=2.0)
    assert list(empty.split(3)) == [empty] and list(empty.split(0)) == [empty]


def test_tensors_are_replaced_in_order() -> None:
    arguments = nested()
    tensors = list(arguments.tensors())
    assert len(tensors) == 7
    doubled = arguments.with_tensors(tuple(2 * tensor for tensor in tensors))
    for before, after in zip(tensors, doubled.tensors(), strict=True):
        assert after.equal(2 * before)
    args, kwargs = doubled.call(returned)
    assert args[4].item() == 14 and kwargs["table"].tolist() == [0, 1, 2, 3, 4]
    assert args[1][1] == ("text", None, 3) and type(args[3]) is Sequences


def test_numbers_of_an_example() -> None:
    assert nested().numel_per_example == 1 + 2 + 1 + 3 + 1
    assert Arguments().numel_per_example == 1
    assert Arguments(torch.zeros(0, 3)).numel_per_example == 1
    assert nested().device == Arguments().device == torch.device("cpu")
    assert Arguments(torch.zeros(2, device="meta")).device == torch.device("meta")


def test_other_containers_are_single_items() -> None:
    """A set or an object of another class is handed on as it is."""
    things = {1, 2}
    args, _ = Arguments(torch.zeros(3), things).take(slice(1)).call(returned)
    assert args[1] is things


def test_containers_with_constructors_of_their_own() -> None:
    """A packed sequence is a named tuple whose constructor takes no fields; a shape is a tuple."""
    values, lengths = torch.arange(24.0).reshape(3, 4, 2), torch.tensor([4, 2, 1])
    packed = nn.utils.rnn.pack_padded_sequence(values, lengths, batch_first=True)
    arguments = Arguments(values, packed, values.shape)
    _, kept, shape = arguments.take(slice(0, 2)).args
    assert type(kept) is nn.utils.rnn.PackedSequence and kept.data.equal(packed.data)
    assert type(shape) is torch.Size and shape == values.shape
    again = arguments.with_tensors(tuple(2 * tensor for tensor in arguments.tensors())).args[1]
    assert type(again) is nn.utils.rnn.PackedSequence and again.data.equal(2 * packed.data)
