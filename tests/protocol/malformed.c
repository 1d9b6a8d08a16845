/*
 * malformed.c - see malformed.h.
 */
#include "malformed.h"

#include <stdarg.h>
#include <stdbool.h>

const malformed_kind malformed_kinds[KINDS] = {
    [TRUNCATED] = {"truncated", REFUSED},
    [WRONG_TYPE] = {"wrong type", REFUSED},
    [WRONG_TYPE_IN_QUERY] = {"wrong type in a query", QUERY_REFUSED},
    [HUGE_COUNT] = {"huge count", REFUSED},
    [NESTING_BOMB] = {"nesting bomb", REFUSED},
    [DUPLICATE_KEY] = {"duplicate key", REFUSED},
    [TRAILING_BYTES] = {"trailing bytes", REFUSED},
    [NOT_A_NUMBER] = {"NaN or infinity", REFUSED},
    [NOT_A_MAP] = {"not a map", REFUSED},
    [KEY_NOT_A_STRING] = {"key not a string", REFUSED},
    [VERSION_OR_OP] = {"version or op", REFUSED},
    [OVER_A_LIMIT] = {"over a limit", REFUSED},
    [NOT_UTF8] = {"not UTF-8", QUERY_REFUSED},
    [RANDOM_BYTES] = {"random bytes", ANY},
    [MUTATED] = {"mutated", ANY},
    [SPLICED] = {"spliced", ANY},
};

static const char *const good[] = {
    "{'v':1,'op':'route','id':42,'queries':[{'text':'Prove that the square root of 2 is irrational.'}],"
    "'policy':{'kind':'budget','max_cost':0.0008}}",
    "{'v':1,'op':'score','id':'abc','queries':[{'text':'a'},{'text':'two'}],'deadline_ms':60000}",
    "{'v':1,'op':'route','id':nil,'explain':true,'queries':[{'text':'x','prompt_tokens':9,'output_tokens':70,"
    "'max_cost':0.5,'policy':{'kind':'utility','lambda':2.5,'fallback':'best'}},{'text':'y'}],"
    "'policy':{'kind':'pool','total_budget':1.0}}",
    "{'v':1,'op':'info','id':<cf 00 00 00 00 00 00 00 07>}",
    "{'v':1,'op':'ping','new':[{'nested':{'more':[1,2,3]}}]}",
};

enum { GOODS = sizeof good / sizeof *good };

/* nil is not among them: it stands for an absent key. */
static const char *const wrong_values[] = {"true",    "-1",   "'x'",        "[]",         "{}", "[[1]]",
                                           "{'a':1}", "1.5f", "<c4 01 00>", "<d4 01 02>", "nan"};

static uint32_t random_below(uint64_t *seed, uint32_t bound)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return (uint32_t)((*seed >> 16) % bound);
}

static const char *pick(uint64_t *seed, const char *const *list, size_t count)
{
    return list[random_below(seed, (uint32_t)count)];
}

#define PICK(seed, list) pick((seed), (list), sizeof(list) / sizeof *(list))

static message format(const char *pattern, ...) __attribute__((format(printf, 1, 2)));
static message format(const char *pattern, ...)
{
    char text[4096];
    va_list arguments;
    va_start(arguments, pattern);
    (void)vsnprintf(text, sizeof text, pattern, arguments);
    va_end(arguments);
    return message_from(text);
}

static void append(message *m, const void *bytes, size_t size)
{
    (void)message_append(m, bytes, size);
}

static message wrong_type(uint64_t *seed)
{
    /* Each key beside the only kind of value, by first letter of the notation, that it would accept. */
    static const struct {
        const char *key;
        const char *right;
    } keys[] = {{"v", ""},       {"op", "'"},     {"id", "nt-'1<n"}, {"deadline_ms", ""},
                {"queries", ""}, {"policy", "{"}, {"explain", "t"}};
    for (;;) {
        const size_t key = random_below(seed, sizeof keys / sizeof *keys);
        const char *value = PICK(seed, wrong_values);
        if (strchr(keys[key].right, value[0]) != NULL && strcmp(value, "<d4 01 02>") != 0) continue;
        return format("{%s%s%s'%s':%s}", strcmp(keys[key].key, "v") == 0 ? "" : "'v':1,",
                      strcmp(keys[key].key, "op") == 0 ? "" : "'op':'route',",
                      strcmp(keys[key].key, "queries") == 0 ? "" : "'queries':[{'text':'a'}],", keys[key].key,
                      value);
    }
}

