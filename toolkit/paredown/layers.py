"""Which tensors of a model can be compressed, what they do, which are one and the same, and which a runtime fuses.

What counts, and what stays as it is:

- ``nn.Linear``, the ``Conv1D`` of GPT-2 and ``nn.Embedding`` count, where the module's ``forward`` is the class's own. A subclass
  that computes something else (Whisper's decoder positions, Gemma's scaled embedding) can't be replaced and is left alone; so
  is a tensor that such a module shares.
- An embedding needs at least `MIN_EMBEDDING_ROWS` rows: token types and relative position biases hold too few bytes to matter.
- A table of fixed sinusoids (Whisper's encoder positions) was never trained and is left alone.
- Convolutions (patch embeddings, wav2vec 2.0's feature extractor and its weight-normed position convolution), norms, biases and
  experts that are kept as one three-dimensional parameter are left alone.
- Task heads are left out by default: whatever lies outside the base model, and the usual names. A head that shares the word
  embedding is part of that embedding, so it stays in.

A tied tensor is one layer, named by the first path that holds it; the forward pass may well use only the others (T5 calls
``encoder.embed_tokens``, never ``shared``), so whoever hooks or replaces a layer does so at ``tied_to`` too.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from paredown.errors import ParedownError
from paredown.specs import LayerKind, LayerRef

MIN_EMBEDDING_ROWS = 64
"""An embedding with fewer rows is left as it is."""

_ROLES: Mapping[str, str] = {
    # role: how the families call it, matched against the end of the module path, first match wins
    "qkv": "c_attn qkv qkv_proj query_key_value Wqkv",
    "q": "q_proj query q_lin q query_proj",
    "k": "k_proj key k_lin k key_proj",
    "v": "v_proj value v_lin v value_proj",
    "o": "o_proj out_proj out_lin o attn.c_proj attn.Wo attn.proj attention.dense self_attention.dense"
    " attention.output.dense crossattention.output.dense",
    "gate": "gate_proj wi_0 w1",
    "up": "up_proj wi_1 w3 gate_up_proj mlp.Wi",  # the last two hold gate and up in one tensor
    "down": "down_proj w2 mlp.Wo",
    "fc1": "fc1 lin1 c_fc wi intermediate.dense intermediate_dense dense_h_to_4h fc_in weights_in",
    "fc2": "fc2 lin2 mlp.c_proj wo output.dense output_dense dense_4h_to_h fc_out weights_out",
    "pooler": "pooler.dense pooler",
}
_LEFT = ".kept"  # what is left of a projection in paredown.shrunk_modules
_CROSS_ATTENTION = {"encoder_attn", "crossattention", "cross_attention", "cross_attn", "EncDecAttention"}
_POSITION = ("position", "pos_emb", "wpe")
_HEADS = {
    "classifier",
    "pre_classifier",
    "score",
    "qa_outputs",
    "lm_head",
    "proj_out",
    "embed_out",
    "cls",
    "vocab_projector",
    "vocab_transform",
}
_FUSED = (("q", "k", "v"), ("xk", "xv"), ("gate", "up"))  # in cross-attention only keys and values have the same input


def find_layers(model: nn.Module, *, dtype: str = "float32", exclude: Sequence[str] = ()) -> tuple[LayerRef, ...]:
    """Every compressible tensor of a model, each once, in model order; see the module's text for the rules.

    Args:
        model: A transformers model, or any module built from the same layers.
        dtype: Type of the weights in the original checkpoint.
        exclude: Module paths to leave as they are, beside the task heads of `default_exclusions`: layers, or modules that
            contain some (``bert.encoder.layer.0``). A path of a tied tensor leaves out the tensor, whichever path it is.

    Raises:
        ParedownError: If the model has no compressible layers, or none are left, or it has no module of an excluded path.
    """
    found = _scan(model, dtype)
    if not found:
        raise ParedownError(
            f"expected a model with Linear, Conv1D or Embedding layers, got {type(model).__name__} without any that can be compressed; "
            "load a transformers model from its original checkpoint, not a quantized one"
        )
    _check_paths(model, exclude)
    left_out = (*default_exclusions(model), *exclude)
    kept = [layer for layer in found if not any(_inside(path, outer) for path in _paths(layer) for outer in left_out)]
    if not kept:
        raise ParedownError(
            f"expected at least one layer to compress, but exclude and the task heads leave none of {len(found)}; shorten exclude"
        )
    return _with_fused(kept)


def default_exclusions(model: nn.Module) -> tuple[str, ...]:
    """Module paths of the task heads: compressible layers that turn features into the task's output.

    A head that shares its tensor with an embedding is no exclusion: the tensor is the embedding's.
    """
    return tuple(layer.name for layer in _scan(model, "float32") if layer.role == "head")


def weight_of(model: nn.Module, layer: LayerRef) -> Tensor:
    """The layer's weight as [out, in] ([rows, dim] for an embedding), without gradient.

    It is a view: what is written to it is written to the model. GPT-2's ``Conv1D`` stores [in, out] and is transposed.

    Raises:
        ParedownError: If the model has no such layer, or its weight has another shape.
    """
    try:
        weight = model.get_submodule(layer.name).weight
    except AttributeError as error:
        raise ParedownError(f"expected a layer {layer.name} with a weight, but the model has none{_close(model, layer.name)}") from error
    if not isinstance(weight, Tensor):
        raise ParedownError(
            f"expected the weight of {layer.name} to be a tensor, got {type(weight).__name__}; was the model compressed already?"
        )
    weight = weight.detach()
    if layer.kind == "conv1d":
        weight = weight.T
    if tuple(weight.shape) != layer.shape:
        raise ParedownError(
            f"expected {layer.name} with shape {list(layer.shape)}, got {list(weight.shape)}; is this the model that the layers came from?"
        )
    return weight


def _scan(model: nn.Module, dtype: str) -> list[LayerRef]:
    """All compressible tensors, heads included, nothing fused yet."""
    holders = _holders(model)
    blocks = _block_paths(model)
    base = _base_model_path(model)
    layers: list[LayerRef] = []
    for paths in holders:
        modules = [model.get_submodule(path) for path in paths]
        kinds: list[LayerKind] = [kind for kind in map(_kind, modules) if kind]
        if len(kinds) < len(modules):  # one can't be replaced: a tied tensor is compressed everywhere or nowhere
            continue
        if "conv1d" in kinds and len(set(kinds)) > 1:  # one tensor, read as [in, out] here and as [out, in] there
            continue
        name = paths[0]
        kind: LayerKind = kinds[0]
        weight = modules[0].weight
        assert isinstance(weight, Tensor)
        if kind == "embedding" and (len(weight) < MIN_EMBEDDING_ROWS or _is_sinusoidal(weight)):
            continue
        rows, columns = weight.shape[::-1] if kind == "conv1d" else weight.shape
        role = "head" if all(_is_head(path, base) for path in paths) else _role(name, kind)
        block = next((block for block in blocks if _inside(name, block)), "")
        layers.append(LayerRef(name, kind, role, block, (rows, columns), dtype, tied_to=tuple(paths[1:])))
    return _with_down(layers)


def _holders(model: nn.Module) -> list[list[str]]:
    """Module paths of every two-dimensional weight, in model order; paths that hold the same tensor stand together."""
    paths: dict[object, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        path, _, attribute = name.rpartition(".")
        # without storage (meta device) only the parameter itself tells
        tensor = (parameter.data_ptr(), parameter.shape, parameter.stride()) if parameter.data_ptr() else id(parameter)
        if parameter.dim() == 2 and parameter.is_floating_point():
            paths.setdefault(tensor, []).append(path if attribute == "weight" else name)
    return [found for found in paths.values() if all(_has_module(model, path) for path in found)]


def _kind(module: nn.Module) -> LayerKind | None:
    """What the module computes with its weight; None where it can't be replaced by a packed one."""
    kinds: tuple[tuple[type[nn.Module], LayerKind], ...] = ((nn.Linear, "linear"), (Conv1D, "conv1d"), (nn.Embedding, "embedding"))
    for base, kind in kinds:
        if isinstance(module, base):
            own = type(module).forward is base.forward and not isinstance(module, nn.modules.linear.NonDynamicallyQuantizableLinear)
            return kind if own and "weight" in module._parameters else None
    return None


