// Every product that the kernels know, on every instruction set of this machine, at awkward shapes, under the sanitizers: what is read
// or written beside a buffer ends the program. Results are compared with plain loops.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "../../toolkit/paredown/kernels/cpu/src/abi.h"

using namespace paredown;

extern "C" {
int64_t pd_isas();
int32_t pd_isa_supported(int64_t);
void pd_linear(const Weight*, const Call*);
void pd_rows(const Weight*, const int64_t*, int64_t, float*);
void pd_pack_dense(const uint8_t*, int64_t, int64_t, int64_t, int32_t, uint8_t*);
int64_t pd_pack_sparse(const uint8_t*, const uint8_t*, int64_t, int64_t, int64_t, int32_t, uint8_t*, uint64_t*, int64_t*);
}

static uint32_t state = 1;
static uint32_t draw() { return (state = state * 1664525u + 1013904223u) >> 8; }

static int check(int64_t rows, int64_t inputs, int64_t group, int32_t bits, bool sparse, int64_t tokens, int32_t precision, int64_t isa) {
  const int64_t groups = ceil_div(inputs, group), padded = groups * group, blocks = ceil_div(rows, BLOCK), rank = bits % 2 ? 3 : 0;
  std::vector<uint8_t> codes((size_t)(rows * inputs)), kept(codes.size(), 1);
  for (auto& code : codes) code = (uint8_t)(draw() & ((1u << bits) - 1));
  std::vector<float> scales((size_t)(blocks * groups * 16), 0.0f), left((size_t)(blocks * rank * 16), 0.5f), right((size_t)(inputs * 16 * (rank ? 1 : 0)), 0.0f);
  std::vector<uint8_t> zeros(scales.size(), 0);
  for (int64_t row = 0; row < rows; row++)
    for (int64_t g = 0; g < groups; g++) {
      const size_t at = (size_t)(((row / 16) * groups + g) * 16 + row % 16);
      scales[at] = 0.01f + 0.001f * (float)(draw() % 10);
      zeros[at] = (uint8_t)(draw() & ((1u << bits) - 1));
    }
  for (int64_t k = 0; k < inputs; k++)
    for (int64_t r = 0; r < rank; r++) right[(size_t)(k * 16 + r)] = (float)(draw() % 8) / 8;
  std::vector<uint8_t> packed;
  std::vector<uint64_t> masks((size_t)(blocks * padded / 4));
  std::vector<int64_t> offsets((size_t)blocks);
  if (sparse) {
    for (auto& one : kept) one = draw() % 3 == 0;
    const int64_t size = pd_pack_sparse(codes.data(), kept.data(), rows, inputs, padded, bits, nullptr, nullptr, nullptr);
    packed.resize((size_t)size + 64);
    pd_pack_sparse(codes.data(), kept.data(), rows, inputs, padded, bits, packed.data(), masks.data(), offsets.data());
  } else {
    packed.resize((size_t)(blocks * 16 * padded * bits / 8 + 64));
    pd_pack_dense(codes.data(), rows, inputs, padded, bits, packed.data());
  }
  std::vector<float> x((size_t)(tokens * inputs)), y((size_t)(tokens * rows)), bias((size_t)rows, 0.25f);
  for (auto& v : x) v = (float)((int)(draw() % 255) - 127) / 127;
  const Weight w = {rows, inputs, groups, group, rank, bits, 1, 1, 0, packed.data(), scales.data(), zeros.data(), nullptr,
                    sparse ? masks.data() : nullptr, sparse ? offsets.data() : nullptr, left.data(), right.data()};
  const Call call = {x.data(), y.data(), bias.data(), tokens, inputs, FLOAT32, FLOAT32, precision, 127, IDENTITY, 2, (int32_t)isa, 0};
  pd_linear(&w, &call);
  if (!sparse) {
    const int64_t last = rows - 1;
    std::vector<float> row((size_t)inputs);
    pd_rows(&w, &last, 1, row.data());
    for (int64_t k = 0; k < inputs; k++) {
      const size_t at = (size_t)(((last / 16) * groups + k / group) * 16 + last % 16);
      const float number = (float)(codes[(size_t)(last * inputs + k)] - zeros[at]) * scales[at];
      if (row[(size_t)k] != number) return printf("row %ld input %ld of %d bits: %g, not %g\n", (long)last, (long)k, bits, row[(size_t)k], number), 1;
    }
  }
  for (int64_t m = 0; m < tokens; m++)
    for (int64_t row = 0; row < rows; row++) {
      double exact = 0.25, size = 0.1;
      for (int64_t k = 0; k < inputs; k++) {
        const size_t at = (size_t)(((row / 16) * groups + k / group) * 16 + row % 16), code = (size_t)(row * inputs + k);
        const double number = kept[code] ? (codes[code] - zeros[at]) * (double)scales[at] : 0, input = x[(size_t)(m * inputs + k)];
        exact += number * input, size += std::fabs(number);
        for (int64_t r = 0; r < rank; r++) exact += 0.5 * right[(size_t)(k * 16 + r)] * input;
      }
      if (!(std::fabs(y[(size_t)(m * rows + row)] - exact) <= 0.01 * size)) {
        printf("rows %ld inputs %ld bits %d sparse %d tokens %ld precision %d isa %ld: %g, expected %g\n", (long)rows, (long)inputs, bits, sparse,
               (long)tokens, precision, (long)isa, (double)y[(size_t)(m * rows + row)], exact);
        return 1;
      }
    }
  return 0;
}

int main() {
  int wrong = 0;
  for (int64_t isa = 0; isa < pd_isas(); isa++) {
    if (!pd_isa_supported(isa)) continue;
    for (const int32_t bits : {2, 3, 4, 5, 6, 8})
      for (int32_t precision = 0; precision < 3; precision++)
        for (const int64_t tokens : {1, 3, 13})
          for (const bool sparse : {false, true}) wrong += check(37, 50, 16, bits, sparse, tokens, precision, isa) + check(16, 256, 128, bits, sparse, tokens, precision, isa);
    for (const int32_t bits : {4, 8})  // wider than a panel
      for (int32_t precision = 0; precision < 3; precision++)
        for (const bool sparse : {false, true}) wrong += check(37, 1100, 128, bits, sparse, 15, precision, isa);
  }
  printf(wrong ? "%d wrong\n" : "all right\n", wrong);
  return wrong != 0;
}
