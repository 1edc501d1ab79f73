// What Python and the kernels agree on: plain C structures, mirrored by ctypes in ../library.py.
//
// Layout of a weight [rows, inputs]. Rows lie in blocks of 16 (the last one filled up with rows of scale 0), inputs in groups that
// share a scale (the last one filled up; activations are zero there), and a group in chunks of 16 inputs. The codes of one block and
// chunk lie together, as four steps of 16 rows x 4 inputs, 64 codes each in the order row, input. They are stored in planes:
//
//   bits 8          four vectors of 64 bytes, one a step
//   bits 4, 5, 6    two vectors of nibbles, steps 0|1 and 2|3 (low|high)
//   bits 2, 3       one vector of 2-bit fields, step s at bit 2s
//   + bits 3, 5     four masks of 64 bits, one a step: the highest bit of each code
//   + bits 6        one vector of 2-bit fields as above: the two highest bits
//
// Every instruction set reads this one layout. A dot product with 8-bit inputs takes a step as it is; one with 16-bit inputs takes its
// even bytes and then its odd ones, so that inputs are paired (0, 2), (1, 3).
//
// Of a sparse weight each step has a mask of 64 bits, and only the codes of its set bits are there, in bytes (5 to 8 bits) or nibbles
// (up to 4; a step begins with a new byte).
#pragma once
#include <cstddef>
#include <cstdint>

namespace paredown {

constexpr int64_t BLOCK = 16;  // rows
constexpr int64_t CHUNK = 16;  // inputs

enum Dtype : int32_t { FLOAT32 = 0, BFLOAT16 = 1, FLOAT16 = 2 };
enum Precision : int32_t { INT8 = 0, BF16 = 1, F32 = 2 };  // of the inputs while they are multiplied
enum Activation : int32_t { IDENTITY = 0, GELU = 1, GELU_TANH = 2, SILU = 3, RELU = 4 };

struct Weight {
  int64_t rows, inputs, groups;
  int64_t group;          // inputs that share a scale: a multiple of 16, at most 128
  int64_t rank;           // of the low-rank correction; 0 where there is none
  int32_t bits;           // 0 where there are factors only
  int32_t wide_scales;    // scales are float32, not float16
  int32_t wide_factors;   // factors likewise
  int32_t reserved;
  const uint8_t* codes;
  const void* scales;     // [blocks, groups, 16]
  const uint8_t* zeros;   // [blocks, groups, 16]: the code that stands for zero; null for a dense weight with a table
  const float* table;     // 16 numbers that codes of up to 4 bits stand for, or null where a code is its own number
  const uint64_t* masks;  // [blocks, steps] of a sparse weight, or null
  const int64_t* offsets; // [blocks]: where the codes of a sparse block begin
  const void* left;       // [blocks, rank, 16]
  const void* right;      // [rank / 16, inputs, 16], the last ranks filled up with zeros
};

struct Call {
  const void* x;          // [tokens, inputs], rows `stride` elements apart
  void* y;                // [tokens, rows]
  const float* bias;      // [rows] or null
  int64_t tokens, stride;
  int32_t x_type, y_type; // Dtype
  int32_t precision;      // Precision
  int32_t largest;        // of an 8-bit input: 127, or 7 where inputs have 4 bits
  int32_t activation;     // Activation
  int32_t threads;
  int32_t isa;            // index into the table of engines
  int32_t reserved;
};

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace paredown