static message wrong_type_in_query(uint64_t *seed)
{
    static const char *const queries[] = {
        "'text':7",
        "'text':nil",
        "'text':[]",
        "'tokens':'a'",
        "'tokens':[1,-2]",
        "'tokens':[[]]",
        "'tokens':[99999999]",
        "'text':'a','max_cost':'1'",
        "'text':'a','max_cost':nan",
        "'text':'a','prompt_tokens':-1",
        "'text':'a','output_tokens':{'no such model':1}",
        "'text':'a','output_tokens':{1:1}",
        "'text':'a','policy':3",
        "'text':'a','policy':{'threshold':inf}",
        "'text':'a','policy':{'kind':'pool'}",
        "'text':'a','policy':{'models':['no such model']}",
        "'text':'a','policy':{'max_n':0}",
        "'text':'a','policy':{'tolerance':2.0}",
        "'text':'a','tokens':[]",
        "'text':'a','text':'a'",
        "",
    };
    return format("{'v':1,'op':'route','id':5,'queries':[{%s},{'text':'fine'}]}", PICK(seed, queries));
}

static message huge_count(uint64_t *seed)
{
    static const char *const heads[] = {"dd ff ff ff ff", "df ff ff ff ff", "db ff ff ff ff",
                                        "c6 ff ff ff ff", "c9 ff ff ff ff", "df 80 00 00 00",
                                        "dc ff ff",       "de ff ff",       "dd 7f ff ff ff"};
    static const char *const keys[] = {"queries", "policy", "id", "new", "op", "v"};
    if (random_below(seed, 4) == 0) return format("<%s>", PICK(seed, heads));
    const char *key = PICK(seed, keys);
    message m = format("<83>'v' 1 'op' 'route' '%s' <%s 01 02 03>", key, PICK(seed, heads));
    return m;
}

/* Some deep arrays or maps in some key; half of them end before they are closed. */
static message nesting_bomb(uint64_t *seed)
{
    static const char *const keys[] = {"queries", "policy", "new", "id", "v"};
    static const uint32_t depths[] = {33, 34, 64, 1000, 20000, 90000};
    message m = format("<83>'v' 1 'op' 'route' '%s'", PICK(seed, keys));
    const uint32_t depth = depths[random_below(seed, sizeof depths / sizeof *depths)];
    const bool maps = random_below(seed, 2) == 0;
    for (uint32_t i = 0; i < depth; i++) append(&m, maps ? "\x81\x01" : "\x91", maps ? 2 : 1);
    if (random_below(seed, 2) == 0) append(&m, "\xc0", 1);
    return m;
}

static message over_a_limit(uint64_t *seed)
{
    static char text[MALFORMED_MESSAGE_BYTES_MAX + 1000];
    memset(text, 'a', sizeof text);
    const uint32_t which = random_below(seed, 3);
    if (which == 0) { /* queries */
        message m = message_from("<83>'v' 1 'op' 'route' 'queries' <dc 01 01>");
        for (int i = 0; i <= MALFORMED_QUERIES_MAX; i++) append(&m, "\x81\xa4text\xa1x", 8);
        return m;
    }
    const uint32_t size = which == 1 ? MALFORMED_TEXT_BYTES_MAX + 1 + random_below(seed, 5000)
                                     : MALFORMED_MESSAGE_BYTES_MAX + 1;
    message m = message_from("<83>'v' 1 'op' 'score' 'queries' <91 81>'text' <db>");
    const uint8_t head[4] = {(uint8_t)(size >> 24), (uint8_t)(size >> 16), (uint8_t)(size >> 8),
                             (uint8_t)size};
    append(&m, head, sizeof head);
    append(&m, text, size);
    return m;
}

static message not_a_number(uint64_t *seed)
{
    static const char *const keys[] = {"threshold", "max_cost", "lambda", "tolerance", "total_budget"};
    static const char *const values[] = {"nan", "inf", "<ca 7f c0 00 01>", "<ca ff 80 00 00>",
                                         "<cb ff f8 00 00 00 00 00 01>"};
    return format("{'v':1,'op':'route','queries':[{'text':'a'}],'policy':{'%s':%s}}", PICK(seed, keys),
                  PICK(seed, values));
}

static message version_or_op(uint64_t *seed)
{
    static const char *const heads[] = {
        "{'v':2,'op':'ping'}",
        "{'v':0,'op':'ping'}",
        "{'op':'ping'}",
        "{'v':1}",
        "{}",
        "{'v':1,'op':'Route'}",
        "{'v':1,'op':''}",
        "{'v':1,'op':'shutdown'}",
        "{'v':1,'op':'drain'}",
        "{'v':1,'op':'reload','bundle':'/'}",
        "{'v':18446744073709551615,'op':'ping'}",
        "{'v':1,'op':'set_defaults','policy':{}}",
        "{'v':1,'op':'stats'}",
        "{'v':1,'op':'route','queries':[]}",
    };
    return message_from(PICK(seed, heads));
}

