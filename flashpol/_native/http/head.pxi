# The recogniser of a request's head. head.pxd explains it.

from libc.stdint cimport int64_t, uint8_t, uint16_t
from libc.string cimport memcmp, memcpy

from flashpol._native.common.system cimport AF_INET6, inet_pton
from flashpol._native.common.verdict cimport MatchVerdict, V_MATCH, V_MORE, V_OTHER
from flashpol._native.http.head cimport (
    BK_HOST, BK_PATH, BK_TOKEN, BK_VALUE, BYTES, FIELD_COUNT, HC_CHUNKED, HC_NONE, HC_OTHER, HE_CODING, HE_EXPECTATION,
    HE_FIELDS, HE_LENGTH_REQUIRED, HE_MALFORMED, HE_NONE, HE_TARGET, HE_VERSION, HEAD_BYTES, HEAD_METHODS, HeadError,
    HeadField, HeadParser, HM_CONNECT, HM_OPTIONS, HM_PRI, HS_ASTERISK, HS_AUTHORITY, HS_END, HS_HOST, HS_LINE,
    HS_LINE_END, HS_METHOD, HS_NAME, HS_PATH, HS_QUERY, HS_SCHEME, HS_SPACE, HS_TARGET, HS_VALUE, HS_VERSION,
    INET6_BYTES, LENGTH_DIGITS, METHODS, Span, TARGET_BYTES, TF_ABSOLUTE, TF_ASTERISK, TF_AUTHORITY, TF_ORIGIN,
)


cdef inline void head_begin(HeadParser* head) noexcept nogil:
    """Prepare for the first byte."""
    head.at = head.begin = head.size = head.field_count = 0
    head.state = HS_METHOD
    head.coding = HC_NONE
    head.has_host = head.has_length = head.has_upgrade = head.has_other_expectation = False
    head.error = HE_NONE
    head.verb = head.form = head.minor = head.expects = 0
    head.body_size = 0
    head.method.begin = head.method.size = 0
    head.target = head.path = head.method


cdef inline MatchVerdict head_feed(HeadParser* head, const char* data, size_t size) noexcept nogil:
    """Continue where the last call ended. `data`: all that was received, from the first byte of the request on."""
    cdef MatchVerdict verdict = V_MORE
    if head.error != HE_NONE:
        return V_OTHER
    if head.size:
        return V_MATCH
    size = min(size, <size_t>HEAD_BYTES)
    while head.at < size and verdict == V_MORE:
        if head.state >= HS_LINE:
            verdict = feed_fields(head, <const uint8_t*>data, size)
        else:
            verdict = feed_request_line(head, <const uint8_t*>data, size)
    if verdict == V_MORE and head.at == HEAD_BYTES:
        return head_error(head, HE_FIELDS)
    return verdict


cdef inline MatchVerdict head_error(HeadParser* head, HeadError error) noexcept nogil:
    head.error = <uint8_t>error
    return V_OTHER


# -------------------------------------------------------------------------------------------- RFC 9112, section 3

cdef inline MatchVerdict feed_request_line(HeadParser* head, const uint8_t* data, size_t size) noexcept nogil:
    """Read one element of the request line, as far as it has come."""
    if head.state == HS_METHOD:
        return feed_method(head, data, size)
    if head.state == HS_VERSION:
        return feed_version(head, data, size)
    return feed_target(head, data, size)


cdef inline MatchVerdict feed_method(HeadParser* head, const uint8_t* data, size_t size) noexcept nogil:
    cdef int i
    cdef size_t n
    cdef bint undecided = False
    for i in range(<int>HEAD_METHODS):
        n = METHODS[i].size
        if memcmp(data, METHODS[i].text, min(size, n)) == 0:
            if size >= n:
                head.method.size = <uint16_t>(n - 1)
                head.verb = <uint8_t>i
                head.target.begin = head.at = <uint16_t>n
                head.state = HS_TARGET
                return V_MORE
            undecided = True
    head.at = <uint16_t>size
    return V_MORE if undecided else head_error(head, HE_MALFORMED)


