#define PAREDOWN_ISA avx512
#include "simd_avx512.h"

#include "rows.h"

namespace paredown {
const Engine* engine_avx512() { return PAREDOWN_ISA::engine(); }
}  // namespace paredown
