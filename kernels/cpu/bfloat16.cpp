// step.hpp in bfloat16, for processors that multiply it.

#pragma GCC target("avx512bf16")

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "step.hpp"

namespace {

struct BFloat16 {
  using Real = uint16_t;
  using Operand = __m512bh;
  static constexpr int kPair = 2, kWide = 32;

  static __m512 read(const uint16_t* p) {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
  }
  static __m256i narrow(__m512 v) { return (__m256i)_mm512_cvtneps_pbh(v); }
  static void write(uint16_t* p, __m512 v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow(v)); }
  static Operand load(const uint16_t* p) { return (__m512bh)_mm512_loadu_si512(p); }
  static Operand broadcast(const uint16_t* p) {
    int32_t pair;
    std::memcpy(&pair, p, sizeof pair);
    return (__m512bh)_mm512_set1_epi32(pair);
  }
  static __m512 multiply(__m512 sum, Operand a, Operand b) { return _mm512_dpbf16_ps(sum, a, b); }
  // Numbers of two rows side by side, those of the first in front.
  static __m512i pair(__m256i first, __m256i second) {
    return _mm512_or_si512(_mm512_cvtepu16_epi32(first), _mm512_slli_epi32(_mm512_cvtepu16_epi32(second), 16));
  }
  // [L, D] -> [ceil(L / 2), D, 2], with zeros behind the last row.
  static const uint16_t* pair_rows(const uint16_t* x, int length, int dim, uint16_t* out) {
    for (int l = 0; l < length; l += 2)
      for (int d = 0; d < dim; d += 16) {
        const uint16_t* place = x + size_t(l) * dim + d;
        const __m256i first = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(place));
        const __m256i second =
            l + 1 < length ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(place + dim)) : _mm256_setzero_si256();
        _mm512_storeu_si512(out + size_t(l) * dim + 2 * d, pair(first, second));
      }
    return out;
  }
  template <int M>
  static void write_pairs(uint16_t* p, int dim, const __m512 column[M]) {
    for (int r = 0; r + 1 < M; r += 2) _mm512_storeu_si512(p + r * dim, pair(narrow(column[r]), narrow(column[r + 1])));
  }
};

}  // namespace

extern "C" bool gram_step_bfloat16(const gram::Model* model, const gram::Rows* rows, int32_t* next) {
  return gram::step<BFloat16>(model, rows, next);
}
