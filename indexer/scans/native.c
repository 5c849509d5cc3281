/* The scans of a search, on every core: Euclidean distances of float32 rows in float64, Hamming distances of codes, and the k
   first of each in order of (distance, row); called by indexer/scans/scan.py.

   Nothing of Python is needed to build this; OpenMP and several instruction sets in one binary are used where the compiler has
   them. Sums are taken in one order whatever the threads, so that equal rows have equal distances. */

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12 && defined(__x86_64__) && defined(__GLIBC__)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#define VECTOR_POPCOUNT 1
#include <immintrin.h>
#else
#define FOR_EACH_PROCESSOR
#endif

#ifdef _OPENMP
#include <omp.h>
#define THREAD omp_get_thread_num()
#else
#define THREAD 0
#endif

#define INLINE static inline __attribute__((always_inline))

enum { STRIPE = 512, BLOCK = 512, TOGETHER = 4, SIXTEEN = 16, PIECE = 4096, SLICES = 8 };

typedef float Floats __attribute__((vector_size(64)));
typedef float EightFloats __attribute__((vector_size(32)));
typedef float FourFloats __attribute__((vector_size(16)));
typedef double Doubles __attribute__((vector_size(64)));
typedef float Stored __attribute__((aligned(1))); /* in a mapped file, at any address */

typedef struct {
    double key;
    int64_t row;
} Hit;

/* What a row must be to count, and how many are wanted. */
typedef struct {
    int64_t k;
    const uint8_t *allowed; /* NULL: every row */
    double after_key;       /* only what comes after (after_key, after_row) */
    int64_t after_row;
    double most; /* only keys up to this */
} Wanted;

/* A part of every row: `width` components, which lie `stride` components from those of the row before. */
typedef struct {
    const Stored *values;
    int64_t count, width, stride;
    const double *lengths; /* that rows are divided by before they are compared; NULL: as they are */
} Rows;

static int comes_before(Hit a, Hit b) {
    return a.key < b.key || (a.key == b.key && a.row < b.row);
}

static int counts(const Wanted *wanted, Hit hit) {
    int later = hit.key > wanted->after_key || (hit.key == wanted->after_key && hit.row > wanted->after_row);
    return later && hit.key <= wanted->most && (!wanted->allowed || wanted->allowed[hit.row]);
}

static int by_order(const void *a, const void *b) {
    return comes_before(*(const Hit *)a, *(const Hit *)b) ? -1 : 1;
}

/* Puts the hits of every thread, each with room for k, in order; returns how many of the first k there are. */
static int64_t gathered(Hit *hits, int64_t *sizes, int64_t threads, int64_t k) {
    int64_t total = 0;
    for (int64_t t = 0; t < threads; t++) {
        memmove(hits + total, hits + t * k, (size_t)sizes[t] * sizeof *hits);
        total += sizes[t];
    }
    qsort(hits, (size_t)total, sizeof *hits, by_order);
    return total < k ? total : k;
}

/* A heap of at most k hits with the last in the order on top. */
static void push(Hit *heap, int64_t *size, int64_t k, Hit hit) {
    int64_t i;
    if (*size < k) {
        for (i = (*size)++; i && comes_before(heap[(i - 1) / 2], hit); i = (i - 1) / 2)
            heap[i] = heap[(i - 1) / 2];
    } else {
        int64_t child;
        for (i = 0; (child = 2 * i + 1) < k; i = child) {
            if (child + 1 < k && comes_before(heap[child], heap[child + 1]))
                child++;
            if (!comes_before(hit, heap[child]))
                break;
            heap[i] = heap[child];
        }
    }
    heap[i] = hit;
}

