/*
 * msgpack.c - reads msgpack heads and skips values; packs through msgpack-c.
 *
 * Reader and packer share nothing but the format, so each checks the other in
 * the tests.
 */
#include "msgpack.h"

#include <assert.h>
#include <math.h>
#include <msgpack.h>
#include <string.h>

#include "core/limits.h"

const char *br_code_name(br_code code)
{
    switch (code) {
    case BR_CODE_NONE:
        return "";
#define BR_CODE_CASE(name, word)                                                                             \
    case name:                                                                                               \
        return word;
        BR_CODE_LIST(BR_CODE_CASE)
#undef BR_CODE_CASE
    }
    return "";
}

br_code br_code_parse(br_str word)
{
#define BR_CODE_TRY(name, text)                                                                              \
    if (br_str_equal(word, BR_STR_LITERAL(text))) return name;
    BR_CODE_LIST(BR_CODE_TRY)
#undef BR_CODE_TRY
    return BR_CODE_NONE;
}

const char *br_wire_type_name(br_wire_type type)
{
    static const char *const names[] = {
        [BR_WIRE_NIL] = "nil",          [BR_WIRE_BOOL] = "bool",   [BR_WIRE_UINT] = "uint",
        [BR_WIRE_INT] = "negative int", [BR_WIRE_FLOAT] = "float", [BR_WIRE_STR] = "str",
        [BR_WIRE_BIN] = "bin",          [BR_WIRE_ARRAY] = "array", [BR_WIRE_MAP] = "map",
        [BR_WIRE_EXT] = "ext",
    };
    assert((size_t)type < sizeof names / sizeof *names);
    return names[type];
}

br_reader br_reader_make(const void *bytes, size_t size)
{
    const uint8_t *at = size > 0 ? bytes : (const uint8_t *)"";
    return (br_reader){.at = at, .end = at + size};
}

bool br_reader_done(const br_reader *reader)
{
    return !reader->failed && reader->at == reader->end;
}

static size_t left(const br_reader *reader)
{
    return (size_t)(reader->end - reader->at);
}

/* The reader moves to its end, so that nothing is read after a failure. */
static br_wire fail(br_reader *reader)
{
    reader->failed = true;
    reader->at = reader->end;
    return (br_wire){.type = BR_WIRE_NIL};
}

/* `bytes` bytes as a big-endian number; 0 and a failed reader when they are not there. */
static uint64_t take(br_reader *reader, size_t bytes)
{
    if (left(reader) < bytes) {
        fail(reader);
        return 0;
    }
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; i++) value = value << 8 | reader->at[i];
    reader->at += bytes;
    return value;
}

static br_wire read_uint(br_reader *reader, size_t bytes)
{
    uint64_t value = take(reader, bytes);
    return (br_wire){.type = reader->failed ? BR_WIRE_NIL : BR_WIRE_UINT, .as.uint = value};
}

static br_wire read_int(br_reader *reader, size_t bytes)
{
    uint64_t value = take(reader, bytes);
    if (reader->failed) return (br_wire){.type = BR_WIRE_NIL};
    const uint64_t sign = UINT64_C(1) << (8 * bytes - 1);
    if ((value & sign) == 0) return (br_wire){.type = BR_WIRE_UINT, .as.uint = value};
    return (br_wire){.type = BR_WIRE_INT, .as.sint = (int64_t)(value | ~(sign - 1))};
}

static br_wire read_float(br_reader *reader, size_t bytes)
{
    uint64_t bits = take(reader, bytes);
    if (reader->failed) return (br_wire){.type = BR_WIRE_NIL};
    br_wire out = {.type = BR_WIRE_FLOAT};
    if (bytes == sizeof(float)) {
        const uint32_t narrow = (uint32_t)bits;
        float value;
        memcpy(&value, &narrow, sizeof value);
        out.as.real = (double)value;
    } else {
        memcpy(&out.as.real, &bits, sizeof bits);
    }
    return out;
}

static br_wire read_bytes(br_reader *reader, br_wire_type type, uint64_t size)
{
    if (reader->failed || left(reader) < size) return fail(reader);
    br_wire out = {.type = type, .as.bytes = {(const char *)reader->at, (size_t)size}};
    reader->at += size;
    return out;
}

/* The type byte of an ext is read over: nothing here uses it. */
static br_wire read_ext(br_reader *reader, uint64_t size)
{
    take(reader, 1);
    return read_bytes(reader, BR_WIRE_EXT, size);
}

