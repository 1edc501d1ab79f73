from paredown.methods.compress import Compressed, compress, dequantize
from paredown.methods.quantize import Quantized, quantize
from paredown.methods.statistics import Statistics

__all__ = ["Compressed", "Quantized", "Statistics", "compress", "dequantize", "quantize"]
