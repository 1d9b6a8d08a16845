/*
 * input.c - prompts from arguments, or from the lines of a file or of standard input.
 *
 *   read -> [ buffer of one line and what follows it ] -> prompt
 *
 * Lines end in LF or CRLF; the last line may have no end. Blank lines are skipped but counted. A line over
 * the limit becomes a prompt with an error, and its bytes are dropped as they come.
 */
#include "input.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/memory.h"

enum { READ_BYTES = 1 << 16 };

struct cli_input {
    const char *const *arguments; /* NULL: lines */
    size_t argument_count;
    size_t argument;

    const char *name;
    int fd;
    bool close_fd;
    bool jsonl;
    bool at_end;
    bool skips; /* the rest of a line that is too long */
    uint64_t line;
    uint64_t read_bytes;
    uint64_t total_bytes;
    char *buffer;
    size_t capacity;
    size_t start;   /* of the next line */
    size_t used;    /* end of what was read */
    size_t scanned; /* no line feed before this */
    size_t line_bytes_max;
    cli_limits limits;
};

static void check_size(const cli_input *input, cli_prompt *prompt)
{
    if (prompt->error != NULL) return;
    const uint64_t most = input->limits.text_bytes_max;
    if (prompt->query.text_bytes <= most) return;
    cli_prompt_refuse(prompt, "too_large", "the text has %zu bytes, the service takes %llu",
                      prompt->query.text_bytes, (unsigned long long)most);
}

static bool ends_in(const char *text, const char *end)
{
    const size_t text_bytes = strlen(text);
    const size_t end_bytes = strlen(end);
    return text_bytes >= end_bytes && strcmp(text + text_bytes - end_bytes, end) == 0;
}

static br_status open_lines(cli_input *input, const cli_options *options, br_error *error)
{
    const char *file = options->file == NULL ? "-" : options->file;
    if (strcmp(file, "-") == 0) {
        input->name = "standard input";
        input->fd = STDIN_FILENO;
        if (options->file == NULL && isatty(STDIN_FILENO))
            return br_fail(error, BR_EINVAL,
                           "there are no prompts: give them as arguments, with --file, or through a pipe");
    } else {
        input->name = file;
        input->fd = open(file, O_RDONLY | O_CLOEXEC);
        if (input->fd < 0) return br_fail(error, BR_EIO, "%s: %s", file, strerror(errno));
        input->close_fd = true;
    }
    struct stat about;
    if (fstat(input->fd, &about) != 0) return br_fail(error, BR_EIO, "%s: %s", input->name, strerror(errno));
    if (S_ISDIR(about.st_mode)) return br_fail(error, BR_EIO, "%s: %s", input->name, strerror(EISDIR));
    if (S_ISREG(about.st_mode)) input->total_bytes = (uint64_t)about.st_size;

    input->jsonl = options->jsonl || ends_in(file, ".jsonl") || ends_in(file, ".ndjson");
    input->line_bytes_max =
        (size_t)(input->jsonl ? input->limits.message_bytes_max : input->limits.text_bytes_max);
    input->capacity = READ_BYTES;
    input->buffer = malloc(input->capacity);
    if (input->buffer == NULL) return br_no_memory(error, "the input");
    return BR_OK;
}

br_status cli_input_open(cli_input **out, const cli_options *options, const cli_limits *limits,
                         br_error *error)
{
    *out = NULL;
    cli_input *input = calloc(1, sizeof *input);
    if (input == NULL) return br_no_memory(error, "the input");
    input->fd = -1;
    input->limits = *limits;
    if (options->argument_count > 0) {
        input->arguments = options->arguments;
        input->argument_count = options->argument_count;
    } else {
        const br_status status = open_lines(input, options, error);
        if (status != BR_OK) {
            cli_input_close(input);
            return status;
        }
    }
    *out = input;
    return BR_OK;
}

void cli_input_close(cli_input *input)
{
    if (input == NULL) return;
    if (input->close_fd) close(input->fd);
    free(input->buffer);
    free(input);
}

int cli_input_fd(const cli_input *input)
{
    return input->fd;
}

bool cli_input_has_lines(const cli_input *input)
{
    return input->arguments == NULL;
}

void cli_input_progress(const cli_input *input, uint64_t *read_bytes, uint64_t *total_bytes)
{
    *read_bytes = input->read_bytes - (input->used - input->start);
    *total_bytes = input->total_bytes;
}

/* Room for READ_BYTES behind what is there. */
static br_status make_room(cli_input *input)
{
    if (input->start > 0) {
        memmove(input->buffer, input->buffer + input->start, input->used - input->start);
        input->used -= input->start;
        input->scanned -= input->start;
        input->start = 0;
    }
    if (input->capacity - input->used >= READ_BYTES) return BR_OK;

    const size_t capacity = 2 * input->capacity + READ_BYTES;
    char *buffer = realloc(input->buffer, capacity);
    if (buffer == NULL) return BR_ENOMEM;
    input->buffer = buffer;
    input->capacity = capacity;
    return BR_OK;
}

