/* test_bundle.c - opening and hashing a bundle folder, wrong bundles, and prompts. */
#include "bundle/bundle.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/limits.h"
#include "support/files.h"
#include "support/oom.h"

enum { PATH_BYTES = 4096 };

static const char *const names[] = {"router.json", "config.json", "model.safetensors", "spm.model",
                                    "added_tokens.json"};
enum { NAME_COUNT = sizeof names / sizeof names[0] };

typedef struct fixture {
    char tiny[PATH_BYTES];    /* the committed bundle, read only */
    char scratch[PATH_BYTES]; /* a copy that a test may change */
} fixture;

/* A whole file; the caller frees it. */
static char *load(const char *folder, const char *name, size_t *size)
{
    char path[2 * PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return read_whole(path, size);
}

static void store(const char *folder, const char *name, const char *bytes, size_t size)
{
    char path[2 * PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static void restore(const fixture *f, const char *name)
{
    size_t size;
    char *bytes = load(f->tiny, name, &size);
    store(f->scratch, name, bytes, size);
    free(bytes);
}

static int set_up(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    const char *source = getenv("BESTROUTE_SOURCE");
    snprintf(f->tiny, sizeof f->tiny, "%s/weights/tiny", source == NULL ? "." : source);
    snprintf(f->scratch, sizeof f->scratch, "/tmp/bestroute-bundle-XXXXXX");
    assert_non_null(mkdtemp(f->scratch));
    for (int i = 0; i < NAME_COUNT; i++) restore(f, names[i]);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    fixture *f = *state;
    for (int i = 0; i < NAME_COUNT; i++) {
        char path[2 * PATH_BYTES];
        snprintf(path, sizeof path, "%s/%s", f->scratch, names[i]);
        (void)unlink(path);
    }
    (void)rmdir(f->scratch);
    free(f);
    return 0;
}

/* Replaces the first `from` in a file of the scratch bundle by `to`, which may have another length. */
static void edit(const fixture *f, const char *name, const char *from, const char *to)
{
    size_t size;
    char *bytes = load(f->scratch, name, &size);
    char *at = memmem(bytes, size, from, strlen(from));
    assert_non_null(at);
    const size_t before = (size_t)(at - bytes);
    const size_t after = size - before - strlen(from);
    char *edited = malloc(size + strlen(to) + 1);
    assert_non_null(edited);
    memcpy(edited, bytes, before);
    memcpy(edited + before, to, strlen(to));
    memcpy(edited + before + strlen(to), at + strlen(from), after);
    store(f->scratch, name, edited, before + strlen(to) + after);
    free(edited);
    free(bytes);
}

static br_bundle *open_good(const char *folder)
{
    br_bundle *bundle;
    br_error error = {0};
    const br_status status = br_bundle_open(&bundle, folder, &error);
    if (status != BR_OK) fail_msg("%s", error.text);
    return bundle;
}

typedef struct stopper {
    atomic_bool stop;
} stopper;

static void *stop_soon(void *argument)
{
    stopper *s = argument;
    (void)usleep(100000);
    atomic_store(&s->stop, true);
    return NULL;
}

typedef struct spoiler {
    char path[2 * PATH_BYTES];
    char *bytes;
    size_t size;
    atomic_bool leave;
} spoiler;

/* Reads every byte, so that a sanitizer or the system may object. */
static void touch(const br_tensor *tensor)
{
    unsigned sum = 0;
    for (size_t i = 0; i < tensor->bytes; i++) sum += ((const unsigned char *)tensor->data)[i];
    assert_true(sum > 0);
}

static void test_the_committed_bundle_opens(void **state)
{
    const fixture *f = *state;
    br_bundle *b = open_good(f->tiny);
    assert_int_equal(b->model.width, 64);
    assert_int_equal(b->model.layers, 3);
    assert_int_equal(b->router.head_count, 15);
    assert_int_equal(b->router.candidate_count, 16);
    assert_int_equal(b->source_id, br_tokenizer_piece_count(b->tokenizer) + 1);
    assert_int_equal(strlen(b->hash), 64);

    const br_tensor *embedding = br_bundle_tensor(b, "pretrained_model.embeddings.word_embeddings.weight");
    assert_non_null(embedding);
    assert_int_equal(embedding->shape[0], b->model.vocab);
    const br_tensor *dense = br_bundle_tensor(b, "pretrained_model.encoder.layer.%d.output.dense.weight", 2);
    assert_non_null(dense);
    assert_int_equal(dense->shape[1], b->model.ffn_width);
    assert_null(br_bundle_tensor(b, "pretrained_model.encoder.layer.%d.output.dense.weight", 3));

    br_bundle_drop_weights(b);
    assert_null(b->tensors);
    assert_null(b->weights);
    br_bundle_drop_weights(b); /* a second call has no effect */
    br_bundle_close(b);
    br_bundle_close(NULL);
}

/* What is stopped is an error of its own, and what was set before it began is seen too. */
static void test_opening_is_given_up_when_told(void **state)
{
    const fixture *f = *state;
    const atomic_bool stop = true;
    const atomic_bool go = false;
    br_bundle *b;
    br_error error = {0};
    assert_int_equal(br_bundle_open_unless(&b, f->tiny, &stop, &error), BR_ECLOSED);
    assert_null(b);
    assert_non_null(strstr(error.text, "reading was stopped"));
    assert_int_equal(br_bundle_open_unless(&b, f->tiny, &go, NULL), BR_OK);
    br_bundle_close(b);
}

/* Other tensors count in the hash and take no memory: here 64 GiB of them, which are not there. */
static void test_tensors_that_nobody_asks_for_take_no_memory(void **state)
{
    const fixture *f = *state;
    size_t size;
    char *bytes = load(f->tiny, "model.safetensors", &size);
    uint64_t header = 0;
    for (int i = 7; i >= 0; i--) header = header << 8 | (unsigned char)bytes[i];
    const uint64_t data = size - 8 - header;
    const uint64_t more = (uint64_t)64 << 30;
    char entry[160];
    const int entry_bytes = snprintf(
        entry, sizeof entry, ",\"spare\":{\"dtype\":\"U8\",\"shape\":[%llu],\"data_offsets\":[%llu,%llu]}",
        (unsigned long long)more, (unsigned long long)data, (unsigned long long)(data + more));
    uint64_t end = 8 + header;
    while (bytes[end - 1] != '}') end--;
    const uint64_t new_header = end - 1 - 8 + (uint64_t)entry_bytes + 1;
    char *edited = malloc(size + sizeof entry);
    assert_non_null(edited);
    for (int i = 0; i < 8; i++) edited[i] = (char)(new_header >> (8 * i));
    memcpy(edited + 8, bytes + 8, end - 1 - 8);
    memcpy(edited + end - 1, entry, (size_t)entry_bytes);
    edited[8 + new_header - 1] = '}';
    memcpy(edited + 8 + new_header, bytes + 8 + header, data);
    store(f->scratch, "model.safetensors", edited, 8 + new_header + data);
    char path[2 * PATH_BYTES];
    snprintf(path, sizeof path, "%s/model.safetensors", f->scratch);
    assert_int_equal(truncate(path, (off_t)(8 + new_header + data + more)), 0);

    stopper s = {.stop = false};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, stop_soon, &s), 0);
    br_bundle *b;
    assert_int_equal(br_bundle_open_unless(&b, f->scratch, &s.stop, NULL), BR_ECLOSED);
    assert_int_equal(pthread_join(thread, NULL), 0);
    restore(f, "model.safetensors");
    free(edited);
    free(bytes);
}

/* Overwrites and shortens the weights of the scratch bundle until it is told to stop. */
static void *spoil(void *argument)
{
    spoiler *s = argument;
    for (unsigned turn = 0; !atomic_load(&s->leave); turn++) {
        const int fd = open(s->path, O_WRONLY);
        assert_true(fd >= 0);
        if (turn % 3 == 0) (void)!ftruncate(fd, (off_t)(turn * 977 % s->size));
        if (turn % 3 == 1) (void)!pwrite(fd, "spoilt", 6, (off_t)(turn * 31337 % s->size));
        if (turn % 3 == 2) (void)!pwrite(fd, s->bytes, s->size, 0);
        (void)close(fd);
    }
    return NULL;
}

/* Each opening gives a bundle or an error that names the file; none reads what is no longer there. */
static void test_weights_may_change_while_they_are_read(void **state)
{
    enum { OPENINGS = 150 };
    const fixture *f = *state;
    spoiler s = {.leave = false};
    s.bytes = load(f->tiny, "model.safetensors", &s.size);
    snprintf(s.path, sizeof s.path, "%s/model.safetensors", f->scratch);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, spoil, &s), 0);
    for (int i = 0; i < OPENINGS; i++) {
        br_bundle *b;
        br_error error = {0};
        const br_status status = br_bundle_open(&b, f->scratch, &error);
        if (status != BR_OK) assert_non_null(strstr(error.text, "model.safetensors"));
        if (status == BR_OK) touch(br_bundle_tensor(b, "pretrained_model.embeddings.word_embeddings.weight"));
        br_bundle_close(b);
    }
    atomic_store(&s.leave, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
    restore(f, "model.safetensors");
    free(s.bytes);
}

