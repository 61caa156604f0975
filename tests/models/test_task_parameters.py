"""Modules whose parameters are read as one task has them."""

import copy

import dill
import pytest
import torch
from torch import nn

from avalanche_ad.models.task_parameters import FREE, PrunedLinear, TaskRouter


@pytest.fixture
def router():
    return TaskRouter()


@pytest.fixture
def layer(router):
    torch.manual_seed(0)
    layer = PrunedLinear.of(nn.Linear(4, 3), router)
    layer.prune(0, 0.5)
    layer.end_task(0)
    return layer


def shake(layer):
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 1


def seen(layer, task):
    with layer.router.showing(task):
        return layer.weight.detach().clone(), layer.bias.detach().clone()


def test_without_a_task_the_parameter_is_read_itself(layer):
    assert layer.weight is dict(layer.named_parameters())["weight"]
    assert list(layer.state_dict()) == ["weight", "bias", "bias_of_tasks", "owner"]


def test_a_task_reads_what_it_had_whatever_the_next_one_does(layer):
    first = seen(layer, 0)
    assert torch.equal(first[0] == 0, layer.owner > 0)
    layer.guard(layer.owner == 0)
    state = {name: value.clone() for name, value in layer.state_dict().items()}
    shake(layer)
    assert all(map(torch.equal, seen(layer, 0), first))
    weight, bias = seen(layer, 1)
    assert torch.equal(weight[layer.owner == 0], first[0][layer.owner == 0])
    assert torch.equal(bias, layer.bias)
    saved = layer.state_dict()
    assert saved.keys() == state.keys()
    frozen = layer.owner == 0
    assert torch.equal(saved["weight"][frozen], state["weight"][frozen])
    assert not torch.equal(saved["weight"][~frozen], state["weight"][~frozen])
    layer.end_task(1)
    assert not [name for name, _ in layer.named_buffers() if "kept" in name]
    assert all(map(torch.equal, seen(layer, 0), first))


def test_what_is_guarded_gets_no_gradient(layer):
    layer.guard(layer.owner == 0)
    with layer.router.showing(1):
        layer(torch.ones(2, 4)).sum().backward()
    assert torch.equal(layer.weight.grad == 0, layer.owner == 0)


def test_a_value_is_computed_once_while_it_is_shown(layer, router):
    with router.showing(0):
        with torch.no_grad():
            held = layer.weight
            assert layer.weight is held
        assert layer.weight.requires_grad
        with router.showing(1):
            assert not torch.equal(layer.weight, held)
        assert torch.equal(layer.weight, held)
    assert router.shown is None
    assert not router._values


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: dill.loads(dill.dumps(x))])
def test_a_copy_has_a_router_of_its_own(layer, copied):
    twins = copied(
        nn.ModuleList([layer, PrunedLinear.of(nn.Linear(3, 3), layer.router)])
    )
    router = twins[0].router
    assert router is twins[1].router
    assert router is not layer.router
    assert all(map(torch.equal, seen(twins[0], 0), seen(layer, 0)))
    with router.showing(0):
        assert layer.weight is layer._parameters["weight"]


def test_an_error_shows_nothing_any_more(layer, router):
    with pytest.raises(KeyError), router.showing(0):
        raise KeyError
    assert router.shown is None


def test_what_was_given_up_is_the_next_task_s(layer):
    layer.prune(1, 0.5)
    assert int((layer.owner == FREE).sum()) == 3
    layer.end_task(1)
    assert layer.owner.flatten().bincount().tolist() == [6, 3, 3]
