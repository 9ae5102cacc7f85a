/*
 * A log-linear histogram: each power of two is cut into 128 equal buckets, so a value is known to 0.8 % over the whole
 * range, recording is a shift and an increment, and no sample is dropped or averaged.
 *
 * HdrHistogram_c has the same layout, and is not used: its histogram holds a pointer to its counts, so it cannot live in
 * the memory that the processes of a run share, and a C compiler alone would no longer build the load generator.
 */
#ifndef HISTOGRAM_H
#define HISTOGRAM_H

#include <stdint.h>

enum { SUB_BITS = 7, SUB = 1 << SUB_BITS, BUCKETS = (64 - SUB_BITS + 1) * SUB };

struct histogram {
    uint64_t total, max;
    uint64_t bucket[BUCKETS];
};

static inline unsigned histogram_index(uint64_t value)
{
    if (value < SUB)
        return (unsigned)value;
    unsigned shift = 63u - (unsigned)__builtin_clzll(value) - SUB_BITS;
    return (shift << SUB_BITS) + (unsigned)(value >> shift); /* value >> shift is in SUB .. 2*SUB-1 */
}

/* The middle of a bucket. */
static inline uint64_t histogram_value(unsigned index)
{
    if (index < 2 * SUB)
        return index;
    unsigned shift = (index >> SUB_BITS) - 1;
    return ((uint64_t)(index - (shift << SUB_BITS)) << shift) + ((uint64_t)1 << shift) / 2;
}

static inline void histogram_record(struct histogram *h, uint64_t value)
{
    h->total++;
    if (value > h->max)
        h->max = value;
    h->bucket[histogram_index(value)]++;
}

static inline void histogram_add(struct histogram *sum, const struct histogram *one)
{
    sum->total += one->total;
    sum->max = one->max > sum->max ? one->max : sum->max;
    for (unsigned i = 0; i < BUCKETS; i++)
        sum->bucket[i] += one->bucket[i];
}

/* The smallest value that at least the given fraction of the samples do not exceed. */
static inline uint64_t histogram_quantile(const struct histogram *h, double fraction)
{
    uint64_t wanted = (uint64_t)(fraction * (double)h->total + 0.999999), seen = 0;
    for (unsigned i = 0; i < BUCKETS; i++) {
        seen += h->bucket[i];
        if (seen >= wanted && seen > 0)
            return histogram_value(i) < h->max ? histogram_value(i) : h->max;
    }
    return h->max;
}

#endif
