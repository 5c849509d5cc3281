/* [ReLU ->] LRN across maps -> overlapping max-pooling in one pass over memory, forward and backward; called by training/network/lrn.py.

   Images lie in memory as (images, height, width, maps), float32 or bfloat16; arithmetic is float32. The maps of a column are
   adjacent, so that every pixel is `columns` segments of `maps / columns` values that do not see each other. beta is 3/4.

   Nothing of Python or PyTorch is needed to build this; OpenMP and several instruction sets in one binary are used where the
   compiler has them. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12 && defined(__x86_64__) && defined(__GLIBC__)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif

#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#else
#define INLINE static inline
#endif

typedef struct {
    int64_t images, height, width, maps, columns;
    int64_t rectify; /* whether ReLU comes first */
    int64_t size;    /* maps in a normalisation window, odd; 0 for no normalisation */
    int64_t pool_size, pool_stride, pooled_height, pooled_width;
    int64_t bfloat16; /* whether values are bfloat16 rather than float32 */
    int64_t threads;
    float k, alpha;
} Shape;

INLINE float load(const void *from, int64_t i, int bfloat16) {
    if (!bfloat16)
        return ((const float *)from)[i];
    uint32_t bits = (uint32_t)((const uint16_t *)from)[i] << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

INLINE void store(void *to, int64_t i, float value, int bfloat16) {
    if (!bfloat16) {
        ((float *)to)[i] = value;
        return;
    }
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16; /* to nearest, ties to even */
    ((uint16_t *)to)[i] = (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded);
}

/* The values of one segment after ReLU, and their squares amid the zeros that stand for maps beyond the column. */
INLINE void read_segment(const void *x, int64_t start, int64_t maps, const Shape *p, int64_t size, int bfloat16,
                         float *restrict a, float *restrict squares) {
    for (int64_t c = 0; c < maps; c++)
        a[c] = load(x, start + c, bfloat16);
    for (int64_t c = 0; c < maps; c++) {
        a[c] = p->rectify && a[c] < 0 ? 0 : a[c];
        squares[size / 2 + c] = a[c] * a[c];
    }
}

INLINE float window_sum(const float *restrict padded, int64_t c, int64_t size) {
    float sum = 0;
    for (int64_t j = 0; j < size; j++)
        sum += padded[c + j];
    return sum;
}

INLINE void normalise_row(const void *x, int64_t start, const Shape *p, int64_t size, int bfloat16, float *restrict out,
                          float *restrict squares) {
    const int64_t maps = p->maps / p->columns;
    const float k = p->k, alpha = p->alpha;
    for (int64_t i = 0; i < p->width * p->maps; i += maps) {
        float *restrict b = out + i;
        read_segment(x, start + i, maps, p, size, bfloat16, b, squares);
        if (size == 0)
            continue;
        for (int64_t c = 0; c < maps; c++) {
            float r = 1 / sqrtf(k + alpha * window_sum(squares, c, size));
            b[c] *= r * sqrtf(r);
        }
    }
}

/* scratch: pool_size normalised rows, then `maps` of each: best values, their taps, squares and padding. */
INLINE void pool_image(const void *x, void *y, uint8_t *argmax, int64_t image, const Shape *p, int64_t size, int bfloat16,
                       float *scratch) {
    const int64_t maps = p->maps, row = p->width * maps, window = p->pool_size;
    float *restrict rows = scratch, *restrict best = rows + window * row;
    int32_t *restrict tap = (int32_t *)(best + maps);
    float *squares = best + 2 * maps;
    int64_t ready = 0, out = image * p->pooled_height * p->pooled_width * maps;
    for (int64_t oh = 0; oh < p->pooled_height; oh++) {
        const int64_t top = oh * p->pool_stride;
        const int64_t bottom = top + window < p->height ? top + window : p->height;
        for (ready = ready > top ? ready : top; ready < bottom; ready++)
            normalise_row(x, (image * p->height + ready) * row, p, size, bfloat16, rows + ready % window * row, squares);
        for (int64_t ow = 0; ow < p->pooled_width; ow++, out += maps) {
            const int64_t left = ow * p->pool_stride;
            const int64_t right = left + window < p->width ? left + window : p->width;
            memcpy(best, rows + top % window * row + left * maps, maps * sizeof *best);
            memset(tap, 0, maps * sizeof *tap);
            for (int64_t h = top; h < bottom; h++)
                for (int64_t w = h == top ? left + 1 : left; w < right; w++) {
                    const float *restrict b = rows + h % window * row + w * maps;
                    const int32_t here = (int32_t)((h - top) * window + w - left);
                    for (int64_t c = 0; c < maps; c++) {
                        int larger = (b[c] > best[c]) | (b[c] != b[c]); /* NaN wins, as in PyTorch */
                        best[c] = larger ? b[c] : best[c];
                        tap[c] = larger ? here : tap[c];
                    }
                }
            for (int64_t c = 0; c < maps; c++)
                store(y, out + c, best[c], bfloat16);
            if (argmax)
                for (int64_t c = 0; c < maps; c++)
                    argmax[out + c] = (uint8_t)tap[c];
        }
    }
}

/* The gradient of the normalised values of pixel (h, w): what every window that chose the pixel hands back. */
INLINE void unpool_pixel(const void *grad, const uint8_t *restrict argmax, int64_t image, int64_t h, int64_t w, const Shape *p,
                         int bfloat16, float *restrict g) {
    const int64_t maps = p->maps, window = p->pool_size, stride = p->pool_stride;
    memset(g, 0, maps * sizeof *g);
    for (int64_t oh = h < window ? 0 : (h - window) / stride + 1; oh <= h / stride && oh < p->pooled_height; oh++)
        for (int64_t ow = w < window ? 0 : (w - window) / stride + 1; ow <= w / stride && ow < p->pooled_width; ow++) {
            const int64_t from = ((image * p->pooled_height + oh) * p->pooled_width + ow) * maps;
            const int32_t here = (int32_t)((h - oh * stride) * window + w - ow * stride);
            if (argmax)
                for (int64_t c = 0; c < maps; c++)
                    g[c] += (int32_t)argmax[from + c] == here ? load(grad, from + c, bfloat16) : 0;
            else
                for (int64_t c = 0; c < maps; c++)
                    g[c] += load(grad, from + c, bfloat16);
        }
}

/* scratch: `maps` of each: gradient, values, factors; then squares and padding, and the same again for the way back. */
INLINE void unpool_image(const void *x, const void *grad, const uint8_t *argmax, void *grad_x, int64_t image, const Shape *p,
                         int64_t size, int bfloat16, float *scratch) {
    const int64_t maps = p->maps / p->columns;
    const float k = p->k, alpha = p->alpha, back = -2 * 0.75f * alpha;
    float *restrict g = scratch, *restrict a = g + p->maps, *restrict squares = a + maps;
    float *restrict around = squares + maps + size;
    for (int64_t pixel = 0; pixel < p->height * p->width; pixel++) {
        unpool_pixel(grad, argmax, image, pixel / p->width, pixel % p->width, p, bfloat16, g);
        for (int64_t i = 0; i < p->maps; i += maps) {
            const int64_t start = (image * p->height * p->width + pixel) * p->maps + i;
            float *restrict through = g + i;
            read_segment(x, start, maps, p, size, bfloat16, a, squares);
            if (size)
                for (int64_t c = 0; c < maps; c++) {
                    float r = 1 / sqrtf(k + alpha * window_sum(squares, c, size));
                    through[c] *= r * sqrtf(r);
                    around[size / 2 + c] = through[c] * a[c] * (r * r);
                }
            for (int64_t c = 0; c < maps; c++) {
                float value = through[c] + back * a[c] * (size ? window_sum(around, c, size) : 0);
                through[c] = p->rectify && a[c] <= 0 ? 0 : value;
            }
            for (int64_t c = 0; c < maps; c++)
                store(grad_x, start + c, through[c], bfloat16);
        }
    }
}

/* One function for each type and processor; the paper's window of 5 maps is a constant to the compiler. */
#define SPECIALISE(type, bfloat16)                                                                                              \
    FOR_EACH_PROCESSOR static void pool_##type(const void *x, void *y, uint8_t *argmax, int64_t image, const Shape *p,          \
                                               float *scratch) {                                                                \
        if (p->size == 5)                                                                                                       \
            pool_image(x, y, argmax, image, p, 5, bfloat16, scratch);                                                           \
        else                                                                                                                    \
            pool_image(x, y, argmax, image, p, p->size, bfloat16, scratch);                                                     \
    }                                                                                                                           \
    FOR_EACH_PROCESSOR static void unpool_##type(const void *x, const void *grad, const uint8_t *argmax, void *grad_x,          \
                                                 int64_t image, const Shape *p, float *scratch) {                               \
        if (p->size == 5)                                                                                                       \
            unpool_image(x, grad, argmax, grad_x, image, p, 5, bfloat16, scratch);                                              \
        else                                                                                                                    \
            unpool_image(x, grad, argmax, grad_x, image, p, p->size, bfloat16, scratch);                                        \
    }
