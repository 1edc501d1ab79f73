import pytest
import torch
from torch import nn

from paredown.curvature.double_backward import twice_differentiable
from paredown.curvature.hessian import Hessian
from paredown.curvature.output_space import HessianBlock
from paredown.curvature.surface import LossSurface
from paredown.errors import ParedownError
from paredown.layers import find_layers
from reference.hessian import network, surface_of


@pytest.mark.parametrize("name", ["bert", "llama", "gpt2"])
def test_fused_attention_is_held_to_its_math_kernel_with_a_notice(name):
    surface = surface_of(name)
    layer = find_layers(surface.model)[1]
    v = torch.randn(layer.parameters, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    eager = HessianBlock(surface, layer)
    assert eager.notice == ""
    expected = eager @ v
    surface.model.set_attn_implementation("sdpa")
    block = HessianBlock(surface, layer)
    assert block.notice == "attention runs in PyTorch's math kernel while second derivatives are taken: the fused kernels have none"
    torch.testing.assert_close(block @ v, expected, rtol=1e-5, atol=1e-6 * float(expected.abs().max()))
    assert surface.model.config._attn_implementation == "sdpa"
    assert torch.backends.cuda.flash_sdp_enabled()


def test_other_attention_is_switched_to_eager_and_back_even_after_an_error():
    model = surface_of("bert").model
    model.config._attn_implementation = "flex_attention"
    with twice_differentiable(model) as notice:
        assert notice == "attention flex_attention is switched to eager while second derivatives are taken: it has none"
        assert model.config._attn_implementation == "eager"
    assert model.config._attn_implementation == "flex_attention"

    def fail():
        with twice_differentiable(model):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert model.config._attn_implementation == "flex_attention"


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return 2 * gradient * ctx.saved_tensors[0]


def test_a_loss_that_can_be_differentiated_once_only_is_refused():
    whole = network()
    layers = find_layers(whole.model)

    def once(batch):
        return Once.apply(whole.model(batch.inputs["x"])).sum((1, 2))

    def ctc(batch):
        scores = whole.model(batch.inputs["x"]).log_softmax(-1).transpose(0, 1)
        lengths = torch.full((len(batch.ids),), 1)
        return nn.functional.ctc_loss(scores, lengths[:, None], 3 * lengths, lengths, reduction="none")

    for loss, said in ((once, "Once is marked once_differentiable"), (ctc, "PyTorch says: derivative for aten::_ctc_loss_backward")):
        surface = LossSurface(whole.model, loss, whole.batches, whole.units)
        for operator in (Hessian(surface, layers), HessianBlock(surface, layers[0])):
            with pytest.raises(ParedownError, match=f"expected a model and a loss that can be differentiated twice, but {said}"):
                operator @ torch.ones(operator.dimension)
