/* hang_close.c - preloaded into a service, it makes nng wait for ever when a socket is closed. */
#include <unistd.h>

#include <nng/nng.h>

int nng_close(nng_socket socket)
{
    (void)socket;
    for (;;) (void)pause();
}
