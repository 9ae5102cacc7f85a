# The codec: frames between an upstream's bytes and a client that speaks WebSocket (RFC 6455).
#
# Messages are streamed: the payload of each frame goes on as it comes, and what the upstream sends at once is one
# binary message. Until the upstream is reached the codec only passes on what the gateway replies with; `work` then
# writes the 101. Pings get their pongs here. The closing handshake is complete when both sides have sent Close.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from flashpol._native.codecs.codec cimport (
    CE_DONE, CE_EVICTED, CE_FAILED, CE_PING, CE_REPLACED, Codec, CODEC_END, CODEC_ERROR, CODEC_HEADROOM, CODEC_OK,
    CODEC_PLAIN, CODEC_WORK, CodecEnd, CodecResult, CodecType, HF_NONE, Output,
)
from flashpol._native.websocket.codec cimport (
    BIT_COMPRESSED, BIT_CONTROL, BIT_FIN, BIT_MASKED, BITS_OPCODE, BITS_RESERVED, BITS_SIZE, BY_CLIENT, BY_SERVER,
    CC_ABNORMAL, CC_GOING_AWAY, CC_INTERNAL, CC_INVALID, CC_NONE, CC_NORMAL, CC_PROTOCOL, CC_RESTART, CC_TOO_BIG,
    CC_TRY_LATER, CC_UNSUPPORTED, CODE_COUNT, FRAME_HEAD, MAX_CONTROL, OP_BINARY, OP_CLOSE, OP_CONTINUATION, OP_PING,
    OP_PONG, OP_TEXT, PathSettings, U_ACCEPTED, WebSocket,
)
from flashpol._native.websocket.deflate cimport inflateReset, MIN_COMPRESSED, PIECE_BYTES, Z_OK

# What decode replies with, before it is encoded by the codec below: pongs are no longer than their pings.
cdef struct Replies:
    uint32_t size
    char[CODEC_PLAIN + MAX_CONTROL + 2] data


# --------------------------------------------------------------------------------------------------------- what is sent

cdef bint emit(WebSocket* ws, const char* data, uint32_t size, Output* wire) noexcept nogil:
    """Append bytes to the wire of the connection. False: there is no room, or the codec below has failed."""
    cdef Codec* below = ws.codec.below
    if below != NULL:
        return below.type.encode(below, data, size, wire)
    if size > wire.room - wire.size:
        return False
    memcpy(wire.data + wire.size, data, size)
    wire.size += size
    return True


cdef void end_below(WebSocket* ws, CodecEnd why, Output* wire) noexcept nogil:
    cdef Codec* below = ws.codec.below
    if below != NULL and not below.finished:
        below.type.finish(below, why, wire)


cdef void note_close(WebSocket* ws, uint16_t code, uint8_t side) noexcept nogil:
    """The first Close counts."""
    if ws.close_code == 0:
        ws.close_code = code
        ws.closed_by = side


cdef void send_close(WebSocket* ws, uint16_t code, Output* wire) noexcept nogil:
    """Once; after it nothing is sent. CC_NONE: without a code."""
    cdef uint8_t[FRAME_HEAD] frame
    cdef uint32_t size
    if ws.codec.finished:
        return
    ws.codec.finished = True
    size = write_head(frame, OP_CLOSE, 0 if code == CC_NONE else 2)
    if code != CC_NONE:
        frame[2], frame[3] = <uint8_t>(code >> 8), <uint8_t>(code & 0xFF)
        size += 2
    emit(ws, <const char*>frame, size, wire)
    end_below(ws, CE_DONE, wire)


cdef void add_pong(WebSocket* ws, const char* payload, uint8_t size, Replies* replies) noexcept nogil:
    """Reply to a ping. While the client takes nothing, only the latest one gets its reply, when it reads on."""
    cdef uint8_t[FRAME_HEAD] head
    if ws.codec.finished:
        return
    if ws.codec.blocked:
        if ws.pong == NULL:
            ws.pong = <char*>malloc(MAX_CONTROL)
        if ws.pong != NULL:
            memcpy(ws.pong, payload, size)
            ws.pong_size = size
        return
    if replies.size + 2 + size > sizeof(replies.data):
        return
    write_head(head, OP_PONG, size)
    memcpy(replies.data + replies.size, head, 2)
    memcpy(replies.data + replies.size + 2, payload, size)
    replies.size += 2 + <uint32_t>size


