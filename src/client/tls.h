/*
 * tls.h - whom a tls+tcp:// connection trusts, and what it shows of itself.
 *
 * Uses: the client's options, nng.  Used by: endpoint, client.
 */
#ifndef BESTROUTE_CLIENT_TLS_H
#define BESTROUTE_CLIENT_TLS_H

#include <nng/nng.h>
#include <stdbool.h>

#include "bestroute/client.h"

bool br_url_is_tls(const char *url);

/* Before the dialer starts. `options` has the tls fields. BR_EINVAL, BR_EIO (a file), BR_ENOTSUP,
 * BR_ENOMEM. */
BR_NODISCARD br_status br_tls_configure(nng_dialer dialer, const char *url, const br_client_options *options,
                                        br_error *error);

#endif
