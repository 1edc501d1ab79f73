from paredown.methods.quantize import Quantized, compress, dequantize, quantize

__all__ = ["Quantized", "compress", "dequantize", "quantize"]