/* printf 'name\0<size>content' of the five files | sha256sum; see bundle/bundle.h. */
static const char tiny_hash[] = "9a7b062d87b9c5edae4b0089700352e646e63c96b9f9016ad37bb9e4740ca412";

static void test_the_hash_covers_every_byte_of_the_five_files(void **state)
{
    const fixture *f = *state;
    br_bundle *b = open_good(f->scratch);
    assert_string_equal(b->hash, tiny_hash);
    br_bundle_close(b);

    /* Another file does not change the hash. */
    store(f->scratch, "LICENSE", "none", 4);
    b = open_good(f->scratch);
    assert_string_equal(b->hash, tiny_hash);
    br_bundle_close(b);
    char path[2 * PATH_BYTES];
    snprintf(path, sizeof path, "%s/LICENSE", f->scratch);
    (void)unlink(path);

    /* One more space in a JSON file changes it, and so does a bit of the weights' last byte. */
    static const char *const texts[] = {"router.json", "config.json", "added_tokens.json"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        edit(f, texts[i], "{", "{ ");
        b = open_good(f->scratch);
        assert_string_not_equal(b->hash, tiny_hash);
        br_bundle_close(b);
        restore(f, texts[i]);
    }
    size_t size;
    char *bytes = load(f->scratch, "model.safetensors", &size);
    bytes[size - 1] = (char)(bytes[size - 1] ^ 1);
    store(f->scratch, "model.safetensors", bytes, size);
    free(bytes);
    b = open_good(f->scratch);
    assert_string_not_equal(b->hash, tiny_hash);
    br_bundle_close(b);
    restore(f, "model.safetensors");
}