cdef void resume_websocket(Codec* codec, Output* wire) noexcept nogil:
    cdef WebSocket* ws = <WebSocket*>codec
    cdef char[FRAME_HEAD + MAX_CONTROL] frame
    if ws.pong == NULL or codec.finished or not codec.established:
        return
    write_head(<uint8_t*>frame, OP_PONG, ws.pong_size)
    memcpy(frame + 2, ws.pong, ws.pong_size)
    emit(ws, frame, <uint32_t>ws.pong_size + 2, wire)
    free(ws.pong)
    ws.pong = NULL


cdef void ping_websocket(Codec* codec, Output* wire) noexcept nogil:
    cdef uint8_t[FRAME_HEAD] frame
    if codec.established and not codec.finished:
        write_head(frame, OP_PING, 0)
        emit(<WebSocket*>codec, <const char*>frame, 2, wire)


cdef bint encode_websocket(Codec* codec, const char* plain, uint32_t size, Output* wire) noexcept nogil:
    cdef WebSocket* ws = <WebSocket*>codec
    cdef uint8_t[CODEC_HEADROOM] head
    cdef uint32_t head_size, made
    cdef char* out = NULL
    if not codec.established:
        return emit(ws, plain, size, wire)              # an HTTP reply
    if codec.finished or size == 0:
        return True
    if ws.pong != NULL:
        resume_websocket(codec, wire)
    if ws.compresses and size >= MIN_COMPRESSED:
        made = compress_message(ws.path.compressor, plain, size, &out)
        if made:
            count_compressed(ws, BY_SERVER, made, size)
            head_size = write_head(head, OP_BINARY | BIT_COMPRESSED, made)
            memcpy(out - head_size, head, head_size)
            return emit(ws, out - head_size, made + head_size, wire)
    head_size = write_head(head, OP_BINARY, size)
    if codec.below == NULL:
        return emit(ws, <const char*>head, head_size, wire) and emit(ws, plain, size, wire)
    memcpy(<char*>plain - head_size, head, head_size)
    return emit(ws, plain - head_size, size + head_size, wire)


cdef void finish_websocket(Codec* codec, CodecEnd why, Output* wire) noexcept nogil:
    cdef WebSocket* ws = <WebSocket*>codec
    cdef uint16_t code = CC_GOING_AWAY
    if not codec.established:
        codec.finished = True
        end_below(ws, why, wire)
        return
    if codec.finished:
        return
    if why == CE_DONE:
        code = CC_NORMAL
    elif why == CE_FAILED:
        code = CC_INTERNAL
    elif why == CE_REPLACED:
        code = CC_RESTART
    elif why == CE_EVICTED:
        code = CC_TRY_LATER
    elif why == CE_PING:
        ws.path.counters.ping_timeouts += 1
    if codec.truncated or codec.ended:
        note_close(ws, CC_ABNORMAL, BY_CLIENT)
    note_close(ws, code, BY_SERVER)
    send_close(ws, code, wire)


# ----------------------------------------------------------------------------------------------------- what is received

cdef inline uint16_t judge_head(const WebSocket* ws) noexcept nogil:
    """0, or the code that the connection is closed with: by the first two bytes of a frame."""
    cdef uint8_t first = ws.head[0], size = ws.head[1] & BITS_SIZE, opcode = first & BITS_OPCODE
    if first & BITS_RESERVED or not ws.head[1] & BIT_MASKED:
        return CC_PROTOCOL
    if first & BIT_COMPRESSED and not (ws.compresses and opcode in (OP_TEXT, OP_BINARY)):
        return CC_PROTOCOL
    if opcode & BIT_CONTROL:
        return CC_PROTOCOL if opcode > OP_PONG or not first & BIT_FIN or size > MAX_CONTROL else 0
    if opcode > OP_BINARY or (opcode == OP_CONTINUATION) != (ws.message_opcode != 0):
        return CC_PROTOCOL
    return CC_UNSUPPORTED if opcode == OP_TEXT and not ws.path.text else 0