cdef inline MatchVerdict feed_target(HeadParser* head, const uint8_t* data, size_t size) noexcept nogil:
    """Section 3.2. Read the target to its end, or as far as it has come."""
    cdef size_t at = head.at
    cdef size_t last = head.target.begin + <size_t>TARGET_BYTES     # where the space has to be
    size = min(size, last + 1)
    if head.state == HS_TARGET:
        begin_target(head, data[at])
        at += head.state == HS_PATH or head.state == HS_ASTERISK
        if head.error != HE_NONE:
            return V_OTHER
    if head.state == HS_SCHEME:
        return feed_scheme(head, data, size)
    if head.state == HS_HOST or head.state == HS_AUTHORITY:
        while at < size and BYTES[data[at]] & BK_HOST:
            at += 1
        if at < size:
            if not is_host(data + head.begin, data + at, head.state == HS_AUTHORITY):
                return head_error(head, HE_MALFORMED)
            if head.state == HS_HOST:
                if at == head.begin:            # a URI of http has a host
                    return head_error(head, HE_MALFORMED)
                head.path.begin = <uint16_t>at
                if data[at] == b"/" or data[at] == b"?":
                    head.state = HS_PATH
    if head.state == HS_PATH:
        while at < size and BYTES[data[at]] & BK_PATH:
            at += 1
        head.path.size = <uint16_t>(at - head.path.begin)
        if at < size and data[at] == b"?":
            head.state = HS_QUERY
    if head.state == HS_QUERY:
        while at < size and (BYTES[data[at]] & BK_PATH or data[at] == b"?"):
            at += 1
    head.at = <uint16_t>at
    if at == size:
        return V_MORE if size <= last else head_error(head, HE_TARGET)
    if data[at] == b" ":
        head.target.size = <uint16_t>(at - head.target.begin)
        head.begin = head.at = <uint16_t>(at + 1)
        head.state = HS_VERSION
        return V_MORE
    return head_error(head, HE_VERSION if data[at] == b"\r" else HE_MALFORMED)


cdef inline void begin_target(HeadParser* head, uint8_t first) noexcept nogil:
    """Tell the form of a target by the method and the target's first byte."""
    head.path.begin = head.begin = head.at
    if head.verb == HM_CONNECT:
        head.form = TF_AUTHORITY
        head.state = HS_AUTHORITY
    elif first == b"/":
        head.form = TF_ORIGIN
        head.state = HS_PATH
    elif first == b"h" or first == b"H":
        head.form = TF_ABSOLUTE
        head.state = HS_SCHEME
    elif first == b"*" and (head.verb == HM_OPTIONS or head.verb == HM_PRI):
        head.form = TF_ASTERISK
        head.state = HS_ASTERISK
    else:
        head.error = HE_MALFORMED


cdef inline MatchVerdict feed_scheme(HeadParser* head, const uint8_t* data, size_t size) noexcept nogil:
    cdef const uint8_t* scheme = data + head.target.begin
    cdef size_t n = size - head.target.begin
    head.at = <uint16_t>size
    if is_name(scheme, <const char*>b"http://", min(n, <size_t>7)):
        if n < 7:
            return V_MORE
        n = 7
    elif is_name(scheme, <const char*>b"https://", min(n, <size_t>8)):
        if n < 8:
            return V_MORE
        n = 8
    else:
        return head_error(head, HE_MALFORMED)
    head.begin = head.at = <uint16_t>(head.target.begin + n)
    head.state = HS_HOST
    return V_MORE


cdef inline bint is_host(const uint8_t* at, const uint8_t* end, bint with_port) noexcept nogil:
    """A name or an address, and a port, which may be left out unless `with_port`. The name may be empty without one.

    All bytes are of BK_HOST.
    """
    cdef const uint8_t* begin = at
    cdef int port = 0
    if at != end and at[0] == b"[":
        while at != end and at[0] != b"]":
            at += 1
        if at == end or not is_address(begin + 1, <size_t>(at - begin - 1)):
            return False
        at += 1
    else:
        while at != end and BYTES[at[0]] & BK_TOKEN:        # neither ":" nor brackets
            at += 1
    if at == end:
        return not with_port
    if at[0] != b":" or at == begin:
        return False
    at += 1
    if with_port and at == end:
        return False
    while at != end and b"0" <= at[0] <= b"9" and port <= 65535:
        port = 10 * port + at[0] - c"0"
        at += 1
    return at == end and port <= 65535


