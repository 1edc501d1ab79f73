"""A packed weight in the Triton kernels' layout, and the product with it."""

from __future__ import annotations

import torch
from torch import Tensor

from paredown.errors import ParedownError
from paredown.kernels.cpu.weight import Activation, InputPrecision
from paredown.kernels.gpu.layout import Layout, lay_out
from paredown.kernels.packing import Packed, unpack
from paredown.methods.activations import token_integers

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class TritonWeight:
    """A weight in the kernels' layout, on the device that it came on.

    Args:
        packed: As the file holds it; nothing of it is kept.
        processors: Of the device, which decides into how many parts a product is cut; None asks the device.

    Raises:
        ParedownError: If the kernels can't hold the weight.

    Attributes:
        layout: What the kernels read.
    """

    def __init__(self, packed: Packed, processors: int | None = None) -> None:
        made = unpack(packed)
        self.layout: Layout = lay_out(made)
        self._static, self._device = made.inputs, packed.device
        self._processors = processors or int(torch.cuda.get_device_properties(packed.device).multi_processor_count)

    @property
    def bytes(self) -> int:
        """Bytes that the kernels read."""
        return self.layout.bytes

    def linear(
        self,
        x: Tensor,
        bias: Tensor | None = None,
        activation: Activation = "none",
        *,
        precision: InputPrecision = "bf16",
        input_bits: int = 8,
    ) -> Tensor:
        """activation(X Wᵀ + bias).

        With ``int8``, inputs are put on the scheme's static grid, or on each token's own, exactly as the reference does it; 16 bits hold
        their whole numbers. With ``bf16``, float16 and bfloat16 inputs are taken as they come, and float32 is rounded to bfloat16.
        Inputs that are not finite give outputs that are not, but for what a static grid clips.

        Args:
            x: [..., in], float32, bfloat16 or float16.
            bias: [out] or None.
            activation: Applied to the result.
            precision: Of the inputs.
            input_bits: Of ``int8`` inputs without a static grid.

        Returns:
            [..., out], of the dtype of ``x``.

        Raises:
            ParedownError: If the inputs have another width, dtype or device.
        """
        from paredown.kernels.gpu.launch import multiply

        (out, inputs), device = self.layout.shape, self._device
        if x.dtype not in _DTYPES or x.ndim == 0 or x.shape[-1] != inputs or x.device != device:
            raise ParedownError(
                f"expected inputs [..., {inputs}] of float32, bfloat16 or float16 on {device}, got {list(x.shape)} of {x.dtype} on {x.device}"
            )
        y = torch.empty(*x.shape[:-1], out, dtype=x.dtype, device=device)
        rows = x.reshape(-1, inputs)
        if not y.numel():
            return y
        steps: Tensor | None = None
        if precision == "int8":
            if self._static is not None:
                rows, steps = self._static.integers(rows), self._static.scale.float().expand(len(rows)).contiguous()
            else:
                rows, steps = token_integers(rows, input_bits)
            rows = rows.bfloat16()
        elif precision == "float32":
            rows = rows.float()
        elif rows.dtype is torch.float32:
            rows = rows.bfloat16()
        if rows.stride(1) != 1 and inputs > 1:
            rows = rows.contiguous()
        multiply(rows, self.layout, y.view(-1, out), steps, bias, activation, self._processors)
        return y