cdef uint16_t begin_frame(WebSocket* ws) noexcept nogil:
    """The head is complete. 0, or the code that the connection is closed with."""
    cdef uint32_t i, size = head_size_of(ws.head)
    cdef uint64_t length = ws.head[1] & BITS_SIZE
    if size > 6:
        length = 0
        for i in range(2, size - 4):
            length = length << 8 | ws.head[i]
        # The shortest form is required, and the first bit is 0.
        if length < (126 if size == 8 else 65536) or length >> 63:
            return CC_PROTOCOL
    memcpy(ws.mask, ws.head + size - 4, 4)
    ws.phase = 0
    ws.head_size = 0
    ws.frame = ws.head[0]
    ws.left = length
    if ws.frame & BIT_CONTROL:
        ws.control_size = 0
        return 0
    if ws.frame & BITS_OPCODE:
        ws.message_opcode = ws.frame & BITS_OPCODE
        ws.message = 0
        ws.compressed = ws.frame & BIT_COMPRESSED
        if ws.compressed and not begin_compressed(ws):
            return CC_INTERNAL
    if length > ws.path.max_message - ws.message:
        return CC_TOO_BIG
    if ws.compressed:
        count_compressed(ws, BY_CLIENT, length, 0)      # `message` counts what it is without compression
    else:
        ws.message += length
    return 0


cdef uint16_t read_head(WebSocket* ws, const char* data, uint32_t size, uint32_t* used) noexcept nogil:
    """Take bytes of the next frame's head; it is complete when `head_size` is 0 again. 0, or a code as above."""
    cdef uint32_t at = 0, needed = 2
    cdef uint16_t code
    while at < size:
        ws.head[ws.head_size] = <uint8_t>data[at]
        ws.head_size += 1
        at += 1
        if ws.head_size == 2:
            code = judge_head(ws)
            if code:
                return code
        if ws.head_size >= 2:
            needed = head_size_of(ws.head)
        if ws.head_size == needed:
            used[0] = at
            return begin_frame(ws)
    used[0] = at
    return 0


cdef uint16_t judge_close(const char* payload, uint32_t size) noexcept nogil:
    """The code of a Close, CC_NONE if it has none; 0: it breaks the protocol, 1: its reason is not UTF-8."""
    cdef uint16_t code
    if size == 0:
        return CC_NONE
    if size == 1:
        return 0
    code = <uint16_t>(<uint8_t>payload[0] << 8 | <uint8_t>payload[1])
    if not is_close_code(code):
        return 0
    return code if feed_utf8(UTF8_OK, payload + 2, size - 2) == UTF8_OK else 1


cdef uint16_t end_control(WebSocket* ws, const char* payload, uint32_t size, Replies* replies) noexcept nogil:
    """A control frame is complete. 0, or the code that the connection is closed with for breaking the protocol."""
    cdef uint8_t opcode = ws.frame & BITS_OPCODE
    cdef uint16_t code
    if opcode == OP_PING:
        add_pong(ws, payload, <uint8_t>size, replies)
    elif opcode == OP_CLOSE:
        code = judge_close(payload, size)
        if code <= 1:
            return CC_INVALID if code else CC_PROTOCOL
        note_close(ws, code, BY_CLIENT)
        ws.codec.ended = True
    return 0


cdef uint16_t read_control(
    WebSocket* ws, const char* data, uint32_t size, Replies* replies,
) noexcept nogil:
    """Take bytes of a control frame's payload, all of them if `size` is what is left. 0, or a code as above."""
    cdef char[MAX_CONTROL] whole
    cdef char* payload = whole
    if ws.control_size or size < ws.left:
        if ws.control == NULL:
            ws.control = <char*>malloc(MAX_CONTROL)
            if ws.control == NULL:
                return CC_INTERNAL
        payload = ws.control
    unmask(payload + ws.control_size, data, size, ws.mask, ws.phase)
    ws.phase = <uint8_t>((ws.phase + size) & 3)
    ws.control_size += <uint8_t>size
    ws.left -= size
    return 0 if ws.left else end_control(ws, payload, ws.control_size, replies)


