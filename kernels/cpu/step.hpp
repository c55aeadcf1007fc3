// A supervision step of one row after another, for processors with AVX-512: models/network.py's supervision_step, fused, and
// kernels/readout.py.
//
// A row's activations stay in the core's cache from the first transition to the last, each product ends with what follows it
// (silu and the gate, or the residual and the norm), and the noise is made where it is added. Rows do not share a product, so a
// row's bits depend on the row alone. Sums are kept in float32, in the order of the summed axis.
//
// A Type has: Real, the type of activations and weights; kPair, how many neighbours along the summed axis one multiplication
// takes; and loads, stores and products of 16 sums. Weights come packed: see native.py.

#pragma once

#include <immintrin.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <new>

namespace gram {

constexpr float kEps = 1e-5f;  // kernels/norm.py

// The sizes and packed weights of a network, as native.py fills them in. The weights of a core are four a layer: the mixer's
// gate_up and down, the MLP's gate_up and down. Those of the guidance: mu's gate_up and down, log sigma's, and its bias. Those of
// the readout: the heads' [2, D] and their biases in float32, the decoder's [V, D].
struct Model {
  int32_t length, dim, mixer_dim, mlp_dim, guidance_dim, layers, low_steps, transitions, registers, symbols;
  int32_t flat, norm_over_positions, guidance, learned_mean;
  float log_sigma_min, log_sigma_max;
  const void* const* low;
  const void* const* high;
  const void* const* prior;
  const void* const* readout;
};

// The rows of a step. Of each row: its state; the place of its puzzle in e_x; seed, index, transitions made; temperature; and the
// sigmas of what h and l get before the step. For the readout, if there is a report: the transitions after which the row ends at
// the latest, the halt probability above which it does, and its `stride` bytes in the report.
struct Rows {
  void *h, *low;
  const void* e_x;
  const int64_t *puzzle, *seed, *index, *transition;
  const float *temperature, *sigmas;
  const int64_t* last;
  const float* threshold;
  uint8_t* report;
  int32_t stride, count;
};

// What library.py must agree to: a number that is raised with every change of these structs' meaning, and their sizes.
constexpr int32_t kInterface = 2'000'000 + int32_t(sizeof(Model)) * 1000 + int32_t(sizeof(Rows));

// e^x, to float32's precision, for x from -87 to 87.
static inline __m512 exp16(__m512 x) {
  const __m512 t = _mm512_mul_ps(x, _mm512_set1_ps(1.44269504088896341f));
  const __m512 n = _mm512_roundscale_ps(t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 f = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
  f = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), f);
  __m512 p = _mm512_set1_ps(1.9875691500e-4f);  // Cephes (Moshier)
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.3981999507e-3f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(8.3334519073e-3f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(4.1665795894e-2f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.6666665459e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.0000001201e-1f));
  p = _mm512_fmadd_ps(p, _mm512_mul_ps(f, f), _mm512_add_ps(f, _mm512_set1_ps(1.f)));
  return _mm512_scalef_ps(p, n);
}

// silu(gate) * up. A gate that is not a number stays so; beyond 80 silu is the identity, or 0.
static inline __m512 swiglu16(__m512 gate, __m512 up) {
  // min and max return their second operand where one is not a number.
  const __m512 bounded = _mm512_max_ps(_mm512_set1_ps(-80.f), _mm512_min_ps(_mm512_set1_ps(80.f), gate));
  const __m512 e = exp16(_mm512_sub_ps(_mm512_setzero_ps(), bounded));
  return _mm512_mul_ps(_mm512_div_ps(gate, _mm512_add_ps(e, _mm512_set1_ps(1.f))), up);
}

// The natural logarithm of x > 0, to float32's precision.
static inline __m512 log16(__m512 x) {
  __m512 e = _mm512_getexp_ps(x);
  __m512 m = _mm512_getmant_ps(x, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_zero);
  const __mmask16 high = _mm512_cmp_ps_mask(m, _mm512_set1_ps(1.41421356f), _CMP_GT_OQ);
  m = _mm512_mask_mul_ps(m, high, m, _mm512_set1_ps(0.5f));
  e = _mm512_mask_add_ps(e, high, e, _mm512_set1_ps(1.f));
  const __m512 f = _mm512_sub_ps(m, _mm512_set1_ps(1.f)), z = _mm512_mul_ps(f, f);
  __m512 p = _mm512_set1_ps(7.0376836292e-2f);  // Cephes (Moshier)
  for (const float c : {-1.1514610310e-1f, 1.1676998740e-1f, -1.2420140846e-1f, 1.4249322787e-1f, -1.6668057665e-1f,
                        2.0000714765e-1f, -2.4999993993e-1f, 3.3333331174e-1f})
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(c));
  __m512 y = _mm512_mul_ps(_mm512_mul_ps(p, f), z);
  y = _mm512_fmadd_ps(e, _mm512_set1_ps(-2.12194440e-4f), y);
  y = _mm512_fnmadd_ps(_mm512_set1_ps(0.5f), z, y);
  return _mm512_fmadd_ps(e, _mm512_set1_ps(0.693359375f), _mm512_add_ps(f, y));
}

