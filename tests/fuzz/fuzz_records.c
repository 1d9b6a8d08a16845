/*
 * fuzz_records.c - any bytes as a file of records and as one of scores.
 *
 * What is accepted is measured in ranges; what is refused names the file.
 */
#include <math.h>
#include <string.h>

#include "eval/records.h"
#include "eval/scores.h"
#include "memory_file.h"

static void demand(bool holds)
{
    if (!holds) abort();
}

static void check_records(const br_records *r, size_t pairs)
{
    for (size_t i = 0; i < r->row_count; i++) {
        const br_records_row *row = &r->rows[i];
        demand(row->id[0] != '\0' && strlen(row->prompt) == row->prompt_bytes);
        demand(row->task >= 0 && (size_t)row->task < r->task_count);
        for (size_t p = 0; p < pairs; p++)
            demand(!row->measures[p].measured ||
                   (row->measures[p].quality >= 0 && row->measures[p].quality <= 1));
    }
}

static void read_records(const char *path, bool second_half)
{
    static const br_records_pair pairs[] = {
        {.model = "a", .n = 1}, {.model = "a", .n = 2}, {.model = "b", .n = 1}};
    const br_records_options options = {
        .pairs = pairs, .pair_count = 3, .split = second_half ? "test" : NULL, .second_half = second_half};
    br_records records = {0};
    br_error error = {0};
    const br_status status = br_records_read(&records, path, &options, &error);
    demand(status == error.status);
    demand(status == BR_OK || strncmp(error.text, path, strlen(path)) == 0);
    if (status == BR_OK) check_records(&records, 3);
    br_records_deinit(&records);
}

static void read_scores(const char *path)
{
    br_score_file scores;
    br_error error = {0};
    const br_status status = br_score_file_read(&scores, path, 2, &error);
    demand(status == error.status);
    for (size_t i = 0; status == BR_OK && i < scores.count; i++) {
        const float *found = br_score_file_find(&scores, scores.entries[i].id);
        demand(found == scores.entries[i].qualities);
        for (int k = 0; k < 2; k++) demand(found[k] >= 0 && found[k] <= 1);
    }
    br_score_file_deinit(&scores);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const memory_file file = memory_file_open(data, size);
    read_records(file.path, false);
    read_records(file.path, true);
    read_scores(file.path);
    memory_file_close(&file);
    return 0;
}
