// The doors that Python opens: which instruction sets there are, packing, multiplying, gathering.
#include <cstdlib>
#include <cstring>

#include "engine.h"
#include "pool.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace paredown {
namespace {

struct Candidate {
  const char* name;
  const Engine* (*engine)();
  bool supported, bf16;
};

#if defined(__x86_64__)
struct Features {
  bool avx2 = false, avx_vnni = false, avx512_vnni = false, avx512_bf16 = false;

  Features() {
    unsigned a, b, c, d, low = 0, high = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    const unsigned first = c;
    unsigned b7 = 0, c7 = 0, a71 = 0;
    if (__get_cpuid_count(7, 0, &a, &b7, &c7, &d)) __get_cpuid_count(7, 1, &a71, &b, &c, &d);
    const auto all = [](unsigned value, unsigned bits) { return (value & bits) == bits; };
    avx2 = all(low, 6) && all(first, 1u << 12 | 1u << 23 | 1u << 28 | 1u << 29) && all(b7, 1u << 3 | 1u << 5 | 1u << 8);  // FMA POPCNT AVX F16C; BMI AVX2 BMI2
    avx_vnni = avx2 && all(a71, 1u << 4);
    avx512_vnni = avx2 && all(low, 0xe6) && all(b7, 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31) && all(c7, 1u << 1 | 1u << 6 | 1u << 11);  // F DQ BW VL; VBMI VBMI2 VNNI
    avx512_bf16 = avx512_vnni && all(a71, 1u << 5);
  }
};
#endif

const Candidate* candidates(int64_t& count) {
#if defined(__x86_64__)
  static const Features have;
  static const Candidate all[] = {
      {"scalar", engine_scalar, true, false},
#ifdef PAREDOWN_WITH_AVX2
      {"avx2", engine_avx2, have.avx2, false},
#endif
#ifdef PAREDOWN_WITH_AVX_VNNI
      {"avx_vnni", engine_avx_vnni, have.avx_vnni, false},
#endif
#ifdef PAREDOWN_WITH_AVX512
      {"avx512_vnni", engine_avx512, have.avx512_vnni, false},
      {"avx512_bf16", engine_avx512, have.avx512_bf16, true},
#endif
  };
#else
  static const Candidate all[] = {
      {"scalar", engine_scalar, true, false},
#ifdef PAREDOWN_WITH_NEON_DOTPROD
#if defined(__linux__)
      {"neon_dotprod", engine_neon_dotprod, (getauxval(AT_HWCAP) & 1ul << 20) != 0, false},
#else
      {"neon_dotprod", engine_neon_dotprod, true, false},  // every Apple processor of this architecture
#endif
#endif
  };
#endif
  count = sizeof(all) / sizeof(*all);
  return all;
}

// Scratch of one thread, kept between calls.
struct Scratch {
  uint8_t* data = nullptr;
  size_t size = 0;
  ~Scratch() { free(data); }
  uint8_t* take(size_t bytes) {
    if (bytes > size) {
      free(data);
      size = (bytes + 4095) / 4096 * 4096;
      data = (uint8_t*)aligned_alloc(64, size);
      if (!data) abort();
    }
    return data;
  }
};
thread_local Scratch shared_scratch, own_scratch;

size_t up(size_t bytes) { return (bytes + 63) / 64 * 64; }

constexpr size_t INPUT_BYTES = 512 << 10;  // of rounded inputs that are worked on together: they stay in the second-level cache
constexpr int64_t MOST_TOKENS = 528;

int64_t word_inputs(const Call& call) { return call.precision == INT8 ? 4 : call.precision == BF16 ? 2 : 1; }

void multiply_tokens(const Engine& e, const Weight& w, const Call& call, int64_t first, int64_t tokens) {
  const int64_t padded = w.groups * w.group, words = padded / word_inputs(call), ranges = w.groups * parts_of(w, call.precision);
  const bool few = tokens <= e.few(w, (Precision)call.precision);
  const int64_t even = (ceil_div(tokens, ceil_div(tokens, e.tile)) + 1) / 2 * 2;
  const int64_t width = few ? (tokens == 1 ? 1 : 4) : even, tiles = ceil_div(tokens, width), all = tiles * width;
  const size_t word_bytes = up((size_t)(words * all) * 4), factor_bytes = up((size_t)(ranges * all) * 4);
  const size_t rank_bytes = up((size_t)(w.rank * all) * 4), table_bytes = up((size_t)tiles * sizeof(Inputs));
  uint8_t* memory = shared_scratch.take(word_bytes + 2 * factor_bytes + rank_bytes + table_bytes);
  uint32_t* x = (uint32_t*)memory;
  float *scales = (float*)(memory + word_bytes), *sums = (float*)(memory + word_bytes + factor_bytes);
  float* ranks = (float*)(memory + word_bytes + 2 * factor_bytes);
  Inputs* inputs = (Inputs*)(memory + word_bytes + 2 * factor_bytes + rank_bytes);

  parallel_for(tiles, call.threads, [&](int64_t t) {
    const int64_t from = t * width, size = tokens - from < width ? tokens - from : width;
    float* row = (float*)own_scratch.take(up((size_t)padded * 4) * 2);
    uint32_t* packed = (uint32_t*)((uint8_t*)row + up((size_t)padded * 4));
    const int64_t own = few ? width : (size + 1) / 2 * 2;
    e.prepare(w, call, first + from, size, own, row, packed, x + words * from, scales + ranges * from, sums + ranges * from, ranks + w.rank * from);
    inputs[t] = {x + words * from, scales + ranges * from, sums + ranges * from, own};
  });

  const int64_t step = few ? e.few_blocks : e.panel_blocks, blocks = ceil_div(w.rows, BLOCK);
  parallel_for(ceil_div(blocks, step), call.threads, [&](int64_t i) {
    uint8_t* panel = own_scratch.take(PANEL_SCRATCH + (size_t)(all * MOST_BLOCKS * BLOCK) * 4);
    e.multiply(w, call, i * step, inputs, tiles, few, first, tokens, ranks, panel, (float*)(panel + PANEL_SCRATCH));
  });
}

}  // namespace
}  // namespace paredown

using namespace paredown;

EXPORT int64_t pd_isas() {
  int64_t count;
  candidates(count);
  return count;
}

EXPORT const char* pd_isa_name(int64_t isa) {
  int64_t count;
  return candidates(count)[isa].name;
}

EXPORT int32_t pd_isa_supported(int64_t isa) {
  int64_t count;
  return candidates(count)[isa].supported;
}

EXPORT int32_t pd_isa_bf16(int64_t isa) {
  int64_t count;
  return candidates(count)[isa].bf16;
}

EXPORT void pd_linear(const Weight* w, const Call* asked) {
  int64_t count;
  const Candidate& isa = candidates(count)[asked->isa];
  const Engine& e = *isa.engine();
  Call call = *asked;
  if (call.precision == BF16 && !isa.bf16) call.precision = F32;
  const size_t token_bytes = (size_t)(w->groups * w->group / word_inputs(call)) * 4;
  int64_t most = (int64_t)(INPUT_BYTES / (token_bytes + 1)) / e.tile * e.tile;
  most = most < 2 * e.tile ? 2 * e.tile : most > MOST_TOKENS ? MOST_TOKENS : most;
  for (int64_t first = 0; first < call.tokens; first += most) {
    multiply_tokens(e, *w, call, first, call.tokens - first < most ? call.tokens - first : most);
  }
}
