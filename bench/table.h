/* table.h - a report for people to read. */
#ifndef BESTROUTE_BENCH_TABLE_H
#define BESTROUTE_BENCH_TABLE_H

#include <jansson.h>
#include <stdio.h>

/* The machine, the service, its engine, precision and bundle. */
void table_service(FILE *stream, const json_t *report);

/* That, the load, and the columns' names; then each run as it ends. */
void table_head(FILE *stream, const json_t *report);
void table_row(FILE *stream, const json_t *run);

/* Two reports side by side, with ratios. */
void table_compare(FILE *stream, const json_t *a, const json_t *b);

#endif