/* Every element needs at least one byte. A larger count is false, and must not size an array. */
static br_wire read_head(br_reader *reader, br_wire_type type, uint64_t count)
{
    const uint64_t bytes = type == BR_WIRE_MAP ? 2 * count : count;
    if (reader->failed || left(reader) < bytes) return fail(reader);
    return (br_wire){.type = type, .as.count = (uint32_t)count};
}

/* What the first byte of a value says, from 0xc0 to 0xdf: all but small integers, strings, arrays and
 * maps. */
typedef struct mark {
    enum { UNDEFINED, NIL, FALSE, TRUE, UINT, INT, FLOAT, STR, BIN, EXT, FIXED_EXT, ARRAY, MAP } form;
    uint8_t
        bytes; /* of the number that follows: the value itself, a size or a count; FIXED_EXT: of the value */
} mark;

enum { FIRST_MARK = 0xc0, LAST_MARK = 0xdf };

static const mark marks[LAST_MARK - FIRST_MARK + 1] = {
    [0xc0 - FIRST_MARK] = {NIL, 0},        [0xc1 - FIRST_MARK] = {UNDEFINED, 0},
    [0xc2 - FIRST_MARK] = {FALSE, 0},      [0xc3 - FIRST_MARK] = {TRUE, 0},
    [0xc4 - FIRST_MARK] = {BIN, 1},        [0xc5 - FIRST_MARK] = {BIN, 2},
    [0xc6 - FIRST_MARK] = {BIN, 4},        [0xc7 - FIRST_MARK] = {EXT, 1},
    [0xc8 - FIRST_MARK] = {EXT, 2},        [0xc9 - FIRST_MARK] = {EXT, 4},
    [0xca - FIRST_MARK] = {FLOAT, 4},      [0xcb - FIRST_MARK] = {FLOAT, 8},
    [0xcc - FIRST_MARK] = {UINT, 1},       [0xcd - FIRST_MARK] = {UINT, 2},
    [0xce - FIRST_MARK] = {UINT, 4},       [0xcf - FIRST_MARK] = {UINT, 8},
    [0xd0 - FIRST_MARK] = {INT, 1},        [0xd1 - FIRST_MARK] = {INT, 2},
    [0xd2 - FIRST_MARK] = {INT, 4},        [0xd3 - FIRST_MARK] = {INT, 8},
    [0xd4 - FIRST_MARK] = {FIXED_EXT, 1},  [0xd5 - FIRST_MARK] = {FIXED_EXT, 2},
    [0xd6 - FIRST_MARK] = {FIXED_EXT, 4},  [0xd7 - FIRST_MARK] = {FIXED_EXT, 8},
    [0xd8 - FIRST_MARK] = {FIXED_EXT, 16}, [0xd9 - FIRST_MARK] = {STR, 1},
    [0xda - FIRST_MARK] = {STR, 2},        [0xdb - FIRST_MARK] = {STR, 4},
    [0xdc - FIRST_MARK] = {ARRAY, 2},      [0xdd - FIRST_MARK] = {ARRAY, 4},
    [0xde - FIRST_MARK] = {MAP, 2},        [0xdf - FIRST_MARK] = {MAP, 4},
};

static br_wire read_marked(br_reader *reader, mark m)
{
    switch (m.form) {
    case UNDEFINED: /* msgpack gives this byte no meaning */
        break;
    case NIL:
        return (br_wire){.type = BR_WIRE_NIL};
    case FALSE:
    case TRUE:
        return (br_wire){.type = BR_WIRE_BOOL, .as.boolean = m.form == TRUE};
    case UINT:
        return read_uint(reader, m.bytes);
    case INT:
        return read_int(reader, m.bytes);
    case FLOAT:
        return read_float(reader, m.bytes);
    case STR:
        return read_bytes(reader, BR_WIRE_STR, take(reader, m.bytes));
    case BIN:
        return read_bytes(reader, BR_WIRE_BIN, take(reader, m.bytes));
    case EXT:
        return read_ext(reader, take(reader, m.bytes));
    case FIXED_EXT:
        return read_ext(reader, m.bytes);
    case ARRAY:
        return read_head(reader, BR_WIRE_ARRAY, take(reader, m.bytes));
    case MAP:
        return read_head(reader, BR_WIRE_MAP, take(reader, m.bytes));
    }
    return fail(reader);
}

