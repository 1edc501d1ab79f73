// What each instruction set offers to the driver.
#pragma once
#include "abi.h"

namespace paredown {

// Inputs of 8 bits have a range of their own in every 64, however large the groups of the weight are: on real activations, whose
// outliers stretch a range, that takes a quarter off the error. The other precisions have no ranges.
inline int64_t parts_of(const Weight& w, int32_t precision) { return precision == INT8 && w.group > 64 ? 2 : 1; }

// Inputs of `width` tokens lie interleaved, [word][token], as words of 32 bits: four int8, two bf16 or one float32. The last tile of
// a call may be filled up with tokens of zeros.
struct Inputs {
  const uint32_t* words;
  const float* scales;  // [part of a group][token] (INT8)
  const float* sums;    // [part of a group][token]: of the inputs as rounded, times their scale (INT8, BF16)
  int64_t width;
};

struct Engine {
  int64_t tile;            // tokens of a tile: up to so many, an even number
  int64_t panel_blocks;    // blocks of 16 rows that are worked on together: from a panel
  int64_t few_blocks;      // in registers
  // Up to how many tokens codes are decoded in registers: 0, 1 or 4.
  int64_t (*few)(const Weight&, Precision);
  // Rounds tokens [first, first + count) into one tile. `row` and `packed` are scratch of [groups * group] each; ranks [count][rank]
  // gets the inputs times the right factor.
  void (*prepare)(const Weight&, const Call&, int64_t first, int64_t count, int64_t width, float* row, uint32_t* packed, uint32_t* words,
                  float* scales, float* sums, float* ranks);
  // The rows of `few_blocks` or `panel_blocks` blocks for all tokens of the tiles, which are token `first` of the call and on. `panel`
  // and `results` are scratch.
  void (*multiply)(const Weight&, const Call&, int64_t block, const Inputs* tiles, int64_t count, bool few, int64_t first, int64_t tokens,
                   const float* ranks, uint8_t* panel, float* results);
};

constexpr int64_t PANEL_BYTES = 16384;                 // decoded weights that stay in the first-level cache
constexpr int64_t PANEL_SCRATCH = PANEL_BYTES + 8192;  // and scales and zero points of at most one group a chunk
constexpr int64_t MOST_BLOCKS = 4;

const Engine* engine_scalar();
#ifdef PAREDOWN_WITH_AVX2
const Engine* engine_avx2();
#endif
#ifdef PAREDOWN_WITH_AVX_VNNI
const Engine* engine_avx_vnni();
#endif
#ifdef PAREDOWN_WITH_AVX512
const Engine* engine_avx512();
#endif
#ifdef PAREDOWN_WITH_NEON_DOTPROD
const Engine* engine_neon_dotprod();
#endif

}  // namespace paredown
