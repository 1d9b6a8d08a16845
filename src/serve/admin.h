/* admin.h - the operations of the admin socket: reload, drain, shutdown, set_defaults, stats. */
#ifndef BESTROUTE_SERVE_ADMIN_H
#define BESTROUTE_SERVE_ADMIN_H

#include "call.h"

/* Replies, or hands the call to the keeper, which will. */
void admin_answer(br_call *call);

#endif