// The high and the low halves of a * b, of 16 unsigned words.
static inline void multiply(__m512i a, __m512i b, __m512i& high, __m512i& low) {
  const __m512i even = _mm512_mul_epu32(a, b);
  const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), _mm512_srli_epi64(b, 32));
  high = _mm512_mask_blend_epi32(0xAAAA, _mm512_srli_epi64(even, 32), odd);
  low = _mm512_mask_blend_epi32(0xAAAA, even, _mm512_slli_epi64(odd, 32));
}

// Two words -> two normals, the cosine's and the sine's: kernels/gpu/noise.py explains the angle.
static inline void box_muller(__m512i first, __m512i second, __m512& cosine, __m512& sine) {
  const __m512 half = _mm512_set1_ps(0.5f);
  const __m512 uniform =
      _mm512_mul_ps(_mm512_add_ps(_mm512_cvtepu32_ps(_mm512_srli_epi32(first, 8)), half), _mm512_set1_ps(0x1p-24f));
  const __m512 radius = _mm512_sqrt_ps(_mm512_mul_ps(_mm512_set1_ps(-2.f), log16(uniform)));
  const __m512i one = _mm512_set1_epi32(1), two = _mm512_set1_epi32(2);
  const __m512i quadrant = _mm512_srli_epi32(_mm512_add_epi32(_mm512_srli_epi32(second, 29), one), 1);
  const __m512i turned = _mm512_sub_epi32(_mm512_srli_epi32(second, 8), _mm512_slli_epi32(quadrant, 22));
  const __m512 x = _mm512_mul_ps(_mm512_add_ps(_mm512_cvtepi32_ps(turned), half), _mm512_set1_ps(3.7450702829238413e-07f));
  const __m512 z = _mm512_mul_ps(x, x);
  __m512 s = _mm512_fmadd_ps(_mm512_set1_ps(-1.9515295891e-4f), z, _mm512_set1_ps(8.3321608736e-3f));
  s = _mm512_fmadd_ps(s, z, _mm512_set1_ps(-1.6666654611e-1f));
  s = _mm512_fmadd_ps(_mm512_mul_ps(s, z), x, x);
  __m512 c = _mm512_fmadd_ps(_mm512_set1_ps(2.443315711809948e-5f), z, _mm512_set1_ps(-1.388731625493765e-3f));
  c = _mm512_fmadd_ps(c, z, _mm512_set1_ps(4.166664568298827e-2f));
  c = _mm512_add_ps(_mm512_fnmadd_ps(half, z, _mm512_mul_ps(_mm512_mul_ps(c, z), z)), _mm512_set1_ps(1.f));
  const __mmask16 odd = _mm512_test_epi32_mask(quadrant, one);
  const __mmask16 cosine_sign = _mm512_test_epi32_mask(_mm512_add_epi32(quadrant, one), two);
  const __mmask16 sine_sign = _mm512_test_epi32_mask(quadrant, two);
  const __m512 nothing = _mm512_setzero_ps(), a = _mm512_mask_blend_ps(odd, c, s), b = _mm512_mask_blend_ps(odd, s, c);
  cosine = _mm512_mul_ps(radius, _mm512_mask_sub_ps(a, cosine_sign, nothing, a));
  sine = _mm512_mul_ps(radius, _mm512_mask_sub_ps(b, sine_sign, nothing, b));
}

