/*
 * test_comm.c - communicators over the machine's CUDA devices: all devices receive the first one's memory;
 * words that differ are an error; waiting for a rank that does not join ends at the timeout.
 *
 * Skipped with a message where there is no device or no NCCL; tests of two devices also where there is only
 * one.
 */
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <fcntl.h>

#include <cmocka.h>
#include <cuda_runtime_api.h>

#include "core/clock.h"
#include "engine/comm.h"
#include "engine/engines.h"

extern char **environ;

static br_backend *backends[BR_DEVICES_MAX];
static int32_t count;

static int open_all(void **state)
{
    (void)state;
    count = br_engine_devices(BR_ENGINE_CUDA);
    if (count > BR_DEVICES_MAX) count = BR_DEVICES_MAX;
    br_error error = {0};
    for (int32_t i = 0; i < count; i++)
        if (br_backend_open(&backends[i], BR_ENGINE_CUDA, BR_PRECISION_F32, i, &error) != BR_OK) return -1;
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    for (int32_t i = 0; i < count; i++) br_backend_close(backends[i]);
    return 0;
}

static br_comm *open_local(void)
{
    br_comm *comm;
    br_error error = {0};
    const br_comm_options options = {.backends = backends, .count = count, .ranks = 1, .timeout_ms = 20000};
    const br_status status = br_comm_open(&comm, &options, &error);
    if (status == BR_ENOTSUP) {
        print_message("no NCCL: %s\n", error.text);
        skip();
    }
    if (status != BR_OK) fail_msg("%s", error.text);
    return comm;
}

enum { SIZES = 5 };
static const size_t sizes[SIZES] = {1, 3, 1000, 70001, 4}; /* floats */

static float value_at(size_t piece, size_t i)
{
    return (float)(piece * 1000 + i % 977) + 0.25f;
}

/* Vectors like weights: the first device's are filled, the others' are not written. */
static void make_pieces(br_pieces *pieces, int32_t device)
{
    br_backend *backend = backends[device];
    backend->table->collect(backend, pieces, device != 0);
    for (size_t p = 0; p < SIZES; p++) {
        float *values = calloc(sizes[p], sizeof *values);
        for (size_t i = 0; i < sizes[p]; i++) values[i] = value_at(p, i);
        float *made;
        br_error error = {0};
        if (backend->table->vector_create(backend, &made, values, sizes[p], &error) != BR_OK)
            fail_msg("%s", error.text);
        free(values);
    }
    backend->table->collect(backend, NULL, false);
    assert_int_equal(pieces->count, SIZES);
}

static void check_pieces(const br_pieces *pieces, int32_t device)
{
    assert_int_equal(cudaSetDevice(device), cudaSuccess);
    for (size_t p = 0; p < SIZES; p++) {
        assert_int_equal(pieces->items[p].bytes, sizes[p] * sizeof(float));
        float *values = calloc(sizes[p], sizeof *values);
        assert_int_equal(
            cudaMemcpy(values, pieces->items[p].memory, pieces->items[p].bytes, cudaMemcpyDeviceToHost),
            cudaSuccess);
        for (size_t i = 0; i < sizes[p]; i++) assert_true(values[i] == value_at(p, i));
        free(values);
    }
}

static void test_what_the_first_device_has_all_get(void **state)
{
    (void)state;
    br_comm *comm = open_local();
    br_pieces pieces[BR_DEVICES_MAX] = {{0}};
    const br_pieces *lists[BR_DEVICES_MAX];
    for (int32_t i = 0; i < count; i++) {
        make_pieces(&pieces[i], i);
        lists[i] = &pieces[i];
    }
    br_error error = {0};
    if (br_comm_broadcast(comm, lists, &error) != BR_OK) fail_msg("%s", error.text);
    for (int32_t i = 0; i < count; i++) {
        check_pieces(&pieces[i], i);
        for (int32_t p = 0; p < pieces[i].count; p++)
            backends[i]->table->free(backends[i], pieces[i].items[p].memory);
        br_pieces_deinit(&pieces[i]);
    }
    br_comm_close(comm);
}

static void test_equal_words_are_agreed_on(void **state)
{
    (void)state;
    br_comm *comm = open_local();
    const uint64_t words[BR_COMM_WORDS_MAX] = {0, UINT64_MAX, 1, UINT64_C(0x8000000000000000)};
    br_error error = {0};
    for (int32_t n = 1; n <= BR_COMM_WORDS_MAX; n += 5)
        if (br_comm_agree(comm, words, n, &error) != BR_OK) fail_msg("%s", error.text);
    assert_int_equal(br_comm_rank(comm), 0);
    br_comm_close(comm);
}

static br_comm_options fleet_of_two(int32_t rank, const char *file)
{
    return (br_comm_options){.backends = backends,
                             .count = 1,
                             .ranks = 2,
                             .rank = rank,
                             .id_file = file,
                             .folder = "/bundle",
                             .timeout_ms = 1500};
}

static void test_a_rank_that_finds_no_id_gives_up_in_time(void **state)
{
    (void)state;
    br_comm_close(open_local()); /* skips where there is no NCCL */
    char folder[] = "/tmp/bestroute-comm-XXXXXX";
    assert_non_null(mkdtemp(folder));
    char file[64];
    (void)snprintf(file, sizeof file, "%s/id", folder);
    const br_comm_options options = fleet_of_two(1, file);
    const uint64_t began_ns = br_clock_now_ns();
    br_comm *comm;
    br_error error = {0};
    assert_int_equal(br_comm_open(&comm, &options, &error), BR_ETIMEDOUT);
    assert_null(comm);
    assert_non_null(strstr(error.text, file));

    /* A file that a dead process left is ignored. */
    FILE *old = fopen(file, "wb");
    assert_non_null(old);
    char id[128] = {0};
    assert_int_equal(fwrite(id, 1, sizeof id, old), sizeof id);
    (void)fclose(old);
    const time_t then = time(NULL) - 60;
    assert_int_equal(
        utimensat(AT_FDCWD, file, (const struct timespec[2]){{.tv_sec = then}, {.tv_sec = then}}, 0), 0);
    assert_int_equal(br_comm_open(&comm, &options, &error), BR_ETIMEDOUT);
    assert_true(br_clock_now_ns() - began_ns < 20000 * (uint64_t)BR_NS_PER_MS);
    (void)unlink(file);
    (void)rmdir(folder);
}

