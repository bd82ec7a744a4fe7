// Each query's best keys, exact, without a matrix of scores. Built and called by topk_cpu.py.
//
// Keys are laid out in panels, of which a tile of queries takes one at a time: its scores stay in the first cache, and
// only those that beat the query's limit are written down. The limit is the K-th best score at the last look.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <immintrin.h>
#include <memory>
#include <new>
#include <omp.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace {

constexpr int64_t BLOCK = 96;  // queries that a thread takes at a time, a multiple of each way's ROWS
constexpr int SPARE = 206;     // candidates of a query beyond K before the worst are dropped

#if defined(__AVX512F__)
constexpr int LANES = 16, TILE_ROWS = 6, TILE_VECTORS = 4;  // as many products as the registers hold
using Vector = __m512;
inline Vector zero_vector() { return _mm512_setzero_ps(); }
inline Vector load_vector(const float* x) { return _mm512_load_ps(x); }
inline Vector spread_vector(float x) { return _mm512_set1_ps(x); }
inline Vector fused_multiply_add(Vector a, Vector b, Vector sum) { return _mm512_fmadd_ps(a, b, sum); }
inline void store_vector(float* to, Vector x) { _mm512_store_ps(to, x); }
inline uint32_t beats(Vector x, Vector limit) { return _mm512_cmp_ps_mask(x, limit, _CMP_NLE_UQ); }
#else  // AVX2 and FMA
constexpr int LANES = 8, TILE_ROWS = 4, TILE_VECTORS = 3;
using Vector = __m256;
inline Vector zero_vector() { return _mm256_setzero_ps(); }
inline Vector load_vector(const float* x) { return _mm256_load_ps(x); }
inline Vector spread_vector(float x) { return _mm256_set1_ps(x); }
inline Vector fused_multiply_add(Vector a, Vector b, Vector sum) { return _mm256_fmadd_ps(a, b, sum); }
inline void store_vector(float* to, Vector x) { _mm256_store_ps(to, x); }
inline uint32_t beats(Vector x, Vector limit) { return _mm256_movemask_ps(_mm256_cmp_ps(x, limit, _CMP_NLE_UQ)); }
#endif