cdef inline bint is_address(const uint8_t* at, size_t size) noexcept nogil:
    """An IPv6 address."""
    cdef char[INET6_BYTES] text
    cdef char[16] address
    if size >= INET6_BYTES:
        return False
    memcpy(text, at, size)
    text[size] = 0
    return inet_pton(AF_INET6, text, address) == 1


cdef inline MatchVerdict feed_version(HeadParser* head, const uint8_t* data, size_t size) noexcept nogil:
    """Section 2.3. Read the version and the end of the line."""
    cdef const uint8_t* version = data + head.begin
    cdef size_t n = min(size - head.begin, <size_t>10)
    head.at = <uint16_t>(head.begin + n)
    if memcmp(version, <const char*>b"HTTP/", min(n, <size_t>5)) != 0:
        return head_error(head, HE_MALFORMED)
    if (n > 5 and not b"0" <= version[5] <= b"9") or (n > 6 and version[6] != b"."):
        return head_error(head, HE_MALFORMED)
    if n > 7:
        if not b"0" <= version[7] <= b"9":
            return head_error(head, HE_MALFORMED)
        if version[5] != b"1" or version[7] > b"1":
            return head_error(head, HE_VERSION)
        if head.verb == HM_PRI:
            return head_error(head, HE_MALFORMED)
        head.minor = <uint8_t>(version[7] - c"0")
    if (n > 8 and version[8] != b"\r") or (n > 9 and version[9] != b"\n"):
        return head_error(head, HE_MALFORMED)
    if n == 10:
        head.state = HS_LINE
    return V_MORE


# -------------------------------------------------------------------------------------------- RFC 9112, section 5

cdef inline MatchVerdict feed_fields(HeadParser* head, const uint8_t* data, size_t size) noexcept nogil:
    """Read fields and the empty line, as far as they have come. `at` is beyond no byte that was not judged."""
    cdef size_t at = head.at
    cdef uint8_t state = head.state
    cdef HeadField* field = &head.fields[head.field_count]      # not used for a field too many
    while at < size:
        if state == HS_LINE:
            if data[at] == b"\r":
                at += 1
                state = HS_END
                continue
            if not BYTES[data[at]] & BK_TOKEN:
                return head_error(head, HE_MALFORMED)
            if head.field_count == FIELD_COUNT:
                return head_error(head, HE_FIELDS)
            field = &head.fields[head.field_count]
            field.name.begin = <uint16_t>at
            at += 1
            state = HS_NAME
        if state == HS_NAME:
            while at < size and BYTES[data[at]] & BK_TOKEN:
                at += 1
            if at == size:
                break
            if data[at] != b":":
                return head_error(head, HE_MALFORMED)
            field.name.size = <uint16_t>(at - field.name.begin)
            at += 1
            state = HS_SPACE
        if state == HS_SPACE:
            while at < size and is_blank(data[at]):
                at += 1
            if at == size:
                break
            field.value.begin = <uint16_t>at
            state = HS_VALUE
        if state == HS_VALUE:
            while at < size and BYTES[data[at]] & BK_VALUE:
                at += 1
            if at == size:
                break
            if data[at] != b"\r":
                return head_error(head, HE_MALFORMED)
            end_value(field, data, at)
            at += 1
            state = HS_LINE_END
            if at == size:
                break
        if data[at] != b"\n":
            return head_error(head, HE_MALFORMED)
        at += 1
        if state == HS_END:
            return end_head(head, at)
        if not judge_field(head, data, field):
            return head_error(head, HE_MALFORMED)
        head.field_count += 1
        state = HS_LINE
    head.at = <uint16_t>at
    head.state = state
    return V_MORE


cdef inline bint is_blank(uint8_t byte) noexcept nogil:
    return byte == b" " or byte == b"\t"


cdef inline void end_value(HeadField* field, const uint8_t* data, size_t end) noexcept nogil:
    while end > field.value.begin and is_blank(data[end - 1]):
        end -= 1
    field.value.size = <uint16_t>(end - field.value.begin)


