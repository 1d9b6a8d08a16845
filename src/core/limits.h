/*
 * limits.h - every bound of the service, with what it sizes.
 *
 * A bound lives here with the reason for its value and what breaks when it
 * grows. Options in serve/config.h may lower the ones that are sizes of queues; none
 * may be raised above these.
 */
#ifndef BESTROUTE_CORE_LIMITS_H
#define BESTROUTE_CORE_LIMITS_H

#include <assert.h>

enum {
    /* A prompt: [CLS] <|source|> pieces [SEP]. Position tables grow with 2 * S - 1 rows. */
    BR_SEQ_TOKENS_MIN = 3,
    BR_SEQ_TOKENS_MAX = 2048,
    BR_POOL_INDEX = 1, /* the <|source|> token: fixed, never searched for */

    /* One encoder pass. The workspace is sized for it at load. */
    BR_BATCH_TOKENS_MAX = 65536,
    BR_BATCH_SEQS_MAX = 1024,

    /* Shape of the network. Products of any three stay below 2^63. */
    BR_WIDTH_MAX = 8192,
    BR_FFN_MAX = 32768,
    BR_HEADS_MAX = 128,
    BR_LAYERS_MAX = 128,
    BR_VOCAB_MAX = 1 << 20,
    BR_POSITION_SPAN_MAX = 4096, /* rows of rel_embeddings are twice this */

    /* Routing table. A set of models is one uint64_t. */
    BR_MODELS_MAX = 64,
    BR_CANDIDATES_MAX = 256,
    BR_SAMPLES_MAX = 1000, /* n of a candidate */
    BR_NAME_BYTES_MAX = 128,
    BR_POLICY_TABLE_ROWS_MAX = 1001, /* steps of a thousandth; in the reply to info, 80 bytes each */

    /* Messages. Nesting bounds the recursion of the skipper. */
    BR_QUERIES_MAX = 1024,
    BR_TEXT_BYTES_MAX = 1 << 20,
    BR_MESSAGE_BYTES_MAX = 64 << 20,
    BR_NESTING_MAX = 32,
    BR_ID_BYTES_MAX = 256, /* a request's id, echoed: a scalar, at most this long on the wire */

    /* Bundle files. */
    BR_JSON_BYTES_MAX = 1 << 20,
    BR_SAFETENSORS_HEADER_BYTES_MAX = 16 << 20,
    BR_TENSORS_MAX = 1 << 16,
    BR_TENSOR_RANK_MAX = 8,

    /* Service. */
    BR_WORKERS_MAX = 64,
    BR_RANKS_MAX = 1024,
    BR_DEVICES_MAX = 16, /* a set of devices is one uint32_t */
    BR_LISTENERS_MAX = 16,
    BR_QUEUE_QUERIES_MAX = 1 << 16,
};

static_assert(BR_BATCH_TOKENS_MAX >= BR_SEQ_TOKENS_MAX, "the longest prompt fits a batch");
static_assert(BR_MODELS_MAX <= 64, "a set of models is one uint64_t");
static_assert(BR_MESSAGE_BYTES_MAX > BR_TEXT_BYTES_MAX, "the longest text fits a message");

#endif
