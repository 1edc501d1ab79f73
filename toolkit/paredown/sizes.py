"""The one size model: how many bytes the exported weight file holds, exactly, before it is written. No torch here.

What is counted is the safetensors file that `paredown.export` writes, because that is what the user takes away: its tensors have
the names and layouts of compressed-tensors 0.20, whether the checkpoint is written for plain transformers or for Paredown's own
loader. The layout ``pack-quantized`` wastes no bits: 32 codes of b bits fill b words of 32 bits, codes run on across words, and
only the end of a row is padded; so there is no second, denser one. For a layer of shape [out, in] at b bits in groups of g inputs
(g = in where each channel has one scale):

    weight_packed      int32   [out, ceil(in b / 32)]
    weight_scale       float16 [out, in / g]
    weight_zero_point  int32   [ceil(out b / 32), in / g]      (asymmetric formats only; packed down the columns)
    weight_shape       int64   [2]

Codes of 8 bits need no packing. Where that lets plain transformers load what it could not load packed (embeddings, tied tensors,
zero points; `paredown.export.compressed_tensors` has the reasons), they are stored ``int-quantized``, at the same cost:

    weight             int8    [out, in]
    weight_scale       float16 [out, in / g]                   (once for each module that shares the tensor)
    weight_zero_point  int8    [out, in / g]                   (asymmetric formats only; likewise)

So the int4g64 of a large layer takes 4 + (16 + 4) / 64 = 4.31 bits a weight. A layer that is kept takes the bytes of the
checkpoint's own dtype. A tensor that several modules share is counted, and written, once.

NormalFloat has no zero points, and its scales are codes of 8 bits themselves, with a float32 for every 256 of them and the smallest
scale of the tensor:

    weight_scale       uint8   [out, in / g]
    weight_scale_scale float32 [ceil(out in / (256 g))]
    weight_scale_offset float32 [1]

MXFP4 and NVFP4 have a scale for each block of 32 and 16 inputs, a power of two (E8M0) and a float of 8 bits (E4M3), the latter with a
float32 for the tensor: 4.25 and 4.5 bits a weight. Where n groups of output neurons share their scales there are n of them:

    weight_scale       uint8   [out, in / 32]                  (mxfp4)
    weight_scale       float8_e4m3fn [out, in / 16]            (nvfp4)
    weight_global_scale float32 [1]                            (nvfp4)
    weight_scale       float16 [n, 1]                          (int4n128, with weight_zero_point int32 [ceil(n b / 32), 1])

Inputs that are rounded in a static range have its scale and zero point beside the weight:

    input_scale        float16 [1]
    input_zero_point   uint8   [1]

Of a pruned weight the kept codes are stored, one after the other, and one bit a weight says which they are; so 4 bits at 2:4 are 3
bits a weight, before scales. Where every row keeps as many (n:m), each row is packed for itself; otherwise there is one stream, and
each row's place in it. Without a number format the kept numbers have the checkpoint's own dtype.

    weight_packed      int32   [out, ceil(kept b / 32)]        (unstructured: [1, ceil(kept b / 32)])
    weight_values      dtype   [out, kept]                     (in place of codes; unstructured: [1, kept])
    weight_mask        int32   [out, ceil(in / 32)]
    weight_offsets     int32   [out]                           (unstructured only)

Low-rank factors B [out, r] and A [r, in] are stored rank first, in float16, or at 8 and 4 bits as integers with scales and zero
points as above (groups of 64, or what divides the side):

    weight_left        float16 [r, out]                        (or weight_left_packed, weight_left_scale, weight_left_zero_point)
    weight_right       float16 [r, in]                         (likewise)

The header of the file is counted too: every tensor's entry, with room for offsets of twelve digits, rounded up to 8 bytes. The
writer fills what an entry leaves over with the trailing spaces that the format allows, so that the size of a whole file is the
sum of its parts to the byte, and a plan's bytes are the sum over its layers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from paredown.errors import ParedownError
from paredown.specs import GROUP_SIZES, KEEP, LayerRef, Scheme, WeightFormat
from paredown.specs.scheme_parts import BLOCKS

BYTES = {
    "float64": 8, "int64": 8, "uint64": 8, "float32": 4, "int32": 4, "uint32": 4, "float16": 2, "bfloat16": 2, "int16": 2, "uint16": 2,
    "float8_e4m3fn": 1, "float8_e5m2": 1, "int8": 1, "uint8": 1, "bool": 1,
}  # fmt: skip
"""Bytes of one number of each dtype, by torch's name of it."""

