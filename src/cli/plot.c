/* plot.c - axes, series, legend. */
#include "plot.h"
#include "core/memory.h"

#include <cairo-svg.h>
#include <cairo.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    WIDTH = 900,
    HEIGHT = 560,
    LEFT = 80,
    RIGHT = 24,
    TOP = 60,
    BOTTOM = 60,
    PATH_BYTES = 4096,
    TICKS = 6
};

typedef struct frame {
    cairo_t *cr;
    bool log_y;
    double x0, x1, y0, y1; /* data range; of the logarithm with log_y */
} frame;

/* Not finite: nothing to be seen. */
static double scale_y(const frame *f, double y)
{
    return f->log_y ? log10(y) : y;
}

static double to_x(const frame *f, double x)
{
    return LEFT + (x - f->x0) / (f->x1 - f->x0) * (WIDTH - LEFT - RIGHT);
}

static double to_y(const frame *f, double y)
{
    return HEIGHT - BOTTOM - (scale_y(f, y) - f->y0) / (f->y1 - f->y0) * (HEIGHT - TOP - BOTTOM);
}

static bool is_seen(const frame *f, double x, double y)
{
    return isfinite(x) && isfinite(scale_y(f, y));
}

static void widen(double value, double *low, double *high)
{
    if (!isfinite(value)) return;
    if (value < *low) *low = value;
    if (value > *high) *high = value;
}

static void settle(double *low, double *high)
{
    if (*low > *high) *low = 0, *high = 1;
    const double margin = *high > *low ? 0.04 * (*high - *low) : 0.5;
    *low -= margin;
    *high += margin;
}

static void find_range(frame *f, const plot_chart *chart)
{
    f->x0 = f->y0 = 0;
    f->x1 = f->y1 = 1;
    if (chart->unit_square) return;
    f->x0 = f->y0 = INFINITY;
    f->x1 = f->y1 = -INFINITY;
    for (size_t s = 0; s < chart->series_count; s++) {
        const plot_series *series = &chart->series[s];
        for (size_t i = 0; i < series->count; i++) {
            widen(series->x[i], &f->x0, &f->x1);
            widen(scale_y(f, series->y[i]), &f->y0, &f->y1);
            if (series->y2 != NULL) widen(scale_y(f, series->y2[i]), &f->y0, &f->y1);
        }
    }
    settle(&f->x0, &f->x1);
    settle(&f->y0, &f->y1);
}

static void set_color(cairo_t *cr, unsigned color, double alpha)
{
    cairo_set_source_rgba(cr, (color >> 16 & 255U) / 255.0, (color >> 8 & 255U) / 255.0,
                          (color & 255U) / 255.0, alpha);
}

/* `align`: 0 begins at x, 0.5 is centred on it, 1 ends there. */
static void write_text(cairo_t *cr, const char *text, double x, double y, double align)
{
    cairo_text_extents_t extents;
    cairo_text_extents(cr, text, &extents);
    cairo_move_to(cr, x - align * extents.x_advance, y);
    cairo_show_text(cr, text);
}

/* 1, 2 or 5 times a power of ten: about TICKS of them over the range. */
static double tick_step(double range)
{
    const double raw = range / TICKS;
    const double power = pow(10, floor(log10(raw)));
    const double digit = raw / power;
    return power * (digit < 1.5 ? 1 : digit < 3.5 ? 2 : digit < 7.5 ? 5 : 10);
}

static void draw_tick(const frame *f, bool vertical, double value)
{
    const double at = vertical ? to_y(f, value) : to_x(f, value);
    char text[32];
    snprintf(text, sizeof text, "%.6g", value);
    set_color(f->cr, 0xdddddd, 1);
    cairo_set_line_width(f->cr, 1);
    cairo_move_to(f->cr, vertical ? LEFT : at, vertical ? at : TOP);
    cairo_line_to(f->cr, vertical ? WIDTH - RIGHT : at, vertical ? at : HEIGHT - BOTTOM);
    cairo_stroke(f->cr);
    set_color(f->cr, 0x333333, 1);
    write_text(f->cr, text, vertical ? LEFT - 8 : at, vertical ? at + 4 : HEIGHT - BOTTOM + 18,
               vertical ? 1 : 0.5);
}

