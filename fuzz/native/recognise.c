/*
 * The recognisers of the fast path, compared with references that are too simple to be wrong.
 *
 * Bit 0 of an input's first byte selects how a request ends (1: with a terminator, as Flash sends it; 0: with its 22nd
 * byte). The next eight bytes say how the stream is cut into pieces; the rest is the stream. Each piece is a heap block
 * of exactly its size, so that AddressSanitizer reports a read past its end.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "signatures.h"

int fuzz_match(uint8_t *matched, const char *data, size_t size, size_t *used, int terminated);
size_t fuzz_proxy_bytes(void);
void fuzz_proxy_begin(void *header);
int fuzz_proxy_feed(void *header, const char *data, size_t size, size_t *used);
int fuzz_proxy_source(void *header, struct sockaddr_in6 *source, int *oversized);
size_t fuzz_head_bytes(void);
void fuzz_head_begin(void *head);
int fuzz_head_feed(void *head, const char *data, size_t size);
size_t fuzz_head_said(void *head, int64_t *body_size, int *error, int *fields);
size_t fuzz_head_span(void *head, int number, size_t *size);
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

/* The verdict on the whole stream, and how many bytes of it belong to the request. */
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
    int verdict = OTHER;
    for (size_t i = 0; i < sizeof TABLE / sizeof *TABLE; i++) {
        size_t length = TABLE[i].size;
        if (size >= length && !memcmp(data, TABLE[i].prefix, length)) {
            *name = TABLE[i].name;
            return MATCH;
        }
        if (size < length && !memcmp(data, TABLE[i].prefix, size))
            verdict = MORE;
    }
    return verdict;
}

/* A copy in a heap block of exactly this size. */
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
    int verdict = MORE;
    size_t at = 0, total = 0;
    matched = 0;
    for (unsigned i = 0; at < size && verdict == MORE; i++) {
        size_t length = 1 + cuts[i % CUTS] % 32;
        if (length > size - at)
            length = size - at;
        char *piece = block(data + at, length);
        verdict = fuzz_match(&matched, piece, length, &used, terminated);
        demand(used <= length, "more used than there was");
        demand(matched <= LENGTH, "more matched than there is");
        free(piece);
        at += length;
        total += used;
    }
    demand(verdict == expected, "the verdict on the pieces");
    /* A LF in the piece after that of the CR is extra input to this recogniser; RequestMatcher handles it. */
    if (verdict == MATCH)
        demand(total == wanted || total + 1 == wanted, "the length of the request in pieces");
}

static void check_sniff(const char *data, size_t size)
{
    uint8_t name = 255, expected = 255, before = 255;
    int last = MORE;
    for (size_t n = 1; n <= size && n <= SEEN; n++) {
        char *piece = block(data, n);
        int verdict = fuzz_sniff(&KNOWN, piece, n, &name);
        free(piece);
        demand(verdict == sniff_reference(data, n, &expected), "the verdict on first bytes");
        demand(verdict != MATCH || name == expected, "the name of first bytes");
        demand(last == MORE || verdict == last, "a verdict that changed with more bytes");
        demand(last != MATCH || name == before, "a name that changed with more bytes");
        last = verdict;
        before = name;
    }
}

/* The result of a header. */
struct said {
    int verdict, proxied, oversized;
    size_t used;
    struct sockaddr_in6 source;
};

/* Feed the header in pieces of these sizes until there is a verdict. */
static struct said read_header(const uint8_t *cuts, const char *data, size_t size)
{
    struct said said = {.verdict = MORE};
    void *header = calloc(1, fuzz_proxy_bytes());
    size_t used;
    fuzz_proxy_begin(header);
    for (unsigned i = 0; said.used < size && said.verdict == MORE; i++) {
        size_t length = cuts ? 1 + cuts[i % CUTS] % 32 : size;
        if (length > size - said.used)
            length = size - said.used;
        char *piece = block(data + said.used, length);
        said.verdict = fuzz_proxy_feed(header, piece, length, &used);
        free(piece);
        demand(used <= length, "more of a PROXY header used than there was");
        demand(said.verdict != MORE || used == length, "a part of a PROXY header was left");
        said.used += used;
    }
    said.proxied = fuzz_proxy_source(header, &said.source, &said.oversized);
    free(header);
    return said;
}

/* Version 2, sections 2.2 and 2.3 of the specification: 12 bytes, version and command, family, length. */
static void check_binary(const char *data, size_t size, const struct said *said)
{
    static const char signature[12] = "\r\n\r\n\0\r\nQUIT\n";
    if (size < 16 || memcmp(data, signature, 12))
        return;
    const uint8_t *octets = (const uint8_t *)data;
    size_t rest = (size_t)octets[14] << 8 | octets[15];
    if (said->verdict == MATCH) {
        demand(octets[12] == 0x20 || octets[12] == 0x21, "version and command");
        demand(said->used == 16 + rest, "the length of a binary header");
    }
    if (said->proxied) {
        demand(octets[12] == 0x21, "an address of a LOCAL connection");
        demand(octets[13] == 0x11 || octets[13] == 0x21, "an address of another family");
        int four = octets[13] == 0x11;
        demand(said->source.sin6_family == (four ? AF_INET : AF_INET6), "the family");
        const uint8_t *port = octets + 16 + (four ? 8 : 32);
        demand(ntohs(said->source.sin6_port) == (port[0] << 8 | port[1]), "the port");
        const void *address = four ? (const void *)&((const struct sockaddr_in *)&said->source)->sin_addr
                                   : (const void *)&said->source.sin6_addr;
        demand(!memcmp(address, octets + 16, four ? 4 : 16), "the address");
    }
}