INLINE double over_lanes(const Doubles *lanes) {
    Doubles all = (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
    double sum = 0;
    for (int l = 0; l < 8; l++)
        sum += all[l];
    return sum;
}

/* The squared distance in float64, from differences. `next`, NULL for none, is the row to have ready afterwards. */
FOR_EACH_PROCESSOR
static double squared_distance(const Stored *row, const float *query, int64_t width, const Stored *next) {
    Doubles lanes[4] = {{0}};
    int64_t d = 0;
    for (; d + 32 <= width; d += 32) {
        if (next) {
            __builtin_prefetch(next + d);
            __builtin_prefetch(next + d + 16);
        }
        for (int l = 0; l < 4; l++) {
            EightFloats x, q;
            memcpy(&x, row + d + 8 * l, sizeof x);
            memcpy(&q, query + d + 8 * l, sizeof q);
            Doubles difference = __builtin_convertvector(x, Doubles) - __builtin_convertvector(q, Doubles);
            lanes[l] += difference * difference;
        }
    }
    double sum = over_lanes(lanes);
    for (; d < width; d++) {
        double difference = (double)row[d] - query[d];
        sum += difference * difference;
    }
    return sum;
}

/* The same of a row over its length, each component rounded to float32, from a query that is so already. */
FOR_EACH_PROCESSOR
static double squared_at_length_1(const Stored *row, double length, const float *query, int64_t width) {
    Doubles lanes[4] = {{0}};
    int64_t d = 0;
    for (; d + 32 <= width; d += 32)
        for (int l = 0; l < 4; l++) {
            EightFloats x, q;
            memcpy(&x, row + d + 8 * l, sizeof x);
            memcpy(&q, query + d + 8 * l, sizeof q);
            x = __builtin_convertvector(__builtin_convertvector(x, Doubles) / length, EightFloats);
            Doubles difference = __builtin_convertvector(x, Doubles) - __builtin_convertvector(q, Doubles);
            lanes[l] += difference * difference;
        }
    double sum = over_lanes(lanes);
    for (; d < width; d++) {
        double difference = (double)(float)(row[d] / length) - query[d];
        sum += difference * difference;
    }
    return sum;
}

/* The squared distance by `lengths`, which rows are divided by first; NULL for none. */
static double squared_from(const Rows *rows, int64_t row, const float *query, const Stored *next) {
    const Stored *first = rows->values + row * rows->stride;
    return rows->lengths ? squared_at_length_1(first, rows->lengths[row], query, rows->width)
                         : squared_distance(first, query, rows->width, next);
}

INLINE float total(const Floats *lanes) {
    EightFloats eight[2];
    memcpy(eight, lanes, sizeof *lanes);
    eight[0] += eight[1];
    FourFloats four[2];
    memcpy(four, eight, sizeof four);
    four[0] += four[1];
    return (four[0][0] + four[0][2]) + (four[0][1] + four[0][3]);
}

/* Which of TOGETHER rows, a bit each, may be no farther from the query than `limit`, by float32. Nothing cancels in a sum of
   squares: it is off by no more than a share of itself that the number of terms in a lane bounds, and `limit` has that added.
   Several rows at once, because a processor reads ahead within a page of memory, and a row is four pages. Rows that are compared
   at length 1 stay as they are, and the query takes the length of each: `scales`, and limits by its square. */
INLINE unsigned perhaps_near(const Stored *rows, int64_t stride, const float *query, int64_t width, const float *scales,
                             const float *limits) {
    Floats lanes[TOGETHER] = {{0}};
    float sums[TOGETHER] = {0};
    int64_t d = 0;
    while (d + 16 <= width) { /* a look at the sums whenever the work has doubled: a wrong guess costs the reading ahead */
        int64_t stripe = d < STRIPE ? STRIPE : d, end = width - d < stripe ? d + (width - d) / 16 * 16 : d + stripe;
        for (; d < end; d += 16) {
            Floats q;
            memcpy(&q, query + d, sizeof q);
            for (int r = 0; r < TOGETHER; r++) {
                Floats x;
                memcpy(&x, rows + r * stride + d, sizeof x);
                x -= scales ? q * scales[r] : q;
                lanes[r] += x * x;
            }
        }
        int beyond = 0;
        for (int r = 0; r < TOGETHER; r++) {
            sums[r] = total(&lanes[r]);
            beyond += sums[r] > limits[r] && sums[r] < INFINITY;
        }
        if (beyond == TOGETHER)
            return 0;
    }
    unsigned near = 0;
    for (int r = 0; r < TOGETHER; r++) {
        for (int64_t rest = d; rest < width; rest++) {
            float difference = rows[r * stride + rest] - (scales ? query[rest] * scales[r] : query[rest]);
            sums[r] += difference * difference;
        }
        near |= (unsigned)!(sums[r] > limits[r] && sums[r] < INFINITY) << r;
    }
    return near;
}

/* A limit for perhaps_near that nothing up to `squared` exceeds. */
static float with_slack(double squared, int64_t width) {
    double terms = (double)(width / 16 + 24);
    return (float)(squared * (1 + terms * FLT_EPSILON) + FLT_MIN * (double)width);
}

FOR_EACH_PROCESSOR
static unsigned perhaps_near_as_they_are(const Rows *rows, int64_t first, const float *query, float limit) {
    const float limits[TOGETHER] = {limit, limit, limit, limit};
    return perhaps_near(rows->values + first * rows->stride, rows->stride, query, rows->width, NULL, limits);
}

/* The length, the query's components when they take it, and the row's when it is divided by it, are rounded by half a unit each.
   The distance of rows at length 1 is off by three of these at most, and `longer` has four added. */
FOR_EACH_PROCESSOR
static unsigned perhaps_near_at_length_1(const Rows *rows, int64_t first, const float *query, double limit) {
    float scales[TOGETHER], limits[TOGETHER];
    double longer = sqrt(limit) + 2 * FLT_EPSILON;
    for (int r = 0; r < TOGETHER; r++) {
        double length = rows->lengths[first + r];
        scales[r] = (float)length;
        limits[r] = with_slack(longer * longer * length * length, rows->width);
    }
    return perhaps_near(rows->values + first * rows->stride, rows->stride, query, rows->width, scales, limits);
}

/* The squared distances of given rows. */
int fc7_squared_distances(const Rows *vectors, const float *query, const int64_t *rows, int64_t count, int64_t threads, double *squared) {
#pragma omp parallel for num_threads(threads) schedule(static) if (count > 16)
    for (int64_t i = 0; i < count; i++) {
        const Stored *next = i + 1 < count ? vectors->values + rows[i + 1] * vectors->stride : NULL;
        squared[i] = squared_from(vectors, rows[i], query, next);
    }
    return 0;
}

/* The first k of the rows. `hits` has room for threads * k. Returns how many there are, or -1 where memory is short. */
int64_t fc7_nearest(const Rows *vectors, const float *query, const Wanted *wanted, int64_t threads, Hit *hits) {
    const int64_t count = vectors->count, width = vectors->width;
    int64_t *sizes = calloc((size_t)threads, sizeof *sizes);
    if (!sizes)
        return -1;
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int t = 0; t < threads; t++) {
        Hit *heap = hits + t * wanted->k;
        int64_t size = 0, end = count * (t + 1) / threads;
        double farthest = wanted->most;
        float limit = with_slack(farthest, width);
        for (int64_t first = count * t / threads; first < end; first += TOGETHER) {
            int here = end - first < TOGETHER ? (int)(end - first) : TOGETHER;
            unsigned asked = 0;
            for (int r = 0; r < here; r++)
                asked |= (unsigned)(!wanted->allowed || wanted->allowed[first + r]) << r;
            if (asked && here == TOGETHER)
                asked &= vectors->lengths ? perhaps_near_at_length_1(vectors, first, query, farthest)
                                          : perhaps_near_as_they_are(vectors, first, query, limit);
            for (int r = 0; r < here; r++) {
                int64_t row = first + r;
                if (!(asked >> r & 1))
                    continue;
                Hit hit = {squared_from(vectors, row, query, NULL), row};
                if (!counts(wanted, hit) || (size == wanted->k && !comes_before(hit, heap[0])))
                    continue;
                push(heap, &size, wanted->k, hit);
                if (size == wanted->k) {
                    farthest = heap[0].key;
                    limit = with_slack(farthest, width);
                }
            }
        }
        sizes[t] = size;
    }
    int64_t found = gathered(hits, sizes, threads, wanted->k);
    free(sizes);
    return found;
}