// The normals of 16 counters from `block` on, of the channels of each quarter: kernels/noise.py.
static inline void four_normals(int64_t seed, int64_t index, int64_t transition, uint32_t stream, uint32_t block,
                                __m512 normals[4]) {
  const __m512i ramp = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  __m512i c0 = _mm512_add_epi32(_mm512_set1_epi32(int32_t(block)), ramp), c1 = _mm512_set1_epi32(int32_t(transition));
  __m512i c2 = _mm512_set1_epi32(int32_t(index)), c3 = _mm512_set1_epi32(int32_t(stream));
  uint32_t k0 = uint32_t(seed), k1 = uint32_t(uint64_t(seed) >> 32);
  const __m512i m0 = _mm512_set1_epi32(int32_t(0xD2511F53u)), m1 = _mm512_set1_epi32(int32_t(0xCD9E8D57u));
  for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
    __m512i high0, low0, high1, low1;
    multiply(c0, m0, high0, low0);
    multiply(c2, m1, high1, low1);
    c0 = _mm512_xor_si512(_mm512_xor_si512(high1, c1), _mm512_set1_epi32(int32_t(k0)));
    c2 = _mm512_xor_si512(_mm512_xor_si512(high0, c3), _mm512_set1_epi32(int32_t(k1)));
    c1 = low1;
    c3 = low0;
  }
  box_muller(c0, c1, normals[0], normals[2]);
  box_muller(c2, c3, normals[1], normals[3]);
}

template <class Type>
class Step {
  using Real = typename Type::Real;
  using Operand = typename Type::Operand;

 public:
  // Throws std::bad_alloc.
  explicit Step(const Model& model) : m_(model) {
    const size_t widest = size_t(std::max(std::max(m_.mixer_dim, m_.length) * m_.dim, m_.length * std::max(m_.mlp_dim, m_.guidance_dim)));
    Real* reals = scratch<Real, 0>(widest + size_t(m_.length + 1) * m_.dim);
    hidden_ = reals;
    paired_ = reals + widest;
    float* floats = scratch<float, 1>(2 * size_t(m_.length) * m_.dim);
    sums_ = floats;
    more_sums_ = floats + size_t(m_.length) * m_.dim;
  }

  // A step of one row, in place.
  void row(const Rows& rows, int i) {
    const size_t size = size_t(m_.length) * m_.dim;
    Real *h = static_cast<Real*>(rows.h) + i * size, *low = static_cast<Real*>(rows.low) + i * size;
    const Real* e_x = static_cast<const Real*>(rows.e_x) + rows.puzzle[i] * size;
    const int64_t seed = rows.seed[i], index = rows.index[i], transition = rows.transition[i];
    perturb(h, rows.sigmas[2 * i], seed, index, transition, 1);
    perturb(low, rows.sigmas[2 * i + 1], seed, index, transition, 2);
    for (int t = 0; t < m_.transitions; t++) {
      for (int k = 0; k < m_.low_steps + m_.flat; k++) {
        Real* z = m_.flat ? h : low;
        for (int j = 0; j < m_.length * m_.dim; j += 16) {
          __m512 sum = _mm512_add_ps(Type::read(h + j), Type::read(e_x + j));
          if (!m_.flat) sum = _mm512_add_ps(sum, Type::read(low + j));
          Type::write(z + j, sum);
        }
        core(z, m_.flat ? m_.high : m_.low);
      }
      if (!m_.flat) {
        for (int j = 0; j < m_.length * m_.dim; j += 16)
          Type::write(h + j, _mm512_add_ps(Type::read(h + j), Type::read(low + j)));
        core(h, m_.high);
      }
      if (m_.guidance) sample(h, rows.temperature[i], seed, index, transition + t);
    }
    if (rows.report) show(h, low, transition + m_.transitions >= rows.last[i], rows.threshold[i], rows.report + size_t(i) * rows.stride);
  }

 private:
  const Model& m_;
  Real *hidden_, *paired_;
  float *sums_, *more_sums_;

  // Memory that a thread keeps, one piece for each use.
  template <class T, int use>
  static T* scratch(size_t count) {
    struct Free {
      void operator()(void* p) const { std::free(p); }
    };
    thread_local std::unique_ptr<void, Free> memory;
    thread_local size_t bytes = 0;
    const size_t needed = (count * sizeof(T) + 63) / 64 * 64;
    if (needed > bytes) {
      bytes = 0;
      memory.reset(std::aligned_alloc(64, needed));
      if (!memory) throw std::bad_alloc();
      bytes = needed;
    }
    return static_cast<T*>(memory.get());
  }

  // Calls f with `count` rows at a time, as a constant, and the first of them.
  template <class F>
  static void blocks(int count, F f) {
    int first = 0;
    for (; first + 6 <= count; first += 6) f(std::integral_constant<int, 6>(), first);
    switch (count - first) {
      case 5: f(std::integral_constant<int, 5>(), first); break;
      case 4: f(std::integral_constant<int, 4>(), first); break;
      case 3: f(std::integral_constant<int, 3>(), first); break;
      case 2: f(std::integral_constant<int, 2>(), first); break;
      case 1: f(std::integral_constant<int, 1>(), first); break;
    }
  }