static void test_an_id_that_cannot_be_written_is_named(void **state)
{
    (void)state;
    br_comm_close(open_local());
    const br_comm_options options = fleet_of_two(0, "/nowhere/id");
    br_comm *comm;
    br_error error = {0};
    assert_int_equal(br_comm_open(&comm, &options, &error), BR_EIO);
    assert_non_null(strstr(error.text, "/nowhere/id"));
}

/* Rank 1, a process of its own on the second device: `main FILE MOMENT` below. Its exit status is 0 when all
 * went well. With the moment "kill" or "stop" it kills or stops itself when all ranks have agreed and rank 0
 * is about to send. */
static int play_rank_1(const char *file, const char *moment)
{
    const int32_t device = 1;
    br_error error = {0};
    if (br_backend_open(&backends[device], BR_ENGINE_CUDA, BR_PRECISION_F32, device, &error) != BR_OK)
        return 1;
    br_comm_options options = fleet_of_two(1, file);
    options.backends = &backends[device];
    options.timeout_ms = 20000;
    br_comm *comm;
    const uint64_t word = 1;
    br_pieces pieces = {0};
    const br_pieces *lists[] = {&pieces};
    make_pieces(&pieces, device);
    br_status status = br_comm_open(&comm, &options, &error);
    if (status == BR_OK) status = br_comm_agree(comm, &word, 1, &error);
    if (strcmp(moment, "kill") == 0) (void)raise(SIGKILL);
    if (strcmp(moment, "stop") == 0) (void)raise(SIGSTOP);
    if (status == BR_OK) status = br_comm_broadcast(comm, lists, &error);
    if (status == BR_OK) check_pieces(&pieces, device);
    br_comm_close(comm);
    return status == BR_OK ? 0 : 1;
}

/* The status of rank 0's broadcast when rank 1 does that. */
static br_status broadcast_to(const char *file, const char *moment)
{
    char *const argv[] = {(char *)"test_comm", (char *)(uintptr_t)file, (char *)(uintptr_t)moment, NULL};
    pid_t other;
    assert_int_equal(posix_spawn(&other, "/proc/self/exe", NULL, NULL, argv, environ), 0);
    br_comm_options options = fleet_of_two(0, file);
    options.timeout_ms = 5000; /* the other process has to start first */
    br_comm *comm;
    br_error error = {0};
    if (br_comm_open(&comm, &options, &error) != BR_OK) fail_msg("%s", error.text);
    const uint64_t word = 1;
    if (br_comm_agree(comm, &word, 1, &error) != BR_OK) fail_msg("%s", error.text);
    br_pieces pieces = {0};
    const br_pieces *lists[] = {&pieces};
    make_pieces(&pieces, 0);
    const uint64_t began_ns = br_clock_now_ns();
    const br_status status = br_comm_broadcast(comm, lists, &error);
    br_comm_close(comm);
    assert_true(br_clock_now_ns() - began_ns < 20000 * (uint64_t)BR_NS_PER_MS);
    check_pieces(&pieces, 0); /* the sender's own vectors have not changed */
    for (int32_t p = 0; p < pieces.count; p++) backends[0]->table->free(backends[0], pieces.items[p].memory);
    br_pieces_deinit(&pieces);
    int ended;
    if (strcmp(moment, "well") != 0) (void)kill(other, SIGKILL);
    assert_int_equal(waitpid(other, &ended, 0), other);
    if (strcmp(moment, "well") == 0) assert_int_equal(ended, 0);
    return status;
}

static void test_a_rank_that_dies_or_hangs_in_a_broadcast_is_given_up_and_the_next_meeting_is_well(
    void **state)
{
    (void)state;
    br_comm_close(open_local());
    if (count < 2) {
        print_message("SKIPPED: there is one device\n");
        skip();
    }
    char folder[] = "/tmp/bestroute-comm-XXXXXX";
    assert_non_null(mkdtemp(folder));
    char file[64];
    (void)snprintf(file, sizeof file, "%s/id", folder);
    assert_int_equal(broadcast_to(file, "well"), BR_OK);
    assert_int_not_equal(broadcast_to(file, "kill"), BR_OK);
    assert_int_equal(broadcast_to(file, "stop"), BR_ETIMEDOUT);
    assert_int_equal(broadcast_to(file, "well"), BR_OK);
    (void)rmdir(folder);
}

int main(int argc, char **argv)
{
    if (argc == 3) return play_rank_1(argv[1], argv[2]);
    if (br_engine_devices(BR_ENGINE_CUDA) == 0) {
        print_message("SKIPPED: there is no CUDA device\n");
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_the_first_device_has_all_get),
        cmocka_unit_test(test_equal_words_are_agreed_on),
        cmocka_unit_test(test_a_rank_that_finds_no_id_gives_up_in_time),
        cmocka_unit_test(test_an_id_that_cannot_be_written_is_named),
        cmocka_unit_test(
            test_a_rank_that_dies_or_hangs_in_a_broadcast_is_given_up_and_the_next_meeting_is_well),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
