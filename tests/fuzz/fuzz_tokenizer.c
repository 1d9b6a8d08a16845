/*
 * fuzz_tokenizer.c - any bytes as a text and as a model.
 *
 * The first byte chooses: even, the rest is a text for a model with a character map; odd, the next
 * byte is the size of a text, which is followed by a model.
 */
#include "bundle/tokenizer/tokenizer.h"
#include "core/utf8.h"
#include "support/spm_fixture.h"

enum { IDS_MAX = 4096 };

static void check_text(const br_tokenizer *tokenizer, br_str text)
{
    static int32_t ids[IDS_MAX];
    size_t count = 0;
    const br_status status = br_tokenizer_encode(tokenizer, text, ids, IDS_MAX, &count);
    const bool valid = br_utf8_invalid_at(text.data, text.size) == text.size;
    if (status != (valid ? BR_OK : BR_EFORMAT)) abort();
    if (!valid && count != 0) abort();
    for (size_t i = 0; i < count && i < IDS_MAX; i++) {
        if (!br_tokenizer_is_text_id(tokenizer, ids[i])) abort();
    }

    int32_t first = -1;
    size_t again = 0;
    if (br_tokenizer_encode(tokenizer, text, &first, 1, &again) != status || again != count) abort();
    if (count > 0 && first != ids[0]) abort();
}

static br_tokenizer *small_tokenizer(bool use_bytes)
{
    static const spm_rule rules[] = {
        {"\n", " "},  {"\xC2\xA0", " "},          {"\xEF\xBC\xA1", "A"}, {"e\xCC\x81", "\xC3\xA9"},
        {"\x01", ""}, {"\xEF\xB7\xBA", "x y  z"},
    };
    spm_file map = spm_charsmap(rules, sizeof rules / sizeof rules[0]);
    spm_file model = spm_begin();
    spm_special(&model);
    spm_bytes(&model);
    static const char *const pieces[] = {"\xE2\x96\x81",     "a",        "A", "aa", "b", "ab",
                                         "\xE2\x96\x81\x61", "\xC3\xA9", "x", "[",  "]"};
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        spm_piece(&model, br_str_from(pieces[i]), -1.0F - (float)i, PIECE_NORMAL);
    }
    spm_normalizer(&model, spm_view(&map));
    br_tokenizer *tokenizer = NULL;
    if (br_tokenizer_create(&tokenizer, spm_view(&model), "small", NULL) != BR_OK) abort();
    if (use_bytes && br_tokenizer_use_bytes(tokenizer) != BR_OK) abort();
    spm_end(&map);
    spm_end(&model);
    return tokenizer;
}

static br_tokenizer *small_wordpiece(bool lowercase)
{
    static const char vocab[] =
        "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n##a\nb\n##b\nab\n##bc\n[\n]\n,\n\xC3\xA9\n";
    br_tokenizer *tokenizer = NULL;
    if (br_tokenizer_create_wordpiece(&tokenizer, br_str_from(vocab), lowercase, "small", NULL) != BR_OK)
        abort();
    return tokenizer;
}

/* The same bytes as a vocab.txt. */
static void fuzz_vocabulary(br_str text, br_str vocab)
{
    br_tokenizer *tokenizer = NULL;
    br_error error = {0};
    if (br_tokenizer_create_wordpiece(&tokenizer, vocab, true, "fuzz", &error) != BR_OK) {
        if (error.text[0] == '\0' || tokenizer != NULL) abort();
        return;
    }
    size_t count;
    (void)!br_tokenizer_encode(tokenizer, text, NULL, 0, &count);
    br_tokenizer_destroy(tokenizer);
}

static void fuzz_model(br_str text, br_str model)
{
    fuzz_vocabulary(text, model);
    br_tokenizer *tokenizer = NULL;
    br_error error = {0};
    if (br_tokenizer_create(&tokenizer, model, "fuzz", &error) != BR_OK) {
        if (error.text[0] == '\0' || tokenizer != NULL) abort();
        return;
    }
    check_text(tokenizer, text);
    if (br_tokenizer_use_bytes(tokenizer) == BR_OK) check_text(tokenizer, text);
    br_tokenizer_destroy(tokenizer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static br_tokenizer *unknown;
    static br_tokenizer *bytes;
    if (unknown == NULL) unknown = small_tokenizer(false);
    if (bytes == NULL) bytes = small_tokenizer(true);
    static br_tokenizer *uncased;
    static br_tokenizer *cased;
    if (uncased == NULL) uncased = small_wordpiece(true);
    if (cased == NULL) cased = small_wordpiece(false);

    if (size == 0) return 0;
    const char *rest = (const char *)data + 1;
    const size_t left = size - 1;
    if (data[0] % 2 == 0) {
        check_text(unknown, (br_str){rest, left});
        check_text(bytes, (br_str){rest, left});
        check_text(uncased, (br_str){rest, left});
        check_text(cased, (br_str){rest, left});
        return 0;
    }
    if (left == 0) return 0;
    const size_t text = (unsigned char)rest[0] < left ? (unsigned char)rest[0] : left - 1;
    fuzz_model((br_str){rest + 1, text}, (br_str){rest + 1 + text, left - 1 - text});
    return 0;
}
