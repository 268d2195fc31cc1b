"""Ways between codes: bit by bit for bits, straight for normal variables."""

import torch

from dvaepp.evaluation.interpolation import by_flips, straight


def test_bits_flip_one_after_another_equally_many_at_each_step_in_an_order_by_chance() -> None:
    first = torch.zeros(3, 14)
    second = torch.cat([torch.ones(3, 12), torch.zeros(3, 2)], 1)
    path = by_flips(first, second, 5)
    assert path.sum(-1).T.tolist() == [[0, 3, 6, 9, 12]] * 3
    assert bool((path.diff(dim=0) >= 0).all()), "none goes back"
    assert len(path[2].unique(dim=0)) == 3
    assert not torch.equal(path, by_flips(first, second, 5, seed=1))
    back = by_flips(second, first, 5)
    assert torch.equal(back[0], second)
    assert torch.equal(back[-1], first)


def test_a_straight_way_goes_from_the_first_to_the_second() -> None:
    first, second = torch.zeros(2, 3), torch.tensor([[4.0, -8.0, 0.0], [1.0, 1.0, 1.0]])
    way = straight(first, second, 5)[:, 0, :2].tolist()
    assert way == [[0, 0], [1, -2], [2, -4], [3, -6], [4, -8]]