static void test_each_file_is_demanded_by_name(void **state)
{
    const fixture *f = *state;
    for (int i = 0; i < NAME_COUNT; i++) {
        char path[2 * PATH_BYTES];
        snprintf(path, sizeof path, "%s/%s", f->scratch, names[i]);
        assert_int_equal(unlink(path), 0);
        br_bundle *b = NULL;
        br_error error = {0};
        assert_int_equal(br_bundle_open(&b, f->scratch, &error), BR_EIO);
        assert_null(b);
        assert_non_null(strstr(error.text, names[i]));

        /* A folder and a pipe are refused. */
        assert_int_equal(mkdir(path, 0700), 0);
        assert_int_equal(br_bundle_open(&b, f->scratch, &error), BR_EIO);
        assert_non_null(strstr(error.text, names[i]));
        assert_int_equal(rmdir(path), 0);
        assert_int_equal(mkfifo(path, 0600), 0);
        assert_int_equal(br_bundle_open(&b, f->scratch, &error), BR_EIO);
        assert_non_null(strstr(error.text, "regular file"));
        assert_int_equal(unlink(path), 0);

        /* So is an empty file; the error is that of its parser. */
        store(f->scratch, names[i], "", 0);
        assert_int_not_equal(br_bundle_open(&b, f->scratch, &error), BR_OK);
        assert_non_null(strstr(error.text, names[i]));
        assert_null(b);
        restore(f, names[i]);
    }
    br_bundle *b;
    assert_int_equal(br_bundle_open(&b, "/nonexistent", NULL), BR_EIO);
}

static void test_paths_are_bounded(void **state)
{
    (void)state;
    char folder[5000];
    memset(folder, 'x', sizeof folder);
    folder[sizeof folder - 1] = '\0';
    br_bundle *b;
    br_error error;
    assert_int_equal(br_bundle_open(&b, folder, &error), BR_EINVAL);
    assert_null(b);
}

