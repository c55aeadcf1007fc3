// step.hpp in float32.

#include <algorithm>
#include <type_traits>

#include "step.hpp"

namespace {

struct Float32 {
  using Real = float;
  using Operand = __m512;
  static constexpr int kPair = 1, kWide = 16;

  static __m512 read(const float* p) { return _mm512_loadu_ps(p); }
  static void write(float* p, __m512 v) { _mm512_storeu_ps(p, v); }
  static Operand load(const float* p) { return _mm512_loadu_ps(p); }
  static Operand broadcast(const float* p) { return _mm512_set1_ps(*p); }
  static __m512 multiply(__m512 sum, Operand a, Operand b) { return _mm512_fmadd_ps(a, b, sum); }
  static const float* pair_rows(const float* x, int, int, float*) { return x; }
  template <int M>
  static void write_pairs(float* p, int dim, const __m512 column[M]) {
    for (int r = 0; r < M; r++) _mm512_storeu_ps(p + r * dim, column[r]);
  }
};

}  // namespace

extern "C" int32_t gram_interface() { return gram::kInterface; }

extern "C" bool gram_step_float32(const gram::Model* model, const gram::Rows* rows, int32_t* next) {
  return gram::step<Float32>(model, rows, next);
}
