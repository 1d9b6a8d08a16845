/*
 * client.c - asks a running service which model answers each prompt.
 *
 *   cc examples/client.c $(pkg-config --cflags --libs bestroute_client) -o client
 *   ./client tcp://127.0.0.1:5555 "What is 2 + 2?" "Prove that the square root of 2 is irrational."
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bestroute/client.h>

static int complain(const br_error *error)
{
    (void)fprintf(stderr, "client: %s\n", error->text);
    return 1;
}

static int route(br_client *client, const br_client_query *queries, size_t count)
{
    br_error error = {0};
    br_answer *answer;
    const br_client_call call = {.queries = queries, .query_count = count};
    if (br_client_route(client, &answer, &call, &error) != BR_OK) return complain(&error);
    for (size_t i = 0; i < answer->result_count; i++) {
        const br_answer_result *result = &answer->results[i];
        if (result->error != NULL)
            (void)printf("%s: %s\n", result->error, result->message);
        else
            (void)printf("%s x %u, quality %.3f\n", result->model, (unsigned)result->n, result->quality);
    }
    br_answer_free(answer);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        (void)fprintf(stderr, "usage: client URL PROMPT...\n");
        return 2;
    }
    br_error error = {0};
    br_client *client;
    const br_client_options options = {.url = argv[1], .timeout_ms = 10000};
    if (br_client_connect(&client, &options, &error) != BR_OK) return complain(&error);

    const size_t count = (size_t)argc - 2;
    br_client_query *queries = calloc(count, sizeof *queries);
    int status = 1;
    if (queries != NULL) {
        for (size_t i = 0; i < count; i++) {
            queries[i].text = argv[i + 2];
            queries[i].text_bytes = strlen(argv[i + 2]);
        }
        status = route(client, queries, count);
    }
    free(queries);
    br_client_close(client);
    return status;
}