/* PROMPT: there is more; WAIT, END or FAILED. */
static cli_next read_more(cli_input *input, br_error *error)
{
    if (input->at_end) return CLI_NEXT_END;
    struct pollfd ready = {.fd = input->fd, .events = POLLIN};
    const int count = poll(&ready, 1, 0);
    if (count == 0 || (count < 0 && errno == EINTR)) return CLI_NEXT_WAIT;

    if (make_room(input) != BR_OK) {
        (void)!br_no_memory(error, "line %llu", (unsigned long long)input->line + 1);
        return CLI_NEXT_FAILED;
    }
    const ssize_t got = read(input->fd, input->buffer + input->used, READ_BYTES);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) return CLI_NEXT_WAIT;
    if (got < 0) {
        (void)!br_fail(error, BR_EIO, "%s: %s", input->name, strerror(errno));
        return CLI_NEXT_FAILED;
    }
    if (got == 0) {
        input->at_end = true;
        return CLI_NEXT_END;
    }
    input->used += (size_t)got;
    input->read_bytes += (size_t)got;
    return CLI_NEXT_PROMPT;
}

static bool is_blank(br_str line)
{
    for (size_t i = 0; i < line.size; i++) {
        const char c = line.data[i];
        if (c != ' ' && c != '\t' && c != '\r') return false;
    }
    return true;
}

/* The line that ends before `end`, without its CR and, at the very start, without a byte order mark. */
static br_str trim(const cli_input *input, size_t end)
{
    br_str line = {input->buffer + input->start, end - input->start};
    if (line.size > 0 && line.data[line.size - 1] == '\r') line.size--;
    if (input->line == 0 && line.size >= 3 && memcmp(line.data, "\xef\xbb\xbf", 3) == 0) {
        line.data += 3;
        line.size -= 3;
    }
    return line;
}

typedef enum found { LINE, TOO_LONG, NEEDS_MORE } found;

/* A whole line of the buffer; consumes it. The view holds until the next read. */
static found next_line(cli_input *input, br_str *out)
{
    const char *feed = memchr(input->buffer + input->scanned, '\n', input->used - input->scanned);
    const bool is_last = feed == NULL && input->at_end && input->start < input->used;
    const size_t end = feed == NULL ? input->used : (size_t)(feed - input->buffer);
    const size_t next = feed == NULL ? input->used : end + 1;
    const size_t slack = 4; /* CR and a byte order mark do not count */

    if (input->skips) { /* drops it, part by part */
        input->start = input->scanned = next;
        if (feed != NULL || input->at_end) input->skips = false;
        return feed == NULL ? NEEDS_MORE : next_line(input, out);
    }
    if (end - input->start > input->line_bytes_max + slack) {
        input->skips = feed == NULL && !input->at_end;
        input->start = input->scanned = next;
        input->line++;
        return TOO_LONG;
    }
    if (feed == NULL && !is_last) {
        input->scanned = input->used;
        return NEEDS_MORE;
    }
    *out = trim(input, end);
    input->start = input->scanned = next;
    input->line++;
    return LINE;
}

static cli_next take_line(cli_input *input, cli_prompt *out, br_str line, br_error *error)
{
    br_status status;
    if (input->jsonl) {
        status = cli_prompt_from_json(out, line.data, line.size);
    } else {
        status = cli_prompt_from_text(out, line.data, line.size);
    }
    if (status != BR_OK) {
        (void)!br_fail(error, status, "out of memory for line %llu", (unsigned long long)out->line);
        return CLI_NEXT_FAILED;
    }
    check_size(input, out);
    return CLI_NEXT_PROMPT;
}

static cli_next next_argument(cli_input *input, cli_prompt *out, br_error *error)
{
    if (input->argument == input->argument_count) return CLI_NEXT_END;
    const char *text = input->arguments[input->argument++];
    if (cli_prompt_from_text(out, text, strlen(text)) != BR_OK) {
        (void)!br_no_memory(error, "a prompt");
        return CLI_NEXT_FAILED;
    }
    check_size(input, out);
    return CLI_NEXT_PROMPT;
}

cli_next cli_input_next(cli_input *input, cli_prompt *out, br_error *error)
{
    cli_prompt_clear(out);
    if (input->arguments != NULL) return next_argument(input, out, error);
    for (;;) {
        br_str line;
        switch (next_line(input, &line)) {
        case LINE:
            out->line = input->line;
            if (is_blank(line)) continue;
            return take_line(input, out, line, error);
        case TOO_LONG:
            out->line = input->line;
            cli_prompt_refuse(out, "too_large", "the line is longer than %zu bytes", input->line_bytes_max);
            return CLI_NEXT_PROMPT;
        case NEEDS_MORE: {
            const cli_next next = read_more(input, error);
            if (next == CLI_NEXT_END && input->start < input->used)
                continue; /* a last line without its end */
            if (next != CLI_NEXT_PROMPT) return next;
        }
        }
    }
}