/* One edit each, in JSON or in the safetensors header (where lengths must not change). */
static void test_files_that_do_not_fit_each_other_are_refused_by_name(void **state)
{
    const fixture *f = *state;
    static const struct {
        const char *file; /* edited */
        const char *from;
        const char *to;
        br_status status;
        const char *words[3]; /* in the message */
    } cases[] = {
        {"config.json",
         "\"vocab_size\": 2064",
         "\"vocab_size\": 2065",
         BR_EINVAL,
         {"model.safetensors", "word_embeddings.weight", "found shape [2064, 64], expected [2065, 64]"}},
        {"config.json",
         "\"vocab_size\": 2064",
         "\"vocab_size\": 2047",
         BR_EINVAL,
         {"spm.model", "found 2048 pieces", "2047"}},
        {"config.json",
         "\"vocab_size\": 2064",
         "\"vocab_size\": 2049",
         BR_EINVAL,
         {"added_tokens.json", "<|source|>", "2049"}},
        {"config.json",
         "\"num_hidden_layers\": 3",
         "\"num_hidden_layers\": 4",
         BR_EINVAL,
         {"layer.3.attention.self.query_proj.weight", "found nothing", "[64, 64]"}},
        {"config.json",
         "\"intermediate_size\": 128",
         "\"intermediate_size\": 127",
         BR_EINVAL,
         {"layer.0.intermediate.dense.weight", "found shape [128, 64]", "expected [127, 64]"}},
        {"config.json",
         "\"position_buckets\": 32",
         "\"position_buckets\": 16",
         BR_EINVAL,
         {"rel_embeddings.weight", "found shape [64, 64]", "expected [32, 64]"}},
        {"config.json",
         "\"share_att_key\": true",
         "\"share_att_key\": false",
         BR_EINVAL,
         {"layer.0.attention.self.pos_key_proj.weight", "found nothing", ""}},
        {"config.json",
         "\"position_biased_input\": false",
         "\"position_biased_input\": true",
         BR_ENOTSUP,
         {"config.json", "position_biased_input", ""}},
        {"model.safetensors",
         "encoder.LayerNorm.bias",
         "encoder.LayerNorm.bios",
         BR_EINVAL,
         {"pretrained_model.encoder.LayerNorm.bias", "found nothing", "[64]"}},
        {"model.safetensors",
         "single_heads.14.1.bias",
         "single_heads.14.1.bios",
         BR_EINVAL,
         {"single_heads.14.1.bias", "found nothing", "[2]"}},
        {"model.safetensors",
         "\"F32\"",
         "\"I32\"",
         BR_ENOTSUP,
         {"word_embeddings.weight", "found type I32", "expected F32, F16 or BF16"}},
        {"model.safetensors",
         "\"shape\":[2064,64]",
         "\"shape\":[64,2064]",
         BR_EINVAL,
         {"word_embeddings.weight", "found shape [64, 2064]", "expected [2064, 64]"}},
        {"model.safetensors", "\"F32\"", "\"F64\"", BR_EFORMAT, {"model.safetensors", "data_offsets", ""}},
        {"added_tokens.json",
         "<|source|>",
         "<|sauce|>",
         BR_EINVAL,
         {"added_tokens.json", "<|source|>", "found nothing"}},
        {"added_tokens.json", "2049", "2048", BR_EINVAL, {"added_tokens.json", "<|source|>", "[MASK]"}},
        {"added_tokens.json", "2049", "2064", BR_EINVAL, {"added_tokens.json", "2064", "vocab_size 2064"}},
        {"added_tokens.json", "2049", "300", BR_EINVAL, {"added_tokens.json", "300", "piece"}},
        {"added_tokens.json", "2049", "1", BR_EINVAL, {"added_tokens.json", "found id 1", "piece"}},
        {"added_tokens.json", "2049", "-1", BR_EINVAL, {"added_tokens.json", "<|source|>", "-1"}},
        {"added_tokens.json", "2049", "\"2049\"", BR_EFORMAT, {"added_tokens.json", "<|source|>", "2049"}},
        {"added_tokens.json",
         "\"[MASK]\": 2048",
         "\"[MASK]\": null",
         BR_EFORMAT,
         {"added_tokens.json", "[MASK]", "null"}},
        {"router.json",
         "\"head\": 14",
         "\"head\": 15",
         BR_EINVAL,
         {"single_heads.15.1.weight", "found nothing", "[2, 64]"}},
        {"router.json",
         "\"max_tokens\": 128",
         "\"max_tokens\": 1",
         BR_EINVAL,
         {"router.json", "max_tokens", "1"}},
        {"router.json",
         "\"pool\"",
         "\"pooler\": \"tanh\", \"pool\"",
         BR_EINVAL,
         {"model.safetensors", "tensor pooler.dense.weight", "[64, 64]"}},
        {"router.json",
         "\"pool\"",
         "\"heads\": \"n_label\", \"pool\"",
         BR_EINVAL,
         {"model.safetensors", "tensor head_layer.1.weight", "[16, 64]"}},
        {"config.json",
         "\"deberta-v2\"",
         "\"distilbert\"",
         BR_EINVAL,
         {"router.json", "pool: found \"source_prefix\"", "expected \"first\""}},
        {"router.json",
         "\"pool\"",
         "\"lowercase\": 1, \"pool\"",
         BR_EFORMAT,
         {"router.json", "lowercase", "1"}},
        {"spm.model", "[SEP]", "[SAP]", BR_EINVAL, {"spm.model", "[SEP]", ""}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        print_message("%s: %s -> %s\n", cases[i].file, cases[i].from, cases[i].to);
        edit(f, cases[i].file, cases[i].from, cases[i].to);
        br_bundle *b = NULL;
        br_error error = {0};
        assert_int_equal(br_bundle_open(&b, f->scratch, &error), cases[i].status);
        assert_null(b);
        for (int k = 0; k < 3; k++) {
            if (strstr(error.text, cases[i].words[k]) == NULL) {
                fail_msg("\"%s\" is not in: %s", cases[i].words[k], error.text);
            }
        }
        restore(f, cases[i].file);
    }
}

static void test_an_id_that_no_text_yields_may_be_the_prefixs(void **state)
{
    const fixture *f = *state;
    edit(f, "added_tokens.json", "2049", "0"); /* [PAD], a control piece */
    br_bundle *b = open_good(f->scratch);
    assert_int_equal(b->source_id, 0);
    br_bundle_close(b);
    restore(f, "added_tokens.json");
}

static void test_unneeded_tensors_are_tolerated(void **state)
{
    const fixture *f = *state;
    /* Without relative attention rel_embeddings and their LayerNorm are not needed. */
    edit(f, "config.json", "\"relative_attention\": true", "\"relative_attention\": false");
    br_bundle *b = open_good(f->scratch);
    assert_false(b->model.relative_attention);
    assert_non_null(br_bundle_tensor(b, "pretrained_model.encoder.rel_embeddings.weight"));
    br_bundle_close(b);
    restore(f, "config.json");

    /* The head of a candidate that was removed from the list may stay in the file. */
    edit(f, "router.json",
         "    {\n      \"model\": \"llama-31-8b\",\n      \"n\": 1,\n      \"head\": 0\n    },\n", "");
    b = open_good(f->scratch);
    assert_int_equal(b->router.candidate_count, 15);
    assert_int_equal(b->router.head_count, 15);
    br_bundle_close(b);
    restore(f, "router.json");
}

static void test_a_prompt_is_cls_source_pieces_sep(void **state)
{
    const fixture *f = *state;
    br_bundle *b = open_good(f->tiny);
    int32_t ids[128];
    int32_t pieces[128];
    size_t count;
    const br_str text = BR_STR_LITERAL("Prove that the square root of 2 is irrational.");
    assert_int_equal(br_tokenizer_encode(b->tokenizer, text, pieces, 128, &count), BR_OK);
    assert_true(count > 5);

    br_prompt prompt;
    assert_int_equal(br_bundle_prompt_from_text(b, text, ids, &prompt), BR_OK);
    assert_int_equal(prompt.tokens, count + 3);
    assert_false(prompt.truncated);
    assert_int_equal(prompt.text_tokens, count);
    assert_int_equal(ids[0], br_tokenizer_cls(b->tokenizer));
    assert_int_equal(ids[BR_POOL_INDEX], b->source_id);
    assert_memory_equal(ids + 2, pieces, count * sizeof *ids);
    assert_int_equal(ids[count + 2], br_tokenizer_sep(b->tokenizer));

    /* The same from the pieces themselves. */
    int32_t again[128];
    br_prompt other;
    assert_int_equal(br_bundle_prompt_from_ids(b, (const uint32_t *)pieces, count, again, &other), BR_OK);
    assert_int_equal(other.tokens, prompt.tokens);
    assert_int_equal(other.text_tokens, count);
    assert_memory_equal(ids, again, (count + 3) * sizeof *ids);
    br_bundle_close(b);
}

static void test_an_empty_prompt_has_three_tokens(void **state)
{
    const fixture *f = *state;
    br_bundle *b = open_good(f->tiny);
    int32_t ids[128];
    br_prompt prompt;
    assert_int_equal(br_bundle_prompt_from_text(b, (br_str){NULL, 0}, ids, &prompt), BR_OK);
    assert_int_equal(prompt.tokens, 3);
    assert_int_equal(prompt.text_tokens, 0);
    assert_false(prompt.truncated);
    assert_int_equal(ids[2], br_tokenizer_sep(b->tokenizer));
    assert_int_equal(br_bundle_prompt_from_ids(b, NULL, 0, ids, &prompt), BR_OK);
    assert_int_equal(prompt.tokens, 3);
    br_bundle_close(b);
}

static void test_a_long_prompt_loses_pieces_from_its_end_and_keeps_sep(void **state)
{
    const fixture *f = *state;
    edit(f, "router.json", "\"max_tokens\": 128", "\"max_tokens\": 8");
    br_bundle *b = open_good(f->scratch);
    restore(f, "router.json");
    for (size_t count = 4; count <= 7; count++) {
        uint32_t pieces[8];
        int32_t ids[9];
        ids[8] = -77; /* a canary after the room of max_tokens ids */
        for (size_t i = 0; i < count; i++) pieces[i] = (uint32_t)(300 + i);
        br_prompt prompt;
        assert_int_equal(br_bundle_prompt_from_ids(b, pieces, count, ids, &prompt), BR_OK);
        const int32_t kept = count < 5 ? (int32_t)count : 5;
        assert_int_equal(prompt.tokens, kept + 3);
        assert_int_equal(prompt.truncated, count > 5);
        assert_int_equal(prompt.text_tokens, count);
        assert_int_equal(ids[kept + 1], 300 + kept - 1);
        assert_int_equal(ids[kept + 2], br_tokenizer_sep(b->tokenizer));
        assert_int_equal(ids[8], -77);
    }
    int32_t ids[9];
    ids[8] = -77;
    br_prompt prompt;
    const br_str text = BR_STR_LITERAL("one two three four five six seven eight nine ten");
    assert_int_equal(br_bundle_prompt_from_text(b, text, ids, &prompt), BR_OK);
    assert_int_equal(prompt.tokens, 8);
    assert_true(prompt.truncated);
    assert_true(prompt.text_tokens >= 10);
    assert_int_equal(ids[7], br_tokenizer_sep(b->tokenizer));
    assert_int_equal(ids[8], -77);
    br_bundle_close(b);
}

static void restore_all(const fixture *f)
{
    for (int i = 0; i < NAME_COUNT; i++) restore(f, names[i]);
}

/* Changes the scratch bundle to two candidates and one classifier, with the weights of head 0. */
static void make_pair(const fixture *f, const char *keys)
{
    restore_all(f);
    char json[1024];
    const int length =
        snprintf(json, sizeof json,
                 "{\"format\": \"bestroute-bundle/1\", \"name\": \"pair\", \"max_tokens\": 8, %s,"
                 " \"models\": {\"a\": {}, \"b\": {}}, \"candidates\": ["
                 "{\"model\": \"a\", \"n\": 1, \"head\": 0},"
                 " {\"model\": \"b\", \"n\": 1, \"reference\": true}]}",
                 keys);
    store(f->scratch, "router.json", json, (size_t)length);
    edit(f, "model.safetensors", "\"single_heads.0.1.weight\"", "\"head_layer.1.weight\"    ");
    edit(f, "model.safetensors", "\"single_heads.0.1.bias\"", "\"head_layer.1.bias\"    ");
}

static void test_another_kind_of_heads_asks_for_its_own_tensors(void **state)
{
    const fixture *f = *state;
    make_pair(f, "\"heads\": \"hybrid_llm\"");
    br_bundle *b = open_good(f->scratch);
    assert_int_equal(b->router.heads, BR_HEADS_HYBRID_LLM);
    assert_non_null(br_bundle_tensor(b, "head_layer.1.weight"));
    assert_string_equal(b->prefix, "pretrained_model.");
    br_bundle_close(b);

    b = NULL;
    br_error error = {0};
    make_pair(f, "\"heads\": \"route_llm_bert\"");
    assert_int_equal(br_bundle_open(&b, f->scratch, &error), BR_EINVAL);
    assert_non_null(strstr(error.text, "tensor classifier.weight: found nothing, expected shape [3, 64]"));
    restore_all(f);
}

static void test_the_first_token_is_pooled_without_a_prefix(void **state)
{
    const fixture *f = *state;
    make_pair(f, "\"heads\": \"hybrid_llm\", \"pool\": \"first\"");
    char path[2 * PATH_BYTES];
    snprintf(path, sizeof path, "%s/added_tokens.json", f->scratch);
    assert_int_equal(unlink(path), 0); /* it is not needed */
    br_bundle *b = open_good(f->scratch);
    assert_int_equal(b->source_id, -1);
    int32_t ids[9];
    br_prompt prompt;
    ids[8] = -77;
    assert_int_equal(br_bundle_prompt_from_ids(b, NULL, 0, ids, &prompt), BR_OK);
    assert_int_equal(prompt.tokens, 2);
    assert_int_equal(ids[0], br_tokenizer_cls(b->tokenizer));
    assert_int_equal(ids[1], br_tokenizer_sep(b->tokenizer));
    const uint32_t pieces[] = {300, 301, 302, 303, 304, 305, 306};
    for (size_t count = 5; count <= 7; count++) {
        assert_int_equal(br_bundle_prompt_from_ids(b, pieces, count, ids, &prompt), BR_OK);
        const int32_t kept = count < 6 ? (int32_t)count : 6;
        assert_int_equal(prompt.tokens, kept + 2);
        assert_int_equal(prompt.truncated, count > 6);
        assert_int_equal(ids[1], 300);
        assert_int_equal(ids[kept], 300 + kept - 1);
        assert_int_equal(ids[kept + 1], br_tokenizer_sep(b->tokenizer));
        assert_int_equal(ids[8], -77);
    }
    br_bundle_close(b);
    restore_all(f);
}

static void test_a_bert_encoder_has_a_vocabulary_and_its_own_tensors(void **state)
{
    const fixture *f = *state;
    char path[2 * PATH_BYTES];
    snprintf(path, sizeof path, "%s/vocab.txt", f->scratch);
    static const char vocab[] = "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n";
    static const struct {
        const char *keys;
        const char *vocab; /* NULL: no such file */
        br_status status;
        const char *found;
    } cases[] = {
        {"\"max_position_embeddings\": 7, ", vocab, BR_EINVAL,
         "max_tokens: found 8, expected at most 7, config.json's max_position_embeddings"},
        {"", NULL, BR_EIO, "vocab.txt: cannot open"},
        {"", "[PAD]\n", BR_EINVAL, "vocab.txt: has no line [UNK]"},
        {"", vocab, BR_EINVAL,
         "tensor pretrained_model.embeddings.position_embeddings.weight: found nothing"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        make_pair(f, "\"heads\": \"hybrid_llm\", \"pool\": \"first\"");
        char json[512];
        const int length =
            snprintf(json, sizeof json,
                     "{\"model_type\": \"bert\", %s\"hidden_size\": 64, \"num_hidden_layers\": 3,"
                     " \"num_attention_heads\": 4, \"intermediate_size\": 128, \"vocab_size\": 2064}",
                     cases[i].keys);
        store(f->scratch, "config.json", json, (size_t)length);
        if (cases[i].vocab != NULL) store(f->scratch, "vocab.txt", cases[i].vocab, strlen(cases[i].vocab));
        br_bundle *b = NULL;
        br_error error = {0};
        assert_int_equal(br_bundle_open(&b, f->scratch, &error), cases[i].status);
        if (strstr(error.text, cases[i].found) == NULL) fail_msg("%s", error.text);
        (void)unlink(path);
    }
    restore_all(f);
}

static void test_truncation_on_the_left_keeps_the_end(void **state)
{
    const fixture *f = *state;
    make_pair(f, "\"heads\": \"hybrid_llm\", \"truncate\": \"left\"");
    br_bundle *b = open_good(f->scratch);
    int32_t ids[9];
    int32_t all[64];
    br_prompt prompt;
    const uint32_t pieces[] = {300, 301, 302, 303, 304, 305, 306};
    for (size_t count = 4; count <= 7; count++) {
        const size_t kept = count < 5 ? count : 5;
        assert_int_equal(br_bundle_prompt_from_ids(b, pieces, count, ids, &prompt), BR_OK);
        assert_int_equal(ids[BR_POOL_INDEX], b->source_id);
        for (size_t i = 0; i < kept; i++) assert_int_equal(ids[2 + i], pieces[count - kept + i]);
        assert_int_equal(prompt.text_tokens, count);
    }
    static const char *const texts[] = {"one two", "one two three four five six seven eight nine ten"};
    for (size_t t = 0; t < 2; t++) {
        size_t count;
        ids[8] = -77;
        assert_int_equal(br_tokenizer_encode(b->tokenizer, br_str_from(texts[t]), all, 64, &count), BR_OK);
        assert_int_equal(br_bundle_prompt_from_text(b, br_str_from(texts[t]), ids, &prompt), BR_OK);
        const size_t kept = count < 5 ? count : 5;
        assert_int_equal(prompt.tokens, kept + 3);
        assert_int_equal(prompt.truncated, count > 5);
        assert_memory_equal(ids + 2, all + count - kept, kept * sizeof *ids);
        assert_int_equal(ids[kept + 2], br_tokenizer_sep(b->tokenizer));
        assert_int_equal(ids[8], -77);
    }
    br_bundle_close(b);
    restore_all(f);
}

static void test_special_ids_cannot_come_from_outside(void **state)
{
    const fixture *f = *state;
    br_bundle *b = open_good(f->tiny);
    int32_t ids[128];
    br_prompt prompt;
    const uint32_t bad[] = {0, 1, 2, (uint32_t)b->source_id, 2048, 2063, 2064, UINT32_MAX, 1u << 31};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        /* Also in the part that truncation drops. */
        uint32_t pieces[200];
        for (size_t k = 0; k < 200; k++) pieces[k] = 300;
        pieces[i % 2 == 0 ? 0 : 199] = bad[i];
        assert_int_equal(br_bundle_prompt_from_ids(b, pieces, 200, ids, &prompt), BR_EINVAL);
    }
    const br_str text = BR_STR_LITERAL("[CLS] <|source|> [MASK] [SEP] [PAD] <s>");
    assert_int_equal(br_bundle_prompt_from_text(b, text, ids, &prompt), BR_OK);
    for (int32_t i = 2; i < prompt.tokens - 1; i++)
        assert_true(br_tokenizer_is_text_id(b->tokenizer, ids[i]));
    assert_int_equal(br_bundle_prompt_from_text(b, BR_STR_LITERAL("\xff"), ids, &prompt), BR_EFORMAT);
    br_bundle_close(b);
}

static void test_every_allocation_may_fail(void **state)
{
    const fixture *f = *state;
    br_status status = BR_OK;
    size_t failures = 0;
    BR_OOM_SWEEP({
        br_bundle *b;
        status = br_bundle_open(&b, f->tiny, NULL);
        if (status != BR_OK) {
            assert_int_equal(status, BR_ENOMEM);
            assert_null(b);
            failures++;
        }
        br_bundle_close(b);
    });
    assert_int_equal(status, BR_OK);
    assert_true(failures >= 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_committed_bundle_opens),
        cmocka_unit_test(test_opening_is_given_up_when_told),
        cmocka_unit_test(test_tensors_that_nobody_asks_for_take_no_memory),
        cmocka_unit_test(test_weights_may_change_while_they_are_read),
        cmocka_unit_test(test_the_hash_covers_every_byte_of_the_five_files),
        cmocka_unit_test(test_each_file_is_demanded_by_name),
        cmocka_unit_test(test_paths_are_bounded),
        cmocka_unit_test(test_files_that_do_not_fit_each_other_are_refused_by_name),
        cmocka_unit_test(test_an_id_that_no_text_yields_may_be_the_prefixs),
        cmocka_unit_test(test_unneeded_tensors_are_tolerated),
        cmocka_unit_test(test_a_prompt_is_cls_source_pieces_sep),
        cmocka_unit_test(test_an_empty_prompt_has_three_tokens),
        cmocka_unit_test(test_a_long_prompt_loses_pieces_from_its_end_and_keeps_sep),
        cmocka_unit_test(test_another_kind_of_heads_asks_for_its_own_tensors),
        cmocka_unit_test(test_the_first_token_is_pooled_without_a_prefix),
        cmocka_unit_test(test_a_bert_encoder_has_a_vocabulary_and_its_own_tensors),
        cmocka_unit_test(test_truncation_on_the_left_keeps_the_end),
        cmocka_unit_test(test_special_ids_cannot_come_from_outside),
        cmocka_unit_test(test_every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
