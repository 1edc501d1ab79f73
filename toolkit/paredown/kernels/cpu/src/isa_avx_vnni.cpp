#define PAREDOWN_ISA avx_vnni
#define PAREDOWN_VNNI _mm256_dpbusd_avx_epi32
#include "simd_avx2.h"

#include "rows.h"

namespace paredown {
const Engine* engine_avx_vnni() { return PAREDOWN_ISA::engine(); }
}  // namespace paredown