static void draw_ticks(const frame *f, bool vertical)
{
    const double low = vertical ? f->y0 : f->x0;
    const double high = vertical ? f->y1 : f->x1;
    const double step = tick_step(high - low);
    for (double value = ceil(low / step) * step; value <= high + step * 1e-9; value += step)
        draw_tick(f, vertical, fabs(value) < step * 1e-9 ? 0 : value);
}

/* 1, 2 and 5 times the powers of ten; over many decades the powers alone. */
static void draw_log_ticks(const frame *f)
{
    static const double digits[] = {1, 2, 5};
    const size_t count = f->y1 - f->y0 > 3.5 ? 1 : 3;
    for (double power = floor(f->y0); power <= f->y1; power++)
        for (size_t i = 0; i < count; i++) {
            const double value = digits[i] * pow(10, power);
            if (log10(value) >= f->y0 && log10(value) <= f->y1) draw_tick(f, true, value);
        }
}

static void draw_axes(const frame *f, const plot_chart *chart)
{
    cairo_t *cr = f->cr;
    cairo_set_source_rgb(cr, 1, 1, 1);
    cairo_paint(cr);
    cairo_select_font_face(cr, "sans-serif", CAIRO_FONT_SLANT_NORMAL, CAIRO_FONT_WEIGHT_NORMAL);
    cairo_set_font_size(cr, 12);
    draw_ticks(f, false);
    if (f->log_y)
        draw_log_ticks(f);
    else
        draw_ticks(f, true);
    set_color(cr, 0x333333, 1);
    cairo_rectangle(cr, LEFT, TOP, WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
    cairo_stroke(cr);
    write_text(cr, chart->x_label, (LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 18, 0.5);
    cairo_save(cr);
    cairo_translate(cr, 22, (TOP + HEIGHT - BOTTOM) / 2.0);
    cairo_rotate(cr, -M_PI / 2);
    write_text(cr, chart->y_label, 0, 0, 0.5);
    cairo_restore(cr);
    cairo_set_font_size(cr, 15);
    write_text(cr, chart->title, LEFT, TOP - (chart->subtitle != NULL ? 32 : 16), 0);
    cairo_set_font_size(cr, 12);
    if (chart->subtitle != NULL) {
        set_color(cr, 0x777777, 1);
        write_text(cr, chart->subtitle, LEFT, TOP - 12, 0);
    }
}

static void draw_band(const frame *f, const plot_series *s)
{
    bool begun = false;
    cairo_new_path(f->cr); /* a text leaves a current point */
    for (size_t i = 0; i < s->count; i++) {
        if (!is_seen(f, s->x[i], s->y[i]) || !is_seen(f, s->x[i], s->y2[i])) continue;
        cairo_line_to(f->cr, to_x(f, s->x[i]), to_y(f, s->y[i]));
        begun = true;
    }
    for (size_t i = s->count; i-- > 0;) {
        if (!is_seen(f, s->x[i], s->y[i]) || !is_seen(f, s->x[i], s->y2[i])) continue;
        cairo_line_to(f->cr, to_x(f, s->x[i]), to_y(f, s->y2[i]));
    }
    if (begun) cairo_close_path(f->cr);
    set_color(f->cr, s->color, 0.18);
    cairo_fill(f->cr);
}

static void draw_line(const frame *f, const plot_series *s)
{
    static const double dashes[] = {6, 4};
    bool begun = false;
    for (size_t i = 0; i < s->count; i++) {
        if (!is_seen(f, s->x[i], s->y[i])) continue;
        if (begun)
            cairo_line_to(f->cr, to_x(f, s->x[i]), to_y(f, s->y[i]));
        else
            cairo_move_to(f->cr, to_x(f, s->x[i]), to_y(f, s->y[i]));
        begun = true;
    }
    set_color(f->cr, s->color, 1);
    cairo_set_line_width(f->cr, 2);
    cairo_set_dash(f->cr, dashes, s->kind == PLOT_DASHED ? 2 : 0, 0);
    cairo_stroke(f->cr);
    cairo_set_dash(f->cr, NULL, 0, 0);
}

static void draw_dots(const frame *f, const plot_series *s)
{
    set_color(f->cr, s->color, 0.9);
    for (size_t i = 0; i < s->count; i++) {
        if (!is_seen(f, s->x[i], s->y[i])) continue;
        cairo_new_sub_path(f->cr);
        cairo_arc(f->cr, to_x(f, s->x[i]), to_y(f, s->y[i]), 3.5, 0, 2 * M_PI);
        cairo_fill(f->cr);
    }
}

static void draw_texts(const frame *f, const plot_series *s)
{
    set_color(f->cr, 0x333333, 1);
    for (size_t i = 0; s->texts != NULL && i < s->count; i++)
        if (is_seen(f, s->x[i], s->y[i])) {
            const double x = to_x(f, s->x[i]);
            const bool at_the_edge = x < LEFT + 60;
            write_text(f->cr, s->texts[i], at_the_edge ? x + 4 : x - 6, to_y(f, s->y[i]) - 8,
                       at_the_edge ? 0 : 1);
        }
}

static void draw_legend(const frame *f, const plot_chart *chart)
{
    const bool first = chart->legend_first;
    int labels = 0;
    for (size_t i = 0; i < chart->series_count; i++) labels += chart->series[i].label != NULL ? 1 : 0;
    const double swatch = first ? LEFT + 14 : WIDTH - RIGHT - 22;
    double y = first ? TOP + 22 : HEIGHT - BOTTOM - 12 - 18.0 * (labels - 1);
    for (size_t i = 0; i < chart->series_count; i++) {
        const plot_series *s = &chart->series[i];
        if (s->label == NULL) continue;
        set_color(f->cr, s->color, s->kind == PLOT_BAND ? 0.3 : 1);
        cairo_rectangle(f->cr, swatch, y - 8, 12, s->kind == PLOT_BAND ? 10 : 4);
        cairo_fill(f->cr);
        set_color(f->cr, 0x333333, 1);
        write_text(f->cr, s->label, first ? swatch + 18 : swatch - 6, y, first ? 0 : 1);
        y += 18;
    }
}

static void draw(cairo_t *cr, const plot_chart *chart)
{
    frame f = {.cr = cr, .log_y = chart->log_y};
    find_range(&f, chart);
    draw_axes(&f, chart);
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < chart->series_count; i++) {
            const plot_series *s = &chart->series[i];
            if ((s->kind == PLOT_BAND) != (pass == 0)) continue;
            if (s->kind == PLOT_BAND)
                draw_band(&f, s);
            else if (s->kind == PLOT_DOTS)
                draw_dots(&f, s);
            else
                draw_line(&f, s);
            if (s->kind == PLOT_MARKED) draw_dots(&f, s);
            draw_texts(&f, s);
        }
    }
    draw_legend(&f, chart);
}

