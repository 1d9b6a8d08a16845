/* progress.c - draws the line on standard error, again and again. */
#include "progress.h"

#include <stdio.h>
#include <unistd.h>

#include "core/clock.h"

enum {
    FIRST_MS = 500, /* short work shows no bar */
    EVERY_MS = 100,
    BAR_COLUMNS = 24,
};

void cli_progress_init(cli_progress *progress, const cli_options *options, uint64_t now_ns)
{
    *progress = (cli_progress){
        .enabled = !options->no_progress && isatty(STDERR_FILENO) && !isatty(STDOUT_FILENO),
        .start_ns = now_ns,
    };
}

static void draw_bar(double share)
{
    char bar[BAR_COLUMNS + 1];
    for (int i = 0; i < BAR_COLUMNS; i++) bar[i] = i < (int)(share * BAR_COLUMNS) ? '#' : '.';
    bar[BAR_COLUMNS] = '\0';
    fprintf(stderr, "  [%s] %3.0f %%", bar, 100 * share);
}

static void draw_eta(double seconds)
{
    if (seconds > 359999) return; /* 100 hours: nothing to say yet */
    const unsigned left = (unsigned)(seconds + 0.5);
    fprintf(stderr, "  %u:%02u:%02u left", left / 3600, left / 60 % 60, left % 60);
}

void cli_progress_update(cli_progress *progress, size_t prompts, uint64_t read_bytes, uint64_t total_bytes,
                         uint64_t now_ns)
{
    if (!progress->enabled) return;
    if (now_ns - progress->start_ns < (uint64_t)FIRST_MS * BR_NS_PER_MS) return;
    if (now_ns - progress->drawn_ns < (uint64_t)EVERY_MS * BR_NS_PER_MS) return;
    progress->drawn_ns = now_ns;
    progress->shown = true;

    const double seconds = (double)(now_ns - progress->start_ns) / 1e9;
    fprintf(stderr, "\r%zu prompts, %.0f/s", prompts, (double)prompts / seconds);
    if (total_bytes > 0 && prompts > 0) {
        double share = (double)read_bytes / (double)total_bytes;
        if (share > 1) share = 1; /* the file grew */
        draw_bar(share);
        if (share > 0) draw_eta(seconds * (1 - share) / share);
    }
    fputs("\033[K", stderr);
    fflush(stderr);
}

void cli_progress_clear(cli_progress *progress)
{
    if (!progress->shown) return;
    fputs("\r\033[K", stderr);
    fflush(stderr);
    progress->shown = false;
}
