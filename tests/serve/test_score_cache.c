/* test_score_cache.c - entries are found, exactly; new ones displace old ones; the cache does not grow. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "serve/score_cache.h"
#include "support/oom.h"

enum { HEADS = 5, TOKENS_MAX = 40 };

static void prompt(int32_t *ids, int32_t tokens, uint32_t seed)
{
    for (int32_t i = 0; i < tokens; i++) ids[i] = (int32_t)(seed * 7919 + (uint32_t)i);
}

static void scores(float *quality, uint32_t seed)
{
    for (int32_t k = 0; k < HEADS; k++) quality[k] = (float)(seed % 1000) + (float)k / 8;
}

static void put(score_cache *c, uint64_t bundle, uint32_t seed)
{
    int32_t ids[TOKENS_MAX];
    float quality[HEADS];
    const int32_t tokens = 3 + (int32_t)(seed % (TOKENS_MAX - 3));
    prompt(ids, tokens, seed);
    scores(quality, seed);
    score_cache_put(c, bundle, ids, tokens, quality, HEADS);
}

/* True when the entry is there; then its qualities are checked. */
static bool is_there(score_cache *c, uint64_t bundle, uint32_t seed)
{
    int32_t ids[TOKENS_MAX];
    float quality[HEADS];
    float expected[HEADS];
    const int32_t tokens = 3 + (int32_t)(seed % (TOKENS_MAX - 3));
    prompt(ids, tokens, seed);
    if (!score_cache_get(c, bundle, ids, tokens, quality, HEADS)) return false;
    scores(expected, seed);
    assert_memory_equal(quality, expected, sizeof expected);
    return true;
}

static score_cache *create(size_t bytes)
{
    score_cache *c;
    assert_int_equal(score_cache_create(&c, bytes), BR_OK);
    return c;
}

static void test_what_was_put_is_found_and_nothing_else(void **state)
{
    (void)state;
    score_cache *c = create(1 << 20);
    for (uint32_t seed = 0; seed < 100; seed++) put(c, 1, seed);
    for (uint32_t seed = 0; seed < 100; seed++) assert_true(is_there(c, 1, seed));
    for (uint32_t seed = 0; seed < 100; seed++) assert_false(is_there(c, 2, seed)); /* another bundle */
    for (uint32_t seed = 100; seed < 200; seed++) assert_false(is_there(c, 1, seed));
    int32_t ids[TOKENS_MAX];
    float quality[HEADS];
    prompt(ids, 7, 4);
    assert_false(score_cache_get(c, 1, ids, 6, quality, HEADS)); /* a beginning of one is another */
    assert_false(score_cache_get(c, 1, ids, 7, quality, HEADS - 1));
    ids[3]++;
    assert_false(score_cache_get(c, 1, ids, 7, quality, HEADS));
    score_cache_clear(c);
    for (uint32_t seed = 0; seed < 100; seed++) assert_false(is_there(c, 1, seed));
    score_cache_destroy(c);
    score_cache_destroy(NULL);
}

static void test_the_newest_stay_and_the_oldest_go(void **state)
{
    (void)state;
    for (size_t bytes = 4096; bytes <= 4096 + 400; bytes += 8) {
        score_cache *c = create(bytes);
        for (uint32_t seed = 0; seed < 2000; seed++) {
            put(c, 1, seed);
            assert_true(is_there(c, 1, seed));
            uint32_t kept = 0;
            while (kept < seed && is_there(c, 1, seed - kept)) kept++;
            assert_true(seed < 12 || kept >= 12); /* an entry has 240 bytes at most */
            if (seed % 97 == 0) /* entries leave in order: none is left that is older than one that is gone */
                for (uint32_t old = 0; old + kept < seed; old++) assert_false(is_there(c, 1, old));
        }
        score_cache_destroy(c);
    }
}

static void test_putting_again_changes_nothing(void **state)
{
    (void)state;
    score_cache *c = create(4096);
    put(c, 1, 1);
    for (int i = 0; i < 1000; i++) put(c, 1, 2);
    assert_true(is_there(c, 1, 1));
    score_cache_destroy(c);
}

static void test_what_is_larger_than_the_cache_is_not_kept(void **state)
{
    (void)state;
    score_cache *c = create(4096);
    static int32_t ids[2048];
    float quality[HEADS] = {0};
    put(c, 1, 1);
    score_cache_put(c, 1, ids, 2048, quality, HEADS);
    assert_false(score_cache_get(c, 1, ids, 2048, quality, HEADS));
    assert_true(is_there(c, 1, 1));
    score_cache_destroy(c);
}

static void test_every_failing_allocation_is_survived(void **state)
{
    (void)state;
    br_status status = BR_EINTERNAL;
    BR_OOM_SWEEP({
        score_cache *c;
        status = score_cache_create(&c, 4096);
        score_cache_destroy(c);
    });
    assert_int_equal(status, BR_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_put_is_found_and_nothing_else),
        cmocka_unit_test(test_the_newest_stay_and_the_oldest_go),
        cmocka_unit_test(test_putting_again_changes_nothing),
        cmocka_unit_test(test_what_is_larger_than_the_cache_is_not_kept),
        cmocka_unit_test(test_every_failing_allocation_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
