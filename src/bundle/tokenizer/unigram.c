/*
 * unigram.c - see unigram.h.
 *
 * The trie is a double array: the child of node n along byte b is node
 * base[n] + b, if that node's parent is n. A step needs one node of 16 bytes, that is one cache line.
 */
#include "unigram.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/memory.h"
#include "core/utf8.h"

enum {
    BYTES = 256,
    NO_ID = -1,
    FREE = -1,   /* parent of an unused node */
    NOBODY = -2, /* parent of the root */
    ROOT = 0,
    SLOTS_TRIED =
        64, /* gaps tried for a node's children before they go behind all nodes: bounds the time of build */
    SCORES = 256,        /* of the ring of Viterbi's scores */
    NODES_MAX = 1 << 30, /* so that indices do not overflow while the array grows */
};

static_assert((int)SCORES > (int)PIECE_BYTES_MAX, "a piece ends within the ring");

/* While free, `base` and `id` are the next and previous free node. */
typedef struct node {
    int32_t base;
    int32_t parent;
    int32_t id; /* of the piece that ends here, or NO_ID */
    float score;
} node;

struct unigram {
    node *nodes;
    int32_t node_count;   /* a multiple of BYTES, and BYTES more than any base */
    int32_t free_first;   /* list of free nodes; FREE at its end */
    int32_t used_end;     /* every node from here on is free */
    uint8_t *piece_bytes; /* [pieces] */
    double unseen_score;
    int32_t unknown;
    bool use_bytes;
    bool has_bytes;
    int32_t byte_ids[BYTES];
};

typedef struct entry {
    br_str text;
    float score;
    int32_t id;
} entry;

static int compare_entries(const void *a, const void *b)
{
    const br_str x = ((const entry *)a)->text;
    const br_str y = ((const entry *)b)->text;
    const int order = memcmp(x.data, y.data, x.size < y.size ? x.size : y.size);
    if (order != 0) return order;
    return x.size < y.size ? -1 : x.size > y.size;
}

static void take_node(unigram *u, int32_t at, int32_t parent)
{
    node *n = &u->nodes[at];
    if (n->id != FREE) {
        u->nodes[n->id].base = n->base;
    } else {
        u->free_first = n->base;
    }
    if (n->base != FREE) u->nodes[n->base].id = n->id;
    *n = (node){.parent = parent, .id = NO_ID};
    if (at >= u->used_end) u->used_end = at + 1;
}

/* Adds free nodes until there are `count`, rounded up to a multiple of BYTES. They go to the front of the
 * list, so that gaps are tried less often the older they are. */
static bool grow(unigram *u, int32_t count)
{
    const int32_t old = u->node_count;
    if (count > NODES_MAX) return false;
    int32_t wanted = old + old / 2;
    if (wanted < count) wanted = count;
    wanted = (wanted + BYTES - 1) / BYTES * BYTES;
    node *nodes = realloc(u->nodes, (size_t)wanted * sizeof *nodes);
    if (nodes == NULL) return false;

    for (int32_t i = old; i < wanted; i++) {
        nodes[i] = (node){
            .base = i + 1 < wanted ? i + 1 : u->free_first, .parent = FREE, .id = i > old ? i - 1 : FREE};
    }
    if (u->free_first != FREE) nodes[u->free_first].id = wanted - 1;
    u->free_first = old;
    u->nodes = nodes;
    u->node_count = wanted;
    return true;
}

/* Distinct bytes at `depth` of the sorted entries; their count. */
static size_t labels_at(unsigned char *labels, const entry *entries, size_t count, size_t depth)
{
    size_t found = 0;
    for (size_t i = 0; i < count; i++) {
        const unsigned char byte = (unsigned char)entries[i].text.data[depth];
        if (found == 0 || labels[found - 1] != byte) labels[found++] = byte;
    }
    return found;
}

static bool all_free(const unigram *u, int32_t base, const unsigned char *labels, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (u->nodes[base + labels[i]].parent != FREE) return false;
    }
    return true;
}