br_wire br_read(br_reader *reader)
{
    if (reader->failed || reader->at == reader->end) return fail(reader);
    const uint8_t first = *reader->at++;
    if (first <= 0x7f) return (br_wire){.type = BR_WIRE_UINT, .as.uint = first};
    if (first <= 0x8f) return read_head(reader, BR_WIRE_MAP, first & 0x0f);
    if (first <= 0x9f) return read_head(reader, BR_WIRE_ARRAY, first & 0x0f);
    if (first <= 0xbf) return read_bytes(reader, BR_WIRE_STR, first & 0x1f);
    if (first <= LAST_MARK) return read_marked(reader, marks[first - FIRST_MARK]);
    return (br_wire){.type = BR_WIRE_INT, .as.sint = (int64_t)first - 0x100};
}

void br_skip_body(br_reader *reader, br_wire head)
{
    uint64_t pending[BR_NESTING_MAX]; /* values still to come at each open level */
    size_t depth = 0;
    for (;;) {
        uint64_t children = 0;
        if (head.type == BR_WIRE_ARRAY) children = head.as.count;
        if (head.type == BR_WIRE_MAP) children = 2 * (uint64_t)head.as.count;
        if (children > 0) {
            if (depth == BR_NESTING_MAX) {
                reader->too_deep = true;
                fail(reader);
                return;
            }
            pending[depth++] = children;
        }
        while (depth > 0 && pending[depth - 1] == 0) depth--;
        if (depth == 0 || reader->failed) return;
        pending[depth - 1]--;
        head = br_read(reader);
    }
}

void br_skip(br_reader *reader)
{
    br_skip_body(reader, br_read(reader));
}

static void flush(br_packer *packer)
{
    if (packer->used > 0 && !packer->failed &&
        packer->write(packer->sink, packer->buffer, packer->used) != 0) {
        packer->failed = true;
    }
    packer->used = 0;
}

/* msgpack-c's write callback: small pieces are collected in the buffer, large ones go straight to the
 * sink. */
static int put(void *data, const char *bytes, size_t size)
{
    br_packer *packer = data;
    if (size > sizeof packer->buffer - packer->used) flush(packer);
    if (size <= sizeof packer->buffer) {
        if (size > 0) memcpy(packer->buffer + packer->used, bytes, size);
        packer->used += size;
    } else if (!packer->failed && packer->write(packer->sink, bytes, size) != 0) {
        packer->failed = true;
    }
    return 0;
}

void br_packer_init(br_packer *packer, void *sink, br_write_fn write)
{
    packer->sink = sink;
    packer->write = write;
    packer->failed = false;
    packer->used = 0;
}

int br_packer_finish(br_packer *packer)
{
    flush(packer);
    return packer->failed ? -1 : 0;
}

static msgpack_packer packing_into(br_packer *packer)
{
    return (msgpack_packer){.data = packer, .callback = put};
}

/* put() reports nothing: a refusal is remembered and told by br_packer_finish. */
void br_pack_nil(br_packer *packer)
{
    msgpack_packer out = packing_into(packer);
    (void)msgpack_pack_nil(&out);
}

void br_pack_bool(br_packer *packer, bool value)
{
    msgpack_packer out = packing_into(packer);
    (void)(value ? msgpack_pack_true(&out) : msgpack_pack_false(&out));
}

void br_pack_uint(br_packer *packer, uint64_t value)
{
    msgpack_packer out = packing_into(packer);
    (void)msgpack_pack_uint64(&out, value);
}

void br_pack_real(br_packer *packer, double value)
{
    msgpack_packer out = packing_into(packer);
    (void)(isfinite(value) ? msgpack_pack_double(&out, value) : msgpack_pack_nil(&out));
}

void br_pack_str(br_packer *packer, br_str text)
{
    msgpack_packer out = packing_into(packer);
    assert(text.size <= UINT32_MAX);
    (void)msgpack_pack_str(&out, text.size);
    (void)msgpack_pack_str_body(&out, text.data, text.size);
}

void br_pack_word(br_packer *packer, const char *text)
{
    br_pack_str(packer, br_str_from(text));
}

void br_pack_array(br_packer *packer, size_t count)
{
    msgpack_packer out = packing_into(packer);
    assert(count <= UINT32_MAX);
    (void)msgpack_pack_array(&out, count);
}

void br_pack_map(br_packer *packer, size_t count)
{
    msgpack_packer out = packing_into(packer);
    assert(count <= UINT32_MAX);
    (void)msgpack_pack_map(&out, count);
}

void br_pack_raw(br_packer *packer, br_str bytes)
{
    (void)put(packer, bytes.data, bytes.size);
}