CODES = {
    "float64": "F64", "int64": "I64", "uint64": "U64", "float32": "F32", "int32": "I32", "uint32": "U32", "float16": "F16", "bfloat16": "BF16",
    "int16": "I16", "uint16": "U16", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
"""The safetensors name of each dtype."""

SCALE_GROUP = 256
"""Scales of NormalFloat that share a scale of their own."""

METADATA = {"format": "pt"}
"""What transformers asks of a file's metadata."""

_OFFSET = 10**11  # a number of twelve digits, the widest offset that an entry has room for: files below a terabyte


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of the file: its name, torch's name of its dtype, its shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.dtype not in BYTES:
            raise ParedownError(
                f"{self.name} has dtype {self.dtype}, which a safetensors file can't hold; expected one of {', '.join(BYTES)}"
            )

    @property
    def bytes(self) -> int:
        """Bytes of its numbers, without the entry in the header."""
        return math.prod(self.shape) * BYTES[self.dtype]


def fit(scheme: Scheme, layer: LayerRef) -> tuple[Scheme, str]:
    """The scheme that a layer really gets.

    - A group size must divide the layer's inputs. Where the asked one does not, the largest allowed one that does is taken, and
      where none does, each output channel has one scale.
    - So must the blocks of MXFP4 and NVFP4, which have no other size. MXFP4 is replaced by NVFP4, with blocks half as long, and that by
      NormalFloat of 4 bits.
    - Neuron groups must divide the output channels: the next number that does is taken, at most one for each channel.
    - A rank is at most that of the weight.
    - Embeddings are not multiplied with inputs: what needs those, or the gradients of a matrix product, is replaced there by its
      nearest relative that does not.

    Args:
        scheme: What was asked.
        layer: The layer that it is for.

    Returns:
        The scheme that applies, and why it differs; the reason is empty where it does not.

    Example:
        >>> layer = LayerRef("fc", "linear", "fc1", "", (10, 96), "float32")
        >>> fit(Scheme.parse("int4g64"), layer)[1]
        'the group size 64 does not divide the 96 inputs; 32 is used'
        >>> str(fit(Scheme.parse("int4g64"), layer)[0])
        'int4g32'
    """
    notes: list[str] = []
    if layer.kind == "embedding":
        scheme, notes = _fit_lookup(scheme)
    weight, low_rank = scheme.weight, scheme.low_rank
    if low_rank is not None and low_rank.rank > min(layer.shape):
        notes.append(f"rank {low_rank.rank} is more than {list(layer.shape)} has; {min(layer.shape)} is used")
        low_rank = replace(low_rank, rank=min(layer.shape))
    if weight is not None:
        weight, note = _fit_format(weight, *layer.shape)
        notes += [note] if note else []
    return replace(scheme, weight=weight, low_rank=low_rank), "; ".join(notes)


def _fit_lookup(scheme: Scheme) -> tuple[Scheme, list[str]]:
    """A scheme without what the inputs of a layer are needed for."""
    notes: list[str] = []
    if scheme.activation is not None:
        scheme = replace(scheme, activation=None)
        notes.append("the rows of an embedding are looked up, so that there are no inputs to round; its weights are")
    if not scheme.needs_calibration:
        return scheme, notes
    taken: list[str] = []
    rounding, low_rank = scheme.rounding, scheme.low_rank
    if scheme.criterion != "magnitude":
        taken.append("magnitude")
    if scheme.is_solved:
        rounding = "mse"
        taken.append("mse")
    if low_rank is not None and low_rank.kind != "svd":
        low_rank = replace(low_rank, kind="svd")
        taken.append("svd")
    notes.insert(0, f"the rows of an embedding are looked up and have no input second moment; {' and '.join(taken)} instead")
    return replace(scheme, rounding=rounding, criterion="magnitude", low_rank=low_rank), notes


def _fit_format(weight: WeightFormat, out: int, inputs: int) -> tuple[WeightFormat, str]:
    if weight.kind in BLOCKS and inputs % BLOCKS[weight.kind]:
        replacement = WeightFormat(4, 16, kind="nvfp") if inputs % BLOCKS["nvfp"] == 0 else WeightFormat(4, None, kind="nf")
        return replacement, f"the blocks of {BLOCKS[weight.kind]} of {weight} do not divide the {inputs} inputs; {replacement} is used"
    if weight.neuron_groups is not None and out % weight.neuron_groups:
        count = next((count for count in range(weight.neuron_groups, out) if out % count == 0), out)
        return replace(
            weight, neuron_groups=count
        ), f"{weight.neuron_groups} groups do not divide the {out} output channels; {count} are used"
    if weight.group_size is None or inputs % weight.group_size == 0:
        return weight, ""
    group = max((size for size in GROUP_SIZES if inputs % size == 0), default=None)
    taken = "one scale for each output channel" if group is None else str(group)
    return replace(weight, group_size=group), f"the group size {weight.group_size} does not divide the {inputs} inputs; {taken} is used"


def words(count: int, bits: int) -> int:
    """Words of 32 bits that hold ``count`` codes of ``bits`` bits."""
    return -(-count * bits // 32)


def is_packed(layer: LayerRef, scheme: Scheme) -> bool:
    """Whether a layer's tensors are those of `packed_tensors`, and not codes of 8 bits ``int-quantized``."""
    if not scheme.is_plain or scheme.weight is None:
        return True
    return scheme.weight.bits < 8 or (layer.kind != "embedding" and not layer.tied_to and scheme.weight.symmetric)


def layer_tensors(layer: LayerRef, scheme: Scheme) -> tuple[StoredTensor, ...]:
    """The tensors that a layer's weight becomes in the file; a scheme that does not fit is replaced as `fit` says."""
    out, inputs = layer.shape
    scheme = fit(scheme, layer)[0]
    if scheme == KEEP:
        shape = (inputs, out) if layer.kind == "conv1d" else (out, inputs)
        return (StoredTensor(f"{layer.name}.weight", layer.dtype, shape),)
    weight = scheme.weight
    if not is_packed(layer, scheme):
        assert weight is not None
        shape = scale_shape(weight, out, inputs)
        tensors = [StoredTensor(f"{layer.name}.weight", "int8", (out, inputs))]
        for name in (layer.name, *layer.tied_to):
            tensors.append(StoredTensor(f"{name}.weight_scale", "float16", shape))
            if not weight.symmetric:
                tensors.append(StoredTensor(f"{name}.weight_zero_point", "int8", shape))
        return tuple(tensors)
    return tuple(replace(tensor, name=f"{layer.name}.{tensor.name}") for tensor in packed_tensors(layer.shape, scheme, layer.dtype))


def packed_tensors(shape: tuple[int, int], scheme: Scheme, dtype: str) -> tuple[StoredTensor, ...]:
    """The tensors of a packed weight, ``weight_packed`` and so on, as packed modules hold them.

    Args:
        shape: [out, in].
        scheme: One that fits.
        dtype: Of numbers that no format quantizes.
    """
    out, inputs = shape
    tensors: list[StoredTensor] = []
    if scheme.weight is not None or scheme.sparsity is not None:
        rows, columns = out, inputs
        if scheme.sparsity is not None:
            kept = scheme.sparsity.kept_in_row(inputs)
            rows, columns = (1, scheme.sparsity.kept(out, inputs)) if kept is None else (out, kept)
        if scheme.weight is None:
            tensors.append(StoredTensor("weight_values", dtype, (rows, columns)))
        else:
            tensors.append(StoredTensor("weight_packed", "int32", (rows, words(columns, scheme.weight.bits))))
            tensors += _scales("weight", scheme.weight, out, inputs)
    if scheme.sparsity is not None:
        tensors.append(StoredTensor("weight_mask", "int32", (out, words(inputs, 1))))
        if scheme.sparsity.n_of_m is None:
            tensors.append(StoredTensor("weight_offsets", "int32", (out,)))
    if scheme.low_rank is not None:
        for side, width in (("left", out), ("right", inputs)):
            tensors += factor_tensors(f"weight_{side}", (scheme.low_rank.rank, width), scheme.low_rank.bits)
    if scheme.activation is not None and scheme.activation.static:
        tensors += [StoredTensor("input_scale", "float16", (1,)), StoredTensor("input_zero_point", "uint8", (1,))]
    return (*tensors, StoredTensor("weight_shape", "int64", (2,)))


def factor_tensors(name: str, shape: tuple[int, int], bits: int) -> tuple[StoredTensor, ...]:
    """The tensors of one low-rank factor [rank, out or in]."""
    weight = factor_format(shape, bits)
    if weight is None:
        return (StoredTensor(name, "float16", shape),)
    return (StoredTensor(f"{name}_packed", "int32", (shape[0], words(shape[1], bits))), *_scales(name, weight, *shape))


def factor_format(shape: tuple[int, int], bits: int) -> WeightFormat | None:
    """How the numbers of a factor [rank, out or in] are stored; None for float16."""
    return None if bits == 16 else _fit_format(WeightFormat(bits), *shape)[0]


def _scales(name: str, weight: WeightFormat, out: int, inputs: int) -> list[StoredTensor]:
    rows, groups = scale_shape(weight, out, inputs)
    if weight.kind == "mxfp":
        return [StoredTensor(f"{name}_scale", "uint8", (rows, groups))]
    if weight.kind == "nvfp":
        return [StoredTensor(f"{name}_scale", "float8_e4m3fn", (rows, groups)), StoredTensor(f"{name}_global_scale", "float32", (1,))]
    if weight.kind == "nf":
        return [
            StoredTensor(f"{name}_scale", "uint8", (rows, groups)),
            StoredTensor(f"{name}_scale_scale", "float32", (-(-rows * groups // SCALE_GROUP),)),
            StoredTensor(f"{name}_scale_offset", "float32", (1,)),
        ]
    scales = [StoredTensor(f"{name}_scale", "float16", (rows, groups))]
    return scales if weight.symmetric else [*scales, StoredTensor(f"{name}_zero_point", "int32", (words(rows, weight.bits), groups))]


def scale_shape(weight: WeightFormat, out: int, inputs: int) -> tuple[int, int]:
    """Scales of a weight [out, in]: runs of output channels, and groups of inputs."""
    return weight.neuron_groups or out, 1 if weight.group_size is None else inputs // weight.group_size


def header_entry(tensor: StoredTensor, start: int, end: int) -> str:
    """A tensor's entry in the header, without the comma that follows it."""
    entry = {"dtype": CODES[tensor.dtype], "shape": tensor.shape, "data_offsets": (start, end)}
    return json.dumps({tensor.name: entry}, separators=(",", ":"), ensure_ascii=False)[1:-1]


def entry_bytes(tensor: StoredTensor) -> int:
    """Bytes that the header sets aside for a tensor's entry, a multiple of 8."""
    longest = len(header_entry(tensor, _OFFSET, _OFFSET).encode()) + 1  # the comma
    return -(-longest // 8) * 8


def frame_bytes() -> int:
    """Bytes of a file that holds no tensor: the length, the braces and the metadata, a multiple of 8."""
    length = 8 + len(json.dumps({"__metadata__": METADATA}, separators=(",", ":")))
    return -(-length // 8) * 8


def layer_bytes(layer: LayerRef, scheme: Scheme) -> int:
    """Bytes of one layer in the file: codes, scales, zero points, shape, and its entries in the header.

    Example:
        >>> layer = LayerRef("fc", "linear", "fc1", "", (1024, 1024), "float32")
        >>> layer_bytes(layer, Scheme.parse("int4g64")) * 8 / layer.parameters  # bits a weight
        4.315673828125
    """
    return sum(tensor.bytes + entry_bytes(tensor) for tensor in layer_tensors(layer, scheme))


def fixed_bytes(tensors: Iterable[StoredTensor], layers: Sequence[LayerRef]) -> int:
    """Bytes of everything that no plan touches: biases, norms, excluded layers, and the frame of the file.

    Args:
        tensors: All tensors that the uncompressed file would hold, shared ones once (`paredown.apply.stored_tensors`).
        layers: The layers that plans decide on; their weights are left out, under their own and their tied names.

    Returns:
        The bytes, header entries included.
    """
    decided = {f"{name}.weight" for layer in layers for name in (layer.name, *layer.tied_to)}
    return frame_bytes() + sum(tensor.bytes + entry_bytes(tensor) for tensor in tensors if tensor.name not in decided)


def plan_bytes(fixed: int, layers: Sequence[LayerRef], schemes: Mapping[str, Scheme]) -> int:
    """Size of the whole file under a plan.

    Args:
        fixed: From `fixed_bytes`.
        layers: The layers that the plan decides on.
        schemes: Layer name to scheme; a layer that is absent is kept.

    Returns:
        The bytes of ``model.safetensors``, exactly.
    """
    return fixed + sum(layer_bytes(layer, schemes.get(layer.name, KEEP)) for layer in layers)