/* Copies a row, and sums its squares. */
FOR_EACH_PROCESSOR
static float copied(const Stored *row, int64_t width, float *out) {
    Floats lanes[4] = {{0}};
    int64_t d = 0;
    for (; d + 64 <= width; d += 64)
        for (int l = 0; l < 4; l++) {
            Floats x;
            memcpy(&x, row + d + 16 * l, sizeof x);
            memcpy(out + d + 16 * l, &x, sizeof x);
            lanes[l] += x * x;
        }
    lanes[0] = (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
    float sum = total(lanes);
    for (; d < width; d++) {
        out[d] = row[d];
        sum += out[d] * out[d];
    }
    return sum;
}

/* Copies rows to where a matrix product can take them: `out` (count, width); and their squared lengths. */
int fc7_copy(const Rows *rows, int64_t threads, float *out, float *squares) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < rows->count; i++)
        squares[i] = copied(rows->values + i * rows->stride, rows->width, out + i * rows->width);
    return 0;
}

/* Hamming distances of a block of codes. */
#ifdef __x86_64__
__attribute__((target("popcnt")))
#endif
static void plain_block(const uint8_t *codes, int64_t n, int64_t width, const uint8_t *query, uint16_t *distances) {
    for (int64_t i = 0; i < n; i++) {
        const uint8_t *code = codes + i * width;
        int sum = 0;
        int64_t byte = 0;
        for (; byte + 8 <= width; byte += 8) {
            uint64_t a, b;
            memcpy(&a, code + byte, 8);
            memcpy(&b, query + byte, 8);
            sum += __builtin_popcountll(a ^ b);
        }
        for (; byte < width; byte++)
            sum += __builtin_popcount((unsigned)(code[byte] ^ query[byte]));
        distances[i] = (uint16_t)sum;
    }
}