cdef uint16_t read_data(WebSocket* ws, const char* data, uint32_t size, Output* plain) noexcept nogil:
    """Pass on bytes of a data frame's payload. 0, or a code as above."""
    cdef char* out = plain.data + plain.size
    unmask(out, data, size, ws.mask, ws.phase)
    ws.phase = <uint8_t>((ws.phase + size) & 3)
    ws.left -= size
    plain.size += size
    if ws.message_opcode == OP_TEXT:
        ws.utf8 = feed_utf8(ws.utf8, out, size)
        if ws.utf8 == UTF8_BAD:
            plain.size -= size
            return CC_INVALID
    return 0


cdef uint16_t end_message(WebSocket* ws) noexcept nogil:
    if ws.message_opcode == OP_TEXT and ws.utf8 != UTF8_OK:
        return CC_INVALID
    ws.message_opcode = 0
    return 0


cdef uint16_t end_data(WebSocket* ws) noexcept nogil:
    """A data frame is complete."""
    if not ws.frame & BIT_FIN:
        return 0
    if ws.compressed:
        ws.in_tail = True
        ws.tail = 0
        return 0
    return end_message(ws)


# -------------------------------------------------------------------------------------------------- compressed messages

cdef inline void count_compressed(WebSocket* ws, int side, uint64_t deflated, uint64_t inflated) noexcept nogil:
    ws.path.counters.deflated[side] += deflated
    ws.path.counters.inflated[side] += inflated


cdef bint begin_compressed(WebSocket* ws) noexcept nogil:
    """False: there is no memory."""
    if ws.decompressor == NULL:
        ws.decompressor = ws.path.decompressor
        ws.path.decompressor = NULL
    if ws.decompressor == NULL:
        ws.decompressor = make_decompressor()
    return ws.decompressor != NULL and inflateReset(ws.decompressor) == Z_OK


cdef void leave_decompressor(WebSocket* ws) noexcept nogil:
    """Between messages the connection needs none."""
    if ws.path.decompressor == NULL:
        ws.path.decompressor = ws.decompressor
    else:
        free_decompressor(ws.decompressor)
    ws.decompressor = NULL


cdef uint16_t pass_decompressed(
    WebSocket* ws, const char* data, uint32_t size, uint32_t* used, Output* plain,
) noexcept nogil:
    """Decompress bytes of a message as far as there is room. 0, or the code that the connection is closed with."""
    cdef uint32_t before = plain.size
    if not decompress(ws.decompressor, data, size, used, plain):
        return CC_INVALID
    ws.message += plain.size - before
    count_compressed(ws, BY_CLIENT, 0, plain.size - before)
    if ws.message > ws.path.max_message:
        plain.size = before
        return CC_TOO_BIG
    if ws.message_opcode == OP_TEXT:
        ws.utf8 = feed_utf8(ws.utf8, plain.data + before, plain.size - before)
        if ws.utf8 == UTF8_BAD:
            plain.size = before
            return CC_INVALID
    return 0


cdef uint16_t read_compressed(
    WebSocket* ws, const char* data, uint32_t size, uint32_t* used, Output* plain,
) noexcept nogil:
    """Take bytes of a compressed frame's payload, not all of them if `plain` is full. 0, or a code as above."""
    cdef char[PIECE_BYTES] piece
    cdef uint16_t code
    size = min(size, <uint32_t>PIECE_BYTES)
    unmask(piece, data, size, ws.mask, ws.phase)
    code = pass_decompressed(ws, piece, size, used, plain)
    ws.phase = <uint8_t>((ws.phase + used[0]) & 3)
    ws.left -= used[0]
    return code


cdef uint16_t read_tail(WebSocket* ws, Output* plain) noexcept nogil:
    """The message is complete but for the bytes that no sender sends (section 7.2.2). It ends when `plain` has room
    left."""
    cdef const char* tail = b"\x00\x00\xff\xff"
    cdef uint32_t used = 0
    cdef uint16_t code = pass_decompressed(ws, tail + ws.tail, 4 - <uint32_t>ws.tail, &used, plain)
    ws.tail += <uint8_t>used
    if code or ws.tail < 4 or plain.size == plain.room:
        return code
    ws.in_tail = False
    ws.compressed = False
    return end_message(ws)


