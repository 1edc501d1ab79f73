from paredown.methods.compress import Compressed, Inputs, compress, dequantize
from paredown.methods.quantize import Quantized, quantize

__all__ = ["Compressed", "Inputs", "Quantized", "compress", "dequantize", "quantize"]