static message duplicate_key(uint64_t *seed)
{
    static const char *const repeats[] = {
        "'v':1",
        "'op':'route'",
        "'queries':[{'text':'b'}]",
        "'id':1,'id':1",
        "'policy':{},'policy':{}",
        "'policy':{'kind':'pool','kind':'pool'}",
        "'explain':true,'explain':true",
        "'deadline_ms':9999,'deadline_ms':9999",
    };
    return format("{'v':1,'op':'route','queries':[{'text':'a'}],%s}", PICK(seed, repeats));
}

static message not_a_map(uint64_t *seed)
{
    static const char *const values[] = {"nil",
                                         "7",
                                         "-7",
                                         "'v'",
                                         "[]",
                                         "[1,2]",
                                         "0.5",
                                         "true",
                                         "<c4 01 00>",
                                         "<d4 01 02>",
                                         "<c1>",
                                         "",
                                         "{'v':1,'op':'route','queries':[nil]}",
                                         "{'v':1,'op':'score','queries':[{'text':'a'},[]]}"};
    return message_from(PICK(seed, values));
}

static message key_not_a_string(uint64_t *seed)
{
    static const char *const keys[] = {"1", "nil", "[1]", "{}", "true", "<c4 01 76>", "0.5", "-3"};
    return format("{'v':1,'op':'ping',%s:1}", PICK(seed, keys));
}

static message not_utf8(uint64_t *seed)
{
    static const char *const texts[] = {"<a1 ff>",    "<a2 c3 28>",       "<a3 ed a0 80>",
                                        "<a2 c0 80>", "<a4 f5 80 80 80>", "<a3 61 62 e2>"};
    return format("{'v':1,'op':'route','id':5,'queries':[{'text':%s},{'text':'fine'}]}", PICK(seed, texts));
}

static message random_bytes(uint64_t *seed)
{
    message m = {0};
    const uint32_t size = random_below(seed, 200);
    for (uint32_t i = 0; i < size; i++) {
        const uint8_t byte = (uint8_t)random_below(seed, 256);
        append(&m, &byte, 1);
    }
    return m;
}

static message mutated(uint64_t *seed)
{
    message m = message_from(PICK(seed, good));
    for (uint32_t count = 1 + random_below(seed, 8); count > 0; count--) {
        m.bytes[random_below(seed, (uint32_t)m.size)] = (uint8_t)random_below(seed, 256);
    }
    return m;
}

static message spliced(uint64_t *seed)
{
    message m = message_from(PICK(seed, good));
    message tail = message_from(PICK(seed, good));
    m.size = random_below(seed, (uint32_t)m.size);
    const uint32_t from = random_below(seed, (uint32_t)tail.size);
    append(&m, tail.bytes + from, tail.size - from);
    free(tail.bytes);
    return m;
}

message malformed_make(kind which, uint64_t number)
{
    uint64_t state = 0x9e3779b97f4a7c15U * (number + 1); /* never 0 */
    uint64_t *seed = &state;
    for (int i = 0; i < 4; i++) (void)random_below(seed, 2); /* near numbers drift apart */
    message m;
    switch (which) {
    case TRUNCATED:
        m = message_from(PICK(seed, good));
        m.size = random_below(seed, (uint32_t)m.size);
        return m;
    case TRAILING_BYTES:
        m = message_from(PICK(seed, good));
        for (uint32_t count = 1 + random_below(seed, 8); count > 0; count--)
            append(&m, "\x00\xc0\x91\xff", 4);
        return m;
    case WRONG_TYPE:
        return wrong_type(seed);
    case WRONG_TYPE_IN_QUERY:
        return wrong_type_in_query(seed);
    case HUGE_COUNT:
        return huge_count(seed);
    case NESTING_BOMB:
        return nesting_bomb(seed);
    case DUPLICATE_KEY:
        return duplicate_key(seed);
    case NOT_A_NUMBER:
        return not_a_number(seed);
    case NOT_A_MAP:
        return not_a_map(seed);
    case KEY_NOT_A_STRING:
        return key_not_a_string(seed);
    case VERSION_OR_OP:
        return version_or_op(seed);
    case OVER_A_LIMIT:
        return over_a_limit(seed);
    case NOT_UTF8:
        return not_utf8(seed);
    case RANDOM_BYTES:
        return random_bytes(seed);
    case MUTATED:
        return mutated(seed);
    case SPLICED:
        return spliced(seed);
    case KINDS:
        break;
    }
    abort();
}