cdef uint16_t read_frames(
    WebSocket* ws, const char* data, uint32_t size, uint32_t* used, Output* plain, Replies* replies,
) noexcept nogil:
    """Decode until the input ends, or the client's Close, or `plain` is full, as only decompressing can make it.

    `data` may be where `plain` has its room, unless messages are compressed. used: bytes of `data` that were decoded.
    0, or a code as above.
    """
    cdef uint32_t at = 0, n
    cdef uint16_t code = 0
    while (at < size or ws.in_tail) and not ws.codec.ended:
        used[0] = at
        if ws.compresses and plain.size == plain.room:
            return 0
        if ws.in_tail:
            code = read_tail(ws, plain)
        elif ws.left == 0:
            n = 0
            code = read_head(ws, data + at, size - at, &n)
            at += n
            if code or ws.head_size:
                used[0] = at
                return code
            # A control frame without payload is complete; a data frame is as well.
            if ws.left == 0:
                code = end_control(ws, data + at, 0, replies) if ws.frame & BIT_CONTROL else end_data(ws)
        else:
            n = <uint32_t>min(ws.left, <uint64_t>(size - at))
            if ws.frame & BIT_CONTROL:
                code = read_control(ws, data + at, n, replies)
            else:
                if ws.compressed:
                    code = read_compressed(ws, data + at, n, &n, plain)
                else:
                    if ws.compresses:
                        n = min(n, plain.room - plain.size)
                    code = read_data(ws, data + at, n, plain)
                if code == 0 and ws.left == 0:
                    code = end_data(ws)
            at += n
        if code:
            return code
    used[0] = at
    return 0


cdef CodecResult read_wire(WebSocket* ws, const char* data, uint32_t size, Output* plain, Output* reply) noexcept nogil:
    """Decode what the codec below, or the socket, has delivered, and send what it calls for."""
    cdef Replies replies
    cdef uint16_t code
    cdef uint32_t used = 0
    replies.size = 0
    code = read_frames(ws, data, size, &used, plain, &replies)
    if ws.decompressor != NULL and ws.message_opcode == 0:
        leave_decompressor(ws)
    if replies.size:
        emit(ws, replies.data, replies.size, reply)
    if code:
        ws.failed = True
        note_close(ws, code, BY_SERVER)
        send_close(ws, code, reply)
        return CODEC_ERROR
    if ws.codec.ended:
        send_close(ws, ws.close_code if ws.closed_by == BY_CLIENT else <uint16_t>CC_NONE, reply)
        return CODEC_END
    return keep_input(ws, data + used, size - used) if used < size or ws.in_tail else CODEC_OK


cdef CodecResult keep_input(WebSocket* ws, const char* data, uint32_t size) noexcept nogil:
    """Keep what there was no room for, until `work` is called."""
    ws.input = <char*>malloc(size + 1)
    if ws.input == NULL:
        ws.failed = True
        return CODEC_ERROR
    memcpy(ws.input, data, size)
    ws.input_size = size
    ws.codec.has_work = True
    return CODEC_WORK


cdef CodecResult read_copy(WebSocket* ws, const char* data, uint32_t size, Output* plain, Output* reply) noexcept nogil:
    """As read_wire, where decompressing would overwrite `data`."""
    cdef CodecResult result
    cdef char* copy = <char*>malloc(size)
    if copy == NULL:
        ws.failed = True
        return CODEC_ERROR
    memcpy(copy, data, size)
    result = read_wire(ws, copy, size, plain, reply)
    free(copy)
    return result


cdef CodecResult decode_websocket(
    Codec* codec, const char* wire, uint32_t size, Output* plain, Output* reply,
) noexcept nogil:
    cdef WebSocket* ws = <WebSocket*>codec
    cdef Codec* below = codec.below
    cdef CodecResult result
    cdef Output lower
    if ws.failed:
        return CODEC_ERROR
    if below == NULL:
        return read_wire(ws, wire, size, plain, reply)
    lower = plain[0]
    result = below.type.decode(below, wire, size, &lower, reply)
    if result == CODEC_ERROR:
        ws.failed = True
        codec.finished = True
        note_close(ws, CC_ABNORMAL, BY_CLIENT)
        return CODEC_ERROR
    ws.ends_below = result == CODEC_END
    if lower.size:
        if ws.compresses:
            result = read_copy(ws, lower.data, lower.size, plain, reply)
        else:
            result = read_wire(ws, lower.data, lower.size, plain, reply)
        if result != CODEC_OK:
            return result
    return end_of_below(ws)