#ifdef VECTOR_POPCOUNT
#define WITH_POPCOUNT __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vpopcntdq,popcnt")))

/* Codes of 4, 8, 16 and 32 bytes; `n` is a multiple of 16. */
WITH_POPCOUNT static void vector_block(const uint8_t *codes, int64_t n, int64_t width, const uint8_t *query, uint16_t *distances) {
    uint8_t repeated[64];
    for (int64_t i = 0; i < 64; i++)
        repeated[i] = query[i % width];
    const __m512i q = _mm512_loadu_si512(repeated);
    const __m512i pairs = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
    if (width == 4) {
        for (int64_t i = 0; i < n; i += 16) {
            __m512i d = _mm512_popcnt_epi32(_mm512_xor_si512(_mm512_loadu_si512(codes + i * 4), q));
            _mm256_storeu_si256((__m256i *)(distances + i), _mm512_cvtepi32_epi16(d));
        }
        return;
    }
    for (int64_t i = 0; i < n; i += 8) {
        __m512i d[4] = {_mm512_setzero_si512()};
        const uint8_t *from = codes + i * width;
        for (int v = 0; v < width / 8; v++)
            d[v] = _mm512_popcnt_epi64(_mm512_xor_si512(_mm512_loadu_si512(from + 64 * v), q));
        if (width == 32) { /* four words a code: neighbours are added twice */
            __m512i a = _mm512_add_epi64(_mm512_unpacklo_epi64(d[0], d[1]), _mm512_unpackhi_epi64(d[0], d[1]));
            __m512i b = _mm512_add_epi64(_mm512_unpacklo_epi64(d[2], d[3]), _mm512_unpackhi_epi64(d[2], d[3]));
            a = _mm512_permutexvar_epi64(pairs, a);
            b = _mm512_permutexvar_epi64(pairs, b);
            d[0] = _mm512_add_epi64(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
            d[0] = _mm512_permutexvar_epi64(pairs, d[0]);
        } else if (width == 16) {
            d[0] = _mm512_add_epi64(_mm512_unpacklo_epi64(d[0], d[1]), _mm512_unpackhi_epi64(d[0], d[1]));
            d[0] = _mm512_permutexvar_epi64(pairs, d[0]);
        }
        _mm_storeu_si128((__m128i *)(distances + i), _mm512_cvtepi64_epi16(d[0]));
    }
}

static void block(const uint8_t *codes, int64_t n, int64_t width, const uint8_t *query, uint16_t *distances) {
    int64_t whole = 0;
    if ((width == 4 || width == 8 || width == 16 || width == 32) && __builtin_cpu_supports("avx512vpopcntdq") &&
        __builtin_cpu_supports("avx512bw")) {
        whole = n / 16 * 16;
        vector_block(codes, whole, width, query, distances);
    }
    plain_block(codes + whole * width, n - whole, width, query, distances + whole);
}
#else
#define block plain_block
#endif

/* Whether any of 32 distances is below the limit. */
FOR_EACH_PROCESSOR
static int any_below(const uint16_t *distances, int64_t n, uint16_t limit) {
    uint16_t any = 0;
    for (int64_t i = 0; i < n; i++)
        any |= distances[i] < limit;
    return any;
}

/* The first k of a run of codes: counts of each distance tell how small one must be to be among them. Later rows lose ties, so
   that at most k rows of every distance are ever kept. Returns how many hits were written, not in order. */
static int64_t scan_codes(const uint8_t *codes, int64_t start, int64_t end, int64_t width, const uint8_t *query, const Wanted *wanted,
                          int64_t *histogram, Hit *hits) {
    uint16_t distances[BLOCK];
    int64_t kept = 0, below = 0; /* below: hits that are nearer than the limit */
    int limit = (int)fmin(wanted->most, (double)(8 * width)) + 1;
    memset(histogram, 0, (size_t)(8 * width + 1) * sizeof *histogram);
    for (int64_t first = start; first < end; first += BLOCK) {
        int64_t n = end - first < BLOCK ? end - first : BLOCK;
        block(codes + first * width, n, width, query, distances);
        for (int64_t group = 0; group < n; group += 32) {
            int64_t last = group + 32 < n ? group + 32 : n;
            if (!any_below(distances + group, last - group, (uint16_t)limit))
                continue;
            for (int64_t i = group; i < last; i++) {
                Hit hit = {distances[i], first + i};
                if (distances[i] >= limit || !counts(wanted, hit))
                    continue;
                hits[kept++] = hit;
                histogram[distances[i]]++;
                below++;
                while (limit && below >= wanted->k) /* what is as far as the limit's last distance comes too late */
                    below -= histogram[--limit];
            }
        }
    }
    return kept;
}

/* The first k of `count` codes for each of several queries: hits (queries, k), filled up with rows of -1.
   Returns 0, or -1 where memory is short. */
int fc7_hamming(const uint8_t *codes, int64_t count, int64_t width, const uint8_t *queries, int64_t number, const Wanted *wanted,
                int64_t threads, Hit *out) {
    int parts = number == 1 ? threads : 1, failed = 0;
    int64_t room = count / parts + 1, most = wanted->k * (8 * width + 1);
    room = (room < most ? room : most) + 1;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1) if (parts == 1)
    for (int64_t q = 0; q < number; q++) {
        Hit *hits = malloc((size_t)(room * parts) * sizeof *hits);
        int64_t *histograms = malloc((size_t)(parts * (8 * width + 1)) * sizeof *histograms), *sizes = calloc((size_t)parts, 8);
        int64_t total = 0;
        if (!hits || !histograms || !sizes) {
            failed = -1;
        } else {
#pragma omp parallel for num_threads(parts) schedule(static, 1) if (parts > 1)
            for (int t = 0; t < parts; t++)
                sizes[t] = scan_codes(codes, count * t / parts, count * (t + 1) / parts, width, queries + q * width, wanted,
                                      histograms + t * (8 * width + 1), hits + t * room);
            for (int t = 0; t < parts; t++) {
                memmove(hits + total, hits + t * room, (size_t)sizes[t] * sizeof *hits);
                total += sizes[t];
            }
            qsort(hits, (size_t)total, sizeof *hits, by_order);
            for (int64_t i = 0; i < wanted->k; i++)
                out[q * wanted->k + i] = i < total ? hits[i] : (Hit){-1, -1};
        }
        free(hits);
        free(histograms);
        free(sizes);
    }
    return failed;
}