cdef inline bint judge_field(HeadParser* head, const uint8_t* data, const HeadField* field) noexcept nogil:
    """Keep what a field says of the message itself. False: it is malformed, or contradicts one before it."""
    cdef const uint8_t* name = data + field.name.begin
    cdef const uint8_t* value = data + field.value.begin
    cdef size_t size = field.value.size
    if field.name.size == 4 and is_name(name, <const char*>b"host", 4):
        if head.has_host or not is_host_value(value, size):
            return False
        head.has_host = True
    elif field.name.size == 6 and is_name(name, <const char*>b"expect", 6):
        if size == 12 and is_name(value, <const char*>b"100-continue", 12):
            head.expects = head.minor
        else:
            head.has_other_expectation = True
    elif field.name.size == 14 and is_name(name, <const char*>b"content-length", 14):
        if head.has_length or head.coding != HC_NONE or head.verb == HM_CONNECT:
            return False
        head.has_length = True
        return read_length(value, size, &head.body_size) and not (head.has_upgrade and head.body_size)
    elif field.name.size == 7 and is_name(name, <const char*>b"upgrade", 7):
        head.has_upgrade = True
        return head.body_size == 0
    elif field.name.size == 17 and is_name(name, <const char*>b"transfer-encoding", 17):
        if head.has_length or head.minor == 0:
            return False
        if head.coding == HC_NONE and size == 7 and is_name(value, <const char*>b"chunked", 7):
            head.coding = HC_CHUNKED
        else:
            head.coding = HC_OTHER
    return True


cdef inline bint is_name(const uint8_t* text, const char* name, size_t size) noexcept nogil:
    """`name` in upper or lower case. It is written in lower case."""
    cdef size_t i
    cdef uint8_t byte
    for i in range(size):
        byte = text[i]
        if b"A" <= byte <= b"Z":
            byte |= 0x20
        if byte != <uint8_t>name[i]:
            return False
    return True


cdef inline bint is_host_value(const uint8_t* value, size_t size) noexcept nogil:
    cdef size_t i
    for i in range(size):
        if not BYTES[value[i]] & BK_HOST:
            return False
    return is_host(value, value + size, False)


cdef inline bint read_length(const uint8_t* digits, size_t size, int64_t* length) noexcept nogil:
    cdef size_t i
    length[0] = 0
    if size == 0 or size > LENGTH_DIGITS:
        return False
    for i in range(size):
        if not b"0" <= digits[i] <= b"9":
            return False
        length[0] = 10 * length[0] + digits[i] - c"0"
    return True


cdef inline MatchVerdict end_head(HeadParser* head, size_t end) noexcept nogil:
    """Judge the head as a whole."""
    head.at = <uint16_t>end
    if head.minor and not head.has_host:
        return head_error(head, HE_MALFORMED)
    if head.coding != HC_NONE:
        return head_error(head, HE_LENGTH_REQUIRED if head.coding == HC_CHUNKED else HE_CODING)
    if head.has_other_expectation:
        return head_error(head, HE_EXPECTATION)
    head.size = <uint16_t>end
    return V_MATCH


# ------------------------------------------------------------------------------------ what a complete head says

cdef inline int head_find(const HeadParser* head, const char* data, const char* name, size_t size) noexcept nogil:
    """The number of the first field with this name, or -1. name: `size` bytes in lower case."""
    cdef int i
    for i in range(head.field_count):
        if head.fields[i].name.size == size and is_name(<const uint8_t*>data + head.fields[i].name.begin, name, size):
            return i
    return -1


cdef inline int head_count(const HeadParser* head, const char* data, const char* name, size_t size) noexcept nogil:
    """How many fields have this name. name: `size` bytes in lower case."""
    cdef int i, found = 0
    for i in range(head.field_count):
        found += (head.fields[i].name.size == size
                  and is_name(<const uint8_t*>data + head.fields[i].name.begin, name, size))
    return found


cdef inline const char* head_path(const HeadParser* head, const char* data, size_t* size) noexcept nogil:
    """The path of a target in origin or absolute form, without the query: at least "/". `size` is 0 for other forms."""
    size[0] = head.path.size
    if head.form == TF_ABSOLUTE and head.path.size == 0:
        size[0] = 1
        return <const char*>b"/"
    return data + head.path.begin