/* Version 1, section 2.1: an accepted header is a line of at most 107 bytes with exactly these fields. */
static void check_line(const char *data, const struct said *said)
{
    char line[128], address[INET6_ADDRSTRLEN], wanted[INET6_ADDRSTRLEN + 16];
    if (said->verdict != MATCH || data[0] != 'P')
        return;
    demand(said->used <= 107 && said->used >= 15, "the length of a line");
    memcpy(line, data, said->used);
    line[said->used - 2] = '\0';
    demand(data[said->used - 2] == '\r' && data[said->used - 1] == '\n', "the end of a line");
    demand(!strncmp(line, "PROXY ", 6), "the beginning of a line");
    if (!said->proxied) {
        demand(!strncmp(line + 6, "UNKNOWN", 7), "a line without an address");
        return;
    }
    int four = said->source.sin6_family == AF_INET;
    demand(!strncmp(line + 6, four ? "TCP4 " : "TCP6 ", 5), "the family of a line");
    char *end = strchr(line + 11, ' ');
    demand(end && (size_t)(end - line - 11) < sizeof address, "the source of a line");
    *end = '\0';
    union { struct in_addr four; struct in6_addr six; } parsed;
    demand(inet_pton(four ? AF_INET : AF_INET6, line + 11, &parsed) == 1, "an address that is none");
    const void *source = four ? (const void *)&((const struct sockaddr_in *)&said->source)->sin_addr
                              : (const void *)&said->source.sin6_addr;
    demand(!memcmp(&parsed, source, four ? 4 : 16), "the address of a line");
    char *port = strchr(end + 1, ' ');
    demand(port != NULL, "the port of a line");
    snprintf(wanted, sizeof wanted, " %u ", ntohs(said->source.sin6_port));
    demand(!strncmp(port, wanted, strlen(wanted)), "the port of a line");
}

static void check_proxy(const uint8_t *cuts, const char *data, size_t size)
{
    if (!size)
        return;
    struct said whole = read_header(NULL, data, size), pieces = read_header(cuts, data, size);
    demand(whole.verdict == pieces.verdict, "the verdict on a PROXY header in pieces");
    demand(whole.verdict == OTHER || whole.used == pieces.used, "the length of a PROXY header in pieces");
    demand(whole.proxied == pieces.proxied && whole.oversized == pieces.oversized, "a PROXY header in pieces");
    demand(!whole.proxied || whole.verdict == MATCH, "an address without a header");
    demand(!whole.proxied || !memcmp(&whole.source, &pieces.source, sizeof whole.source), "its address in pieces");
    check_binary(data, size, &whole);
    check_line(data, &whole);
}

/* A head is given all bytes each time; it goes on where it was. Python compares what it accepts with other parsers. */
static void check_head(const uint8_t *cuts, const char *data, size_t size)
{
    void *whole = malloc(fuzz_head_bytes()), *pieces = malloc(fuzz_head_bytes());
    fuzz_head_begin(whole);
    fuzz_head_begin(pieces);
    char *block_of_all = block(data, size);
    int expected = fuzz_head_feed(whole, block_of_all, size), verdict = MORE;
    free(block_of_all);
    for (size_t at = 0, i = 0; at < size && verdict == MORE; i++) {
        at += 1 + cuts[i % CUTS] % 32;
        if (at > size)
            at = size;
        char *seen = block(data, at);
        verdict = fuzz_head_feed(pieces, seen, at);
        free(seen);
    }
    demand(verdict == expected, "the verdict on a head in pieces");
    int64_t length, other_length;
    int error, other_error, fields, other_fields;
    size_t used = fuzz_head_said(whole, &length, &error, &fields);
    demand(used == fuzz_head_said(pieces, &other_length, &other_error, &other_fields), "the size of a head in pieces");
    demand(error == other_error && length == other_length && fields == other_fields, "what a head in pieces says");
    demand((verdict == MATCH) == (used != 0) && (verdict == OTHER) == (error != 0), "a verdict without its reason");
    demand(used <= size && length >= 0 && fields <= 100, "what a head says");
    size_t before = 0;
    for (int i = 0; i < 3 + 2 * fields; i++) {
        size_t length_here, length_there, begin = fuzz_head_span(whole, i, &length_here);
        demand(begin == fuzz_head_span(pieces, i, &length_there), "where a part of a head in pieces begins");
        demand(length_here == length_there, "how long a part of a head in pieces is");
        demand(begin + length_here <= size, "a part of a head outside of it");
        demand(i == 2 || begin >= before, "parts of a head that overlap");
        if (i != 2)
            before = begin + length_here;
    }
    free(whole);
    free(pieces);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < HEAD)
        return 0;
    check_match(data + 1, (const char *)data + HEAD, size - HEAD, data[0] & 1);
    check_sniff((const char *)data + HEAD, size - HEAD);
    check_proxy(data + 1, (const char *)data + HEAD, size - HEAD);
    if (size > HEAD)
        check_head(data + 1, (const char *)data + HEAD, size - HEAD);
    return 0;
}