/* Products of rows of `width` floats with a matrix (width, components), components a multiple of 64: `out` (number, components). The
   terms are summed in SLICES parts whatever the threads. Returns 0, or -1 where memory is short. */
FOR_EACH_PROCESSOR
static void slice_of_products(const float *row, const float *matrix, int64_t width, int64_t components, float *out) {
    for (int64_t c = 0; c < components; c += 64) {
        Floats lanes[4] = {{0}};
        for (int64_t d = 0; d < width; d++)
            for (int l = 0; l < 4; l++) {
                Floats m;
                memcpy(&m, matrix + d * components + c + 16 * l, sizeof m);
                lanes[l] += row[d] * m;
            }
        memcpy(out + c, lanes, sizeof lanes);
    }
}

int fc7_products(const float *rows, int64_t number, int64_t width, const float *matrix, int64_t components, int64_t threads,
                 float *out) {
    float *parts = malloc((size_t)(SLICES * number * components + 1) * sizeof *parts);
    if (!parts)
        return -1;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int slice = 0; slice < SLICES; slice++) {
        int64_t start = width * slice / SLICES, end = width * (slice + 1) / SLICES;
        for (int64_t r = 0; r < number; r++)
            slice_of_products(rows + r * width + start, matrix + start * components, end - start, components,
                              parts + (slice * number + r) * components);
    }
    memset(out, 0, (size_t)(number * components) * sizeof *out);
    for (int64_t slice = 0; slice < SLICES; slice++)
        for (int64_t i = 0; i < number * components; i++)
            out[i] += parts[slice * number * components + i];
    free(parts);
    return 0;
}

