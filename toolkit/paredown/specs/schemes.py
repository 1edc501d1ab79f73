"""What is done to one layer."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from paredown.errors import ParedownError
from paredown.specs.own_roundings import OWN
from paredown.specs.scheme_parts import (
    BITS,
    BLOCKS,
    SAWB_BITS,
    ActivationFormat,
    LowRank,
    Sparsity,
    WeightFormat,
)

Rounding = Literal["rtn", "mse", "sawb", "hqq", "gptq", "signround"]
"""How the codes of an int format are found; `Scheme` says what each does."""

Criterion = Literal["magnitude", "wanda", "sparsegpt", "fisher", "mfac", "kfac"]
"""How the weights to drop are found; `Scheme` says what each does."""

SOLVED = ("gptq", "signround")
"""Our roundings that decide weights together, for the outputs; the others round each for itself."""

ExportFormat = Literal["compressed-tensors", "paredown"]

GRAMMAR = (
    "[int4|nf4|mxfp4|nvfp4][g64|n128][sym][a8[static]][-mse|-sawb|-hqq|-gptq|-signround]"
    " + [2:4|50%][-magnitude|-wanda|-sparsegpt|-fisher|-mfac|-kfac] + [eora16|svd16|lq16][:8|:4],"
    " any part alone or several in this order, or keep"
)
"""The grammar in one line, for errors and help."""

_WEIGHT = re.compile(
    r"(?P<kind>int|nf|mxfp|nvfp)(?P<bits>\d+)(?:g(?P<group>\d+)|n(?P<neurons>\d+))?(?P<symmetric>sym)?"
    r"(?:a(?P<activation>\d+)(?P<static>static)?)?(?:-(?P<rounding>[a-z]+))?"
)
_SPARSITY = re.compile(r"(?P<pattern>[\d:]+%?)(?:-(?P<criterion>[a-z]+))?")
_LOW_RANK = re.compile(r"(?P<kind>eora|svd|lq)(?P<rank>\d+)(?::(?P<bits>\d+))?")


@dataclass(frozen=True, slots=True)
class Scheme:
    r"""What is done to one layer. ``str(scheme)`` and `Scheme.parse` are inverse to each other.

    A scheme is up to three parts, done in this order and joined by ``+``; ``keep`` is none of them.

    | part | says | example |
    | --- | --- | --- |
    | number format | kind and bits; ``g`` inputs that share a scale, or ``n`` groups of output neurons that do (one scale per output channel without either); ``sym``; ``a`` bits of the layer's inputs | ``int4g64``, ``int8syma8``, ``nf3g64``, ``int4n128``, ``mxfp4`` |
    | sparsity | n kept of every m inputs, or the share that is dropped | ``2:4``, ``50%`` |
    | low rank | kind and rank of a correction of what the other parts lost, ``:`` bits of its factors | ``eora32``, ``svd16:8`` |

    How a part is found is written behind it. What is marked * needs what calibration sees of the layer (`needs_calibration`): the
    second moment of its inputs, for ** the gradients of the loss in its weight too, one for each sample (summed over its tokens, of
    the output-space probe, whose second moment is the Fisher).

    | rounding of an int format | code of a weight |
    | --- | --- |
    | ``int4g64``, ``-rtn`` | the nearest in the range of each group |
    | ``int4g64-mse`` | the nearest in the clipped range of least squared error |
    | ``int4g64sym-sawb`` | the nearest in the range that SAWB reads off two moments of the group; at 2 and 4 bits, which have coefficients for grids with a zero |
    | ``int4g64-hqq`` | the nearest on the grid that half-quadratic splitting finds (HQQ) |
    | ``int4g64-signround`` * | up or down, and in the range, that signed gradient descent learns for the outputs (AutoRound's SignRound) |
    | ``int4g64-gptq`` * | of each input in turn, later ones making up for the error of the outputs (GPTQ) |
    | ``int4g64-NAME`` | what a function of yours gives, registered by `paredown.methods.own.rounding`; with * where that says so |

    | criterion | weights to drop | weights that are kept |
    | --- | --- | --- |
    | ``2:4``, ``-magnitude`` | the smallest | as they are |
    | ``2:4-wanda`` * | the smallest times the input's root mean square | as they are |
    | ``2:4-sparsegpt`` * | what the outputs miss least (SparseGPT) | solved again for the outputs |
    | ``2:4-fisher`` ** | \(\tfrac12 (F_{ii} + \lambda) w_i^2\) smallest, F the diagonal Fisher (OBD), damped by a tenth of its mean | as they are |
    | ``2:4-mfac`` ** | the optimal brain surgeon's, with M-FAC's blocks of the Fisher | make up for the dropped ones |
    | ``2:4-kfac`` ** | the optimal brain surgeon's, with K-FAC | make up for the dropped ones |

    Pruning comes before rounding, and exact zeros stay. With GPTQ and SignRound the weights that are kept are rounded with the mask
    fixed, solved again for the outputs before that where the criterion left them as they are. With GPTQ the criterion is SparseGPT
    unless another is named: ``int4g64-gptq+2:4`` is both. Without a number format kept weights keep the checkpoint's dtype.

    | low rank | factors |
    | --- | --- |
    | ``svd32`` | of least error of the weights; alone they replace the weight |
    | ``eora32`` * | of least error of the outputs (EoRA); alone, ``eora32`` is the activation-whitened SVD of the weight (SVD-LLM) |
    | ``nf3g64+lq32`` ** | found in turns with the codes, errors weighted by rows and columns of the Fisher (LQ-LoRA) |

    Attributes:
        weight: Number format; None keeps the checkpoint's numbers.
        rounding: How its codes are found.
        sparsity: Which weights are dropped; None drops none.
        low_rank: The correction; None adds none.
        activation: How the layer's inputs are rounded; None leaves them as they come. A ``static`` range * is calibrated.
        criterion: How the weights to drop are found, where there is a sparsity.

    Example:
        >>> str(Scheme(WeightFormat(4, 64)))
        'int4g64'
        >>> Scheme.parse("int3g128sym-mse").weight
        WeightFormat(bits=3, group_size=128, symmetric=True, kind='int', neuron_groups=None)
        >>> Scheme.parse("int4g64sym+2:4+eora16:8").low_rank
        LowRank(rank=16, bits=8, kind='eora')
        >>> Scheme.parse("int4g64-gptq+2:4").criterion, Scheme.parse("int4g64+2:4").criterion
        ('sparsegpt', 'magnitude')
        >>> Scheme.parse("keep").weight is None
        True
    """

    weight: WeightFormat | None = None
    rounding: Rounding | str = "rtn"
    sparsity: Sparsity | None = None
    low_rank: LowRank | None = None
    activation: ActivationFormat | None = None
    criterion: Criterion = "magnitude"
    _text: str = field(init=False, repr=False, compare=False)  # asked for by the million: every digest of every plan is made of it

    def __post_init__(self) -> None:
        if self.rounding not in (*get_args(Rounding), *OWN):
            raise ParedownError(
                f"the rounding must be one of {', '.join((*get_args(Rounding), *OWN))}, got {self.rounding!r}; register one of your own with paredown.methods.own.rounding first"
            )
        if self.criterion not in get_args(Criterion):
            raise ParedownError(f"the criterion of a sparsity must be one of {', '.join(get_args(Criterion))}, got {self.criterion!r}")
        if self.criterion != "magnitude" and self.sparsity is None:
            raise ParedownError(
                f"{self.criterion} finds the weights to drop, and the scheme drops none; write for example 2:4-{self.criterion}"
            )
        if self.activation is not None and self.weight is None:
            raise ParedownError(
                f"inputs are rounded where weights are too, got {self.activation} without a number format; write for example int8{self.activation}"
            )
        if self.rounding != "rtn":
            self._check_rounding()
        if self.low_rank is not None and self.low_rank.kind == "lq":
            self._check_lq()
        object.__setattr__(self, "_text", self._short())

    def _check_rounding(self) -> None:
        if self.weight is None or self.weight.kind != "int":
            raise ParedownError(
                f"{self.rounding} finds the codes of an int format, got {self.weight or 'none'}; write for example int4g64-{self.rounding}"
            )
        if self.rounding == "sawb" and not (self.weight.symmetric and self.weight.bits in SAWB_BITS):
            raise ParedownError(
                f"SAWB has coefficients for symmetric grids with a zero at {' and '.join(map(str, SAWB_BITS))} bits alone, got {self.weight}:"
                " those published for other widths have no level at zero, so that pruned weights would not stay zero; write int4g64sym-sawb, or search the clip with -mse"
            )
        if self.rounding == "signround" and self.weight.neuron_groups is not None:
            raise ParedownError(
                f"SignRound keeps the best round of each output channel, got {self.weight}, whose channels share their scale; write -gptq, or g for n"
            )

    def _check_lq(self) -> None:
        if self.weight is None or self.sparsity is not None or self.is_solved:
            given = "none" if self.weight is None else f"{self.sparsity} too" if self.sparsity is not None else self.rounding
            raise ParedownError(
                f"lq alternates between factors and a number format that rounds each weight for itself, got {given}: a mask, or codes"
                f" that make up for one another, would have to be found anew in every round; write for example nf4g64+{self.low_rank}, or eora in place of lq"
            )

    @property
    def needs_calibration(self) -> bool:
        """Whether it is found with what calibration sees of the layer."""
        moment = self.is_solved or self.criterion in ("wanda", "sparsegpt")
        eora = self.low_rank is not None and self.low_rank.kind == "eora"
        return moment or eora or self.needs_gradients or (self.activation is not None and self.activation.static)

    @property
    def is_solved(self) -> bool:
        """Whether its rounding decides weights together, for the outputs."""
        return self.rounding in SOLVED or OWN.get(self.rounding, False)

    @property
    def needs_gradients(self) -> bool:
        """Whether it is found with the gradients of the loss."""
        return self.criterion in ("fisher", "mfac", "kfac") or (self.low_rank is not None and self.low_rank.kind == "lq")

    @property
    def is_plain(self) -> bool:
        """Whether the layer is integer codes of all weights, with scales of each output channel, and nothing else, as compressed-tensors has it."""
        integers = self.weight is not None and self.weight.kind == "int" and self.weight.neuron_groups is None
        return integers and (self.sparsity, self.low_rank, self.activation) == (None,) * 3

    @property
    def rounds_rows_alone(self) -> bool:
        """Whether each row of a weight is rounded for itself, so that some rows can be rounded without the others."""
        return self.is_plain and self.rounding in ("rtn", "mse", "sawb")

    @property
    def nominal_bits(self) -> float:
        """Bits of a weight: its code's share and the mask's bit; scales and factors are left out, 32 where nothing is quantized.

        Example:
            >>> [Scheme.parse(text).nominal_bits for text in ("int4g64", "int4g64+2:4", "keep")]
            [4.0, 3.0, 32.0]
        """
        if self.weight is None and self.sparsity is None and self.low_rank is not None:
            return 0.0
        width = 32.0 if self.weight is None else float(self.weight.bits)
        return width if self.sparsity is None else width * (1 - self.sparsity.fraction) + 1

    def __str__(self) -> str:
        return self._text

    def __eq__(self, other: object) -> bool:
        """By the short form, which says everything."""
        return self._text == other._text if isinstance(other, Scheme) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._text)

    def _short(self) -> str:
        parts = []
        if self.weight is not None:
            parts.append(f"{self.weight}{self.activation or ''}{f'-{self.rounding}' * (self.rounding != 'rtn')}")
        if self.sparsity is not None:
            parts.append(f"{self.sparsity}{f'-{self.criterion}' * (self.criterion != usual_criterion(self.rounding))}")
        if self.low_rank is not None:
            parts.append(str(self.low_rank))
        return "+".join(parts) or "keep"

    @classmethod
    def parse(cls, text: str) -> Scheme:
        """Read the short form, such as ``int4g64``, ``int8``, ``nf3g64+eora32``, ``int4g64-gptq+2:4``, ``50%`` or ``keep``.

        Raises:
            ParedownError: If the text is not of that form.
        """
        return _parsed(text)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """In JSON a scheme is its short form: readable, and a tenth of the bytes."""
        from pydantic_core import core_schema

        def read(value: Any) -> Scheme:
            if isinstance(value, Scheme):
                return value
            try:
                return cls.parse(str(value))
            except ParedownError as error:
                raise ValueError(str(error)) from error

        return core_schema.no_info_plain_validator_function(read, serialization=core_schema.plain_serializer_function_ser_schema(str))


def forget_parsed() -> None:
    """Read every short form anew: the names of roundings are others now."""
    _parsed.cache_clear()


def usual_criterion(rounding: str) -> Criterion:
    """The criterion that needs no name: GPTQ's sweep finds the mask as well."""
    return "sparsegpt" if rounding == "gptq" else "magnitude"


@functools.lru_cache(4096)
def _parsed(text: str) -> Scheme:
    if text == "keep":
        return KEEP
    rest = text.split("+")
    weight, sparsity, low_rank = (
        form.fullmatch(rest.pop(0)) if rest and form.fullmatch(rest[0]) else None for form in (_WEIGHT, _SPARSITY, _LOW_RANK)
    )
    if rest:
        raise ParedownError(
            f"expected a scheme such as int4g64, int8, int3g32sym, int4g64-mse or keep, got {text!r}; the grammar is {GRAMMAR}"
        )
    rounding: Any = (weight and weight["rounding"]) or "rtn"
    criterion: Any = "magnitude" if sparsity is None else sparsity["criterion"] or usual_criterion(rounding)
    return Scheme(
        None if weight is None else _format(weight),
        rounding,
        None if sparsity is None else Sparsity(sparsity["pattern"]),
        None if low_rank is None else LowRank(int(low_rank["rank"]), int(low_rank["bits"] or 16), low_rank["kind"]),  # pyright: ignore[reportArgumentType]
        ActivationFormat(int(weight["activation"]), bool(weight["static"])) if weight is not None and weight["activation"] else None,
        criterion,
    )


def _format(match: re.Match[str]) -> WeightFormat:
    kind: Any = match["kind"]
    group, neurons = (int(match[name]) if match[name] else None for name in ("group", "neurons"))
    group = BLOCKS.get(kind) if group is None else group
    return WeightFormat(int(match["bits"]), group, bool(match["symmetric"]), kind, neurons)


KEEP = Scheme()
"""The scheme that leaves a layer as it is."""


def default_schemes(export_format: ExportFormat) -> tuple[str, ...]:
    """Every width in groups of 64: symmetric where plain transformers has to load it, else with zero points, which err less.

    Example:
        >>> default_schemes("compressed-tensors")[:2]
        ('int2g64sym', 'int3g64sym')
    """
    return tuple(str(Scheme(WeightFormat(bits, 64, export_format == "compressed-tensors"))) for bits in BITS)