inline float to_float(float x) { return x; }
inline float to_float(uint16_t bfloat16) {
  uint32_t bits = static_cast<uint32_t>(bfloat16) << 16;
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// Two channels of bfloat16.
inline uint32_t pair(const uint16_t* x) {
  uint32_t both;
  std::memcpy(&both, x, sizeof both);
  return both;
}

// Ways to multiply a tile of ROWS queries with a panel of KEYS keys. Each says how numbers lie in both: a cell of 32
// bits holds one channel, or two of bfloat16; rows of a tile or panel that have no token are zeros.

// float32 products, also of bfloat16 numbers.
struct Single {
  using Cell = float;
  using Operand = Vector;
  static constexpr int CHANNELS = 1;
  template <class Number> static Cell cell(const Number* x) { return to_float(*x); }
  static Operand load(const Cell* x) { return load_vector(x); }
  static Operand spread(Cell x) { return spread_vector(x); }
  static Vector multiply_add(Operand a, Operand b, Vector sum) { return fused_multiply_add(a, b, sum); }
};

#if defined(__AVX512BF16__)
// bfloat16 products, two channels at a time.
struct Pair {
  using Cell = uint32_t;
  using Operand = __m512bh;
  static constexpr int CHANNELS = 2;
  static Cell cell(const uint16_t* x) { return pair(x); }
  static Operand load(const Cell* x) { return (Operand)_mm512_load_si512(x); }
  static Operand spread(Cell x) { return (Operand)_mm512_set1_epi32(x); }
  static Vector multiply_add(Operand a, Operand b, Vector sum) { return _mm512_dpbf16_ps(sum, a, b); }
};
#else
using Pair = Single;
#endif

// Sums in vector registers.
template <class Product> struct Vectors {
  using Cell = typename Product::Cell;
  static constexpr int ROWS = TILE_ROWS, KEYS = TILE_VECTORS * LANES, CHANNELS = Product::CHANNELS;
  static bool begin() { return true; }
  static void end() {}

  template <class Number> static void lay_out(const Number* tokens, int64_t count, int width, int64_t channels, Cell* to) {
    for (int64_t c = 0; c < channels; c += CHANNELS)
      for (int i = 0; i < width; i++) *to++ = i < count ? Product::cell(tokens + i * channels + c) : Cell{};
  }
  template <class Number> static void lay_out_queries(const Number* q, int64_t count, int64_t channels, Cell* to) {
    lay_out(q, count, ROWS, channels, to);
  }
  template <class Number> static void lay_out_keys(const Number* k, int64_t count, int64_t channels, Cell* to) {
    lay_out(k, count, KEYS, channels, to);
  }

  static void multiply(const Cell* queries, const Cell* keys, int64_t cells, float* scores) {
    Vector sum[ROWS][TILE_VECTORS];
    for (auto& row : sum)
      for (auto& x : row) x = zero_vector();
    for (int64_t c = 0; c < cells; c++, queries += ROWS, keys += KEYS) {
      typename Product::Operand key[TILE_VECTORS];
      for (int j = 0; j < TILE_VECTORS; j++) key[j] = Product::load(keys + j * LANES);
      for (int i = 0; i < ROWS; i++) {
        const typename Product::Operand query = Product::spread(queries[i]);
        for (int j = 0; j < TILE_VECTORS; j++) sum[i][j] = Product::multiply_add(query, key[j], sum[i][j]);
      }
    }
    for (int i = 0; i < ROWS; i++)
      for (int j = 0; j < TILE_VECTORS; j++) store_vector(scores + i * KEYS + j * LANES, sum[i][j]);
  }
};

#if defined(__AMX_BF16__)
// bfloat16 products with sums in matrix registers: 2 x 2 of 16 queries by 16 keys, 32 channels at a time.
struct Matrix {
  using Cell = uint32_t;
  static constexpr int ROWS = 32, KEYS = 32, CHANNELS = 2;

  static bool begin() {  // false where the system does not let this process use them
    constexpr int REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;  // arch_prctl(2)
    if (syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) != 0) return false;
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } config;
    _tile_loadconfig(&config);
    return true;
  }
  static void end() { _tile_release(); }

  static void lay_out_queries(const uint16_t* q, int64_t count, int64_t channels, Cell* to) {
    const int64_t there = std::min<int64_t>(count, ROWS) * channels / 2;
    std::memcpy(to, q, there * sizeof(Cell));
    std::memset(to + there, 0, (ROWS * channels / 2 - there) * sizeof(Cell));
  }
  static void lay_out_keys(const uint16_t* k, int64_t count, int64_t channels, Cell* to) {
    for (int64_t c = 0; c < channels; c += 2)
      for (int i = 0; i < KEYS; i++) *to++ = i < count ? pair(k + i * channels + c) : 0;
  }

  static void multiply(const Cell* queries, const Cell* keys, int64_t cells, float* scores) {
    const int64_t query_stride = cells * sizeof(Cell), key_stride = KEYS * sizeof(Cell);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t c = 0; c < cells; c += 16) {
      _tile_loadd(4, queries + c, query_stride);
      _tile_loadd(5, queries + 16 * cells + c, query_stride);
      _tile_loadd(6, keys + c * KEYS, key_stride);
      _tile_loadd(7, keys + c * KEYS + 16, key_stride);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, scores, KEYS * sizeof(float));
    _tile_stored(1, scores + 16, KEYS * sizeof(float));
    _tile_stored(2, scores + 16 * KEYS, KEYS * sizeof(float));
    _tile_stored(3, scores + 16 * KEYS + 16, KEYS * sizeof(float));
  }
};
using BFloat16 = Matrix;
#else
using BFloat16 = Vectors<Pair>;
#endif

// A score and its key in one number that sorts as the score does; NaN is the largest, as in torch.
inline uint64_t candidate(float score, int64_t key) {
  uint32_t bits;
  std::memcpy(&bits, &score, sizeof bits);
  bits = std::isnan(score) ? 0xffffffffu : bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
  return static_cast<uint64_t>(bits) << 32 | static_cast<uint32_t>(key);
}

inline float score_of(uint64_t candidate) {
  uint32_t bits = static_cast<uint32_t>(candidate >> 32);
  bits ^= bits >> 31 ? 0x80000000u : 0xffffffffu;
  float score;
  std::memcpy(&score, &bits, sizeof score);
  return score;
}

// The candidates of one query.
struct Candidates {
  uint64_t* list;
  int count;
  float limit;  // a score that is not above it is none of the best; NaN lets all in

  void drop_all_but(int topk) {
    std::nth_element(list, list + topk - 1, list + count, std::greater<uint64_t>());
    count = topk;
    limit = score_of(list[topk - 1]);
  }
};

template <class T> struct Free {
  void operator()(T* x) const { std::free(x); }
};
template <class T> using Buffer = std::unique_ptr<T[], Free<T>>;
template <class T> Buffer<T> allocate(int64_t count) {
  void* memory = std::aligned_alloc(64, (count * sizeof(T) + 63) / 64 * 64);
  if (memory == nullptr) throw std::bad_alloc();
  return Buffer<T>(static_cast<T*>(memory));
}