def _is_sinusoidal(weight: Tensor) -> bool:
    """Whether each row is made of pairs (sin, cos): its squared norm is then half of its length. No trained table does that."""
    if weight.is_meta:
        return False
    some = weight[:MIN_EMBEDDING_ROWS].detach().float()  # enough to tell, and cheap on a large vocabulary
    return bool(((some.square().mean(dim=1) - 0.5).abs() < 0.005).all())


def _role(name: str, kind: LayerKind) -> str:
    name = name.removesuffix(_LEFT)
    if kind == "embedding":
        leaf = name.rpartition(".")[2]
        return "position" if any(word in leaf for word in _POSITION) else "embedding"
    for role, endings in _ROLES.items():
        if any(_ends(name, ending) for ending in endings.split()):
            cross = role in ("q", "k", "v", "o") and not _CROSS_ATTENTION.isdisjoint(name.split("."))
            return "x" + role if cross else role
    return "other"


def _is_head(path: str, base: str) -> bool:
    return (base != "" and not _inside(path, base)) or not _HEADS.isdisjoint(path.split("."))


def _base_model_path(model: nn.Module) -> str:
    """Module path of the features below a task head: ``bert`` in BertForSequenceClassification; empty where there is no head."""
    prefix = getattr(model, "base_model_prefix", "")
    return prefix if isinstance(prefix, str) and prefix and isinstance(getattr(model, prefix, None), nn.Module) else ""


