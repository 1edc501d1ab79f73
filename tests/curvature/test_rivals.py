"""Cross-checks against other implementations, on a tiny perceptron; skipped where the dependency group `bench` is not installed."""

import pytest
import torch
from torch import nn

from paredown.curvature import ekfac, empirical_fisher, extreme_eigenvalues, gauss_newton, kfac
from surfaces import plain

# torch's own forward-mode derivatives, which curvlinops uses, are scripted on first use; kronfluence asks for the scaler's old name
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning", "ignore:.*GradScaler:FutureWarning")


@pytest.fixture
def curvlinops():
    return pytest.importorskip("curvlinops")


@pytest.fixture
def problem():
    """Without biases and without a token axis: what all of them take."""
    surface, layers = plain((5, 6, 4), samples=8, batch_size=3, bias=False)
    model = nn.Sequential(surface.model.layers[0], nn.Tanh(), surface.model.layers[1])
    data = [(batch.inputs["inputs"][:, 0], batch.targets) for batch in surface.batches]
    parameters = [p.requires_grad_(True) for p in model.parameters()]
    yield surface, layers, model, data, parameters
    model.requires_grad_(False)


def columns(operator):
    return torch.as_tensor(operator @ torch.eye(operator.shape[1], dtype=torch.float64))


def test_gauss_newton_and_empirical_fisher_are_those_of_curvlinops(curvlinops, problem):
    surface, layers, model, data, parameters = problem
    ggn = columns(curvlinops.GGNLinearOperator(model, nn.CrossEntropyLoss(), parameters, data))
    torch.testing.assert_close(gauss_newton(surface, layers).dense(), ggn)
    torch.testing.assert_close(
        empirical_fisher(surface, layers).dense(), columns(curvlinops.EFLinearOperator(model, nn.CrossEntropyLoss(), parameters, data))
    )


def test_eigenvalues_of_its_hessian_are_those_of_its_own_eigsh(curvlinops, problem):
    from scipy.sparse.linalg import eigsh

    from paredown.curvature import CurvatureOperator

    _, layers, model, data, parameters = problem
    theirs = curvlinops.HessianLinearOperator(model, nn.CrossEntropyLoss(), parameters, data)

    class Wrapped(CurvatureOperator):
        def _matmat(self, vectors):
            return theirs @ vectors

    ours = Wrapped(layers, torch.float64, torch.device("cpu"))
    found = extreme_eigenvalues(ours, 2, 1, residual=1e-8)
    exported = ours.to_scipy()
    assert found.values[:2] == pytest.approx(sorted(eigsh(exported, k=2, which="LA", return_eigenvectors=False), reverse=True))
    assert found.values[2:] == pytest.approx(eigsh(exported, k=1, which="SA", return_eigenvectors=False))


def test_kfac_and_ekfac_are_those_of_curvlinops(curvlinops, problem):
    surface, layers, model, data, parameters = problem
    products = gauss_newton(surface, layers)
    for ours, theirs in ((kfac, curvlinops.KFACLinearOperator), (ekfac, curvlinops.EKFACLinearOperator)):
        other = theirs(model, nn.CrossEntropyLoss(), parameters, data, fisher_type="type-2", kfac_approx="expand")
        torch.testing.assert_close(ours(products).dense(), columns(other))


def test_ekfac_is_that_of_kronfluence(problem, tmp_path):
    pytest.importorskip("kronfluence")
    from kronfluence import Analyzer, Task, prepare_model
    from kronfluence.arguments import FactorArguments

    surface, layers, model, data, _ = problem

    class Classification(Task):
        def compute_train_loss(self, batch, model, sample=False):
            return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="sum")

        def compute_measurement(self, batch, model):
            return self.compute_train_loss(batch, model)

    task = Classification()
    dataset = torch.utils.data.TensorDataset(torch.cat([x for x, _ in data]), torch.cat([y for _, y in data]))
    analyzer = Analyzer(
        "tiny", prepare_model(model, task), task, cpu=True, output_dir=str(tmp_path), disable_model_save=True, disable_tqdm=True
    )
    arguments = FactorArguments(
        use_empirical_fisher=True,
        **{
            f"{what}_dtype": torch.float64
            for what in ("activation_covariance", "gradient_covariance", "eigendecomposition", "per_sample_gradient", "lambda")
        },
    )
    analyzer.fit_all_factors("factors", dataset, per_device_batch_size=4, factor_args=arguments)
    theirs = analyzer.load_all_factors("factors")
    ours = ekfac(empirical_fisher(surface, layers))
    for grid, name in zip(ours.grids, ("0", "2"), strict=True):
        lambdas = theirs["lambda_matrix"][name].double() / int(theirs["num_lambda_processed"][name])
        torch.testing.assert_close(grid, lambdas, rtol=1e-4, atol=1e-6 * float(grid.max()))