/* A base whose nodes for all labels are free. -1: no memory. */
static int32_t find_base(unigram *u, const unsigned char *labels, size_t count)
{
    int32_t at = u->free_first;
    for (int tried = 0; tried < SLOTS_TRIED && at != FREE; tried++, at = u->nodes[at].base) {
        const int32_t base = at - labels[0];
        if (base < 1 || base + BYTES > u->node_count) continue;
        if (all_free(u, base, labels, count)) return base;
    }
    const int32_t base = u->used_end > labels[0] ? u->used_end - labels[0] : 1;
    if (base + BYTES <= u->node_count) return base;
    return grow(u, base + BYTES) ? base : -1;
}

/* Makes the subtree of `at`, which stands for the first `depth` bytes that all entries share.
 * Recursion is at most PIECE_BYTES_MAX deep. */
static bool build(unigram *u, int32_t at, const entry *entries, size_t count, size_t depth)
{
    if (entries[0].text.size == depth) {
        u->nodes[at].id = entries[0].id;
        u->nodes[at].score = entries[0].score;
        entries++;
        count--;
    }
    if (count == 0) return true;

    unsigned char labels[BYTES];
    const size_t label_count = labels_at(labels, entries, count, depth);
    const int32_t base = find_base(u, labels, label_count);
    if (base < 0) return false;
    u->nodes[at].base = base;
    for (size_t i = 0; i < label_count; i++) take_node(u, base + labels[i], at);

    size_t first = 0;
    for (size_t i = 0; i < label_count; i++) {
        size_t last = first;
        while (last < count && (unsigned char)entries[last].text.data[depth] == labels[i]) last++;
        if (!build(u, base + labels[i], entries + first, last - first, depth + 1)) return false;
        first = last;
    }
    return true;
}

static br_status build_trie(unigram *u, const spm_model *model, const char *file, br_error *error)
{
    br_status status = BR_ENOMEM;
    size_t count = 0;
    entry *entries = calloc((uint32_t)model->piece_count, sizeof *entries);
    if (entries == NULL) goto done;
    for (int32_t id = 0; id < model->piece_count; id++) {
        const spm_model_piece *piece = &model->pieces[id];
        if (piece_is_text(piece->type)) entries[count++] = (entry){piece->text, piece->score, id};
    }
    qsort(entries, count, sizeof *entries, compare_entries);
    for (size_t i = 1; i < count; i++) {
        if (!br_str_equal(entries[i - 1].text, entries[i].text)) continue;
        status = br_fail(error, BR_EFORMAT, "%s: pieces %d and %d are spelled the same", file,
                         (int)entries[i - 1].id, (int)entries[i].id);
        goto done;
    }

    u->free_first = FREE;
    if (!grow(u, 4 * BYTES)) goto done;
    take_node(u, ROOT, NOBODY);
    if (count > 0 && !build(u, ROOT, entries, count, 0)) goto done;
    status = BR_OK;

done:
    if (status == BR_ENOMEM) status = br_no_memory(error, "%s", file);
    free(entries);
    return status;
}

static void find_bytes(unigram *u, const spm_model *model)
{
    for (int byte = 0; byte < BYTES; byte++) u->byte_ids[byte] = NO_ID;
    for (int32_t id = 0; id < model->piece_count; id++) {
        const br_str text = model->pieces[id].text;
        if (model->pieces[id].type != PIECE_BYTE || text.size != 6) continue;
        for (int byte = 0; byte < BYTES; byte++) {
            char spelled[8];
            (void)snprintf(spelled, sizeof spelled, "<0x%02X>", (unsigned)byte);
            if (memcmp(spelled, text.data, 6) == 0) u->byte_ids[byte] = id;
        }
    }
    u->has_bytes = true;
    for (int byte = 0; byte < BYTES; byte++) u->has_bytes = u->has_bytes && u->byte_ids[byte] != NO_ID;
}

