/*
 * The recognisers of the fast path, compared with references that are too plain to be wrong.
 *
 * The first byte of an input says how a stream is ended (bit 0: as Flash does, or with the 22nd byte); the next eight how
 * it is cut into pieces; the rest is the stream. Each piece is a heap block of its own size, so that AddressSanitizer
 * sees a read past its end.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "signatures.h"

int fuzz_match(uint8_t *matched, const char *data, size_t size, size_t *used, int terminated);
int fuzz_sniff(const void *known, const char *data, size_t size, uint8_t *name);

enum { MORE, MATCH, OTHER, CUTS = 8, HEAD = 1 + CUTS };
static const char REQUEST[] = "<policy-file-request/>";
enum { LENGTH = sizeof REQUEST - 1 };

static void demand(int holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "broken: %s\n", what);
    abort();
}

/* What the whole stream means, and how much of it is the request, if it is or may be one. */
static int reference(const char *data, size_t size, int terminated, size_t *used)
{
    *used = 0;
    for (size_t i = 0; i < size && i < LENGTH; i++)
        if (data[i] != REQUEST[i])
            return OTHER;
    *used = size < LENGTH ? size : LENGTH;
    if (size < LENGTH)
        return MORE;
    if (!terminated)
        return MATCH;
    if (size == LENGTH)
        return MORE;
    char end = data[LENGTH];
    if (end != '\0' && end != '\n' && end != '\r')
        return OTHER;
    *used = LENGTH + 1 + (end == '\r' && size > LENGTH + 1 && data[LENGTH + 1] == '\n');
    return MATCH;
}

static int sniff_reference(const char *data, size_t size, uint8_t *name)
{
    int answer = OTHER;
    for (size_t i = 0; i < sizeof TABLE / sizeof *TABLE; i++) {
        size_t length = TABLE[i].size;
        if (size >= length && !memcmp(data, TABLE[i].prefix, length)) {
            *name = TABLE[i].name;
            return MATCH;
        }
        if (size < length && !memcmp(data, TABLE[i].prefix, size))
            answer = MORE;
    }
    return answer;
}

/* A copy that ends where the data ends. */
static char *block(const char *data, size_t size)
{
    char *copy = malloc(size ? size : 1);
    memcpy(copy, data, size);
    return copy;
}

static void check_match(const uint8_t *cuts, const char *data, size_t size, int terminated)
{
    size_t wanted, used = 0;
    int expected = reference(data, size, terminated, &wanted);
    uint8_t matched = 0;
    if (size) {
        char *whole = block(data, size);
        demand(fuzz_match(&matched, whole, size, &used, terminated) == expected, "the verdict on the whole");
        demand(expected == OTHER || used == wanted, "the length of the request");
        free(whole);
    }
    int answer = MORE;
    size_t at = 0, total = 0;
    matched = 0;
    for (unsigned i = 0; at < size && answer == MORE; i++) {
        size_t length = 1 + cuts[i % CUTS] % 32;
        if (length > size - at)
            length = size - at;
        char *piece = block(data + at, length);
        answer = fuzz_match(&matched, piece, length, &used, terminated);
        demand(used <= length, "more used than there was");
        demand(matched <= LENGTH, "more matched than there is");
        free(piece);
        at += length;
        total += used;
    }
    demand(answer == expected, "the verdict on the pieces");
    /* A LF that comes after the CR's piece is extra input to this recogniser; RequestMatcher knows of it. */
    if (answer == MATCH)
        demand(total == wanted || total + 1 == wanted, "the length of the request in pieces");
}

static void check_sniff(const char *data, size_t size)
{
    uint8_t name = 255, expected = 255, before = 255;
    int last = MORE;
    for (size_t n = 1; n <= size && n <= SEEN; n++) {
        char *piece = block(data, n);
        int answer = fuzz_sniff(&KNOWN, piece, n, &name);
        free(piece);
        demand(answer == sniff_reference(data, n, &expected), "the verdict on first bytes");
        demand(answer != MATCH || name == expected, "the name of first bytes");
        demand(last == MORE || answer == last, "a verdict that changed with more bytes");
        demand(last != MATCH || name == before, "a name that changed with more bytes");
        last = answer;
        before = name;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < HEAD)
        return 0;
    check_match(data + 1, (const char *)data + HEAD, size - HEAD, data[0] & 1);
    check_sniff((const char *)data + HEAD, size - HEAD);
    return 0;
}