/* What a row's estimated distance from one query is made of: square - scale * (product - shift) - weight * rest. */
typedef struct {
    double scale, shift, weight;
} Estimate;

/* Estimates for 16 rows of bytes (offset by 128) and a query of signed bytes; `width` is a multiple of 64, `lengths` has (square, rest)
   of each row. Returns which are below `limit`, a bit each. */
FOR_EACH_PROCESSOR
static unsigned plain_estimates(const uint8_t *rows, int64_t width, const float *lengths, const int8_t *query, const Estimate *of,
                                double limit, double *keys) {
    unsigned below = 0;
    for (int i = 0; i < SIXTEEN; i++) {
        int32_t sum = 0;
        for (int64_t d = 0; d < width; d++)
            sum += (int32_t)rows[i * width + d] * query[d];
        keys[i] = lengths[2 * i] - of->scale * (sum - of->shift) - of->weight * lengths[2 * i + 1];
        below |= (unsigned)(keys[i] < limit) << i;
    }
    return below;
}

#ifdef VECTOR_POPCOUNT
#define WITH_VNNI __attribute__((target("avx512f,avx512bw,avx512vnni")))

WITH_VNNI INLINE __m512i of_four(const __m512i *sums) {
    __m512i a = _mm512_add_epi32(_mm512_unpacklo_epi32(sums[0], sums[1]), _mm512_unpackhi_epi32(sums[0], sums[1]));
    __m512i b = _mm512_add_epi32(_mm512_unpacklo_epi32(sums[2], sums[3]), _mm512_unpackhi_epi32(sums[2], sums[3]));
    return _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}

/* The lanes of 128 bits of two registers added in pairs. */
WITH_VNNI INLINE __m512i in_pairs(__m512i a, __m512i b) {
    return _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
}

WITH_VNNI static unsigned vector_estimates(const uint8_t *rows, int64_t width, const float *lengths, const int8_t *query,
                                           const Estimate *of, double limit, double *keys) {
    __m512i sums[SIXTEEN];
    for (int i = 0; i < SIXTEEN; i++)
        sums[i] = _mm512_setzero_si512();
    for (int64_t d = 0; d < width; d += 64) {
        const __m512i q = _mm512_loadu_si512(query + d);
#pragma GCC unroll 16
        for (int i = 0; i < SIXTEEN; i++)
            sums[i] = _mm512_dpbusd_epi32(sums[i], _mm512_loadu_si512(rows + i * width + d), q);
    }
    __m512i halves[2] = {in_pairs(of_four(sums), of_four(sums + 4)), in_pairs(of_four(sums + 8), of_four(sums + 12))};
    __m512i products = in_pairs(halves[0], halves[1]);
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    __m512 first = _mm512_loadu_ps(lengths), second = _mm512_loadu_ps(lengths + 16);
    __m512 squares = _mm512_permutex2var_ps(first, even, second), rests = _mm512_permutex2var_ps(first, odd, second);
    unsigned below = 0;
    for (int half = 0; half < 2; half++) {
        __m256i p = half ? _mm512_extracti64x4_epi64(products, 1) : _mm512_castsi512_si256(products);
        __m256d s = half ? _mm512_extractf64x4_pd(_mm512_castps_pd(squares), 1) : _mm512_castpd512_pd256(_mm512_castps_pd(squares));
        __m256d r = half ? _mm512_extractf64x4_pd(_mm512_castps_pd(rests), 1) : _mm512_castpd512_pd256(_mm512_castps_pd(rests));
        __m512d product = _mm512_sub_pd(_mm512_cvtepi32_pd(p), _mm512_set1_pd(of->shift));
        __m512d key = _mm512_fnmadd_pd(_mm512_set1_pd(of->scale), product, _mm512_cvtps_pd(_mm256_castpd_ps(s)));
        key = _mm512_fnmadd_pd(_mm512_set1_pd(of->weight), _mm512_cvtps_pd(_mm256_castpd_ps(r)), key);
        _mm512_storeu_pd(keys + 8 * half, key);
        below |= (unsigned)_mm512_cmp_pd_mask(key, _mm512_set1_pd(limit), _CMP_LT_OQ) << (8 * half);
    }
    return below;
}