  // Calls end with the sums [M][4] of a [M, K] times b, whose next operands, four at a time, are `stride` apart.
  template <int M, class End>
  static void product(const Real* a, int lda, int depth, const Real* b, int stride, End end) {
    __m512 c[M][4];
    for (int r = 0; r < M; r++)
      for (int j = 0; j < 4; j++) c[r][j] = _mm512_setzero_ps();
    for (int k = 0; k < depth; k += Type::kPair, b += stride) {
      const Operand b0 = Type::load(b), b1 = Type::load(b + Type::kWide), b2 = Type::load(b + 2 * Type::kWide),
                    b3 = Type::load(b + 3 * Type::kWide);
#pragma GCC unroll 8
      for (int r = 0; r < M; r++) {
        const Operand x = Type::broadcast(a + r * lda + k);
        c[r][0] = Type::multiply(c[r][0], x, b0);
        c[r][1] = Type::multiply(c[r][1], x, b1);
        c[r][2] = Type::multiply(c[r][2], x, b2);
        c[r][3] = Type::multiply(c[r][3], x, b3);
      }
    }
    end(c);
  }

  // out [L, 64 of D] = a [L, K] times b.
  void product_to(float* out, const Real* a, int depth, const Real* b, int stride) {
    blocks(m_.length, [&](auto rows, int first) {
      constexpr int M = decltype(rows)::value;
      product<M>(a + size_t(first) * depth, depth, depth, b, stride, [&](const __m512(&c)[M][4]) {
        for (int r = 0; r < M; r++)
          for (int j = 0; j < 4; j++) _mm512_storeu_ps(out + size_t(first + r) * m_.dim + 16 * j, c[r][j]);
      });
    });
  }

  // The hidden activations of a SwiGLU over channels: x [L, D] -> hidden [L, H].
  void channels_up(const Real* x, const Real* weight, int width) {
    const int dim = m_.dim, stride = 4 * Type::kWide;
    for (int n = 0; n < width; n += 32, weight += stride * (dim / Type::kPair))
      blocks(m_.length, [&](auto rows, int first) {
        constexpr int M = decltype(rows)::value;
        product<M>(x + first * dim, dim, dim, weight, stride, [&](const __m512(&c)[M][4]) {  // two gates, two ups
          for (int r = 0; r < M; r++)
            for (int j = 0; j < 2; j++)
              Type::write(hidden_ + size_t(first + r) * width + n + 16 * j, swiglu16(c[r][j], c[r][j + 2]));
        });
      });
  }

  // The last product of a SwiGLU over channels: hidden [L, H] -> sums [L, D].
  void channels_down(const Real* weight, int width, float* sums) {
    const int stride = 4 * Type::kWide;
    for (int n = 0; n < m_.dim; n += 64, weight += stride * (width / Type::kPair))
      product_to(sums + n, hidden_, width, weight, stride);
  }

  // A SwiGLU over positions: x [L, D] -> sums [L, D].
  void positions(const Real* x, const Real* up_weight, const Real* down_weight) {
    const int dim = m_.dim, width = m_.mixer_dim, length = (m_.length + Type::kPair - 1) / Type::kPair * Type::kPair;
    const int stride = Type::kPair * dim;
    const Real* pairs = Type::pair_rows(x, m_.length, dim, paired_);
    for (int d = 0; d < dim; d += 32)
      blocks(width, [&](auto rows, int first) {
        constexpr int M = decltype(rows)::value;
        const Real *a = up_weight + size_t(first) * length, *b = pairs + Type::kPair * d;
        const Real* a2 = a + size_t(width) * length;
        __m512 gate[M][2], up[M][2];
        for (int r = 0; r < M; r++) gate[r][0] = gate[r][1] = up[r][0] = up[r][1] = _mm512_setzero_ps();
        for (int k = 0; k < length; k += Type::kPair, b += stride) {
          const Operand b0 = Type::load(b), b1 = Type::load(b + Type::kWide);
#pragma GCC unroll 8
          for (int r = 0; r < M; r++) {
            const Operand g = Type::broadcast(a + r * length + k), u = Type::broadcast(a2 + r * length + k);
            gate[r][0] = Type::multiply(gate[r][0], g, b0);
            gate[r][1] = Type::multiply(gate[r][1], g, b1);
            up[r][0] = Type::multiply(up[r][0], u, b0);
            up[r][1] = Type::multiply(up[r][1], u, b1);
          }
        }
        for (int j = 0; j < 2; j++) {
          __m512 column[M];
          for (int r = 0; r < M; r++) column[r] = swiglu16(gate[r][j], up[r][j]);
          Type::template write_pairs<M>(hidden_ + size_t(first) * dim + Type::kPair * (d + 16 * j), dim, column);
        }
      });
    for (int d = 0; d < dim; d += 64) product_to(sums_ + d, down_weight, width, hidden_ + Type::kPair * d, stride);
  }

