/* dispatch.h - nng's callback: a request is decoded and handed to the file that answers it. */
#ifndef BESTROUTE_SERVE_DISPATCH_H
#define BESTROUTE_SERVE_DISPATCH_H

/* The callback of every call, of which `call` (a br_call) is one: nng received a message for it, nng sent
 * one, or every query of the call is finished. */
void dispatch_event(void *call);

#endif
