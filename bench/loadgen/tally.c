/* Adding up and printing what the processes counted. */
#include "tally.h"

typedef unsigned long long llu;

const char *const OUTCOME_NAMES[OUTCOMES] = {"ok", "refused", "reset", "short", "mismatch", "timeout",
                                            "tls_error", "status"};

void tally_add(struct tally *sum, const struct tally *one)
{
    sum->started += one->started;
    for (int i = 0; i < OUTCOMES; i++)
        sum->outcomes[i] += one->outcomes[i];
    sum->reply_bytes += one->reply_bytes;
    sum->begin = !sum->begin || one->begin < sum->begin ? one->begin : sum->begin;
    sum->end = one->end > sum->end ? one->end : sum->end;
    sum->cpu += one->cpu;
    histogram_add(&sum->latency, &one->latency);
    histogram_add(&sum->lag, &one->lag);
}

uint64_t tally_failed(const struct tally *tally)
{
    uint64_t failed = 0;
    for (int i = OK + 1; i < OUTCOMES; i++)
        failed += tally->outcomes[i];
    return failed;
}

static void print_quantiles(FILE *out, const char *name, const struct histogram *h)
{
    static const struct { const char *name; double fraction; } quantiles[] = {
        {"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p999", 0.999}, {"p9999", 0.9999}};
    fprintf(out, ", \"%s\": {", name);
    for (size_t i = 0; i < sizeof quantiles / sizeof *quantiles; i++)
        fprintf(out, "\"%s\": %.3f, ", quantiles[i].name, (double)histogram_quantile(h, quantiles[i].fraction) / 1e3);
    fprintf(out, "\"max\": %.3f}", (double)h->max / 1e3);
}

void tally_print(FILE *out, const char *mode, const struct tally *tally, unsigned processes)
{
    fprintf(out, "{\"mode\": \"%s\", \"processes\": %u, \"started\": %llu, \"failed\": %llu, \"seconds\": %.6f", mode,
            processes, (llu)tally->started, (llu)tally_failed(tally), (double)(tally->end - tally->begin) * 1e-9);
    for (int i = 0; i < OUTCOMES; i++)
        fprintf(out, ", \"%s\": %llu", OUTCOME_NAMES[i], (llu)tally->outcomes[i]);
    fprintf(out, ", \"reply_bytes\": %llu, \"cpu_seconds\": %.6f", (llu)tally->reply_bytes, (double)tally->cpu * 1e-9);
    print_quantiles(out, "latency_us", &tally->latency);
    print_quantiles(out, "lag_us", &tally->lag);
    fprintf(out, "}\n");
}