SPECIALISE(float32, 0)
SPECIALISE(bfloat16, 1)

/* Scratch of one thread, enough for either direction, zero where it stands for maps beyond a column. */
static float *scratch_for(const Shape *p) {
    return calloc(p->pool_size * p->width * p->maps + 4 * p->maps + 2 * p->size, sizeof(float));
}

/* y and argmax: (images, pooled_height, pooled_width, maps); argmax is the place within the window, by rows, or NULL for none.
   Returns 0, or 1 where there is no memory for scratch. */
int fc7_pool(const void *x, void *y, uint8_t *argmax, const Shape *p) {
    int failed = 0;
#pragma omp parallel num_threads((int)p->threads) reduction(| : failed)
    {
        float *scratch = scratch_for(p);
        failed = !scratch;
#pragma omp for schedule(static)
        for (int64_t image = 0; image < p->images; image++)
            if (scratch)
                (p->bfloat16 ? pool_bfloat16 : pool_float32)(x, y, argmax, image, p, scratch);
        free(scratch);
    }
    return failed;
}

/* From x, argmax and the gradient of y to the gradient of x, which has the shape of x. Returns as fc7_pool. */
int fc7_unpool(const void *x, const void *grad, const uint8_t *argmax, void *grad_x, const Shape *p) {
    int failed = 0;
#pragma omp parallel num_threads((int)p->threads) reduction(| : failed)
    {
        float *scratch = scratch_for(p);
        failed = !scratch;
#pragma omp for schedule(static)
        for (int64_t image = 0; image < p->images; image++)
            if (scratch)
                (p->bfloat16 ? unpool_bfloat16 : unpool_float32)(x, grad, argmax, grad_x, image, p, scratch);
        free(scratch);
    }
    return failed;
}
