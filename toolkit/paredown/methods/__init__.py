from paredown.methods.compress import Compressed, compress, dequantize
from paredown.methods.own import rounding
from paredown.methods.quantize import Quantized, quantize, quantize_with
from paredown.methods.statistics import Statistics

__all__ = ["Compressed", "Quantized", "Statistics", "compress", "dequantize", "quantize", "quantize_with", "rounding"]