static br_status copy_sizes(unigram *u, const spm_model *model, const char *file, br_error *error)
{
    u->piece_bytes = calloc((size_t)model->piece_count, 1);
    if (u->piece_bytes == NULL) return br_no_memory(error, "%s", file);
    for (int32_t id = 0; id < model->piece_count; id++) {
        u->piece_bytes[id] = (uint8_t)model->pieces[id].text.size;
    }
    return BR_OK;
}

br_status unigram_create(unigram **out, const spm_model *model, const char *file, br_error *error)
{
    *out = NULL;
    unigram *u = calloc(1, sizeof *u);
    if (u == NULL) return br_no_memory(error, "%s", file);

    /* An unseen character costs 10 more than the worst piece, special pieces included. */
    double least = INFINITY;
    for (int32_t id = 0; id < model->piece_count; id++) {
        if ((double)model->pieces[id].score < least) least = (double)model->pieces[id].score;
    }
    u->unseen_score = least - 10.0;
    u->unknown = model->unknown;
    find_bytes(u, model);
    br_status status = copy_sizes(u, model, file, error);
    if (status != BR_OK) goto fail;
    status = build_trie(u, model, file, error);
    if (status != BR_OK) goto fail;

    *out = u;
    return BR_OK;

fail:
    unigram_destroy(u);
    return status;
}

void unigram_destroy(unigram *u)
{
    if (u == NULL) return;
    free(u->piece_bytes);
    free(u->nodes);
    free(u);
}

br_status unigram_use_bytes(unigram *u)
{
    if (!u->has_bytes) return BR_ENOTSUP;
    u->use_bytes = true;
    return BR_OK;
}

enum { UNSEEN = -1, UNREACHED = -2 }; /* in path, beside ids */

/* The best cut of word[0 .. end] so far: its score, and the piece that ends there. */
static inline void offer(double *scores, int32_t *path, size_t end, double score, int32_t id)
{
    if (path[end] != UNREACHED && !(score > scores[end % SCORES])) return;
    path[end] = id;
    scores[end % SCORES] = score;
}

/* For every end that can be reached: path[end] = the last piece of the best cut of word[0 .. end]. */
static void search(const unigram *u, int32_t *path, const char *word, size_t size)
{
    const node *nodes = u->nodes;
    double scores[SCORES];
    scores[0] = 0.0;
    for (size_t i = 0; i <= size; i++) path[i] = UNREACHED;

    size_t step = 0;
    for (size_t start = 0; start < size; start += step) {
        step = br_utf8_size(word[start]);
        const double score = scores[start % SCORES];
        bool seen = false;
        int32_t at = ROOT;
        for (size_t end = start; end < size;) {
            const int32_t next = nodes[at].base + (unsigned char)word[end++];
            if (nodes[next].parent != at) break;
            at = next;
            if (nodes[at].id == NO_ID) continue;
            offer(scores, path, end, score + (double)nodes[at].score, nodes[at].id);
            seen = seen || end - start == step;
        }
        if (!seen) offer(scores, path, start + step, score + u->unseen_score, UNSEEN);
    }
}

/* Bytes of the piece that ends at `end`. */
static size_t piece_bytes(const unigram *u, const char *word, size_t end, int32_t id)
{
    if (id != UNSEEN) return u->piece_bytes[id];
    size_t start = end - 1;
    while (br_utf8_is_continuation(word[start])) start--;
    return end - start;
}

size_t unigram_cut(const unigram *u, int32_t *path, const char *word, size_t size)
{
    search(u, path, word, size);

    /* Walks back from the end. There are never more ids than bytes, so the entries that are overwritten have
     * been read before. */
    size_t slot = size + 1;
    bool in_unseen = false;
    for (size_t end = size; end > 0;) {
        const int32_t id = path[end];
        const size_t start = end - piece_bytes(u, word, end, id);
        if (id != UNSEEN) {
            path[--slot] = id;
        } else if (u->use_bytes) {
            for (size_t i = end; i > start; i--) path[--slot] = u->byte_ids[(unsigned char)word[i - 1]];
        } else if (!in_unseen) {
            path[--slot] = u->unknown;
        }
        in_unseen = id == UNSEEN;
        end = start;
    }
    return size + 1 - slot;
}
