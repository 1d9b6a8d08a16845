/* tls.c - the TLS options of one dialer. */
#include "tls.h"

#include <nng/supplemental/tls/tls.h>
#include <string.h>

#include "state.h"

bool br_url_is_tls(const char *url)
{
    return strncmp(url, "tls+", 4) == 0;
}

/* The certificate must be for this name. Given a TLS configuration without a server name, nng checks no name
 * at all. */
static int set_server_name(nng_tls_config *tls, const char *text, const char *name)
{
    if (name != NULL) return nng_tls_config_server_name(tls, name);

    nng_url *url;
    int failed = nng_url_parse(&url, text);
    if (failed != 0) return failed;
    failed = nng_tls_config_server_name(tls, url->u_hostname);
    nng_url_free(url);
    return failed;
}

br_status br_tls_configure(nng_dialer dialer, const char *url, const br_client_options *options,
                           br_error *error)
{
    if (options->tls_ca == NULL)
        return br_fail(error, BR_EINVAL, "%s: tls needs a file of authorities (tls_ca)", url);

    nng_tls_config *tls;
    int failed = nng_tls_config_alloc(&tls, NNG_TLS_MODE_CLIENT);
    if (failed != 0) return br_fail(error, br_client_nng_status(failed), "tls: %s", nng_strerror(failed));

    br_status status = BR_OK;
    failed = nng_tls_config_auth_mode(tls, NNG_TLS_AUTH_MODE_REQUIRED);
    if (failed == 0) failed = set_server_name(tls, url, options->tls_name);
    if (failed != 0) {
        status = br_fail(error, br_client_nng_status(failed), "tls: %s", nng_strerror(failed));
        goto done;
    }
    failed = nng_tls_config_ca_file(tls, options->tls_ca);
    if (failed != 0) {
        status = br_fail(error, BR_EIO, "%s: not a PEM file of authorities: %s", options->tls_ca,
                         nng_strerror(failed));
        goto done;
    }
    failed = options->tls_cert == NULL ? 0 : nng_tls_config_cert_key_file(tls, options->tls_cert, NULL);
    if (failed != 0) {
        status = br_fail(error, BR_EIO, "%s: not a PEM file with a certificate and its key: %s",
                         options->tls_cert, nng_strerror(failed));
        goto done;
    }
    failed = nng_dialer_set_ptr(dialer, NNG_OPT_TLS_CONFIG, tls); /* the dialer holds it too from now on */
    if (failed != 0) status = br_fail(error, br_client_nng_status(failed), "tls: %s", nng_strerror(failed));

done:
    nng_tls_config_free(tls);
    return status;
}