static unsigned estimates(const uint8_t *rows, int64_t width, const float *lengths, const int8_t *query, const Estimate *of,
                          double limit, double *keys) {
    if (__builtin_cpu_supports("avx512vnni"))
        return vector_estimates(rows, width, lengths, query, of, limit, keys);
    return plain_estimates(rows, width, lengths, query, of, limit, keys);
}
#else
#define estimates plain_estimates
#endif

/* The k rows of least estimated distance from each of `number` queries, in no order, filled up with -1: `out` (number, k). Rows are read
   once for all queries; pieces of them go to whichever thread is free. Returns 0, or -1 where memory is short. */
int fc7_principal(const uint8_t *rows, int64_t count, int64_t width, const float *lengths, const int8_t *queries, const Estimate *of,
                  int64_t number, const Wanted *wanted, int64_t threads, int64_t *out) {
    const int64_t k = wanted->k, pieces = (count + PIECE - 1) / PIECE;
    Hit *hits = malloc((size_t)(number * threads * k + 1) * sizeof *hits);
    int64_t *sizes = calloc((size_t)(number * threads + 1), sizeof *sizes);
    uint8_t *last = calloc(SIXTEEN, (size_t)width);
    float last_lengths[2 * SIXTEEN] = {0};
    int failed = !hits || !sizes || !last ? -1 : 0;
    int64_t whole = count / SIXTEEN * SIXTEEN;
    if (!failed && count > whole) {
        memcpy(last, rows + whole * width, (size_t)((count - whole) * width));
        memcpy(last_lengths, lengths + 2 * whole, (size_t)(count - whole) * 2 * sizeof *lengths);
    }
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1) if (!failed)
    for (int64_t piece = 0; piece < (failed ? 0 : pieces); piece++) {
        int64_t t = THREAD, end = (piece + 1) * PIECE < count ? (piece + 1) * PIECE : count;
        for (int64_t first = piece * PIECE; first < end; first += SIXTEEN) {
            const uint8_t *here = first < whole ? rows + first * width : last;
            const float *their_lengths = first < whole ? lengths + 2 * first : last_lengths;
            for (int64_t q = 0; q < number; q++) {
                Hit *heap = hits + (q * threads + t) * k;
                int64_t *size = &sizes[q * threads + t];
                double keys[SIXTEEN], limit = *size < k ? INFINITY : heap[0].key;
                unsigned below = estimates(here, width, their_lengths, queries + q * width, &of[q], limit, keys);
                for (; below; below &= below - 1) {
                    Hit hit = {keys[__builtin_ctz(below)], first + __builtin_ctz(below)};
                    if (hit.row < count && (*size < k || hit.key < heap[0].key) && (!wanted->allowed || wanted->allowed[hit.row]))
                        push(heap, size, k, hit);
                }
            }
        }
    }
    for (int64_t q = 0; q < number && !failed; q++) {
        int64_t found = gathered(hits + q * threads * k, sizes + q * threads, threads, k);
        for (int64_t i = 0; i < k; i++)
            out[q * k + i] = i < found ? hits[q * threads * k + i].row : -1;
    }
    free(hits);
    free(sizes);
    free(last);
    return failed;
}
