"""The plan as a table for pandas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paredown_widgets import curvature
from paredown_widgets.model import ExplorerModel
from paredown_widgets.schemes import bits_of

if TYPE_CHECKING:
    import pandas as pd


def layer_table(model: ExplorerModel) -> pd.DataFrame:
    """One row a layer, indexed by its exact name. Bytes are those in the file; losses are predictions in nats per unit."""
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for layer in model.record.layers:
        scheme = model.editor.schemes[layer.name]
        candidate = model.record.candidates.get(layer.name, {}).get(scheme)
        rows.append(
            {
                "layer": layer.name,
                "block": model.labels[layer.name].block,
                "role": layer.role,
                "rows": layer.shape[0],
                "columns": layer.shape[1],
                "scheme": str(scheme),
                "bits": bits_of(scheme),
                "bytes": candidate.bytes if candidate else None,
                "loss_increase": candidate.loss_increase if candidate else None,
                "loss_increase_sd": candidate.loss_increase_sd if candidate else None,
                "output_error": candidate.output_error if candidate else None,
                **_curvature(model, layer.name),
                "locked": layer.name in model.editor.locked,
                "note": candidate.note if candidate else "",
            }
        )
    columns = ["layer", "scheme", "bits", "bytes"] if not rows else None
    return pd.DataFrame(rows, columns=columns).set_index("layer").convert_dtypes()


def _curvature(model: ExplorerModel, name: str) -> dict[str, Any]:
    """Of the matrix of the sensitivities, then of the true Hessian; ``_sd`` is over the samples, ``_probe_sd`` over the probes."""
    columns: dict[str, Any] = {}
    for prefix, known in (("", model.record.estimates(name)), ("hessian_", model.record.estimates(name, "hessian"))):
        trace = known.trace
        columns |= {
            f"{prefix}trace": trace.value if trace else None,
            f"{prefix}trace_sd": trace.data_sd if trace else None,
            f"{prefix}trace_probe_sd": trace.probe_sd if trace else None,
            f"{prefix}lambda_max": curvature.top(known),
        }
    trust = curvature.trust(model, name)
    return columns | {
        "hessian_lambda_min": curvature.bottom(model.record.estimates(name, "hessian")),
        "negative_share": curvature.negative(model, name),
        "trust": trust.verdict if trust else None,
    }
