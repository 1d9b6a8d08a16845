/* dispatch.h - what happens next with a call: it is decoded and handed to the file that answers it. */
#ifndef BESTROUTE_SERVE_DISPATCH_H
#define BESTROUTE_SERVE_DISPATCH_H

/* The callback of every call, a br_call: nng has received or sent a message for it, or every query is
 * finished. */
void dispatch_event(void *call);

#endif
