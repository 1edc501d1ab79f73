import pytest
import torch

from paredown.calibration import Captured, Part
from paredown.curvature.scores import delta_loss_scores, fisher_scores, modelopt_scores, output_delta_scores
from paredown.specs import LayerRef


def seen(kind, seed=0):
    """Two batches of three samples with four tokens; what a layer of 5 outputs and 6 inputs (7 rows) saw."""
    draw = torch.Generator().manual_seed(seed)
    shape = (7, 5) if kind == "lookup" else (5, 6)
    batches = []
    for _ in range(2):
        inputs = (
            torch.randint(0, 7, (3, 4), generator=draw) if kind == "lookup" else torch.randn(3, 4, 6, generator=draw, dtype=torch.float64)
        )
        batches.append((Part(kind, inputs, torch.randn(3, 4, 5, generator=draw, dtype=torch.float64), None),))
    changes = [torch.randn(shape, generator=draw, dtype=torch.float64) for _ in range(2)]
    return Captured(LayerRef("l", "embedding" if kind == "lookup" else "linear", "q", "b", shape, "float64"), tuple(batches)), changes


def tokens(captured):
    """(batch, sample, weight gradient, output gradient, output of a change) of each token."""
    for b, (part,) in enumerate(captured.batches):
        for s in range(3):
            for t in range(4):
                x, g = part.inputs[s, t], part.gradients[s, t]
                if part.kind == "lookup":
                    gradient = torch.zeros(7, 5, dtype=torch.float64)
                    gradient[x] = g
                    yield b, s, gradient, g, lambda change, x=x: change[x]
                else:
                    yield b, s, torch.outer(g, x), g, lambda change, x=x: change @ x


@pytest.mark.parametrize("kind", ["dense", "lookup"])
def test_scores_are_those_of_a_loop_over_tokens(kind):
    captured, changes = seen(kind)
    of_sample, of_batch = {}, {}
    for b, s, gradient, _, _ in tokens(captured):
        of_sample[b, s] = of_sample.get((b, s), 0) + gradient
        of_batch[b] = of_batch.get(b, 0) + gradient
    for k, change in enumerate(changes):
        products = [g * out(change) for _, _, _, g, out in tokens(captured)]
        assert float(modelopt_scores(captured, changes)[k]) == pytest.approx(float(sum((p**2).sum() for p in products)))
        assert float(output_delta_scores(captured, changes)[k]) == pytest.approx(float(sum(p.abs().sum() for p in products)))
        fisher = sum(gradient**2 for gradient in of_sample.values())
        assert float(fisher_scores(captured, changes)[k]) == pytest.approx(float((fisher * change**2).sum()))
        delta = sum((gradient * change).abs().sum() for gradient in of_batch.values())
        assert float(delta_loss_scores(captured, changes)[k]) == pytest.approx(float(delta))


def test_delta_loss_bounds_the_first_order_change_of_the_loss():
    captured, changes = seen("dense", seed=1)
    first_order = sum(abs(float((gradient * changes[0]).sum())) for _, _, gradient, _, _ in tokens(captured))
    net = abs(float(sum((gradient * changes[0]).sum() for _, _, gradient, _, _ in tokens(captured))))
    assert net <= float(delta_loss_scores(captured, changes)[0])
    assert first_order <= float(output_delta_scores(captured, changes)[0])


@pytest.mark.parametrize("score", [fisher_scores, modelopt_scores, output_delta_scores, delta_loss_scores])
def test_no_change_costs_nothing_and_no_changes_give_no_scores(score):
    captured, changes = seen("dense")
    assert score(captured, [torch.zeros_like(changes[0])]).tolist() == [0]
    assert score(captured, []).shape == (0,)