  // x = norm(x + sums), over channels.
  void add_and_norm(Real* x) {
    for (int l = 0; l < m_.length; l++) {
      float* s = sums_ + size_t(l) * m_.dim;
      Real* y = x + size_t(l) * m_.dim;
      __m512 squares = _mm512_setzero_ps();
      for (int d = 0; d < m_.dim; d += 16) {
        const __m512 v = _mm512_add_ps(_mm512_loadu_ps(s + d), Type::read(y + d));
        _mm512_storeu_ps(s + d, v);
        squares = _mm512_fmadd_ps(v, v, squares);
      }
      const __m512 scale = inverse_root(_mm512_set1_ps(_mm512_reduce_add_ps(squares)), m_.dim);
      for (int d = 0; d < m_.dim; d += 16) Type::write(y + d, _mm512_mul_ps(_mm512_loadu_ps(s + d), scale));
    }
  }

  // x = norm(x + sums), over positions.
  void add_and_norm_over_positions(Real* x) {
    for (int d = 0; d < m_.dim; d += 16) {
      __m512 squares = _mm512_setzero_ps();
      for (int l = 0; l < m_.length; l++) {
        float* s = sums_ + size_t(l) * m_.dim + d;
        const __m512 v = _mm512_add_ps(_mm512_loadu_ps(s), Type::read(x + size_t(l) * m_.dim + d));
        _mm512_storeu_ps(s, v);
        squares = _mm512_fmadd_ps(v, v, squares);
      }
      const __m512 scale = inverse_root(squares, m_.length);
      for (int l = 0; l < m_.length; l++)
        Type::write(x + size_t(l) * m_.dim + d, _mm512_mul_ps(_mm512_loadu_ps(sums_ + size_t(l) * m_.dim + d), scale));
    }
  }

  // 1 / sqrt(squares / count + eps)
  static __m512 inverse_root(__m512 squares, int count) {
    const __m512 mean = _mm512_div_ps(squares, _mm512_set1_ps(float(count)));
    return _mm512_div_ps(_mm512_set1_ps(1.f), _mm512_sqrt_ps(_mm512_add_ps(mean, _mm512_set1_ps(kEps))));
  }

  // models.layers.Core, in place.
  void core(Real* x, const void* const* weights) {
    for (int layer = 0; layer < m_.layers; layer++, weights += 4) {
      const auto weight = [&](int i) { return static_cast<const Real*>(weights[i]); };
      positions(x, weight(0), weight(1));
      if (m_.norm_over_positions) {
        add_and_norm_over_positions(x);
      } else {
        add_and_norm(x);
      }
      channels_up(x, weight(2), m_.mlp_dim);
      channels_down(weight(3), m_.mlp_dim, sums_);
      add_and_norm(x);
    }
  }

  // h = u + mu(u) + temperature sigma(u) noise, in place.
  void sample(Real* u, float temperature, int64_t seed, int64_t index, int64_t transition) {
    const auto weight = [&](int i) { return static_cast<const Real*>(m_.prior[i]); };
    const int dim = m_.dim, quarter = dim / 4;
    if (m_.learned_mean) {
      channels_up(u, weight(0), m_.guidance_dim);
      channels_down(weight(1), m_.guidance_dim, sums_);
    }
    if (temperature != 0.f) {
      channels_up(u, weight(2), m_.guidance_dim);
      channels_down(weight(3), m_.guidance_dim, more_sums_);
    }
    const float* bias = static_cast<const float*>(m_.prior[4]);
    const __m512 low = _mm512_set1_ps(m_.log_sigma_min), high = _mm512_set1_ps(m_.log_sigma_max);
    const __m512 heat = _mm512_set1_ps(temperature);
    for (int l = 0; l < m_.length; l++)
      for (int i = 0; i < quarter; i += 16) {
        __m512 normals[4];
        if (temperature != 0.f) four_normals(seed, index, transition, 0, uint32_t(l * quarter + i), normals);
        for (int q = 0; q < 4; q++) {
          const int channel = q * quarter + i;
          const size_t place = size_t(l) * dim + channel;
          __m512 v = Type::read(u + place);
          if (m_.learned_mean) v = _mm512_add_ps(v, _mm512_loadu_ps(sums_ + place));
          if (temperature != 0.f) {
            __m512 log_sigma = _mm512_add_ps(_mm512_loadu_ps(more_sums_ + place), _mm512_loadu_ps(bias + channel));
            log_sigma = _mm512_max_ps(low, _mm512_min_ps(high, log_sigma));
            v = _mm512_fmadd_ps(_mm512_mul_ps(heat, exp16(log_sigma)), normals[q], v);
          }
          Type::write(u + place, v);
        }
      }
  }

