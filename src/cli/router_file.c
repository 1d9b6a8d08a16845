/* router_file.c - see router_file.h. */
#include "router_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_BYTES = 4096 };

/* Writes the new file beside the old one, then puts it in its place: a reader sees one or the other,
 * whole. */
static br_status replace_file(const char *path, const json_t *document, br_error *error)
{
    char beside[PATH_BYTES + 8];
    snprintf(beside, sizeof beside, "%s.XXXXXX", path);
    const int fd = mkstemp(beside);
    if (fd < 0) return br_fail(error, BR_EIO, "%s: %s", beside, strerror(errno));
    const bool written = fchmod(fd, 0644) == 0 && json_dumpfd(document, fd, JSON_INDENT(2)) == 0 &&
                         write(fd, "\n", 1) == 1 && fsync(fd) == 0;
    const int reason = errno;
    const bool closed = close(fd) == 0;
    if (written && closed && rename(beside, path) == 0) return BR_OK;
    const int last = written && closed ? errno : reason;
    (void)unlink(beside);
    return br_fail(error, BR_EIO, "%s: %s", path, strerror(last));
}

/* Whether it is the bundle that the service scored with, as far as name and candidates tell. */
static bool is_served(const json_t *router, const cli_scores *s)
{
    const json_t *list = json_object_get(router, "candidates");
    const json_t *name = json_object_get(router, "name");
    if (!json_is_string(name) || strcmp(json_string_value(name), s->info->bundle_name) != 0) return false;
    if (json_array_size(list) != s->info->candidate_count) return false;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *model = json_object_get(json_array_get(list, i), "model");
        const json_int_t n = json_integer_value(json_object_get(json_array_get(list, i), "n"));
        if (!json_is_string(model) || strcmp(json_string_value(model), s->pairs[i].model) != 0) return false;
        if (n != s->pairs[i].n) return false;
    }
    return true;
}

br_status cli_router_file_set_policy(const char *folder, const cli_scores *scores, const char *url,
                                     json_t *policy, json_t *policy_table, br_error *error)
{
    char path[PATH_BYTES];
    if ((size_t)snprintf(path, sizeof path, "%s/router.json", folder) >= sizeof path)
        return br_fail(error, BR_EINVAL, "--bundle: the path is too long");
    json_error_t where;
    json_t *router = json_load_file(path, JSON_REJECT_DUPLICATES, &where);
    if (router == NULL) return br_fail(error, BR_EINVAL, "%s:%d: %s", path, where.line, where.text);
    br_status status;
    if (!is_served(router, scores)) {
        status = br_fail(error, BR_EINVAL, "%s is not the bundle '%s' that the service at %s has loaded",
                         path, scores->info->bundle_name, url);
    } else {
        json_object_set(router, "policy", policy);
        json_object_set(router, "policy_table", policy_table);
        status = replace_file(path, router, error);
    }
    json_decref(router);
    return status;
}