br_status plot_write(const plot_chart *chart, const char *stem, br_error *error)
{
    char path[PATH_BYTES];
    if (strlen(stem) + 5 > sizeof path) return br_fail(error, BR_EINVAL, "the plot's path is too long");
    for (int png = 0; png < 2; png++) {
        snprintf(path, sizeof path, "%s.%s", stem, png ? "png" : "svg");
        cairo_surface_t *surface = png ? cairo_image_surface_create(CAIRO_FORMAT_RGB24, WIDTH, HEIGHT)
                                       : cairo_svg_surface_create(path, WIDTH, HEIGHT);
        cairo_t *cr = cairo_create(surface);
        draw(cr, chart);
        cairo_status_t status = cairo_status(cr);
        cairo_destroy(cr);
        if (png && status == CAIRO_STATUS_SUCCESS) status = cairo_surface_write_to_png(surface, path);
        cairo_surface_finish(surface);
        if (status == CAIRO_STATUS_SUCCESS) status = cairo_surface_status(surface);
        cairo_surface_destroy(surface);
        if (status == CAIRO_STATUS_NO_MEMORY) return br_no_memory(error, "%s", path);
        if (status != CAIRO_STATUS_SUCCESS)
            return br_fail(error, BR_EIO, "%s: %s", path, cairo_status_to_string(status));
    }
    return BR_OK;
}
