# Compressed messages (permessage-deflate, RFC 7692), by zlib. A build without zlib has none: HAS_ZLIB.
#
# Neither side takes its window over to the next message, so a path has one compressor for all connections. Clients
# keep their window to 512 bytes: what decompresses a message that has come in part takes 8 KB, and only until its end.

from flashpol._native.codecs.codec cimport CODEC_HEADROOM, CODEC_PLAIN

cdef enum:
    CLIENT_WINDOW = 9           # bits; less is no zlib
    SERVER_WINDOW = 12
    COMPRESSOR_LEVEL = 1
    COMPRESSOR_MEMORY = 5       # with SERVER_WINDOW 32 KB in all
    MIN_COMPRESSED = 64         # bytes of a message; shorter ones do not get shorter
    PIECE_BYTES = 4096          # that are decompressed at a time

cdef extern from *:
    """
    #ifdef FLASHPOL_ZLIB
    #include <zlib.h>
    #define FLASHPOL_HAS_ZLIB 1
    #else
    #define FLASHPOL_HAS_ZLIB 0
    #include <stddef.h>
    #define Z_OK 0
    #define Z_STREAM_END 1
    #define Z_BUF_ERROR (-5)
    #define Z_SYNC_FLUSH 2
    #define Z_DEFLATED 8
    #define Z_DEFAULT_STRATEGY 0
    typedef struct { unsigned char *next_in, *next_out; unsigned int avail_in, avail_out; } z_stream;
    static int inflateInit2(z_stream* s, int bits) { (void)s; (void)bits; return -1; }
    static int inflate(z_stream* s, int flush) { (void)s; (void)flush; return -1; }
    static int inflateReset(z_stream* s) { (void)s; return -1; }
    static int inflateEnd(z_stream* s) { (void)s; return -1; }
    static int deflateInit2(z_stream* s, int level, int method, int bits, int memory, int strategy)
    { (void)s; (void)level; (void)method; (void)bits; (void)memory; (void)strategy; return -1; }
    static int deflate(z_stream* s, int flush) { (void)s; (void)flush; return -1; }
    static int deflateReset(z_stream* s) { (void)s; return -1; }
    static int deflateEnd(z_stream* s) { (void)s; return -1; }
    #endif
    """
    bint HAS_ZLIB "FLASHPOL_HAS_ZLIB"
    int Z_OK, Z_STREAM_END, Z_BUF_ERROR, Z_SYNC_FLUSH, Z_DEFLATED, Z_DEFAULT_STRATEGY
    ctypedef struct z_stream:
        unsigned char* next_in
        unsigned char* next_out
        unsigned int avail_in
        unsigned int avail_out
    int inflateInit2(z_stream* stream, int bits) nogil
    int inflate(z_stream* stream, int flush) nogil
    int inflateReset(z_stream* stream) nogil
    int inflateEnd(z_stream* stream) nogil
    int deflateInit2(z_stream* stream, int level, int method, int bits, int memory, int strategy) nogil
    int deflate(z_stream* stream, int flush) nogil
    int deflateReset(z_stream* stream) nogil
    int deflateEnd(z_stream* stream) nogil

# What a path has for the messages of all of its connections.
cdef struct Compressor:
    z_stream stream
    char[CODEC_HEADROOM + CODEC_PLAIN] room