  // What the row shows: four numbers, and the symbols of its answer.
  void show(const Real* h, const Real* low, bool is_last, float threshold, uint8_t* report) {
    const float* heads = static_cast<const float*>(m_.readout[0]);
    const float* biases = static_cast<const float*>(m_.readout[1]);
    const Real* decoder = static_cast<const Real*>(m_.readout[2]);
    float probability[2];
    for (int head = 0; head < 2; head++) {
      __m512 sum = _mm512_setzero_ps();
      for (int d = 0; d < m_.dim; d += 16)
        sum = _mm512_fmadd_ps(Type::read(h + d), _mm512_loadu_ps(heads + head * m_.dim + d), sum);
      probability[head] = 1.f / (1.f + std::exp(-(_mm512_reduce_add_ps(sum) + biases[head])));
    }
    __mmask16 broken = 0;
    for (int j = 0; j < m_.length * m_.dim; j += 16)
      for (const Real* z : {h, low}) {
        const __m512 v = Type::read(z + j), nothing = _mm512_sub_ps(v, v);
        broken |= _mm512_cmp_ps_mask(nothing, nothing, _CMP_UNORD_Q);
      }
    const bool halts = probability[0] > threshold;
    const float numbers[4] = {probability[0], probability[1], broken ? 0.f : 1.f, float((halts || broken || is_last) + halts)};
    std::memcpy(report, numbers, sizeof numbers);
    for (int l = m_.registers; l < m_.length; l++) {
      float best = -INFINITY;
      int symbol = 0;
      for (int s = 0; s < m_.symbols; s++) {
        __m512 sum = _mm512_setzero_ps();
        for (int d = 0; d < m_.dim; d += 16)
          sum = _mm512_fmadd_ps(Type::read(h + size_t(l) * m_.dim + d), Type::read(decoder + size_t(s) * m_.dim + d), sum);
        Real rounded[16];  // of equals the first counts, so logits are compared as they are elsewhere, in the type of h
        Type::write(rounded, _mm512_set1_ps(_mm512_reduce_add_ps(sum)));
        const float logit = _mm512_cvtss_f32(Type::read(rounded));
        if (logit > best) best = logit, symbol = s;
      }
      report[sizeof numbers + l - m_.registers] = uint8_t(symbol);
    }
  }

  // z = z + sigma * noise, in place: kernels/perturbation.py.
  void perturb(Real* z, float sigma, int64_t seed, int64_t index, int64_t transition, uint32_t stream) {
    if (!(sigma > 0.f)) return;
    const int dim = m_.dim, quarter = dim / 4;
    for (int l = 0; l < m_.length; l++)
      for (int i = 0; i < quarter; i += 16) {
        __m512 normals[4];
        four_normals(seed, index, transition, stream, uint32_t(l * quarter + i), normals);
        for (int q = 0; q < 4; q++) {
          Real* place = z + size_t(l) * dim + q * quarter + i;
          Type::write(place, _mm512_fmadd_ps(_mm512_set1_ps(sigma), normals[q], Type::read(place)));
        }
      }
  }
};

// Makes a step of rows, in place. Threads share it: each call takes rows, counted by `next`, until none is left. Returns false if
// there is no memory for it.
template <class Type>
bool step(const Model* model, const Rows* rows, int32_t* next) try {
  Step<Type> network(*model);
  for (int i; (i = __atomic_fetch_add(next, 1, __ATOMIC_RELAXED)) < rows->count;) network.row(*rows, i);
  return true;
} catch (const std::bad_alloc&) {
  return false;
}

}  // namespace gram
