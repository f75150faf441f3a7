// Latencies in buckets that are 1/32 of a power of two wide: 3 % exact, from a microsecond to days.
#ifndef HISTOGRAM_H
#define HISTOGRAM_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define SUB_BITS 5
#define SUBS (1 << SUB_BITS)
#define BUCKETS (SUBS * 40)

struct histogram {
  uint64_t counts[BUCKETS];
  uint64_t total;
  int64_t max;
};

static inline void histogram_clear (struct histogram *histogram) {
  memset(histogram, 0, sizeof *histogram);
}

static inline void histogram_add (struct histogram *histogram, int64_t value) {
  if (value < 0) value = 0;
  uint64_t bucket = (uint64_t) value;
  if (value >= SUBS) {
    int shift = 63 - SUB_BITS - __builtin_clzll((uint64_t) value);
    bucket = ((uint64_t) shift << SUB_BITS) + ((uint64_t) value >> shift);
  }
  if (bucket >= BUCKETS) bucket = BUCKETS - 1;
  histogram->counts[bucket]++;
  histogram->total++;
  if (value > histogram->max) histogram->max = value;
}

// The largest value that falls into a bucket.
static inline int64_t histogram_upper (int bucket) {
  if (bucket < 2 * SUBS) return bucket;
  int shift = (bucket >> SUB_BITS) - 1;
  return (((int64_t) (bucket & (SUBS - 1)) + SUBS + 1) << shift) - 1;
}

static inline int64_t histogram_quantile (const struct histogram *histogram, double share) {
  uint64_t below = 0;
  for (int bucket = 0; bucket < BUCKETS; bucket++) {
    below += histogram->counts[bucket];
    if (below > 0 && (double) below >= (double) histogram->total * share) {
      int64_t upper = histogram_upper(bucket);
      return upper < histogram->max ? upper : histogram->max;
    }
  }
  return 0;
}

// As JSON: quantiles in microseconds, and the buckets, put together to two per power of two, as [upper bound, count].
static inline void histogram_print (const struct histogram *histogram) {
  printf("{\"count\":%llu,\"p50\":%lld,\"p90\":%lld,\"p99\":%lld,\"p999\":%lld,\"max\":%lld,\"buckets\":[",
    (unsigned long long) histogram->total, (long long) histogram_quantile(histogram, 0.5), (long long) histogram_quantile(histogram, 0.9),
    (long long) histogram_quantile(histogram, 0.99), (long long) histogram_quantile(histogram, 0.999), (long long) histogram->max);
  const char *comma = "";
  for (int bucket = 0; bucket < BUCKETS; bucket += SUBS / 2) {
    uint64_t count = 0;
    for (int part = 0; part < SUBS / 2; part++) count += histogram->counts[bucket + part];
    if (count == 0) continue;
    printf("%s[%lld,%llu]", comma, (long long) histogram_upper(bucket + SUBS / 2 - 1), (unsigned long long) count);
    comma = ",";
  }
  printf("]}");
}

#endif