// Hand on those of a tile's scores, ROWS by KEYS, that may be among the best.
template <class Way>
void sift(const float* scores, int64_t first, int64_t count, int topk, Candidates* found) {
  for (int i = 0; i < Way::ROWS; i++, scores += Way::KEYS) {
    Candidates& own = found[i];
    const Vector limit = spread_vector(own.limit);
    for (int j = 0; j < Way::KEYS; j += LANES)
      for (uint32_t mask = beats(load_vector(scores + j), limit); mask; mask &= mask - 1) {
        const int at = j + __builtin_ctz(mask);
        if (at < count) own.list[own.count++] = candidate(scores[at], first + at);
      }
    if (own.count > topk + SPARE - Way::KEYS) own.drop_all_but(topk);
  }
}

// 0, 1 where memory is short, 2 where this way is not open.
template <class Way, class Number>
int search(const Number* q, const Number* k, int64_t batch, int64_t n, int64_t m, int64_t channels, int topk,
           float scale, float* scores, int64_t* index, int threads) {
  using Cell = typename Way::Cell;
  const int64_t cells = channels / Way::CHANNELS, panel = Way::KEYS * cells, room = topk + SPARE;
  const int64_t panels = (m + Way::KEYS - 1) / Way::KEYS, blocks = (n + BLOCK - 1) / BLOCK;
  auto keys = allocate<Cell>(batch * panels * panel);
  auto all_queries = allocate<Cell>(threads * BLOCK * cells);
  auto all_lists = allocate<uint64_t>(threads * BLOCK * room);
  bool open = true;
#pragma omp parallel num_threads(threads) reduction(&& : open)
  {
    open = Way::begin();
#pragma omp for
    for (int64_t p = 0; p < batch * panels; p++) {
      const int64_t b = p / panels, first = p % panels * Way::KEYS;
      Way::lay_out_keys(k + (b * m + first) * channels, m - first, channels, keys.get() + p * panel);
    }
    Cell* queries = all_queries.get() + omp_get_thread_num() * BLOCK * cells;
    uint64_t* lists = all_lists.get() + omp_get_thread_num() * BLOCK * room;
#pragma omp for schedule(dynamic)
    for (int64_t block = 0; block < batch * blocks; block++) {
      if (!open) continue;
      const int64_t b = block / blocks, first = block % blocks * BLOCK, count = std::min(BLOCK, n - first);
      Candidates found[BLOCK];
      for (int64_t i = 0; i < BLOCK; i++) found[i] = {lists + i * room, 0, NAN};
      for (int64_t i = 0; i < count; i += Way::ROWS)
        Way::lay_out_queries(q + (b * n + first + i) * channels, count - i, channels, queries + i * cells);
      for (int64_t p = 0; p < panels; p++)
        for (int64_t i = 0; i < count; i += Way::ROWS) {
          alignas(64) float tile[Way::ROWS * Way::KEYS];
          Way::multiply(queries + i * cells, keys.get() + (b * panels + p) * panel, cells, tile);
          sift<Way>(tile, p * Way::KEYS, m - p * Way::KEYS, topk, found + i);
        }
      for (int64_t i = 0; i < count; i++) {
        found[i].drop_all_but(topk);
        const int64_t at = (b * n + first + i) * topk;
        for (int j = 0; j < topk; j++) {
          scores[at + j] = score_of(found[i].list[j]) * scale;
          index[at + j] = static_cast<uint32_t>(found[i].list[j]);
        }
      }
    }
    Way::end();
  }
  return open ? 0 : 2;
}

}  // namespace

// q (batch, n, channels), k (batch, m, channels), m >= topk, channels a multiple of 32; to scores and index
// (batch, n, topk). Returns 0, or 1 where memory is short.
extern "C" int hmhi_topk(const void* q, const void* k, int is_bfloat16, int64_t batch, int64_t n, int64_t m,
                         int64_t channels, int topk, float scale, float* scores, int64_t* index, int threads) {
  auto with = [&](auto way, auto number) {
    using Number = decltype(number);
    return search<decltype(way)>(static_cast<const Number*>(q), static_cast<const Number*>(k), batch, n, m, channels,
                                 topk, scale, scores, index, threads);
  };
  try {
    if (!is_bfloat16) return with(Vectors<Single>(), float());
    const int result = with(BFloat16(), uint16_t());
    return result == 2 ? with(Vectors<Single>(), uint16_t()) : result;
  } catch (const std::bad_alloc&) {
    return 1;
  }
}