def _block_paths(model: nn.Module) -> list[str]:
    """Module paths of the repeated blocks: the members of the outermost numbered lists, unless they are bare layers."""
    paths: list[str] = []
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and not any(_inside(name, block) for block in paths):
            paths += [
                f"{name}.{index}" if name else str(index) for index, block in enumerate(module) if next(block.children(), None) is not None
            ]
    return paths


def _with_down(layers: list[LayerRef]) -> list[LayerRef]:
    """T5 calls the last layer of its feed-forward ``wo`` with a gate or without; beside a gate it is the down projection."""
    gated = {_parent(layer.name) for layer in layers if layer.role == "gate"}
    return [dataclasses.replace(layer, role="down") if layer.role == "fc2" and _parent(layer.name) in gated else layer for layer in layers]


def _with_fused(layers: Iterable[LayerRef]) -> tuple[LayerRef, ...]:
    layers = tuple(layers)
    groups: defaultdict[tuple[str, int, int], list[str]] = defaultdict(list)
    keys = {
        layer.name: (_parent(layer.name.removesuffix(_LEFT)), index, layer.shape[1])
        for layer in layers
        for index, roles in enumerate(_FUSED)
        if layer.role in roles
    }
    for name, key in keys.items():
        groups[key].append(name)
    others = {name: tuple(other for other in groups[key] if other != name) for name, key in keys.items()}
    return tuple(dataclasses.replace(layer, fused_with=others.get(layer.name, ())) for layer in layers)


def _check_paths(model: nn.Module, exclude: Sequence[str]) -> None:
    if isinstance(exclude, str):
        raise ParedownError(f"expected exclude to be a list of module paths, got the text {exclude!r}; write [{exclude!r}]")
    for path in exclude:
        if not path or not _has_module(model, path):
            raise ParedownError(f"exclude names {path!r}, but the model has no such module{_close(model, path)}")


def _close(model: nn.Module, path: str) -> str:
    known = [name for name, _ in model.named_modules(remove_duplicate=False) if name]
    close = difflib.get_close_matches(path, known, n=3, cutoff=0.5)
    close = close or [name for name in known if path and _ends(name, path)][:3]
    return f"; did you mean {' or '.join(close)}?" if close else "; list its layers with find_layers(model)"


def _paths(layer: LayerRef) -> Iterator[str]:
    yield layer.name
    yield from layer.tied_to


def _has_module(model: nn.Module, path: str) -> bool:
    try:
        model.get_submodule(path)
    except AttributeError:
        return False
    return True


def _ends(path: str, ending: str) -> bool:
    return path == ending or path.endswith("." + ending)


def _inside(path: str, outer: str) -> bool:
    return path == outer or path.startswith(outer + ".")


def _parent(path: str) -> str:
    return path.rpartition(".")[0]