cdef inline CodecResult end_of_below(WebSocket* ws) noexcept nogil:
    """The codec below may have ended without a Close."""
    if not ws.ends_below:
        return CODEC_OK
    ws.codec.ended = True
    return CODEC_END


cdef CodecResult work_websocket(Codec* codec, Output* plain, Output* reply) noexcept nogil:
    """The upstream is reached: tell the client, and decode what it sent behind its request. Later: decode what it kept.
    """
    cdef WebSocket* ws = <WebSocket*>codec
    cdef CodecResult result = CODEC_OK
    cdef char* input
    codec.has_work = False
    if ws.failed:
        return CODEC_ERROR
    if codec.established:
        input, ws.input = ws.input, NULL
        if input == NULL:
            return CODEC_OK
        result = read_wire(ws, input, ws.input_size, plain, reply)
        free(input)
        return end_of_below(ws) if result == CODEC_OK else result
    codec.established = True
    ws.path.counters.upgrades[<int>U_ACCEPTED] += 1
    ws.path.counters.open += 1
    emit(ws, ws.opening, ws.reply_size, reply)
    if ws.opening_size > ws.reply_size:
        result = read_wire(ws, ws.opening + ws.reply_size, ws.opening_size - ws.reply_size, plain, reply)
    free(ws.opening)
    ws.opening = NULL
    ws.ends_below = codec.below != NULL and codec.below.ended       # right behind the request
    return end_of_below(ws) if result == CODEC_OK else result


# ------------------------------------------------------------------------------------------------------ begin and end

cdef inline int number_of_code(uint16_t code) noexcept nogil:
    """Where a code is counted."""
    if CC_NORMAL <= code <= CC_UNSUPPORTED:
        return code - CC_NORMAL
    if code in (CC_NONE, CC_ABNORMAL, CC_INVALID, 1008, CC_TOO_BIG):
        return code - CC_NONE + 4
    if CC_INTERNAL <= code <= CC_TRY_LATER:
        return code - CC_INTERNAL + 9
    return CODE_COUNT - 1


cdef const char* server_name_websocket(Codec* codec) noexcept nogil:
    if codec.below == NULL:
        return NULL
    return codec.below.type.server_name(codec.below)


cdef void shrink_websocket(Codec* codec) noexcept nogil:
    if codec.below != NULL:
        codec.below.type.shrink(codec.below)


cdef void release_websocket(Codec* codec) noexcept nogil:
    cdef WebSocket* ws = <WebSocket*>codec
    if codec.established:
        note_close(ws, CC_ABNORMAL, BY_CLIENT if codec.truncated else BY_SERVER)
        ws.path.counters.open -= 1
        ws.path.counters.closes[ws.closed_by][number_of_code(ws.close_code)] += 1
    if codec.below != NULL:
        codec.below.type.release(codec.below)
    free_decompressor(ws.decompressor)
    free(ws.input)
    free(ws.opening)
    free(ws.control)
    free(ws.pong)
    free(ws)


cdef CodecType websocket_type
websocket_type.is_tls = False
websocket_type.decode = decode_websocket
websocket_type.work = work_websocket
websocket_type.encode = encode_websocket
websocket_type.finish = finish_websocket
websocket_type.ping = ping_websocket
websocket_type.resume = resume_websocket
websocket_type.server_name = server_name_websocket
websocket_type.shrink = shrink_websocket
websocket_type.release = release_websocket


cdef Codec* begin_websocket(
    PathSettings* path, bint compresses, const char* reply, uint32_t reply_size, const char* rest, uint32_t rest_size,
) noexcept nogil:
    """NULL: there is no memory."""
    cdef WebSocket* ws = <WebSocket*>calloc(1, sizeof(WebSocket))
    if ws == NULL:
        return NULL
    ws.opening = <char*>malloc(reply_size + rest_size + 1)
    if ws.opening == NULL:
        free(ws)
        return NULL
    memcpy(ws.opening, reply, reply_size)
    memcpy(ws.opening + reply_size, rest, rest_size)
    ws.reply_size, ws.opening_size = reply_size, reply_size + rest_size
    ws.path = path
    ws.compresses = compresses
    ws.codec.type = &websocket_type
    ws.codec.failure = HF_NONE
    ws.codec.has_work = True
    return &ws.codec
